"""Which rows of a report are the strangest, and what makes them strange."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from ppl_vae.anomaly.detector import AnomalyDetector
from ppl_vae.anomaly.scores import LIKELIHOOD, RowScorer, members
from ppl_vae.anomaly.scoring import Scoring
from ppl_vae.arguments import shown
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.rows import Rows
from ppl_vae.latents.codes import reconstruct
from ppl_vae.report.images import ImageField
from ppl_vae.saving.storage import tensors_checksum

SHOWN = 10  # rows that are shown one by one
COMPARED = 500  # rows at most whose values are the ordinary ones
DRAWS = 100  # of the latents for each row, for the attributions


@dataclass(frozen=True)
class Images:
    """The strangest rows as images, (rows, channels, height, width) each.

    Attributes:
        rows: The rows.
        reconstructions: What the pair expects in their place.
    """

    rows: np.ndarray
    reconstructions: np.ndarray


@dataclass(frozen=True)
class StrangeRows:
    """The scores of all rows, and what makes the strangest of them strange.

    Attributes:
        scored: All rows, with the columns ``score`` (nats), ``k_hat`` and ``reliable``; with a
            detector also ``p_value`` and ``flagged``.
        first: Positions of the strangest rows, the strangest first, at most ``SHOWN``; none where
            single rows are not shown.
        score: Name of the score.
        detector: The detector; ``None`` where the scores stand alone.
        explained: Attributions in nats, ``(shown rows, columns)``; ``Images``; or the error that
            came instead; ``None`` where single rows are not shown.
        compared: Number of rows whose values are ordinary; 0 for images.
    """

    scored: pd.DataFrame
    first: np.ndarray
    score: str
    detector: AnomalyDetector | None
    explained: pd.DataFrame | Images | ValueError | None
    compared: int

    @classmethod
    def of(
        cls,
        model: Model,
        guide: Guide,
        rows: Rows,
        likelihoods: pd.DataFrame | ValueError,
        detector: AnomalyDetector | None,
        *,
        known: np.ndarray,
        num_samples: int,
        image: ImageField | None = None,
        show_rows: bool = True,
        **shared: Any,
    ) -> Self:
        """Score rows by a detector, or take the log-likelihoods that are there already.

        Args:
            model: The model.
            guide: The guide.
            rows: The data.
            likelihoods: The frame of ``log_likelihood``, or the error that it raised.
            detector: The detector; ``None`` to take minus the log-likelihood as the score.
            known: Positions of the rows that the shown ones are compared with.
            num_samples: Draws of the latents for each row, behind ``likelihoods``.
            image: The field that holds images; ``None`` for none.
            show_rows: Whether single rows are shown, the strangest ones.
            shared: ``seed``, ``progress``, ``plate``.

        Raises:
            ValueError: If the rows have no scores.
        """
        if detector is None:
            if isinstance(likelihoods, ValueError):
                raise likelihoods
            scored = _scores_of(likelihoods, num_samples, shared["seed"], shared["plate"])
        else:
            scored = detector(rows, progress=shared["progress"])
        score = LIKELIHOOD if detector is None else detector.scoring.score
        if not show_rows:
            return cls(scored, np.array([], dtype=int), score, detector, None, 0)
        first = np.argsort(-scored["score"].to_numpy(), kind="stable")[:SHOWN]
        known = np.setdiff1d(known, first)
        known = known[np.linspace(0, len(known) - 1, min(len(known), COMPARED)).astype(int)]
        rest = {"seed": shared["seed"], "plate": shared["plate"]}
        # An overflow was told of with the scores, and shows as infinite.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            explained = _explained(model, guide, rows, first, known, score, image, **rest)
        compared = len(known) if isinstance(explained, pd.DataFrame) else 0
        return cls(scored, first, score, detector, explained, compared)

    @property
    def flagged(self) -> int:
        """How many rows the detector flags; 0 without one."""
        return int(self.scored["flagged"].sum()) if "flagged" in self.scored else 0


def check_detector(detector: Any, model: Model | None, guide: Guide, plate: str) -> None:
    """Raise ``ValueError`` unless a detector is one of the pair: of its weights.

    Args:
        detector: What was passed as the detector.
        model: The model of the report; ``None`` where there is none, which no detector is of.
        guide: Its guide.
        plate: Name of the row plate.
    """
    if not isinstance(detector, AnomalyDetector):
        raise ValueError(f"detector: expected an AnomalyDetector, got {shown(detector)}")
    pairs = members(detector.model, detector.guide)
    if any(model is each and guide is other for each, other in pairs):
        return
    if model is not None:
        weights = tensors_checksum(Pair.of(model, guide, plate).tensors())
        if any(tensors_checksum(Pair.of(*each, plate).tensors()) == weights for each in pairs):
            return
    raise ValueError(
        "detector: expected one that was calibrated with this model and guide, got one of another "
        "pair; make a detector of this pair, or write the report of the other one"
    )


def _scores_of(
    likelihoods: pd.DataFrame, num_samples: int, seed: int | None, plate: str
) -> pd.DataFrame:
    """Return minus the log-likelihoods as scores, infinite where the pair overflows."""
    scores = -likelihoods["log_prob"].fillna(-np.inf)
    scoring = Scoring(LIKELIHOOD, num_samples, seed, plate)
    return scoring.read(likelihoods.assign(**{LIKELIHOOD: scores}))


def _explained(
    model: Model, guide: Guide, rows: Rows, first: np.ndarray, known: np.ndarray, score: str,
    image: ImageField | None, **shared: Any,
) -> pd.DataFrame | Images | ValueError:  # fmt: skip
    """Return what makes some rows strange: images of them, or the attribution of each column.

    Args:
        model: The model.
        guide: The guide.
        rows: The data.
        first: Positions of the rows to explain.
        known: Positions of the rows whose values are ordinary.
        score: The score that the columns' attributions are of.
        image: The field that holds images; ``None`` for none.
        shared: ``seed`` and ``plate``.
    """
    chosen = rows.subset(torch.as_tensor(first))
    try:
        if image is not None:
            expected = Rows(reconstruct(model, guide, chosen, progress=False, **shared))
            return Images(image.images(chosen), image.images(expected))
        if not len(known):
            raise ValueError("data: expected more rows to compare with, got these alone")
        scorer = RowScorer(
            model, guide, chosen, reference=rows.subset(torch.as_tensor(known)), explained=score,
            num_samples=DRAWS, compile=False, **shared,
        )  # fmt: skip
        return scorer.attribution(chosen, scorer(chosen))
    except ValueError as error:
        return error
