"""Anomaly scores of every row, in nats: the higher, the stranger.

    score of an ensemble of M pairs     - log 1/M sum_m exp(-score_m)      of a probability
                                        1/M sum_m score_m                  of the other two
    typicality                          |-log p(x) - mean of -log p over the reference rows|

A likelihood finds a row strange only where its density is low. In high dimensions a row may also
be strange by a density that is too high (a flat image): the typicality of a row tells.

Source: Nalisnick et al. (2019), section 3, arXiv:1906.02994 (typicality).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.anomaly.ordinary_cells import OrdinaryCells
from ppl_vae.anomaly.pair_scores import PROBABILITIES, SCORES, PairScores
from ppl_vae.anomaly.same_form import in_form
from ppl_vae.anomaly.step_scores import step_scores
from ppl_vae.arguments import check_arguments, shown
from ppl_vae.bars import Bar
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.rows import Data
from ppl_vae.evaluation.psis import k_threshold

LIKELIHOOD, EXPECTED, TYPICALITY = (
    "negative_log_likelihood", "expected_reconstruction", "typicality"
)  # fmt: skip

Ensemble: TypeAlias = Sequence[tuple[Model, Guide]]
"""Pairs that were fitted to the same data, each with its own random numbers."""


def anomaly_scores(
    model: Model | Ensemble,
    guide: Guide,
    data: Data,
    *,
    num_samples: int = 100,
    seed: int | None = 0,
    reference: Data | None = None,
    attribution: bool = False,
    per_step: bool = False,
    compile: bool | str = "auto",  # noqa: A002  as fit has it
    progress: bool | None = None,
    plate: str = "data",
) -> pd.DataFrame:
    """Return the anomaly scores of every row under a pair, in nats; the higher, the stranger.

    All scores come from one pass over the same draws of the latents. Networks run in evaluation
    mode. ``AnomalyDetector`` turns a score into a decision with a known rate of false alarms.

    Args:
        model: The model, or a list of (model, guide) pairs: an ensemble, ``guide`` then ``None``.
            Scores that are minus the logarithm of a probability are averaged as the log of the
            mean probability, the others by their mean; ``k_hat`` is the largest, ``ess`` the
            smallest.
        guide: The guide; ``None`` for a model without latents that are drawn, as an exact density.
        data: N rows, in any form that ``fit`` takes.
        num_samples: S, draws of the latents for each row.
        seed: Seeds the draws; the generators are restored afterwards.
        reference: Rows that are known to be normal, as those that the pair was fitted to, with the
            fields and columns of the data, for ``typicality`` and attribution.
        attribution: Whether to add what each cell of a row contributes. All rows are scored again
            for each of their cells, five times where the column has as many values.
        per_step: Whether to score each step of sequences of states instead, by a particle filter of
            S particles (``log_likelihood(..., method="particle_filter")``, with other draws). The
            scores of sequences add up over their steps: longer ones are stranger by their length.
            Divide by ``data["lengths"]`` to compare sequences.
        compile: ``"auto"`` compiles for a large job, ``True`` for any job, ``False`` for none.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        N rows with the data's index, and the columns

        - ``reconstruction``: minus the log of the reconstruction probability, the mean of
          p(x given z) over S latents of the guide;
        - ``expected_reconstruction``: minus the mean of log p(x given z);
        - ``divergence``: KL divergence of the row's posterior, as the guide gives it, from the
          prior;
        - ``negative_elbo``: the sum of the last two;
        - ``negative_log_likelihood``: minus the importance-sampled log p(x);
        - ``typicality``, with ``reference``: how far -log p(x) is from its mean over them;
        - ``ess`` and ``k_hat``, which are no scores: how far to trust the log-likelihood, as in
          ``log_likelihood``; ``frame.attrs["k_hat_threshold"]``;
        - ``attribution:COLUMN``, with ``attribution=True``: by how much ``negative_log_likelihood``
          falls, at best, where the cell has an ordinary value: one of five quantiles of the column
          over the reference rows. For an array the column is a number from 0, for an image
          "channel,row,column".

        The guide of an autoencoder gives a point: there the two reconstructions, and the
        attribution of ``expected_reconstruction``, are all. A latent that the model alone sums is
        part of the reconstruction. Latents outside the row plate have no share in a row;
        ``frame.attrs["not_covered"]`` lists them. ``frame.attrs["exact"]`` says whether no latent
        is drawn at all. A row on which the pair overflows has infinite scores.

        With ``per_step=True`` a line for each row and step, from 0: ``negative_log_likelihood`` is
        minus log p(x_t given x_1 ... x_(t-1)); ``standard_error``, in nats, and ``ess``, the
        effective number of particles, say how far to trust it: see the particle filter of
        ``log_likelihood``.

    Raises:
        ValueError: If attribution is asked for without ``reference``, or of rows whose cells cannot
            be replaced one by one, as probabilities that add up to 1; if the data hold NaN or
            infinity, or columns of the fit are missing; if the reference has other fields, columns
            or shapes than the data; if ``per_step`` is asked for with an ensemble, a reference or
            attribution, or of a pair whose latent is no path of states.

    Warns:
        UserWarning: If the pair overflows on a row that is far from the data.
        UnreliableWarning: If the scores of some steps are not to be trusted.

    Example:
        >>> from ppl_vae.models.gaussian import GaussianModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> scores = anomaly_scores(GaussianModel(4), NormalGuide(4), torch.randn(3, 4))
        >>> list(scores.columns)[:3], len(scores)
        (['reconstruction', 'expected_reconstruction', 'divergence'], 3)
    """
    check_arguments(
        num_samples=num_samples, seed=seed, compile=compile, progress=progress,
        attribution=attribution, per_step=per_step,
    )  # fmt: skip
    if per_step:
        if not callable(model) or reference is not None or attribution:
            raise ValueError(
                "per_step: expected one pair, without reference and attribution, which are of "
                "whole rows, got more; leave them out"
            )
        pair = Pair.of(model, guide, plate)
        return step_scores(pair, data, num_samples, seed=seed, progress=progress)
    scorer = RowScorer(
        model, guide, data, num_samples=num_samples, seed=seed, reference=reference,
        explained=LIKELIHOOD if attribution else None, compile=compile, progress=progress,
        plate=plate,
    )  # fmt: skip
    frame = scorer(data, progress=progress)
    if not attribution:
        return frame
    result = pd.concat([frame, scorer.attribution(data, frame, progress=progress)], axis=1)
    result.attrs = frame.attrs
    return result


class RowScorer:
    """Scores rows part by part, with what was compiled for the first part.

    The draws of a row depend on the row's place in the whole data alone: a row has the same scores
    however the data are cut into parts of ``size`` rows, or a multiple of it.

    Args:
        model: As in ``anomaly_scores``, and so are the other arguments.
        guide: The guide.
        example: Rows of the form to come, as many as the parts will have at most.
        num_samples: Draws of the latents for each row.
        seed: Seeds the draws.
        reference: Rows that are known to be normal.
        explained: The score that ``attribution`` takes apart; ``None`` where it is not asked for.
            The expected reconstruction takes its place where the pair does not have the score.
        compile: Whether to compile.
        progress: Whether to show a bar while the reference rows are scored.
        plate: Name of the row plate.
        total: Rows in all that are to come, where that is known; a large job is compiled.

    Attributes:
        size: Rows of a block: all parts but the last must have a multiple of them.
        full_size: Rows of a block where the parts have enough.
    """

    def __init__(
        self,
        model: Model | Ensemble,
        guide: Guide,
        example: Data,
        *,
        num_samples: int,
        seed: int | None,
        reference: Data | None = None,
        explained: str | None = None,
        compile: bool | str = "auto",  # noqa: A002  as fit has it
        progress: bool | None = False,
        plate: str = "data",
        total: int | None = None,
    ) -> None:
        check_arguments(num_samples=num_samples, seed=seed, compile=compile)
        if explained and reference is None:
            raise ValueError(
                "attribution: expected reference= beside it, rows that are known to be normal, "
                "with which cells are compared, got None; pass the rows that the pair was fitted to"
            )
        self.num_samples, self.seed, self._explained = num_samples, seed, explained
        pairs = [Pair.of(*each, plate) for each in members(model, guide)]
        rows = [pair.rows(example) for pair in pairs]
        known = [] if reference is None else [
            in_form(pair.rows(reference, "reference"), part.template(), "reference", "the data")
            for pair, part in zip(pairs, rows, strict=True)
        ]  # fmt: skip
        self._cells = OrdinaryCells(pairs[0], known[0], rows[0]) if explained else None
        rows = [max(each, key=len) for each in zip(rows, *([known] if known else []), strict=True)]
        settings: dict[str, Any] = {"compile": compile, "total": total}

        def scorers(most: int | None) -> list[PairScores]:
            named = zip(pairs, rows, strict=True)
            return [PairScores(*each, num_samples, most=most, **settings) for each in named]

        self._scorers = scorers(None)
        sizes = {scores.full_size for scores in self._scorers}
        if len(sizes) > 1:  # members of different kinds: blocks of one size, for the same parts
            self._scorers = scorers(min(sizes))
        self.size, self.full_size = self._scorers[0].size, min(sizes)
        found = [
            scores.of(part, seed=seed, progress=progress)
            for scores, part in zip(self._scorers, known, strict=False)
        ]
        self._known = averaged(found) if found else {}

    def __call__(
        self, data: Data, *, progress: bool | None = False, first_row: int = 0
    ) -> pd.DataFrame:
        """Return the scores of rows, as ``anomaly_scores`` does.

        Args:
            data: The rows, or a part of them.
            progress: Whether to show a bar.
            first_row: Place of the part's first row in the whole data, a multiple of ``size``.
        """
        parts = []
        for scores in self._scorers:
            rows = scores.pair.rows(data)
            first_block = first_row // scores.size
            parts.append(
                scores.of(rows, seed=self.seed, progress=progress, first_block=first_block)
            )
        columns = averaged(parts)
        if self._known and LIKELIHOOD in columns:
            center = _finite_mean(self._known[LIKELIHOOD])
            columns[TYPICALITY] = (columns[LIKELIHOOD] - center).abs()
        order = [name for name in (*SCORES, TYPICALITY, "ess", "k_hat") if name in columns]
        frame = pd.DataFrame({name: columns[name].numpy() for name in order}, index=rows.index)
        frame.attrs["k_hat_threshold"] = k_threshold(self.num_samples)
        frame.attrs["not_covered"] = self._scorers[0].not_covered
        frame.attrs["exact"] = all(scores.exact for scores in self._scorers)
        return frame

    def attribution(
        self, data: Data, scores: pd.DataFrame, *, progress: bool | None = False
    ) -> pd.DataFrame:
        """Return by how much the score of each row falls with an ordinary value in each cell.

        The draws are those of the scores, so that a cell which has an ordinary value already has
        an attribution of 0 at least. Where the pair overflows on a row with every value of a cell,
        the cell's attribution is 0.

        Args:
            data: The rows.
            scores: Their scores, from a call with them as the whole data.
            progress: Whether to show a bar.

        Returns:
            ``attribution:COLUMN`` for each cell, in nats.

        Raises:
            ValueError: If the pair does not take a row with another value in one cell.
        """
        assert self._cells is not None
        name = self._explained if self._explained in scores else EXPECTED
        lowest = np.full((len(scores), len(self.attribution_columns)), np.inf)
        replaced = self._cells.replaced(self._scorers[0].pair.rows(data))
        bar = Bar("attribution", progress)
        for cell, changed in bar.over(replaced, total=len(self._cells), unit="cell"):
            try:
                # An overflow was told of with the scores of the rows as they are.
                with warnings.catch_warnings(action="ignore", category=UserWarning):
                    other = self(changed)[name].to_numpy()
            except ValueError as error:
                raise ValueError(
                    "attribution: expected rows whose cells can be replaced one by one, got an "
                    f"error with an ordinary value in cell {self._cells.labels[cell]}: {error}; "
                    "leave attribution out"
                ) from error
            lowest[:, cell] = np.fmin(lowest[:, cell], other)
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            shares = scores[name].to_numpy()[:, None] - lowest
        shares[np.isnan(shares)] = 0.0
        return pd.DataFrame(shares, scores.index, self.attribution_columns)

    @property
    def attribution_columns(self) -> list[str]:
        """Names of the columns of ``attribution``; empty where it is not asked for."""
        labels = [] if self._cells is None else self._cells.labels
        return [f"attribution:{label}" for label in labels]


def members(model: Model | Ensemble, guide: Guide) -> list[tuple[Model, Guide]]:
    """Return the pairs of an ensemble; one pair where the model is a model.

    Raises:
        ValueError: If an ensemble is empty, has members that are no pairs, or comes with a guide.
    """
    if callable(model):
        return [(model, guide)]
    if guide is not None:
        raise ValueError(
            "guide: expected None beside a list of pairs, each of which has its own guide, got "
            f"{type(guide).__name__}"
        )
    are_pairs = isinstance(model, list | tuple) and len(model) > 0
    if not are_pairs or not all(isinstance(e, list | tuple) and len(e) == 2 for e in model):
        raise ValueError(
            f"model: expected a model, or a list of (model, guide) pairs, got {shown(model)}"
        )
    return [(each[0], each[1]) for each in model]


def averaged(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the scores of an ensemble from those of its members, each ``{name: (rows, ...)}``.

    Example:
        >>> ones = {"divergence": torch.ones(2)}
        >>> averaged([ones, {"divergence": 3 * torch.ones(2)}])
        {'divergence': tensor([2., 2.])}
    """
    columns = {}
    for name in parts[0]:
        if any(name not in part for part in parts):
            continue  # a score that one member has not
        values = torch.stack([part[name] for part in parts])
        if name in PROBABILITIES:
            columns[name] = math.log(len(parts)) - torch.logsumexp(-values, 0)
        elif name == "ess":
            columns[name] = values.amin(0)
        elif name == "k_hat":
            columns[name] = values.amax(0)
        else:
            columns[name] = values.mean(0)
    return columns


def _finite_mean(values: Tensor) -> Tensor:
    """Return the mean over the rows whose values are finite."""
    finite = values.isfinite()
    return values.where(finite, torch.zeros_like(values)).sum(0) / finite.sum(0)
