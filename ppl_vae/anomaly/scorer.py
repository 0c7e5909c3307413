"""``Scorer``: a run as a function of a batch, for engines that cut a data set among workers.

    Ray Data     rows.map_batches(Scorer(run), batch_format="pandas", batch_size=None)
    Spark        rows.mapInPandas(lambda batches: map(Scorer(run), batches), schema)
    Dask         rows.map_partitions(Scorer(run))

A worker that gets a copy loads the run once, by itself. Draws of the latents come from a row's
place in its batch, or from the number of the row where the batches vary (``row``). With numbers,
rows are put into groups of ``GROUP`` places, row number n at place n modulo ``GROUP``, and every
group draws from the same seed: a row's draws depend on its number alone. Numbers that follow each
other fill the groups; where they are far apart, most of a group is computed for nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ppl_vae.anomaly.detector import AnomalyDetector
from ppl_vae.arguments import check_arguments, shown
from ppl_vae.data.arrow import of_pandas
from ppl_vae.data.files import in_form_of
from ppl_vae.data.rows import Rows
from ppl_vae.data.selection import ColumnChoice
from ppl_vae.data.tables import flat_columns
from ppl_vae.evaluation.likelihood import elbo_terms, log_likelihood
from ppl_vae.evaluation.summary import TERMS_DRAWS, UnreliableWarning
from ppl_vae.latents.codes import encode
from ppl_vae.saving.loading import load
from ppl_vae.saving.runs import read_run

VERBS = ("score", "evaluate", "encode")
GROUP = 256  # rows that are computed together where rows have numbers


class Scorer:
    """A function of a batch of rows, which a run directory says.

    Args:
        run: The run directory. For ``score`` it holds a detector, as ``AnomalyDetector.save`` and
            ``ppl-vae score --keep-detector`` leave it there.
        verb: ``"score"``: how strange each row is, and whether it is flagged; ``"evaluate"``: its
            log-likelihood and ELBO, and their reliability; ``"encode"``: its codes.
        columns: Columns of a batch to read, where the run was fitted to arrays, whose columns have
            no names. Columns of a run that was fitted to a frame are found by their names.
        row: A column of whole numbers, one for each row of the whole data set, from which its draws
            come; it is no feature, and the results have it first. ``None``: draws come from the
            place in the batch, so that results depend on how the data are cut.
        num_samples: Draws of the latents for each row; the function's own default if ``None``. A
            detector has its own.
        false_alarm_rate: For ``score``, the share of clean rows that may be flagged; 0.05 if
            ``None``.
        trust_code: Whether to execute the copies of the user's own files in the run.

    Raises:
        ValueError: If an argument is wrong, or the run cannot be opened.

    Example:
        >>> import tempfile, torch, ppl_vae
        >>> from ppl_vae.models.gaussian import GaussianModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> rows, run = pd.DataFrame(torch.randn(6, 2), columns=["a", "b"]), tempfile.mkdtemp()
        >>> ppl_vae.save(GaussianModel(2), NormalGuide(2), run + "/fit", data=rows)
        >>> codes = Scorer(run + "/fit", verb="encode")(rows)
        >>> codes.shape
        (6, 16)
    """

    def __init__(
        self,
        run: str | Path,
        *,
        verb: str = "score",
        columns: Sequence[str] | None = None,
        row: str | None = None,
        num_samples: int | None = None,
        false_alarm_rate: float | None = None,
        trust_code: bool = False,
    ) -> None:
        if verb not in VERBS:
            raise ValueError(f"verb: expected one of {', '.join(VERBS)}, got {shown(verb)}")
        if num_samples is not None:
            check_arguments(num_samples=num_samples)
            if verb == "score":
                raise ValueError("num_samples: expected None for score, whose detector has its own")
        if false_alarm_rate is not None and verb != "score":
            raise ValueError(f"false_alarm_rate: expected None for {verb}, got {false_alarm_rate}")
        self.run, self.verb, self.row = Path(run), verb, row
        self.columns, self.num_samples = columns, num_samples
        self.false_alarm_rate, self.trust_code = false_alarm_rate, trust_code
        record = read_run(self.run)
        self._like, self._plate = record.example(), record.info["plate"]
        if isinstance(self._like, Mapping) and "lengths" in self._like:
            raise ValueError(
                f"run: expected one whose rows are lines of a table, got {self.run}, whose rows "
                "are sequences; use ppl-vae score, or read them and call anomaly_scores"
            )
        _ = self._function  # a wrong run is told here, and not by a worker

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker is sent: everything but what it loads by itself."""
        return {name: value for name, value in vars(self).items() if name != "_function"}

    def __repr__(self) -> str:
        row = "" if self.row is None else f", row={self.row!r}"
        return f"Scorer({str(self.run)!r}, verb={self.verb!r}{row})"

    def __call__(self, batch: Any) -> Any:
        """Return the results of a batch, a row for each of its rows.

        Args:
            batch: A frame or table with the columns of the run, others too; or a mapping of arrays,
                which are its columns, or the fields of the run.

        Returns:
            A frame with the batch's index; of a table of Arrow a table. ``score``: the columns
            ``score`` (nats; the higher, the stranger), ``p_value``, ``flagged``, ``k_hat`` and
            ``reliable``. ``evaluate``: ``log_prob``, ``elbo``, ``ess``, ``k_hat`` and ``elbo.SITE``
            for each site. ``encode``: ``SITE.mean.0``, ``SITE.sd.0`` and so on.

        Raises:
            ValueError: If columns are missing or hold no numbers, or ``row`` no whole numbers.
        """
        table, frame = batch, of_pandas(batch, "batch")
        fields = isinstance(self._like, Mapping) and isinstance(frame, Mapping)
        if isinstance(frame, Mapping) and not (fields and set(self._like) <= set(frame)):
            frame = pd.DataFrame(dict(frame))
        if not isinstance(frame, Mapping | pd.DataFrame):
            raise ValueError(
                f"batch: expected a frame, a table or a mapping of arrays, got {shown(batch)}"
            )
        numbers = None if self.row is None else self._numbers(frame)
        results = self._results(frame, numbers)
        if numbers is not None:
            results.insert(0, str(self.row), numbers)
        if type(table).__module__.partition(".")[0] == "pyarrow":
            return type(table).from_pandas(results, preserve_index=False)
        return results

    def _results(self, batch: Any, numbers: np.ndarray[Any, Any] | None) -> pd.DataFrame:
        """Return the results of a batch, of an empty one as well, as engines send them."""
        if isinstance(batch, pd.DataFrame) and not len(batch):
            self._rows(batch)  # columns that are missing are named all the same
            return self._function(self._like).iloc[:0].set_axis(batch.index, axis=0)
        rows = self._rows(batch)
        return self._function(rows) if numbers is None else self._grouped(rows, numbers)

    @cached_property
    def _function(self) -> Callable[[Any], pd.DataFrame]:
        """The function of rows in the run's form; a worker loads the run at its first batch."""
        if self.verb == "score":
            detector = AnomalyDetector.load(self.run, trust_code=self.trust_code)
            rate = self.false_alarm_rate
            return lambda rows: detector(rows, false_alarm_rate=rate, progress=False).drop(
                columns="q_value"
            )
        model, guide = load(self.run, trust_code=self.trust_code)
        given = {} if self.num_samples is None else {"num_samples": self.num_samples}
        how: dict[str, Any] = {"seed": 0, "plate": self._plate, "progress": False, **given}
        if self.verb == "encode":
            return lambda rows: flat_columns(encode(model, guide, rows, **how))

        def evaluate(rows: Any) -> pd.DataFrame:
            with warnings.catch_warnings(action="ignore", category=UnreliableWarning):
                scores = log_likelihood(model, guide, rows, **how)
            draws = {"num_samples": min(how.get("num_samples", TERMS_DRAWS), TERMS_DRAWS)}
            terms = elbo_terms(model, guide, rows, **{**how, **draws})
            return scores.assign(**{f"elbo.{name}": terms[name].to_numpy() for name in terms})

        return evaluate

    def _rows(self, batch: Any) -> Any:
        """Return the columns or fields of a batch that the run reads, in the run's form."""
        if isinstance(batch, Mapping):
            return {name: batch[name] for name in self._like}
        among_all = self.columns is None and self.row in batch.columns
        drop = [self.row] if among_all else None
        choice = ColumnChoice.of(self.columns, drop, None, None, self._like)
        names = choice.features(list(map(str, batch.columns)), "batch")
        return in_form_of(
            choice.split(batch.set_axis(map(str, batch), axis=1)[names]), self._like, "batch"
        )

    def _numbers(self, batch: Any) -> np.ndarray[Any, Any]:
        """Return the numbers of the rows of a batch, (rows,) of int64."""
        if self.row not in batch:
            raise ValueError(f"row: expected a column of the batch, got {shown(self.row)}")
        numbers = np.asarray(batch[self.row])
        if numbers.dtype.kind not in "iu":
            raise ValueError(
                f'row: expected whole numbers in the column "{self.row}", got {numbers.dtype}'
            )
        return numbers.astype(np.int64)

    def _grouped(self, data: Any, numbers: np.ndarray[Any, Any]) -> pd.DataFrame:
        """Return results of rows whose draws come from their numbers (see the file's head)."""
        rows = Rows(data, "batch")
        if len(rows) != len(numbers):
            raise ValueError(f"row: expected {len(rows)} numbers, got {len(numbers)}")
        place = numbers % GROUP
        turn = pd.Series(place).groupby(place).cumcount().to_numpy()
        parts, order = [], []
        for group in range(int(turn.max()) + 1):
            members = np.flatnonzero(turn == group)
            filled = np.full(GROUP, members[0])  # a group is always full: draws depend on its size
            filled[place[members]] = members
            found = self._function(rows.subset(torch.as_tensor(filled)))
            parts.append(found.iloc[place[members]])
            order.append(members)
        whole = pd.concat(parts).iloc[np.argsort(np.concatenate(order))]
        return whole.set_axis(rows.index, axis=0)
