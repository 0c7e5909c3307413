"""Replicated data sets, drawn from a fitted pair or from the model alone.

    posterior predictive   z_s ~ q(z given x),  x_s ~ p(x given z_s)       s = 1 ... S
    prior predictive       z_s ~ p(z),          x_s ~ p(x given z_s)

The replicates of a site are (num_samples, rows, ...), in the data's units. A latent that the model
alone enumerates is drawn from its exact posterior, given the row and the guide's draws.

Sources: Rubin (1984), Bayesianly justifiable and relevant frequency calculations, section 5;
Gelman, Meng & Stern (1996), Posterior predictive assessment of model fitness, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, overload

from torch import Tensor

from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.rows import Data
from ppl_vae.predictive.replicates import Replicates, ReplicateSampler, write_part


@overload
def posterior_predictive(
    model: Model, guide: Guide, data: Data, *, num_samples: int = ...,
    sites: Any = ..., stream: Literal[False] = ..., seed: int | None = ..., progress: bool = ...,
    plate: str = ...,
) -> dict[str, Tensor]: ...  # fmt: skip


@overload
def posterior_predictive(
    model: Model, guide: Guide, data: Data, *, num_samples: int = ...,
    sites: Any = ..., stream: Literal[True], seed: int | None = ..., progress: bool = ...,
    plate: str = ...,
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
    progress: bool = False,
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
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        ``{site: (num_samples, rows, ...)}``, in the data's units; masked cells are drawn too. With
        ``stream=True`` an iterator of ``Replicates``: some replicates of some rows, with the
        observed values, the masks and the latents. All rows of one group of replicates come first,
        block after block, then the next group.

    Raises:
        ValueError: If the model observes nothing in the row plate, or ``sites`` holds anything but
            observed sites.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = torch.ones(3, 4)
        >>> posterior_predictive(BernoulliModel(4), NormalGuide(4), x, num_samples=10)["x"].shape
        torch.Size([10, 3, 4])
    """
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    sampler = ReplicateSampler(pair, rows, num_samples, seed=seed, prior=False, names=sites)
    parts = sampler.stream("replicates" if progress else "")
    return parts if stream else _joined(parts, num_samples, len(rows))


def prior_predictive(
    model: Model,
    like: Any,
    *,
    num_samples: int = 100,
    sites: Any = None,
    stream: bool = False,
    seed: int | None = 0,
    progress: bool = False,
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
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        ``{site: (num_samples, rows, ...)}``, or an iterator of ``Replicates``.

    Raises:
        ValueError: If the model observes nothing in the row plate, or ``sites`` holds anything but
            observed sites.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> prior_predictive(BernoulliModel(4), torch.ones(3, 4), num_samples=10)["x"].shape
        torch.Size([10, 3, 4])
    """
    pair = Pair.of(model, None, plate)
    rows = pair.rows(like, "like")
    sampler = ReplicateSampler(pair, rows, num_samples, seed=seed, prior=True, names=sites)
    parts = sampler.stream("data sets" if progress else "")
    return parts if stream else _joined(parts, num_samples, len(rows))


def _joined(parts: Iterator[Replicates], num_samples: int, rows: int) -> dict[str, Tensor]:
    """Return all parts in whole tensors on the CPU: ``{site: (num_samples, rows, ...)}``."""
    result: dict[str, Tensor] = {}
    for part in parts:
        write_part(result, part.values, (num_samples, rows), part.places)
    return result
