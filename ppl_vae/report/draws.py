"""How many draws a report makes, where nobody says how many.

    draws = min(usual, B / (N C)),   at least 100       N: rows; C: multiplications for each draw

C is counted in a run of the pair on a few rows: the matrix products and convolutions alone, which
is nearly all in a large network. So the number depends on the pair and the number of rows, and
never on the machine or on how busy it is.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple, Self

import torch

from ppl_vae.core.pair import Guide, Model
from ppl_vae.core.world import world
from ppl_vae.data.rows import Rows
from ppl_vae.evaluation.likelihood import elbo_terms

NUM_SAMPLES, REPLICATES = 1000, 200  # draws for each row; replicated data sets of a check
FEWEST = 100
BUDGET = 1.5e11  # multiplications and additions for the log-likelihood; a check has half
TRIED = 4  # rows


class Draws(NamedTuple):
    """How many draws a report makes.

    Attributes:
        num_samples: Draws of the latents for each row.
        replicates: Replicated data sets of a check.
        fewer: Whether one of them is below the usual number because the networks are large.
    """

    num_samples: int
    replicates: int
    fewer: bool

    @classmethod
    def of(
        cls, model: Model, guide: Guide, rows: Rows, plate: str, *,
        num_samples: int | None = None, replicates: int | None = None,
    ) -> Self:  # fmt: skip
        """Choose the numbers that nobody has set.

        Args:
            model: The model.
            guide: The guide.
            rows: The data.
            plate: Name of the row plate.
            num_samples: Draws for each row; ``None`` to choose.
            replicates: Replicated data sets; ``None`` to choose.

        Example:
            >>> from ppl_vae.models.bernoulli import BernoulliModel
            >>> Draws.of(BernoulliModel(4), None, Rows(torch.zeros(9, 4)), "data", replicates=50)
            Draws(num_samples=1000, replicates=50, fewer=False)
        """
        if num_samples is not None and replicates is not None:
            return cls(num_samples, replicates, fewer=False)
        cost = _cost(model, guide, rows, plate)
        affordable = [
            max(min(usual, int(budget / cost)), FEWEST)
            for usual, budget in ((NUM_SAMPLES, BUDGET), (REPLICATES, BUDGET / 2))
        ]
        return cls(
            num_samples or affordable[0], replicates or affordable[1],
            fewer=(num_samples is None and affordable[0] < NUM_SAMPLES)
            or (replicates is None and affordable[1] < REPLICATES),
        )  # fmt: skip


def _cost(model: Model, guide: Guide, rows: Rows, plate: str) -> float:
    """Return the multiplications and additions of one more draw for all rows; 1 where unknown."""
    if world().size > 1:  # each process runs a part of the rows, and all make as many draws
        return 1.0
    few = rows.subset(torch.arange(min(TRIED, len(rows))))
    try:
        one, two = (_operations(model, guide, few, draws, plate) for draws in (1, 2))
    except ValueError:  # told of by the measurements
        return 1.0
    return max(two - one, 1) / len(few) * len(rows)


def _operations(model: Model, guide: Guide, rows: Rows, draws: int, plate: str) -> int:
    """Return the multiplications and additions of one evaluation of some rows."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  loads slowly

    with (
        warnings.catch_warnings(action="ignore", category=UserWarning),
        FlopCounterMode(display=False) as counter,
    ):
        elbo_terms(model, guide, rows, num_samples=draws, progress=False, plate=plate)
    return int(counter.get_total_flops())
