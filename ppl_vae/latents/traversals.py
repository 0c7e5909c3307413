"""Through the latent space: lines between rows, and one latent moved at a time.

    interpolate   z_t = (1 - t) z(a) + t z(b)         between the codes of two rows
    traverse      one latent moved over the width of its prior, the others held

Sources: Kingma & Welling (2014), appendix A, arXiv:1312.6114; Higgins et al. (2017), beta-VAE,
section 4 (traversals).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from ppl_vae.core.blocks import collect
from ppl_vae.core.handlers import CentralValues, Substitute
from ppl_vae.core.pair import Pair, pyro_lock
from ppl_vae.core.seeding import child, forked
from ppl_vae.data.rows import Batch, Data, Rows, as_rows
from ppl_vae.predictive.latent_draws import global_latents, row_latents, simulate, site_values
from ppl_vae.predictive.row_form import CellPlaces, fields_with_values, in_data_form

Function = Callable[..., Any]


def interpolate(
    model: Function,
    guide: Function,
    data: Data,
    *,
    steps: int = 8,
    seed: int | None = 0,
    plate: str = "data",
) -> Any:
    """Expected rows along the straight lines between the codes of consecutive rows.

    A row's code is the center of its posterior. Latents with bounds (probabilities, scales) move
    in the coordinates of ``torch.distributions.biject_to``; discrete ones change over half way.

    Args:
        model: The model.
        guide: The guide.
        data: At least two rows.
        steps: Rows on each line, its two ends included.
        seed: Seeds what has to be drawn (latents outside the row plate, moments that are not
            known); the generators are restored afterwards.
        plate: Name of the row plate.

    Returns:
        (N - 1) ``steps`` rows in the data's own form, line after line.

    Raises:
        ValueError: On fewer than two rows or steps.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> interpolate(BernoulliModel(4), NormalGuide(4), torch.eye(4), steps=5).shape
        torch.Size([15, 4])
    """
    pair, rows = Pair.of(model, guide, plate), as_rows(data)
    if len(rows) < 2 or steps < 2:
        raise ValueError(f"interpolate: expected 2 rows and 2 steps, got {len(rows)} and {steps}")
    codes = _codes(pair, rows, seed)
    share = torch.linspace(0, 1, steps).repeat(len(rows) - 1)
    left = torch.arange(len(rows) - 1).repeat_interleave(steps)
    nearest = left + (share > 0.5)
    line = {}
    for name, code in codes.items():
        t = share.reshape(-1, *[1] * (code.free.ndim - 1))
        if code.discrete:
            line[name] = code.free[nearest]
        else:
            line[name] = code.constrain((1 - t) * code.free[left] + t * code.free[left + 1])
    return _decode(pair, rows, nearest, line, seed)


def traverse(
    model: Function,
    guide: Function,
    data: Data,
    *,
    site: str | None = None,
    steps: int = 7,
    width: float = 3.0,
    seed: int | None = 0,
    plate: str = "data",
) -> Any:
    """Expected rows while one latent after another moves over its prior, the others held.

    Args:
        model: The model.
        guide: The guide.
        data: Rows; the first one's code is where every line passes.
        site: The latent site to move in; the first continuous one of a row by default. One with
            bounds (a probability, a scale) moves in coordinates without them.
        steps: Rows on each line.
        width: Half the length of a line, in standard deviations of the prior.
        seed: Seeds the draws that measure the prior; the generators are restored afterwards.
        plate: Name of the row plate.

    Returns:
        (coordinates) ``steps`` rows in the data's own form, coordinate after coordinate.

    Raises:
        ValueError: Where the guide has no such continuous site.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> traverse(BernoulliModel(4, 2), NormalGuide(4, 2), torch.ones(1, 4), steps=5).shape
        torch.Size([10, 4])
    """
    pair, rows = Pair.of(model, guide, plate), as_rows(data)
    codes = _codes(pair, rows.subset(torch.zeros(1, dtype=torch.long)), seed)
    movable = [name for name, code in codes.items() if not code.discrete]
    name = site if site is not None or not movable else movable[0]
    if name not in movable:
        raise ValueError(f"site: expected one of the continuous latents {movable}, got {site!r}")
    code = codes[name]
    center, spread = _prior_moments(pair, rows, name, code, seed)
    here = code.free.reshape(-1)
    offsets = torch.linspace(-width, width, steps)
    lines = here.repeat(len(here), steps, 1)  # (latents, steps, latents)
    for i in range(len(here)):
        lines[i, :, i] = center[i] + offsets * spread[i]
    count = len(here) * steps
    values = {
        other: held.constrain(held.free).expand(count, *held.constrain(held.free).shape[1:])
        for other, held in codes.items()
    }
    values[name] = code.constrain(lines.reshape(count, *code.free.shape[1:]))
    return _decode(pair, rows, torch.zeros(count, dtype=torch.long), values, seed)


@dataclass(frozen=True)
class _Code:
    """A latent of some rows in coordinates without bounds.

    A probability or a scale is moved in the coordinates of ``biject_to`` of its support, so that
    every point of a line is a value that the latent may have.
    """

    free: Tensor  # (rows, ...); a discrete latent's own values
    discrete: bool
    transform: Any

    def constrain(self, free: Tensor) -> Tensor:
        """Back to the latent's own values."""
        return free if self.discrete else torch.as_tensor(self.transform(free))


def _codes(pair: Pair, rows: Rows, seed: int | None) -> dict[str, _Code]:
    """Center of each row's latents."""
    supports: dict[str, Any] = {}

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        trace = poutine.trace(CentralValues()(pair.guide)).get_trace(batch)
        found = dict(row_latents(trace, pair))
        supports.update({name: site["fn"].support for name, site in found.items()})
        return {name: site["value"] for name, site in found.items()}

    codes = {}
    for name, value in collect(pair, rows, work, seed=seed).items():
        transform = None if supports[name].is_discrete else biject_to(supports[name])
        free = value if transform is None else transform.inv(value)
        codes[name] = _Code(free, transform is None, transform)
    return codes


def _decode(
    pair: Pair, rows: Rows, source: Tensor, values: dict[str, Tensor], seed: int | None
) -> Any:
    """Expected rows for given latents; ``source`` names the rows whose other cells are used."""
    shared = global_latents(pair, rows, seed, from_prior=False)
    places, device = CellPlaces(pair, rows), pair.device()

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        latents = {name: value[index].to(device) for name, value in values.items()}
        trace = simulate(pair, batch, Substitute({**shared, **latents}))
        expected = site_values(trace, expected=True)
        return fields_with_values(places, batch, trace, expected, expected=True)

    return in_data_form(rows, collect(pair, rows.subset(source), work, seed=seed))


def _prior_moments(
    pair: Pair, rows: Rows, name: str, code: _Code, seed: int | None
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a latent's prior, one number for each free coordinate.

    Exact where the latent has no bounds and its prior knows them, else from 10,000 draws.
    """
    batch = rows.take(torch.zeros(1, dtype=torch.long), pair.device())
    with pyro_lock(), forked(child(seed, 3)), pair.evaluating():
        fn = simulate(pair, batch, CentralValues()).nodes[name]["fn"]
        try:
            known = fn.mean.reshape(-1).cpu(), fn.stddev.reshape(-1).cpu()
            free = torch.equal(code.constrain(code.free), code.free)
            if free and all(bool(part.isfinite().all()) for part in known):
                return known
        except NotImplementedError:
            pass
        draws = code.transform.inv(fn.sample((10_000,)).cpu()).reshape(10_000, -1)
    low, middle, high = draws.quantile(torch.tensor([0.1587, 0.5, 0.8413]), dim=0)
    return middle, (high - low) / 2  # as a normal's, and finite for heavy tails
