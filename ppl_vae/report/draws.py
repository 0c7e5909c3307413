"""How many draws a report makes, where nobody says how many.

    draws = min(usual, B / (N C)),   at least 100       N: rows; C: multiplications for each draw

C is counted in a run of the pair on a few rows: the matrix products and convolutions alone, which
is nearly all in a large network. So the number depends on the pair and the number of rows, and
never on the machine or on how busy it is.
"""

from __future__ import annotations

import warnings

import torch

from ppl_vae.core.pair import Guide, Model
from ppl_vae.core.world import world
from ppl_vae.data.rows import Rows
from ppl_vae.evaluation.likelihood import elbo_terms

NUM_SAMPLES, REPLICATES = 1000, 200  # draws for each row; replicated data sets of a check
FEWEST = 100
BUDGET = 1.5e11  # multiplications and additions for the log-likelihood; a check has half
TRIED = 4  # rows


def usual_draws(model: Model, guide: Guide, rows: Rows, plate: str) -> tuple[int, int]:
    """Return the number of draws for each row, and of replicates, that a report of a pair makes.

    Args:
        model: The model.
        guide: The guide.
        rows: The data.
        plate: Name of the row plate.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> usual_draws(BernoulliModel(4), None, Rows(torch.zeros(9, 4)), "data")
        (1000, 200)
    """
    if world().size > 1:  # each process runs a part of the rows, and all make as many draws
        return NUM_SAMPLES, REPLICATES
    few = rows.subset(torch.arange(min(TRIED, len(rows))))
    try:
        one, two = (_operations(model, guide, few, draws, plate) for draws in (1, 2))
    except ValueError:  # told of by the measurements
        return NUM_SAMPLES, REPLICATES
    cost = max(two - one, 1) / len(few) * len(rows)
    most, check = int(BUDGET / cost), int(BUDGET / 2 / cost)
    return max(min(NUM_SAMPLES, most), FEWEST), max(min(REPLICATES, check), FEWEST)


def _operations(model: Model, guide: Guide, rows: Rows, draws: int, plate: str) -> int:
    """Return the multiplications and additions of one evaluation of some rows."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  loads slowly

    with (
        warnings.catch_warnings(action="ignore", category=UserWarning),
        FlopCounterMode(display=False) as counter,
    ):
        elbo_terms(model, guide, rows, num_samples=draws, plate=plate)
    return int(counter.get_total_flops())
