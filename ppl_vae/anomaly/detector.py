"""``AnomalyDetector``: which rows are strange, with a known rate of false alarms.

    score  ->  p-value against the scores of clean rows  ->  flagged, at a rate of false alarms or
                                                             of false discoveries

Source: Bates, Candès, Lei, Romano & Sesia (2023), arXiv:2104.08279.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ppl_vae.anomaly import conformal, saved_detectors
from ppl_vae.anomaly.conformal import Floats
from ppl_vae.anomaly.decision import RATE, Decision, warn_of_infinite
from ppl_vae.anomaly.drift import Drift
from ppl_vae.anomaly.same_form import in_form, refuse_infinite
from ppl_vae.anomaly.scores import Ensemble, members
from ppl_vae.anomaly.scoring import Scoring
from ppl_vae.arguments import check_arguments
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.rows import Data, Rows, as_tuple
from ppl_vae.data.templates import example_rows
from ppl_vae.saving.storage import tensors_checksum
from ppl_vae.verdicts import Block, Line, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST = 19
"""The fewest calibration rows: those whose lowest p-value, 1 / (n + 1), is ``RATE``."""

EXAMPLES = 16
"""Calibration rows that a detector keeps, on which a saved pair is tried."""


@verdict
class AnomalyDetector:
    """Decides which rows are strange: a score, calibrated on clean rows that were held out.

    A row's p-value is the share of clean rows that are at least as strange as the row. It is right
    on average over calibration sets, for any pair, however well the pair fits, and for any score. A
    better pair finds more of the strange rows at the same rate of false alarms. ``print`` says how
    far the rate may be off with the calibration rows at hand.

    The calibration rows must be clean, of the same origin as the rows to come, and **held out from
    training**. A pair finds the rows that it was trained on less strange than new ones, so that
    such calibration rows lead to too many false alarms. Split the data before the fit: one part for
    the fit, its validation rows included, one for calibration.

    A calibration row on which the pair overflows has an infinite score. It counts as stranger than
    any finite score, which makes the detector flag less, never more: with k such rows of n, no row
    is flagged below the rate (k + 1) / (n + 1). A warning says how many there are. A score of NaN
    is refused.

    Args:
        model: The model; or a list of (model, guide) pairs, an ensemble, with ``guide=None``.
        guide: The guide, or ``None``.
        calibration: n clean rows, 19 or more, in any form that ``fit`` takes, on which the pair was
            not trained. Sequences as long as those to come: their scores add up over the steps.
        score: A column of ``anomaly_scores``: ``negative_log_likelihood``, ``negative_elbo``,
            ``reconstruction``, ``expected_reconstruction``, ``divergence`` or ``typicality``.
        num_samples: Draws of the latents for each row, of calibration and of new rows alike.
        seed: Seed of the draws, for the calibration rows and in every later call.
        reference: Rows that are known to be normal, such as the training rows, for ``typicality``.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Attributes:
        model, guide: The pair, or the ensemble and ``None``.
        scoring: Which score it is, and how it is computed.
        scores: (n,) scores of the calibration rows, rising, in nats.
        form: Form of the calibration rows: fields, columns, shapes.
        example: Some calibration rows, on which a saved pair is tried.
        weights: Checksum of the weights of each pair at the time of the calibration.

    Raises:
        ValueError: If there are fewer than 19 calibration rows, the pair does not have the score, a
            calibration row holds NaN or infinity or has a score of NaN, or ``typicality`` has no
            ``reference``.

    Example:
        >>> import tempfile, torch
        >>> from ppl_vae.models.gaussian import GaussianModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> clean, new = torch.randn(99, 4), torch.tensor([[0.0, 0, 0, 0], [99, 99, 99, 99]])
        >>> detector = AnomalyDetector(GaussianModel(4), NormalGuide(4), clean)
        >>> detector(new)["flagged"].tolist()
        [False, True]
        >>> detector.save(run := tempfile.mkdtemp())
        >>> again = AnomalyDetector.load(run)
        >>> again.threshold() == detector.threshold(), again.drift(clean).rows, again.plot().name
        (True, 99, 'rectilinear')
    """

    def __init__(
        self,
        model: Model | Ensemble,
        guide: Guide,
        calibration: Data,
        *,
        score: str = "negative_log_likelihood",
        num_samples: int = 100,
        seed: int | None = 0,
        reference: Data | None = None,
        progress: bool | None = None,
        plate: str = "data",
    ) -> None:
        check_arguments(num_samples=num_samples, seed=seed, progress=progress, plate=plate)
        self.model, self.guide = model, guide
        pair = Pair.of(*self._members()[0], plate)
        rows = pair.rows(calibration, "calibration")
        if len(rows) < FEWEST:
            raise ValueError(
                f"calibration: expected at least {FEWEST} rows, which a false-alarm rate of "
                f"{RATE:.0%} takes, got {len(rows)}"
            )
        refuse_infinite(rows, "calibration")
        self.form = rows.template()
        if reference is not None:
            reference = in_form(pair.rows(reference, "reference"), self.form, "reference")
        self.scoring = Scoring.of(
            model, guide, reference, score=score, num_samples=num_samples, seed=seed, plate=plate,
            progress=progress,
        )  # fmt: skip
        self.example = rows.restore(as_tuple(rows.take(torch.arange(min(len(rows), EXAMPLES)))))
        scored = self.scoring(model, guide, rows, name="calibration", progress=progress)
        self.weights = self._weights_now()
        self.scores: Floats = np.sort(scored["score"].to_numpy(dtype=np.float64))
        warn_of_infinite(self.scores, stacklevel=2)

    def __call__(
        self,
        data: Data,
        *,
        false_alarm_rate: float | None = None,
        false_discovery_rate: float | None = None,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Score rows and flag the strange ones, at one of two rates.

        With a false-alarm rate, each row is judged by itself: of clean rows, that share is flagged.
        With a false-discovery rate, all rows are judged together: of the flagged rows, at most that
        share is clean, on average. That takes a p-value of at most the rate times the share of
        flagged rows, and no p-value is below 1 / (n + 1): to find few strange rows among many, n
        must be large.

        Args:
            data: N rows, with the fields and columns of the calibration rows.
            false_alarm_rate: Share of clean rows that may be flagged, from 1 / (n + 1) to below 1;
                0.05 where neither rate is given.
            false_discovery_rate: Share of flagged rows that may be clean, likewise.
            progress: Whether to show a bar, as for the calibration rows.

        Returns:
            N rows with the data's index, and the columns

            - ``score``: in nats, the higher, the stranger; infinite where the pair overflows;
            - ``p_value``: share of clean rows that are at least as strange, from 1 / (n + 1) to 1;
            - ``q_value``: the lowest false-discovery rate at which the row is flagged, among all
              rows of this call;
            - ``flagged``: whether the row is flagged at the rate;
            - ``k_hat``, ``reliable``: how far to trust a log-likelihood, as ``log_likelihood`` has
              it. A p-value holds whether or not its score is reliable.

        Raises:
            ValueError: If both rates are given, or a rate is below 1 / (n + 1); if fields, columns
                or shapes are others than those of the calibration rows, or a value is NaN or
                infinite; if the weights of the pair have changed since the calibration.
        """
        check_arguments(progress=progress)
        decide = self.decision(false_alarm_rate, false_discovery_rate)
        scored = self._with_levels(self._scored(data, progress=progress))
        return decide(scored, np.bincount(scored["level"] - 1, minlength=len(self.scores) + 1))

    def decision(
        self, false_alarm_rate: float | None = None, false_discovery_rate: float | None = None
    ) -> Decision:
        """Return a function that flags the rows that ``parts`` yields, at one of two rates.

        Args:
            false_alarm_rate: As in a call.
            false_discovery_rate: As in a call.

        Raises:
            ValueError: If both rates are given, or the rate is below 1 / (n + 1).
        """
        return Decision.of(len(self.scores), false_alarm_rate, false_discovery_rate)

    def parts(
        self,
        parts: Iterable[Data],
        *,
        reference: Data | None = None,
        explained_rate: float = 1.0,
        total: int | None = None,
        progress: bool | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Score rows that come in parts, as a file larger than memory: the scores of one call.

        However the rows are cut, each has the same score, bit for bit. Whether a row is flagged at
        a false-discovery rate depends on all rows: count their levels, and give the
        counts to a ``decision``.

        Args:
            parts: The rows, in their order.
            reference: Clean rows, to add the attribution of each column: by how much the score
                falls where the cell has a value that is ordinary among these rows.
            explained_rate: With ``reference``, the largest p-value of a row that has attributions;
                they are NaN in the other rows. A row is scored again for each of its cells.
            total: How many rows there are, where that is known; a large job is compiled.
            progress: Whether to show a bar while the reference rows are scored.

        Yields:
            Rows with the columns ``score``, ``level`` (k of the p-value k / (n + 1)), ``k_hat`` and
            ``reliable``, and ``attribution:COLUMN`` with a reference.

        Raises:
            ValueError: As a call of the detector; also where the guide draws latents that all rows
                share from all rows, which are not there at once.
        """

        def is_explained(scored: pd.DataFrame) -> Any:
            return conformal.p_values(scored["score"], self.scores) <= explained_rate

        for scored in self.scoring.parts(
            self.model, self.guide, parts, self._rows, reference=reference,
            is_explained=is_explained, total=total, progress=progress,
        ):  # fmt: skip
            yield self._with_levels(scored)
        self._refuse_changed_weights()

    def threshold(self, false_alarm_rate: float = RATE) -> float:
        """Return the score above which a row is flagged at a false-alarm rate, in nats.

        A score is above the threshold exactly where its p-value is at most the rate.

        Args:
            false_alarm_rate: Share of clean rows that may be flagged, from 1 / (n + 1) to below 1.

        Raises:
            ValueError: If the rate is below 1 / (n + 1); the message says how many calibration rows
                are needed.
        """
        return conformal.threshold(self.scores, false_alarm_rate)

    def drift(self, data: Data, *, progress: bool | None = None) -> Drift:
        """Return whether the calibration still holds on new rows that are believed to be clean.

        Two things are compared with the calibration rows: the distribution of the scores, by the
        Kolmogorov-Smirnov test, and the number of rows above the threshold at 5 %.

        Args:
            data: Rows with the fields and columns of the calibration rows.
            progress: Whether to show a bar, as for the calibration rows.

        Raises:
            ValueError: As a call of the detector.
        """
        check_arguments(progress=progress)
        scored = self._scored(data, progress=progress)
        return Drift.of(self.scores, scored["score"].to_numpy(dtype=np.float64), RATE)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the scores of the calibration rows and the threshold at 5 %; return the axes."""
        from ppl_vae.plots.anomalies import score_histogram  # noqa: PLC0415  loads slowly

        title = "Scores of the calibration rows"
        return score_histogram(
            self.scores, threshold=self.threshold(), name=self.scoring.score, title=title, ax=ax
        )

    def save(self, run: str | Path, *, overwrite: bool = False) -> None:
        """Store the calibration in a run directory, from which ``load`` opens the detector.

        Where the directory holds the pair already, as after ``fit(..., run=run)``, one file is
        added to it, ``detector.safetensors``. Where there is none, the pair is saved there first.
        The pairs of an ensemble are runs of their own, ``member-0``, ``member-1``, ... in it.

        Args:
            run: The run directory.
            overwrite: Whether to replace a detector that is there. Weights are never replaced.

        Raises:
            ValueError: If the directory holds other weights than the pair has, a detector, or
                anything else; if the weights have changed since the calibration.
        """
        check_arguments(run=run, overwrite=overwrite)
        self._refuse_changed_weights()
        contents = saved_detectors.Contents(self.scoring, self.scores, self.form, self.weights)
        saved_detectors.write(
            Path(run), self._members(), contents, self.example, overwrite=overwrite
        )

    @classmethod
    def load(
        cls,
        run: str | Path,
        *,
        model: Model | Ensemble | None = None,
        guide: Guide = None,
        trust_code: bool = False,
    ) -> AnomalyDetector:
        """Return the detector of a run directory, with its pair.

        Args:
            run: The run directory.
            model: The model to load the weights into, or a list of (model, guide) pairs, where the
                run has no recipe to build them; see ``ppl_vae.load``.
            guide: The guide, likewise.
            trust_code: Whether to execute the copies of the user's own files in the run.

        Raises:
            ValueError: If the run has no detector, is damaged, or holds other weights than those
                that the calibration rows were scored with.
        """
        check_arguments(run=run, trust_code=trust_code)
        given: list[tuple[Any, Any]] | None = None
        if model is not None or guide is not None:
            given = [(None, guide)] if model is None else members(model, guide)
        contents, pairs = saved_detectors.read(Path(run), given, trust_code=trust_code)
        detector = cls.__new__(cls)
        detector.model, detector.guide = pairs[0] if len(pairs) == 1 else (pairs, None)
        detector.scoring, detector.scores = contents.scoring, contents.scores
        detector.form, detector.weights = contents.form, contents.weights
        detector.example = example_rows(contents.form)
        return detector

    def _members(self) -> list[tuple[Model, Guide]]:
        """Return the pair, or the pairs of the ensemble."""
        return members(self.model, self.guide)

    def _scored(self, data: Data, *, progress: bool | None) -> pd.DataFrame:
        """Return the scores of new rows, which must have the form of the calibration rows.

        The weights are compared after the rows were scored: some parameters of a pair that was
        loaded appear at its first call only.
        """
        frame = self.scoring(self.model, self.guide, self._rows(data), progress=progress)
        self._refuse_changed_weights()
        return frame

    def _with_levels(self, scored: pd.DataFrame) -> pd.DataFrame:
        """Return scored rows with the level of each row's p-value, after its score."""
        scored.insert(1, "level", conformal.levels(scored["score"], self.scores))
        return scored

    def _rows(self, data: Data, first: int = 0) -> Rows:
        """Return new rows in the form of the calibration rows.

        Args:
            data: The rows.
            first: Place of the first of them in the whole data.
        """
        rows = in_form(Pair.of(*self._members()[0], self.scoring.plate).rows(data), self.form)
        rows.first = first
        refuse_infinite(rows)
        return rows

    def _weights_now(self) -> list[str]:
        """Return a checksum of the weights of each pair, as they are now."""
        pairs = [Pair.of(*each, self.scoring.plate) for each in self._members()]
        return [tensors_checksum(pair.tensors()) for pair in pairs]

    def _refuse_changed_weights(self) -> None:
        """Raise ``ValueError`` unless the weights are those that the calibration was made with."""
        if self._weights_now() != self.weights:
            raise ValueError(
                "detector: expected the weights that the calibration rows were scored with, got "
                "others: the pair was fitted or changed since; make a new detector"
            )

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        n, threshold = len(self.scores), self.threshold()
        low, high = conformal.rate_interval(n, RATE)
        pairs = f", an ensemble of {len(self._members())} pairs" * (len(self._members()) > 1)
        known = f"{n} rows; median {np.median(self.scores):.4g}, largest {self.scores[-1]:.4g} nats"
        error = (
            f"{n} other rows would give another threshold: with a probability of 90 %, this one "
            f"flags {low:.1%} to {high:.1%} of clean rows"
        )
        nothing = bool(np.isposinf(threshold))
        limit = f"{threshold:.4g} nats at a false-alarm rate of {RATE:.0%}"
        limit += ", so that no row is flagged" * nothing
        return [
            [
                Line(f"anomaly detector{pairs}", "title"), Line(str(self.scoring), label="score"),
                Line(known, label="calibration"),
                Line(limit, "bad" if nothing else "plain", label="threshold"),
                Line(error, label="its error"),
            ]
        ]  # fmt: skip
