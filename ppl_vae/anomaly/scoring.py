"""One score of rows, computed in the same way for calibration rows and for new ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ppl_vae.anomaly.pair_scores import SCORES
from ppl_vae.anomaly.scores import Ensemble, anomaly_scores
from ppl_vae.arguments import shown
from ppl_vae.core.pair import Guide, Model
from ppl_vae.data.rows import Data
from ppl_vae.data.text import printable
from ppl_vae.evaluation.summary import MOST_DRAWS

LIKELIHOOD, TYPICALITY = "negative_log_likelihood", "typicality"
OF_WEIGHTS = (LIKELIHOOD, TYPICALITY)
"""Scores that are made of importance weights, so that k-hat says how far to trust them."""


@dataclass(frozen=True)
class Scoring:
    """How rows are scored: all that decides a score beside the weights of the pair.

    Attributes:
        score: A column of ``anomaly_scores``.
        num_samples: Draws of the latents for each row.
        seed: Seed of the draws, the same for all rows that are ever compared.
        plate: Name of the row plate.
        center: Mean negative log-likelihood of the reference rows, in nats, for ``typicality``;
            else ``None``.
    """

    score: str
    num_samples: int
    seed: int | None
    plate: str
    center: float | None = None

    @classmethod
    def of(
        cls,
        model: Model | Ensemble,
        guide: Guide,
        reference: Data | None,
        *,
        score: str,
        num_samples: int,
        seed: int | None,
        plate: str,
    ) -> Scoring:
        """Make a scoring; the arguments are those of ``AnomalyDetector``.

        Raises:
            ValueError: If there is no such score, or ``reference`` is missing or has no use.
        """
        names = (*SCORES, TYPICALITY)
        if not isinstance(score, str) or score not in names:
            raise ValueError(f"score: expected one of {', '.join(names)}, got {shown(score)}")
        if (score == TYPICALITY) != (reference is not None):
            raise ValueError(
                f'reference: expected rows for the score "{TYPICALITY}", and None for any other '
                f'score, got {"None" if reference is None else "rows"} with "{score}"'
            )
        scoring = cls(LIKELIHOOD, num_samples, seed, plate)
        if reference is None:
            return cls(score, num_samples, seed, plate)
        known = scoring(model, guide, reference, name="reference")["score"].to_numpy()
        if not np.isfinite(known).any():
            raise ValueError("reference: expected rows with a finite likelihood, got none")
        return cls(score, num_samples, seed, plate, float(known[np.isfinite(known)].mean()))

    def __call__(
        self,
        model: Model | Ensemble,
        guide: Guide,
        data: Data,
        *,
        name: str = "data",
        progress: bool = False,
    ) -> pd.DataFrame:
        """Return the scores of rows, and how far each can be trusted.

        Args:
            model: The model, or an ensemble.
            guide: The guide.
            data: N rows.
            name: The argument's name, for messages.
            progress: Whether to show a bar.

        Returns:
            N rows with the data's index: ``score``, in nats; ``k_hat``, NaN where the pair has
            none; ``reliable``, False where the score is infinite, or is made of importance weights
            that few draws decide: k-hat above its threshold, or not known, and an effective number
            of draws below half of them.

        Raises:
            ValueError: If the pair does not have the score, or a row's score is NaN.
        """
        frame = anomaly_scores(
            model, guide, data, num_samples=self.num_samples, seed=self.seed, progress=progress,
            plate=self.plate,
        )  # fmt: skip
        column = LIKELIHOOD if self.score == TYPICALITY else self.score
        if column not in frame:
            present = ", ".join(each for each in SCORES if each in frame)
            raise ValueError(
                f'score: expected one that the pair has ({present}), got "{self.score}"; a guide '
                "that gives latents as points has no likelihood"
            )
        score = frame[column] if self.center is None else (frame[column] - self.center).abs()
        missing = score.isna().to_numpy()
        if missing.any():
            raise ValueError(
                f"{name}: expected rows that have a score, got {self.score} of NaN in "
                f"{missing.sum()} of {len(frame)} rows, first in row {missing.argmax()}; leave "
                "these rows out"
            )
        finite = np.isfinite(score)
        k_hat = frame["k_hat"] if "k_hat" in frame else pd.Series(np.nan, frame.index)
        few_draws = ~(k_hat <= frame.attrs["k_hat_threshold"])  # NaN among them
        if self.score in OF_WEIGHTS:
            finite &= ~(few_draws & ~(frame["ess"] >= MOST_DRAWS * self.num_samples))
        result = pd.DataFrame({"score": score, "k_hat": k_hat, "reliable": finite})
        result.attrs.update(frame.attrs)
        return result

    def __str__(self) -> str:
        seed = "no seed" if self.seed is None else f"seed {self.seed}"
        center = "" if self.center is None else f", from {self.center:.4g} nats"
        return printable(f"{self.score}{center}; {self.num_samples} draws for each row, {seed}")
