"""``refine``: a guide for given rows, better than the encoder's answer to them.

    q_r(z given x_r) = the guide's distribution, moved by offset_r      offset_r begins at 0
    offset_r        <- steps of Adam on the row's bounds; model and guide stay as they are

    E 1/P sum_p log w_p, then E log 1/P sum_p w_p       w_p = p(x_r, z_p) / q_r(z_p given x_r)

A network that answers for all rows (amortization) is not at the optimum of each. Rows do not depend
on each other, so that the gradient of the sum over rows is each row's own gradient, and one step
moves all rows. The offsets act in each distribution's own coordinates and give a normal all its
correlations (``moved``), so that the guide's family gets wider, too.

First the ELBO is maximized, then the importance-weighted bound, which asks the guide to cover the
posterior: a narrow guide has weights with heavy tails, and a high k-hat (``offset_search``).

Sources: Kim et al. (2018), section 3, arXiv:1802.02550 (semi-amortized inference); Cremer, Li &
Duvenaud (2018), arXiv:1801.03558 (the gaps of amortization and of the family); Burda, Grosse &
Salakhutdinov (2016), arXiv:1509.00519 (the bound); Tucker et al. (2019), arXiv:1810.04152 (its
gradient).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

from pyro import poutine
from torch import Tensor, nn

from ppl_vae.arguments import check_arguments, check_number
from ppl_vae.bars import Bar
from ppl_vae.core import sites
from ppl_vae.core.blocks import block_rows, collect, quiet_look
from ppl_vae.core.far_rows import FarRows
from ppl_vae.core.half import Half
from ppl_vae.core.handlers import scale_of_plates
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.rows import Batch, Data, Rows, as_tuple
from ppl_vae.elbo.moved import offset_size
from ppl_vae.elbo.offset_search import OffsetSearch
from ppl_vae.elbo.points import point_latents
from ppl_vae.elbo.refined_guide import PriorGuide, RefinedGuide
from ppl_vae.elbo.within_family import family_offset_size
from ppl_vae.nn.row_keys import row_keys

TRACED_FROM = 300  # steps from which tracing is repaid
LONGEST = 10.0  # of a step; a hundred of such lead beyond every number


def refine(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    steps: int = 100,
    num_particles: int = 8,
    lr: float = 0.05,
    widen: bool = True,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> RefinedGuide:
    """Return a guide for exactly these rows, improved row by row from the guide's answers to them.

    It takes the guide's place in every function, for these rows, in blocks or as a whole. It is
    what to do about rows whose k-hat is above 0.7, and it fits the latents of new rows where there
    is no encoder (``guide=None``). The model and the guide are not changed.

    Args:
        model: The model.
        guide: The guide to begin at; ``None`` begins at the prior, which takes more steps.
        data: N rows, in any form that ``fit`` takes.
        steps: Steps of Adam for each row.
        num_particles: P, draws of a row's latents in a step. More of them ask the guide to cover
            more of the posterior; 1 maximizes the ELBO.
        lr: Length of the first steps, in standard deviations of the guide's normals; it falls to 0
            over the second half of the steps.
        widen: Whether a latent's distribution may leave the guide's family, and covers the
            posterior. ``False`` finds the highest ELBO within the family, by other arguments of
            the same distributions (``within_family``): what the best encoder could reach.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        The guide. A row keeps the guide's answer if neither bound got better, or if its log p fell
        by more than three standard errors of 400 draws, as where several modes became one. Other
        rows are a ``ValueError``. Latents outside the row plate, and those that are summed
        (``infer={"enumerate": ...}``), are drawn as the guide draws them.

    Raises:
        ValueError: If the guide gives a latent of the rows as a point or draws it without
            reparameterization, if no latent of the rows can be refined, or if ``guide`` is
            ``None`` and the model enumerates latents.

    Example:
        >>> from ppl_vae import log_likelihood
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> model, guide, x = BernoulliModel(4), NormalGuide(4), torch.ones(3, 4)
        >>> refined = refine(model, guide, x, steps=10)
        >>> len(log_likelihood(model, refined, x[1:]))
        2
    """
    check_arguments(
        steps=steps, num_particles=num_particles, widen=widen, seed=seed, progress=progress
    )
    check_number("lr", lr, positive=True)
    if lr > LONGEST:
        raise ValueError(f"lr: expected at most {LONGEST} standard deviations a step, got {lr:g}")
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    if guide is None:
        guide = PriorGuide(model)
        _copy_parameters_of_functions(pair.model, guide)
        pair = Pair.of(model, guide, plate)
    offsets = Refinable.of(pair, rows, widen=widen)
    for reason in offsets.reasons.values():
        raise ValueError(reason)
    if not offsets.shapes:
        raise ValueError(
            f'guide: expected a latent drawn in the row plate, got none in plate "{plate}"; '
            "there is nothing to refine; or name the row plate with plate="
        )
    bar = Bar("refine", progress)
    return refined_guide(pair, rows, offsets, steps, num_particles, lr, seed=seed, bar=bar)


@dataclass(frozen=True)
class Refinable:
    """Which latents of the rows can be refined.

    Attributes:
        shapes: Shape of one row's offset of each latent that can be, ``{site: (plates, numbers)}``.
        reasons: Why each other one cannot be, ``{site: sentence}``. Latents that are summed, that
            stand outside the row plate, or that an auxiliary draw makes are in neither.
        widen: Whether a distribution may leave its family.
    """

    shapes: dict[str, tuple[int, ...]]
    reasons: dict[str, str]
    widen: bool

    @classmethod
    def of(cls, pair: Pair, rows: Rows, *, widen: bool) -> Refinable:
        """Look at the latents of a pair.

        Args:
            pair: The model, and the guide that the offsets begin at.
            rows: The data.
            widen: Whether a distribution may leave its family.
        """
        found = cls({}, {}, widen)
        with quiet_look(pair, rows) as few_rows:
            for name in point_latents(pair, few_rows):
                found.reasons[name] = (
                    f'site "{name}": expected a guide that draws the latent from a distribution, '
                    "got a point (Delta); refine another guide, or None, which begins at the prior"
                )
            trace = poutine.trace(pair.guide).get_trace(few_rows)
        for name, site in sites.with_role(trace, "latent", "auxiliary").items():
            if not sites.in_plate(site, pair.plate) or site["is_observed"]:
                continue
            if sites.point_of(site["fn"]) is not None:  # a point, or made of an auxiliary draw
                continue
            if sites.is_enumerated(site):
                if isinstance(pair.guide.base, PriorGuide):
                    found.reasons[name] = (
                        f'site "{name}": expected a guide beside a latent that the model sums, got '
                        "None; refine a guide that was fitted to the model"
                    )
                continue
            try:
                found.shapes[name] = _shape(name, site, pair.plate, widen=widen)
            except ValueError as error:
                found.reasons[name] = str(error)
        return found


def refined_guide(
    pair: Pair, rows: Rows, refinable: Refinable, steps: int, num_particles: int, lr: float, *,
    seed: int | None, bar: Bar,
) -> RefinedGuide:  # fmt: skip
    """Return the guide of a pair, improved row by row for exactly these rows.

    Args:
        pair: The model, and the guide to begin at.
        rows: The data.
        refinable: The latents that get offsets.
        steps: As ``refine`` has it, and so the next two.
        num_particles: Draws of a row's latents in a step.
        lr: Length of the first steps.
        seed: Seeds the draws.
        bar: The progress bar, without a total.
    """
    far_rows = FarRows(pair, rows)  # the refined guide knows no rows yet
    start = _copy_of_the_guide(pair)
    _copy_parameters_of_functions(pair.guide, start)
    refined = RefinedGuide(start, len(rows), refinable.shapes, widen=refinable.widen)
    _copy_parameters_of_functions(pair.guide, refined)
    refined.to(pair.device())
    pair = Pair(pair.model, Half(refined, "guide", pair.plate), pair.plate)
    size = min(block_rows(rows, num_particles), len(rows))
    steps_in_all = steps * math.ceil(len(rows) / size)
    search = OffsetSearch(pair, refined, rows, num_particles)
    steps_bar = bar.over(total=steps_in_all, unit="step")

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        if steps_in_all >= TRACED_FROM and len(index) == size:
            search.trace(batch)
        return search.offsets(batch, steps, lr, steps_bar)

    with steps_bar:
        offsets = collect(pair, rows, far_rows.marked(work), seed=seed, size=size)
    keys = collect(pair, rows, lambda batch, _: {"": row_keys(*as_tuple(batch))}, seed=seed)[""]
    refined.set_rows(keys, {name: offset.nan_to_num() for name, offset in offsets.items()})
    pair.guide.remember_columns(rows.columns)
    return refined


def _copy_of_the_guide(pair: Pair) -> Any:
    """Return a copy of the guide whose parameters are frozen, and which shares the model's.

    Later training of the guide thus leaves the refined guide as it is. A guide that reads its
    model, or is a method of the object that the model belongs to, keeps reading this very model.
    """
    memo = {id(part): part for part in (pair.model.base, pair.model.owner)}
    guide = copy.deepcopy(pair.guide.function, memo)
    shared = {id(parameter) for parameter in pair.model.parameters().values()}
    module = Half(guide, "guide", pair.plate).module
    copied = module is not None and module is not pair.guide.module
    for parameter in module.parameters() if module is not None and copied else ():
        if id(parameter) not in shared:
            parameter.requires_grad_(False)
    for layer in module.modules() if module is not None and copied else ():
        if isinstance(layer, nn.RNNBase):
            layer.flatten_parameters()  # cuDNN warns of copied weights otherwise
    return guide


def _copy_parameters_of_functions(source: Half, guide: Any) -> None:
    """Copy the values of a half's ``pyro.param`` statements to the store of another guide.

    Parameters of modules live in the modules, and are not copied.
    """
    target = Half(guide, "guide", source.plate).store.tables
    if target is source.store.tables:
        return
    named = source.store.tables.named_parameters()
    own = {name: value for name, value in named if not isinstance(value, nn.Parameter)}
    constraints = source.store.tables.get_state()["constraints"]
    copies = {name: value.detach().clone().requires_grad_() for name, value in own.items()}
    target.set_state({"params": copies, "constraints": {n: constraints[n] for n in own}})


def _shape(name: str, site: sites.Site, plate: str, *, widen: bool) -> tuple[int, ...]:
    """Return the shape of one row's offset of a latent, (plates inside the rows..., numbers)."""
    fn = site["fn"]
    kind = type(fn).__name__
    if not sites.is_reparameterized(site):
        raise ValueError(
            f'site "{name}": expected a reparameterized draw, got {kind}; sum a discrete latent '
            'with infer={"enumerate": "parallel"} in the guide'
        )
    if scale_of_plates(site, without=plate) != 1:
        raise ValueError(
            f'site "{name}": expected no subsampling plate inside the rows, whose places change '
            "from run to run; open the plate with its full size"
        )
    try:
        size = offset_size(fn) if widen else family_offset_size(fn)
    except NotImplementedError as error:
        raise ValueError(
            f'site "{name}": expected a distribution that a shift and a scale can move, got '
            f"{kind} ({error}); give the guide a normal, or a transform of one"
        ) from error
    return (*fn.batch_shape[:-1], size)
