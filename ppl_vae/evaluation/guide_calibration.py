"""Is the guide calibrated: simulation-based calibration of an amortized guide.

    z* ~ p(z),  x ~ p(x given z*),  z_s ~ q(z given x)        s = 1 ... S
    q(z given x) = p(z given x)   =>   the rank of z* among the z_s is uniform on 0 ... S

An amortized guide answers for any row, so that rows drawn from the model itself, whose latents are
known, cost one pass over the guide. How ranks are tested is in ``ppl_vae.evaluation.rank_tests``.

Sources: Talts et al. (2018), Validating Bayesian inference algorithms with simulation-based
calibration, arXiv:1804.06788; Modrak et al. (2023), Simulation-based calibration checking for
Bayesian computation: the choice of test quantities shapes sensitivity, arXiv:2211.02383; Yao et al.
(2018), Yes, but did it work?, section 3, arXiv:1802.02538 (of variational inference).
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from torch import Tensor

from ppl_vae.arguments import check_arguments, check_count, check_memory
from ppl_vae.bars import Bar
from ppl_vae.core.blocks import collect
from ppl_vae.core.far_rows import FarRows
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.row_plate import check_row_plate
from ppl_vae.core.seeding import child
from ppl_vae.data.rows import Batch, Data
from ppl_vae.evaluation.calibration_table import GuideCalibration
from ppl_vae.evaluation.guide_ranks import RANKS, UNRANKED, WEIGHTED, GuideRanks
from ppl_vae.evaluation.rank_tests import uniformity_of
from ppl_vae.evaluation.simulated_rows import (
    SimulatedRows,
    refuse_known_rows,
    refuse_numbers_of_rows,
)


def guide_calibration(
    model: Model,
    guide: Guide,
    like: Data,
    *,
    num_rows: int = 2000,
    num_draws: int = 99,
    seed: int | None = 0,
    recalibrate: bool = False,
    progress: bool | None = None,
    plate: str = "data",
) -> GuideCalibration:
    """Test whether the guide's draws are those of the posterior, on rows drawn from the model.

    Rows are drawn from the model with their latents. For each row the guide draws latents, and the
    true ones are ranked among them, dimension by dimension: under a guide that is the model's
    posterior, every rank is as likely as any other. So is the rank of log p(x given z), which sees
    what dimensions by themselves do not: a guide that ignores the row and draws from the prior has
    uniform ranks in all dimensions. No data are fitted, and nothing is trained. The result speaks
    of rows as the model makes them; ``predictive_check`` says whether real rows are such.

    Ordered discrete latents are ranked with ties broken at random. A categorical latent has no
    order: each of its categories is ranked, as a number that is 1 where a draw has the category
    and 0 elsewhere (of two categories, the second). The numbers of one-hot vectors are ranked as
    they are. Cells that a mask hides, and steps after the end of a sequence, have no ranks. A
    discrete latent that the model sums out, and the guide does not draw, is drawn from its
    posterior given the guide's draws. A latent that neither draws comes from its prior given the
    others; it is ranked, and named in ``from_prior``. A latent that the row says nothing of is
    calibrated where the guide draws it from its prior.

    Latents outside the row plate are not ranked: their guide is conditional on the data, of which
    there is one set. They are drawn from the guide, or from their prior where it does not draw
    them, anew for each twentieth of the rows; rows are drawn and judged given these draws. Where
    they decide about a row's latents, a guide of the row that does not depend on them is wrong.

    Args:
        model: The model. A fitted pair is judged as it is.
        guide: The guide, amortized: one that holds numbers for each row of some data is refused.
        like: Rows, in any form that ``fit`` takes, that give the form of the drawn rows. Fields and
            cells that the model reads but does not observe (covariates, masks, lengths) are those
            of these rows, each used about equally often.
        num_rows: Rows to draw. More find smaller faults.
        num_draws: S, draws of the guide for each row.
        seed: Seeds all draws; the generators are restored afterwards.
        recalibrate: Whether to rank among the same draws weighted by importance, too, w = p(x, z) /
            q(z given x), and to say where weights mend what is flagged (``recalibrated``). Weights
            mend a guide that is wide or near, and more draws mend more; they hardly mend a narrow
            one, which draws nothing where the posterior's tails are.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        A ``GuideCalibration``; a correct guide has ``passed`` with probability 0.95 or more. Rows
        on which the pair overflows are left out, and counted in ``left_out``.

    Raises:
        ValueError: If no latent stands in the row plate, the guide gives one as a point, or takes
            no rows but those of its fit; if the model has a ``pyro.factor``, or observes what
            changes its own distributions (which cells are missing).

    Example:
        >>> import torch
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = torch.ones(3, 4)
        >>> found = guide_calibration(BernoulliModel(4, 2), NormalGuide(4, 2), x, num_rows=100)
        >>> list(found.frame["site"]), found.ranks.shape
        (['z', 'z', 'log p(x | z)'], (100, 3))
    """
    check_arguments(seed=seed, recalibrate=recalibrate, progress=progress)
    check_count("num_rows", num_rows)
    check_count("num_draws", num_draws)
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(like, "like")
    check_row_plate(pair, rows)
    refuse_numbers_of_rows(pair, rows)
    ranking = GuideRanks(pair, rows, num_draws, weighted=recalibrate)
    kept = 8 * num_rows * (2 * len(ranking.quantities) + rows.bytes_per_row)
    check_memory("num_rows", num_rows, kept, "draw fewer rows")
    check_memory("num_draws", num_draws, 8 * num_draws, "draw fewer times")
    simulated = SimulatedRows(pair, rows, num_rows, ranking.size, seed=child(seed, 0))
    refuse_known_rows(pair, simulated.rows)
    far_rows = FarRows(pair, simulated.rows)
    bar = Bar("guide calibration", progress)
    with bar.over(total=num_rows * num_draws, unit="draw", unit_scale=True) as told:

        def work(batch: Batch, index: Tensor) -> dict[Any, Tensor]:
            return ranking.ranks(simulated, batch, index, told)

        found = collect(
            pair, simulated.rows, far_rows.marked(work), seed=child(seed, 1),
            size=simulated.size, judge=False,
        )  # fmt: skip
    ranks = found.pop(RANKS)
    weighted = found.pop(WEIGHTED, None)
    simulated.check(found)
    columns = [quantity.name for quantity in ranking.quantities]
    tables = [None if each is None else _whole(each, columns) for each in (ranks, weighted)]
    frames = [
        None if each is None else uniformity_of(each, ranking.quantities, num_draws, child(seed, 2))
        for each in tables
    ]
    assert tables[0] is not None
    assert frames[0] is not None
    return GuideCalibration(
        frames[0], tables[0], num_draws, frames[1], tables[1],
        outside=simulated.outside, from_prior=ranking.from_prior,
        left_out=int(ranks.isnan().any(1).sum()),
    )  # fmt: skip


def _whole(ranks: Tensor, columns: list[str]) -> pd.DataFrame:
    """Return ranks as a frame of whole numbers, (rows, quantities); <NA> where there is none."""
    frame = pd.DataFrame(ranks.numpy(), columns=columns)
    frame = frame.mask(frame == UNRANKED)
    return frame.astype("Int64") if frame.isna().to_numpy().any() else frame.astype("int64")
