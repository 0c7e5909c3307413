"""The latent space of a pair: into it, out of it, through it.

    encode        E[z given x], sd[z given x]         under the guide, row by row
    reconstruct   E[x' given x] = E_q(z given x) E[x' given z]
    generate      z ~ p(z), x ~ p(x given z)
    interpolate   z_t = (1 - t) z(a) + t z(b)         between the codes of two rows
    traverse      one latent moved over the width of its prior, the others held

Source: Kingma & Welling (2014), appendix A, arXiv:1312.6114; Higgins et al. (2017), beta-VAE,
section 4 (traversals).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from pyro import poutine
from torch import Tensor

from ppl_vae import sites
from ppl_vae.handlers import Center, Substitute
from ppl_vae.moments import Average
from ppl_vae.pair import Pair
from ppl_vae.passes import collect
from ppl_vae.rows import Batch, Rows, as_rows, generator
from ppl_vae.seeding import child, forked
from ppl_vae.simulation import (
    data_sites,
    fields_of,
    global_latents,
    restore,
    simulate,
    site_values,
    with_given,
)

Function = Callable[..., Any]


def encode(
    model: Function,
    guide: Function,
    data: Any,
    *,
    num_samples: int = 32,
    seed: int | None = 0,
    progress: bool = False,
    plate: str = "data",
) -> pd.DataFrame:
    """Mean and standard deviation of every row's latents under the guide.

    Exact where the guide's distributions know their moments and do not depend on each other's
    draws; else averaged over draws of the guide (law of total variance).

    Args:
        model: The model (decides nothing here; the pair reads the same everywhere).
        guide: The guide.
        data: N rows, in any form that ``fit`` takes.
        num_samples: Draws of the guide where draws are needed.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        N rows with the data's index and columns ``(site, "mean", i)`` and ``(site, "sd", i)``,
        in the latent's units; a categorical site has ``(site, "probability", category)``.
        ``encode(...)["z"]["mean"]`` is a frame of N rows and as many columns as z has.

    Raises:
        ValueError: Where the guide draws nothing for a row.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> codes = encode(BernoulliModel(4, 2), NormalGuide(4, 2), torch.ones(3, 4))
        >>> codes["z"]["mean"].shape
        (3, 2)
    """
    pair, rows = Pair.of(model, guide, plate), as_rows(data)

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        averages: dict[str, Average] = {}
        for _ in range(num_samples):
            for name, site in _row_latents(poutine.trace(pair.guide).get_trace(batch), pair):
                averages.setdefault(name, Average()).add(site)
            if all(average.settled for average in averages.values()):
                break
        return {
            f"{name}\0{what}": value.reshape(len(index), -1)
            for name, average in averages.items()
            for what, value in average.result().items()
        }

    title = "encode" if progress else ""
    parts = collect(pair, rows, work, seed=seed, progress=title)
    if not parts:
        raise ValueError(f'guide: expected a latent in the row plate "{plate}", found none')
    frames = {
        tuple(key.split("\0")): pd.DataFrame(value.numpy(), index=rows.index)
        for key, value in parts.items()
    }
    return pd.concat(frames, axis=1, names=["site", "moment", "index"])


def reconstruct(
    model: Function,
    guide: Function,
    data: Any,
    *,
    num_samples: int = 32,
    seed: int | None = 0,
    progress: bool = False,
    plate: str = "data",
) -> Any:
    """Expected value of every observed cell given its row's latents, averaged over the guide.

    Args:
        model: The model.
        guide: The guide.
        data: N rows, in any form that ``fit`` takes.
        num_samples: Draws of the guide.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        N rows in the data's own form and units; a categorical cell is its most probable
        category, and cells that the model does not observe are returned as they are.

    Raises:
        ValueError: Where an observed site is no selection of the data's cells.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> reconstruct(BernoulliModel(4), NormalGuide(4), torch.ones(3, 4)).shape
        torch.Size([3, 4])
    """
    pair, rows = Pair.of(model, guide, plate), as_rows(data)

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        averages: dict[str, Average] = {}
        for _ in range(num_samples):
            guide_trace = poutine.trace(pair.guide).get_trace(batch)
            drawn = sites.with_role(guide_trace, "latent", "auxiliary")
            values = {name: site["value"] for name, site in drawn.items()}
            trace = simulate(pair, batch, Substitute(values))
            for name, site in data_sites(trace).items():
                averages.setdefault(name, Average()).add(site)
            if all(average.settled for average in averages.values()):
                break
        expected = {name: average.expected() for name, average in averages.items()}
        return fields_of(batch, trace, expected, expected=True)

    title = "reconstruct" if progress else ""
    return restore(rows, collect(pair, rows, work, seed=seed, progress=title), rows.index)


def generate(
    model: Function,
    guide: Function | None,
    data: Any,
    *,
    num_samples: int = 100,
    given: Mapping[Any, Any] | None = None,
    expected: bool = False,
    seed: int | None = 0,
    progress: bool = False,
    plate: str = "data",
) -> Any:
    """New rows from the model: latents from the prior, then observations.

    Args:
        model: The model.
        guide: Gives the latents outside the row plate, drawn once (their posterior); the
            latents of a row always come from the prior. ``None`` draws all from the prior.
        data: Rows whose form the new ones take. Fields and cells that the model reads but does
            not observe (covariates) are taken from rows of it drawn at random.
        num_samples: Rows to make.
        given: ``{field name or position: values}`` for covariates, one value for all rows or
            ``num_samples`` of them.
        expected: Return the expected value given the latents (the most probable category)
            instead of a draw.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        ``num_samples`` rows in the data's own form and units.

    Raises:
        ValueError: Where ``given`` names no field, or an observed site is no selection of the
            data's cells.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> generate(BernoulliModel(4), None, torch.zeros(2, 4), num_samples=3).shape
        torch.Size([3, 4])
    """
    if num_samples < 1:
        raise ValueError(f"num_samples: expected at least 1, got {num_samples}")
    pair, rows = Pair.of(model, guide, plate), as_rows(data)
    chosen = torch.randint(len(rows), (num_samples,), generator=generator(seed))
    template = with_given(rows, rows.take(chosen), given or {}, num_samples)
    shared = Substitute(global_latents(pair, rows, seed, from_prior=guide is None))

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        trace = simulate(pair, batch, shared)
        return fields_of(batch, trace, site_values(trace, expected=expected), expected=expected)

    title = "generate" if progress else ""
    return restore(rows, collect(pair, template, work, seed=seed, progress=title))


def interpolate(
    model: Function,
    guide: Function,
    data: Any,
    *,
    steps: int = 8,
    seed: int | None = 0,
    plate: str = "data",
) -> Any:
    """Expected rows along the straight lines between the codes of consecutive rows.

    A row's code is the center of its posterior; discrete latents change over half way.

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
    codes = _centers(pair, rows, seed)
    share = torch.linspace(0, 1, steps).repeat(len(rows) - 1)
    left = torch.arange(len(rows) - 1).repeat_interleave(steps)
    line = {}
    for name, code in codes.items():
        t = share.reshape(-1, *[1] * (code.ndim - 1))
        mixed = (1 - t) * code[left] + t * code[left + 1]
        line[name] = mixed if code.is_floating_point() else code[left + (share > 0.5)]
    nearest = left + (share > 0.5)
    return _decode(pair, rows, nearest, line, seed)


def traverse(
    model: Function,
    guide: Function,
    data: Any,
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
        site: The latent site to move in; the first real-valued one of a row by default.
        steps: Rows on each line.
        width: Half the length of a line, in standard deviations of the prior.
        seed: Seeds the draws that measure the prior; the generators are restored afterwards.
        plate: Name of the row plate.

    Returns:
        (latents) ``steps`` rows in the data's own form, latent after latent.

    Raises:
        ValueError: Where the guide has no such real-valued site.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> traverse(BernoulliModel(4, 2), NormalGuide(4, 2), torch.ones(1, 4), steps=5).shape
        torch.Size([10, 4])
    """
    pair, rows = Pair.of(model, guide, plate), as_rows(data)
    first = rows.subset(torch.zeros(1, dtype=torch.long))
    codes = _centers(pair, first, seed)
    real = [name for name, code in codes.items() if code.is_floating_point()]
    if (site or (real and real[0])) not in real:
        raise ValueError(f"site: expected one of the real-valued latents {real}, got {site!r}")
    name = site or real[0]
    center, spread = _prior_moments(pair, first, name, seed)
    code = codes[name].reshape(-1)
    offsets = torch.linspace(-width, width, steps)
    lines = code.repeat(len(code), steps, 1)  # (latents, steps, latents)
    for i in range(len(code)):
        lines[i, :, i] = center[i] + offsets * spread[i]
    count = len(code) * steps
    values = {other: value.expand(count, *value.shape[1:]) for other, value in codes.items()}
    values[name] = lines.reshape(count, *codes[name].shape[1:])
    return _decode(pair, rows, torch.zeros(count, dtype=torch.long), values, seed)


def _row_latents(trace: Any, pair: Pair) -> list[tuple[str, sites.Site]]:
    found = sites.with_role(trace, "latent").items()
    return [(name, site) for name, site in found if sites.in_plate(site, pair.plate)]


def _centers(pair: Pair, rows: Rows, seed: int | None) -> dict[str, Tensor]:
    """Center of each row's latents: ``{site: (rows, ...)}``."""

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        trace = poutine.trace(Center()(pair.guide)).get_trace(batch)
        return {name: site["value"] for name, site in _row_latents(trace, pair)}

    return collect(pair, rows, work, seed=seed)


def _decode(
    pair: Pair, rows: Rows, source: Tensor, values: dict[str, Tensor], seed: int | None
) -> Any:
    """Expected rows for given latents; ``source`` names the rows whose other cells are used."""
    shared = global_latents(pair, rows, seed, from_prior=False)
    device = pair.device()

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        latents = {name: value[index].to(device) for name, value in values.items()}
        trace = simulate(pair, batch, Substitute({**shared, **latents}))
        return fields_of(batch, trace, site_values(trace, expected=True), expected=True)

    return restore(rows, collect(pair, rows.subset(source), work, seed=seed))


def _prior_moments(pair: Pair, rows: Rows, name: str, seed: int | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a latent's prior, one number a coordinate, from draws."""
    batch = rows.take(torch.zeros(1, dtype=torch.long), pair.device())
    with forked(child(seed, 3)), pair.evaluating():
        trace = simulate(pair, batch, Center())
        draws = trace.nodes[name]["fn"].sample((1000,)).reshape(1000, -1).cpu()
    return draws.mean(0), draws.std(0)
