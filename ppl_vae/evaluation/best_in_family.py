"""The best distribution in a guide's family for each row, by rounds of steps from the last answer.

    round 1: steps from the network's answer     round 2: from the answer of round 1     ...

A step is measured in standard deviations of the distribution that a round begins at. A guide that
is much too narrow, or far away, cannot be mended by such steps: the next round begins at a wider
one, with wider steps. Rounds end when the ELBO has stopped to rise.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ppl_vae.bars import Bar
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import child
from ppl_vae.data.rows import Rows
from ppl_vae.elbo.refinement import Refinable, refined_guide
from ppl_vae.evaluation.likelihood import likelihoods_of_rows

PARTICLES, RATE = 8, 0.05  # of the steps row by row
FEWEST_ROUNDS, MOST_ROUNDS = 2, 8

RISE, RISE_SHARE = 0.05, 0.02
"""A round may raise the mean ELBO by so many nats, or by this part of all that was gained."""


@dataclass(frozen=True)
class BestInFamily:
    """The best of a guide's family.

    Attributes:
        pair: The model, with the best guide for each row.
        scores: What ``log_likelihood`` gives with it.
        rise: By how much the last round raised the mean ELBO, in nats, where that is still too
            much; 0 where the best was reached.
        steps: Steps of all rounds.
    """

    pair: Pair
    scores: pd.DataFrame
    rise: float
    steps: int


def best_in_family(
    pair: Pair, rows: Rows, refinable: Refinable, steps: int, scores: pd.DataFrame, bar: Bar,
    num_samples: int, options: dict[str, Any],
) -> BestInFamily:  # fmt: skip
    """Return the best distribution in the guide's family for each row.

    Args:
        pair: The model and the guide.
        rows: The data.
        refinable: The latents that are moved.
        steps: Steps of the first two rounds together; each later one has half of them.
        scores: What ``log_likelihood`` gives with the guide.
        bar: The progress bar.
        num_samples: Draws of the latents for each row.
        options: Of ``likelihoods_of_rows``.
    """
    given, best, each = pair, scores, max(1, steps // FEWEST_ROUNDS)
    rise, number = 0.0, 0
    for number in range(1, MOST_ROUNDS + 1):
        pair = refined_pair(pair, rows, refinable, each, child(options["seed"], number), bar)
        before = best
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the guide's scores have told of rows that overflow
            best = scores_of(pair, rows, num_samples, **options)
        rise = float((best["elbo"] - before["elbo"]).mean())
        gained = float((best["elbo"] - scores["elbo"]).mean())
        reached = not rise > max(RISE, RISE_SHARE * gained)
        if reached and number >= FEWEST_ROUNDS:
            break
    if not float((best["elbo"] - scores["elbo"]).mean()) > 0:  # the network was there already
        return BestInFamily(given, scores, 0.0, number * each)
    return BestInFamily(pair, best, 0.0 if reached else rise, number * each)


def refined_pair(
    pair: Pair, rows: Rows, refinable: Refinable, steps: int, seed: int | None, bar: Bar
) -> Pair:
    """Return the pair with its guide refined for each row."""
    guide = refined_guide(pair, rows, refinable, steps, PARTICLES, RATE, seed=seed, bar=bar)
    return Pair.of(pair.model.function, guide, pair.plate)


def scores_of(pair: Pair, rows: Rows, num_samples: int, **options: Any) -> pd.DataFrame:
    """Return the frame of ``log_likelihood``."""
    return likelihoods_of_rows(
        pair, rows, "importance", num_samples, name="inference_gap", stacklevel=3, **options
    )
