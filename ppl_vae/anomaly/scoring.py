"""One score of rows, computed in the same way for calibration rows and for new ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from ppl_vae.anomaly.pair_scores import SCORES
from ppl_vae.anomaly.scores import LIKELIHOOD, TYPICALITY, Ensemble, RowScorer
from ppl_vae.arguments import shown
from ppl_vae.core.pair import Guide, Model
from ppl_vae.data.parts import regrouped
from ppl_vae.data.rows import Data, Rows
from ppl_vae.evaluation.psis import FEWEST
from ppl_vae.evaluation.summary import MOST_DRAWS
from ppl_vae.safe_text import printable

PART = 1 << 16
"""Rows of a stream that are in memory at a time, or a few more, to make whole blocks."""

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
        progress: bool | None = False,
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
        scored = scoring(model, guide, reference, name="reference", progress=progress)
        known = scored["score"].to_numpy()
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
        progress: bool | None = False,
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
            of draws below half of them. Fewer than 25 draws say nothing about themselves: there,
            only a likelihood without drawn latents is reliable.

        Raises:
            ValueError: If the pair does not have the score, or a row's score is NaN.
        """
        scorer = self.scorer(model, guide, data)
        return self.read(scorer(data, progress=progress), name)

    def scorer(
        self, model: Model | Ensemble, guide: Guide, example: Data, **more: Any
    ) -> RowScorer:
        """Return what scores rows part by part; arguments as ``RowScorer``."""
        settings: dict[str, Any] = {"num_samples": self.num_samples, "seed": self.seed}
        return RowScorer(model, guide, example, **settings, plate=self.plate, **more)

    def parts(
        self,
        model: Model | Ensemble,
        guide: Guide,
        parts: Iterable[Data],
        as_rows: Callable[[Data, int], Rows],
        *,
        reference: Data | None = None,
        is_explained: Callable[[pd.DataFrame], Any],
        total: int | None = None,
        progress: bool | None = False,
    ) -> Iterator[pd.DataFrame]:
        """Yield the scores of rows that come in parts.

        The rows are regrouped into whole blocks, so that each has the draws of one call on all.

        Args:
            model: The model, or an ensemble.
            guide: The guide.
            parts: The rows, in their order.
            as_rows: Makes ``Rows`` of a part, or refuses it; also called with the place of the
                part's first row.
            reference: Clean rows, to add the attribution of each column.
            is_explained: Returns, of scored rows, which have an attribution, (rows,); with a
                reference.
            total: How many rows there are, where that is known.
            progress: Whether to show a bar while the reference rows are scored.
        """
        source, row = iter(parts), 0
        head = next(source, None)
        if head is None:
            return
        full = self.scorer(model, guide, as_rows(head, 0), compile=False).full_size
        scorer = None
        for part in regrouped(itertools.chain([head], source), full * math.ceil(PART / full)):
            rows = as_rows(part, row)
            scorer = scorer or self.scorer(
                model, guide, rows, reference=reference, total=total, progress=progress,
                explained=None if reference is None else self.score,
            )  # fmt: skip
            if scorer.full_size != full:
                raise ValueError(
                    "data: expected rows that can be scored part by part, got a guide that reads "
                    "all rows at once for the latents that they share; score the rows in one call"
                )
            frame = self.read(scorer(rows, first_row=row))
            row += len(frame)
            if reference is not None:
                shares = _attribution(scorer, rows, np.flatnonzero(is_explained(frame)))
                shares.index = frame.index
                frame = pd.concat([frame, shares], axis=1)
            yield frame

    def read(self, frame: pd.DataFrame, name: str = "data") -> pd.DataFrame:
        """Return the score and its reliability, as a call does, from a frame of all scores.

        Args:
            frame: Rows as ``anomaly_scores`` returns them.
            name: The argument's name, for messages.
        """
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
            tell = self.num_samples >= FEWEST or frame.attrs["exact"]
            finite &= ~few_draws | (tell & (frame["ess"] >= MOST_DRAWS * self.num_samples))
        result = pd.DataFrame({"score": score, "k_hat": k_hat, "reliable": finite})
        result.attrs.update(frame.attrs)
        return result

    def __str__(self) -> str:
        seed = "no seed" if self.seed is None else f"seed {self.seed}"
        center = "" if self.center is None else f", from {self.center:.4g} nats"
        return printable(f"{self.score}{center}; {self.num_samples} draws for each row, {seed}")


def _attribution(scorer: RowScorer, rows: Rows, chosen: Any) -> pd.DataFrame:
    """Return the attribution of each cell of all rows, NaN in the rows that are not chosen.

    Args:
        scorer: Scores the rows.
        rows: N rows.
        chosen: Positions of rows.
    """
    names = scorer.attribution_columns
    values = np.full((len(rows), len(names)), np.nan)
    if len(chosen):
        part = rows.subset(torch.as_tensor(chosen))
        values[chosen] = scorer.attribution(part, scorer(part)).to_numpy()
    return pd.DataFrame(values, columns=names)
