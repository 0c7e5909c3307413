"""Rows along lines through the latent space: between two rows, or along one coordinate.

    interpolate   z_t = (1 - t) z(a) + t z(b),  t = 0 ... 1      z(a), z(b): codes of two rows
    traverse      z_i = loc_i - w scale_i ... loc_i + w scale_i  loc, scale: of the prior of z

The code z(a) of a row is the center of its latents under the guide, (latents,). Values on a line
are decoded to the rows that the model expects there.

Sources: Kingma & Welling (2014), appendix A, arXiv:1312.6114; Higgins et al. (2017), beta-VAE,
section 4 (traversals).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to, constraints

from ppl_vae.arguments import check_arguments, check_count, check_memory, check_number
from ppl_vae.core.blocks import collect
from ppl_vae.core.handlers import CentralValues, Substitute
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.row_plate import check_row_plate
from ppl_vae.core.seeding import child
from ppl_vae.core.sites import row_log_prob
from ppl_vae.core.supports import support_of
from ppl_vae.data.rows import Batch, Data, Rows
from ppl_vae.latents.codes import no_code
from ppl_vae.predictive import latent_draws
from ppl_vae.predictive.global_draws import GlobalDraws
from ppl_vae.predictive.latent_draws import data_sites, simulate
from ppl_vae.predictive.row_form import CellPlaces, in_data_form

WIDEST = 1e6  # standard deviations; beyond it, floats and networks overflow
PRIOR_DRAWS = 10_000  # draws that measure a prior whose moments are not known


def interpolate(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    steps: int = 8,
    seed: int | None = 0,
    plate: str = "data",
) -> Any:
    """Return the expected rows on straight lines between the codes of consecutive rows.

    The code of a row is the center of its latents under the guide. A latent with bounds (a
    probability, a scale) moves in unbounded coordinates (``torch.distributions.biject_to``); a
    discrete latent changes from one row's value to the next half way.

    Args:
        model: The model.
        guide: The guide.
        data: N rows, at least two, in any form that ``fit`` takes.
        steps: Rows on each line, with its two ends; at least two.
        seed: Seeds the draws of latents outside the row plate, and of centers that are not known;
            the generators are restored afterwards.
        plate: Name of the row plate.

    Returns:
        (N - 1) ``steps`` rows in the data's own form, line after line.

    Raises:
        ValueError: If there are fewer than two rows or steps, or an observed site holds values that
            are no cells of the data.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> interpolate(BernoulliModel(4), NormalGuide(4), torch.eye(4), steps=5).shape
        torch.Size([15, 4])
    """
    check_count("steps", steps, least=2)
    check_arguments(seed=seed)
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    if len(rows) < 2:
        raise ValueError(f"data: expected at least 2 rows to interpolate, got {len(rows)}")
    size = steps * (len(rows) - 1) * rows.bytes_per_row
    check_memory("steps", steps, size, "take fewer steps")
    check_row_plate(pair, rows)
    codes = _codes(pair, rows, torch.arange(len(rows)), seed)
    if not codes:
        raise no_code("interpolate", plate)
    share = torch.linspace(0, 1, steps).repeat(len(rows) - 1)
    left = torch.arange(len(rows) - 1).repeat_interleave(steps)
    nearest = left + (share > 0.5)
    line = {}
    for name, code in codes.items():
        t = share.reshape(-1, *[1] * (code.free.ndim - 1))
        if code.transform is None:
            line[name] = code.free[nearest]
        else:
            line[name] = code.constrain((1 - t) * code.free[left] + t * code.free[left + 1])
    return decode(pair, rows, nearest, line, seed)


def traverse(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    site: str | None = None,
    steps: int = 7,
    width: float = 3.0,
    seed: int | None = 0,
    plate: str = "data",
) -> Any:
    """Return the expected rows while one coordinate of a latent after another moves.

    A coordinate moves over the width of its prior; all others are held at the code of one row: all
    rows are alike where the decoder does not read it, as z of ``vector_quantized``. Only latents
    whose prior depends on the latent that moves, such as the layers below it, follow: they
    take the center of their prior.

    Args:
        model: The model.
        guide: The guide.
        data: Rows; the code of the first row gives the coordinates that are held.
        site: The latent that moves; the first continuous latent in the row plate by default. A
            latent with bounds (a probability, a scale) moves in unbounded coordinates.
        steps: Rows on each line.
        width: Half the length of a line, in standard deviations of the prior.
        seed: Seeds the draws that measure the prior; the generators are restored afterwards.
        plate: Name of the row plate.

    Returns:
        (coordinates) ``steps`` rows in the data's own form, coordinate after coordinate.

    Raises:
        ValueError: If the guide draws no continuous latent of that name in the row plate.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> traverse(BernoulliModel(4, 2), NormalGuide(4, 2), torch.ones(1, 4), steps=5).shape
        torch.Size([10, 4])
    """
    check_count("steps", steps)
    check_number("width", width)
    if abs(width) > WIDEST:
        raise ValueError(f"width: expected at most {WIDEST:g} standard deviations, got {width:g}")
    check_arguments(seed=seed)
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    check_memory("steps", steps, steps * rows.bytes_per_row, "take fewer steps")
    check_row_plate(pair, rows)
    codes = _codes(pair, rows, torch.zeros(1, dtype=torch.long), seed)
    if not codes:
        raise no_code("traverse", plate)
    movable = [name for name, code in codes.items() if code.transform is not None]
    name = site if site is not None or not movable else movable[0]
    if not movable:
        raise ValueError(
            f"guide: expected a continuous latent to traverse, got {', '.join(codes)}, which take "
            "single values: call generate, or interpolate"
        )
    if not isinstance(name, str) or name not in movable:
        raise ValueError(f"site: expected one of the continuous latents {movable}, got {site!r}")
    code = codes[name]
    center, spread = _prior_moments(pair, rows, name, code, seed)
    here = code.free.reshape(-1)
    offsets = torch.linspace(-float(width), float(width), steps)
    lines = here.repeat(len(here), steps, 1)  # (latents, steps, latents)
    for i in range(len(here)):
        lines[i, :, i] = center[i] + offsets * spread[i]
    count = len(here) * steps
    own_values = {other: fixed.constrain(fixed.free) for other, fixed in codes.items()}
    values = {other: value.expand(count, *value.shape[1:]) for other, value in own_values.items()}
    values[name] = code.constrain(lines.reshape(count, *code.free.shape[1:]))
    values = _with_followers(pair, rows, values, name, seed)
    return decode(pair, rows, torch.zeros(count, dtype=torch.long), values, seed)


@dataclass(frozen=True)
class _Code:
    """The codes of some rows at one latent site, in unbounded coordinates.

    A probability or a scale is moved in the coordinates of ``biject_to`` of its support, so that
    every point of a line is a value that the latent may have.

    Attributes:
        free: The codes, (rows, ...), unbounded; a discrete latent's own values.
        transform: From unbounded coordinates to the latent's values; ``None`` for a discrete
            latent, which cannot be moved.
    """

    free: Tensor
    transform: Any

    def constrain(self, free: Tensor) -> Tensor:
        """Return the latent's own values for unbounded coordinates, (rows, ...)."""
        return free if self.transform is None else torch.as_tensor(self.transform(free))


def _codes(pair: Pair, rows: Rows, index: Tensor, seed: int | None) -> dict[str, _Code]:
    """Return the codes of some rows, ``{site: code}``: the centers of their latents in the guide.

    Args:
        pair: The pair.
        rows: All rows, which the guide reads for the latents outside the row plate.
        index: Positions of the rows whose codes are wanted, (some rows,).
        seed: Seeds the draws of distributions that do not know their center.
    """
    supports: dict[str, Any] = {}
    shared = GlobalDraws(pair, rows, model=False).centers(child(seed, 2))

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        guide = CentralValues()(Substitute(shared)(pair.guide))
        trace = poutine.trace(guide).get_trace(batch)
        latents = latent_draws.row_latents(trace, pair)
        supports.update({name: support_of(site["fn"]) for name, site in latents.items()})
        return {name: site["value"] for name, site in latents.items()}

    codes = {}
    for name, value in collect(pair, rows.subset(index), work, seed=seed).items():
        support = supports[name] or constraints.real
        discrete = support.is_discrete or not value.is_floating_point()  # a point of whole numbers
        transform = None if discrete else biject_to(support)
        free = value if transform is None else transform.inv(value)
        codes[name] = _Code(free, transform)
    return codes


def _with_followers(
    pair: Pair, rows: Rows, values: dict[str, Tensor], moved: str, seed: int | None
) -> dict[str, Tensor]:
    """Return latents in which those whose prior depends on the moved one follow it.

    A latent depends on the moved one where the prior gives its held value other log-probabilities
    along the lines. It then takes the center of its prior instead, which may make other latents
    follow, so that the model runs again until none is left.

    Args:
        pair: The pair.
        rows: The data; the first row gives the covariates.
        values: Latents of each row to return, ``{site: (rows, ...)}``, all but one held fixed.
        moved: The latent that moves.
        seed: Seeds the draws of centers that are not known.
    """
    shared = GlobalDraws(pair, rows).draw(child(seed, 2))
    index = torch.zeros(len(values[moved]), dtype=torch.long)
    held, followed = dict(values), len(values) > 1
    while followed:
        with latent_draws.seeded_run(pair, rows, index, child(seed, 4)) as batch:
            given = {name: value.to(pair.device()) for name, value in held.items()}
            model = CentralValues()(Substitute({**shared, **given})(pair.model))
            latents = latent_draws.row_latents(poutine.trace(model).get_trace(batch), pair)
            scores = {name: row_log_prob(latents[name]) for name in held if name in latents}
            centers = {name: latents[name]["value"].cpu() for name in values if name not in held}
        values = {**values, **centers}
        del scores[moved]
        followers = [
            name
            for name, score in scores.items()
            if not torch.allclose(score, score[:1].expand_as(score), atol=1e-4)
        ]
        held = {name: value for name, value in held.items() if name not in followers}
        followed = bool(followers)
    return values


def decode(
    pair: Pair, rows: Rows, source: Tensor, values: dict[str, Tensor], seed: int | None
) -> Any:
    """Return the rows that the model expects for given latents, in the data's own form.

    Args:
        pair: The pair.
        rows: The data.
        source: Positions of the rows that unobserved cells (covariates) are copied from, one for
            each row to return.
        values: Latents of each row to return, ``{site: (rows, ...)}``.
        seed: Seeds the draw of the latents outside the row plate.
    """
    shared = GlobalDraws(pair, rows).draw(child(seed, 2))
    places, device = CellPlaces(pair, rows), pair.device()

    def work(batch: Batch, index: Tensor) -> dict[int, Tensor]:
        latents = {name: value[index].to(device) for name, value in values.items()}
        trace = simulate(pair, batch, Substitute({**shared, **latents}))
        expected = latent_draws.site_values(trace, expected=True)
        return places.fields_with_values(batch, data_sites(trace), expected, expected=True)

    decoded = collect(pair, rows.subset(source), work, seed=seed, judge=False)
    return in_data_form(rows, decoded)


def _prior_moments(
    pair: Pair, rows: Rows, name: str, code: _Code, seed: int | None
) -> tuple[Tensor, Tensor]:
    """Return center and width of a latent's prior, (coordinates,) each, in unbounded coordinates.

    They are mean and standard deviation, exact, where the latent has no bounds and its prior knows
    its moments. Otherwise they are the median and half the distance between the 15.87 % and 84.13 %
    quantiles of 10,000 draws: the standard deviation of a normal distribution, and finite for
    distributions with heavy tails.
    """
    first = torch.zeros(1, dtype=torch.long)
    with latent_draws.seeded_run(pair, rows, first, child(seed, 3)) as batch:
        fn: Any = simulate(pair, batch, CentralValues()).nodes[name]["fn"]
        try:
            known = fn.mean.reshape(-1).cpu(), fn.stddev.reshape(-1).cpu()
            unbounded = torch.equal(code.constrain(code.free), code.free)
            if unbounded and all(bool(part.isfinite().all()) for part in known):
                return known
        except NotImplementedError:
            pass
        draws = code.transform.inv(fn((PRIOR_DRAWS,)).cpu()).reshape(PRIOR_DRAWS, -1)
    low, middle, high = draws.quantile(torch.tensor([0.1587, 0.5, 0.8413]), dim=0)
    return middle, (high - low) / 2
