"""The latent space of a pair: into it and out of it.

    encode        E[z given x], sd[z given x]         under the guide, row by row
    reconstruct   E[x' given x] = E_q(z given x) E[x' given z]
    generate      z ~ p(z), x ~ p(x given z)

Source: Kingma & Welling (2014), section 5 and appendix A, arXiv:1312.6114.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from pyro import poutine
from torch import Tensor

from ppl_vae.core.blocks import check_count, collect
from ppl_vae.core.handlers import Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Data, as_rows, generator
from ppl_vae.predictive.latent_draws import (
    LatentDraws,
    data_sites,
    global_latents,
    row_latents,
    simulate,
    site_values,
)
from ppl_vae.predictive.moments import RunningMoments
from ppl_vae.predictive.row_form import CellPlaces, fields_with_values, in_data_form, with_given

Function = Callable[..., Any]


def encode(
    model: Function,
    guide: Function,
    data: Data,
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
    check_count("num_samples", num_samples)
    pair, rows = Pair.of(model, guide, plate), as_rows(data)

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        averages: dict[str, RunningMoments] = {}
        for _ in range(num_samples):
            for name, site in row_latents(poutine.trace(pair.guide).get_trace(batch), pair):
                averages.setdefault(name, RunningMoments()).add(site)
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
        raise ValueError(
            f'guide: expected a latent in the row plate "{plate}", found none; latents that are '
            "summed out in the model have no code (draw them in the guide to see them)"
        )
    frames = {
        tuple(key.split("\0")): pd.DataFrame(value.numpy(), index=rows.index)
        for key, value in parts.items()
    }
    return pd.concat(frames, axis=1, names=["site", "moment", "index"])


def reconstruct(
    model: Function,
    guide: Function,
    data: Data,
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
    check_count("num_samples", num_samples)
    pair, rows = Pair.of(model, guide, plate), as_rows(data)
    places, posterior = CellPlaces(pair, rows), LatentDraws(pair, rows)

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        averages: dict[str, RunningMoments] = {}
        for _ in range(num_samples):
            trace = simulate(pair, batch, Substitute(posterior.draw(batch)))
            for name, site in data_sites(trace).items():
                averages.setdefault(name, RunningMoments()).add(site)
            if all(average.settled for average in averages.values()):
                break
        expected = {name: average.expected() for name, average in averages.items()}
        return fields_with_values(places, batch, trace, expected, expected=True)

    title = "reconstruct" if progress else ""
    return in_data_form(rows, collect(pair, rows, work, seed=seed, progress=title), rows.index)


def generate(
    model: Function,
    guide: Function | None,
    data: Data,
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
    check_count("num_samples", num_samples)
    pair, rows = Pair.of(model, guide, plate), as_rows(data)
    places = CellPlaces(pair, rows)
    chosen = torch.randint(len(rows), (num_samples,), generator=generator(seed))
    template = with_given(rows, rows.take(chosen), given or {}, num_samples)
    shared = Substitute(global_latents(pair, rows, seed, from_prior=guide is None))

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        trace = simulate(pair, batch, shared)
        values = site_values(trace, expected=expected)
        return fields_with_values(places, batch, trace, values, expected=expected)

    title = "generate" if progress else ""
    return in_data_form(rows, collect(pair, template, work, seed=seed, progress=title))
