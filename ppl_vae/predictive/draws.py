"""Replicated data sets, drawn from a fitted pair or from the model alone.

    posterior predictive   z_s ~ q(z given x),  x_s ~ p(x given z_s)       s = 1 ... S
    prior predictive       z_s ~ p(z),          x_s ~ p(x given z_s)

The replicates of a site are (num_samples, rows, ...), in the data's units. A latent that the model
alone enumerates is drawn from its exact posterior, given the row and the guide's draws.

Sources: Rubin (1984), Bayesianly justifiable and relevant frequency calculations, section 5;
Gelman, Meng & Stern (1996), Posterior predictive assessment of model fitness, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, overload

import torch
from torch import Tensor

from ppl_vae.arguments import check_arguments, check_memory, memory_error
from ppl_vae.bars import Bar
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.rows import Data
from ppl_vae.predictive.replicates import Replicates, ReplicateSampler, write_part


@overload
def posterior_predictive(
    model: Model, guide: Guide, data: Data, *, num_samples: int = ...,
    sites: Any = ..., stream: Literal[False] = ..., seed: int | None = ...,
    progress: bool | None = ..., plate: str = ...,
) -> dict[str, Tensor]: ...  # fmt: skip


@overload
def posterior_predictive(
    model: Model, guide: Guide, data: Data, *, num_samples: int = ...,
    sites: Any = ..., stream: Literal[True], seed: int | None = ...,
    progress: bool | None = ..., plate: str = ...,
) -> Iterator[Replicates]: ...  # fmt: skip


def posterior_predictive(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    num_samples: int = 100,
    sites: Any = None,
    stream: bool = False,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> dict[str, Tensor] | Iterator[Replicates]:
    """Return replicated data sets: latents drawn given each row, then new observations.

    Every observed site is drawn anew, and no value of the data is returned in its place. The guide
    reads the row that a replicate is compared with, so that replicates lie closer to the data than
    new rows would (``prior_predictive`` draws new rows).

    Args:
        model: The model.
        guide: The guide; ``None`` for a model without latents, or whose latents are all enumerated.
            With ``None``, other latents come from the prior.
        data: N rows, in any form that ``fit`` takes; the pair need not be fitted to them.
        num_samples: S, replicated data sets.
        sites: Name or names of the observed sites to draw; all by default.
        stream: Whether to return an iterator of parts instead, in memory that grows neither with
            the rows nor with ``num_samples``.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        ``{site: (num_samples, rows, ...)}``, in the data's units; masked cells are drawn too. A row
        on which the networks overflow is NaN, and a warning counts such rows. With
        ``stream=True`` an iterator of ``Replicates``: some replicates of some rows, with the
        observed values, the masks and the latents. All rows of one group of replicates come first,
        block after block, then the next group.

    Raises:
        ValueError: If the model observes nothing in the row plate, ``sites`` holds anything but
            observed sites, or the replicates do not fit into memory.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = torch.ones(3, 4)
        >>> posterior_predictive(BernoulliModel(4), NormalGuide(4), x, num_samples=10)["x"].shape
        torch.Size([10, 3, 4])
    """
    check_arguments(num_samples=num_samples, stream=stream, seed=seed, progress=progress)
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    sampler = ReplicateSampler(pair, rows, num_samples, seed=seed, prior=False, names=sites)
    bar = Bar("replicates", progress)
    if stream:
        return _streamed(sampler, bar, "posterior_predictive")
    result = _joined(sampler, bar)
    sampler.far_rows.warn("posterior_predictive", stacklevel=2)
    return result


def prior_predictive(
    model: Model,
    like: Any,
    *,
    num_samples: int = 100,
    sites: Any = None,
    stream: bool = False,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> dict[str, Tensor] | Iterator[Replicates]:
    """Return data sets drawn from the model alone: latents from the prior, then observations.

    ``generate`` returns new rows in the data's own form; ``prior_predictive`` returns whole data
    sets, site by site.

    Args:
        model: The model.
        like: N rows, whose number and form the new data sets take. Fields that the model reads
            without observing them (covariates, masks, lengths) are taken from these rows.
        num_samples: S, data sets.
        sites: Name or names of the observed sites to draw; all by default.
        stream: Whether to return an iterator of parts, as ``posterior_predictive`` does.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        ``{site: (num_samples, rows, ...)}``, or an iterator of ``Replicates``.

    Raises:
        ValueError: If the model observes nothing in the row plate, ``sites`` holds anything but
            observed sites, or the replicates do not fit into memory.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> prior_predictive(BernoulliModel(4), torch.ones(3, 4), num_samples=10)["x"].shape
        torch.Size([10, 3, 4])
    """
    check_arguments(num_samples=num_samples, stream=stream, seed=seed, progress=progress)
    pair = Pair.of(model, None, plate)
    rows = pair.rows(like, "like")
    sampler = ReplicateSampler(
        pair, rows, num_samples, seed=seed, prior=True, names=sites, judge=False
    )
    bar = Bar("data sets", progress)
    if stream:
        return _streamed(sampler, bar, "prior_predictive")
    result = _joined(sampler, bar)
    sampler.far_rows.warn("prior_predictive", stacklevel=2)
    return result


def _streamed(sampler: ReplicateSampler, bar: Bar, name: str) -> Iterator[Replicates]:
    """Yield the parts; at the end, warn of the rows on which the networks overflow."""
    yield from sampler.stream(bar)
    sampler.far_rows.warn(name, stacklevel=2)


def _joined(sampler: ReplicateSampler, bar: Bar) -> dict[str, Tensor]:
    """Return all parts in whole tensors on the CPU: ``{site: (num_samples, rows, ...)}``.

    Raises:
        ValueError: If the whole tensors do not fit into memory, or a site of integers, which cannot
            be NaN, has rows on which the networks overflow.
    """
    size, result = (sampler.num_samples, len(sampler.rows)), dict[str, Tensor]()
    for part in sampler.stream(bar):
        far = sampler.far_rows.found[part.index]
        for name, value in part.values.items():
            if bool(far.any()) and not value.is_floating_point():
                raise ValueError(
                    f'site "{name}": expected rows on which the pair gives finite numbers, got an '
                    f"overflow in row {int(part.index[far][0])}, which integers cannot mark; leave "
                    "the row out, or bound what the networks give (a clamp on log_scale)"
                )
        if not result:
            result = _whole_tensors(part.values, *size)
        write_part(result, part.values, size, part.places)
    return result


def _whole_tensors(values: dict[str, Tensor], num_samples: int, rows: int) -> dict[str, Tensor]:
    """Return an empty tensor for all replicates of each site.

    Args:
        values: Some replicates of some rows, ``{site: (samples, rows, ...)}``.
        num_samples: Replicates in all.
        rows: Rows of the data.

    Raises:
        ValueError: If the tensors do not fit into memory.
    """
    shapes = {name: (num_samples, rows, *value.shape[2:]) for name, value in values.items()}
    size = sum(math.prod(shapes[name]) * v.element_size() for name, v in values.items())
    mend = f"pass stream=True, which returns them part by part, or draw fewer (of {rows} rows)"
    check_memory("num_samples", num_samples, size, mend)
    try:
        return {name: torch.empty(shapes[name], dtype=v.dtype) for name, v in values.items()}
    except (RuntimeError, MemoryError) as error:
        raise memory_error("num_samples", num_samples, size, mend) from error
