"""New observations for the rows of the data, drawn from a fitted pair or from the model alone.

    posterior predictive   z_s ~ q(z given x),  x_s ~ p(x given z_s)       s = 1 ... S
    prior predictive       z_s ~ p(z),          x_s ~ p(x given z_s)

A latent that is summed out in the model is drawn from its posterior given the row and the guide's
draws.

Sources: Rubin (1984), Bayesianly justifiable and relevant frequency calculations, section 5;
Gelman, Meng & Stern (1996), Posterior predictive assessment of model fitness, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, overload

import torch
from torch import Tensor

from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.rows import Data, as_rows
from ppl_vae.predictive.replicates import Replicates, ReplicateSampler


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
    """Replicated data sets: for each draw, latents given the row, then new observations.

    Every observed site is drawn anew, whatever the model observes it with; nothing of the data
    is echoed. The guide has seen the row that a replicate is compared with: replicates lie
    closer to the data than new rows would (``prior_predictive`` makes those).

    Args:
        model: The model.
        guide: The guide; ``None`` for a model whose latents are all summed out, or has none. What
            is latent and not summed then comes from the prior.
        data: N rows, in any form that ``fit`` takes; they may be rows that the pair has never seen.
        num_samples: S, replicates.
        sites: Name or names of the observed sites to draw; all by default.
        stream: Give the replicates a part at a time instead, in memory that grows neither with
            the rows nor with ``num_samples``.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        ``{site: (num_samples, rows, ...)}``, in the data's units; cells under a mask are drawn
        too. With ``stream=True`` an iterator of ``Replicates``: some replicates of some rows, with
        what was observed there, the masks and the latents; the rows of one group of replicates
        come one after another, then the next group.

    Raises:
        ValueError: Where the model observes nothing in the row plate, or ``sites`` names
            something else.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = torch.ones(3, 4)
        >>> posterior_predictive(BernoulliModel(4), NormalGuide(4), x, num_samples=10)["x"].shape
        torch.Size([10, 3, 4])
    """
    pair, rows = Pair.of(model, guide, plate), as_rows(data)
    simulator = ReplicateSampler(pair, rows, num_samples, seed=seed, prior=False, names=sites)
    parts = simulator.stream("replicates" if progress else "")
    return parts if stream else _whole(parts, num_samples, len(rows))


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
    """Data sets that the model makes by itself: latents from the prior, then observations.

    ``generate`` makes rows in the data's own form; this keeps whole data sets apart, site by site.

    Args:
        model: The model.
        like: N rows whose number and form the new data sets take; what the model reads of them
            without observing it (covariates, masks, lengths) stays as it is.
        num_samples: S, data sets.
        sites: Name or names of the observed sites to draw; all by default.
        stream: Give them a part at a time, as ``posterior_predictive`` does.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        ``{site: (num_samples, rows, ...)}``, or an iterator of ``Replicates``.

    Raises:
        ValueError: As ``posterior_predictive`` does.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> prior_predictive(BernoulliModel(4), torch.ones(3, 4), num_samples=10)["x"].shape
        torch.Size([10, 3, 4])
    """
    pair, rows = Pair.of(model, None, plate), as_rows(like, "like")
    simulator = ReplicateSampler(pair, rows, num_samples, seed=seed, prior=True, names=sites)
    parts = simulator.stream("data sets" if progress else "")
    return parts if stream else _whole(parts, num_samples, len(rows))


def _whole(parts: Iterator[Replicates], num_samples: int, rows: int) -> dict[str, Tensor]:
    """All parts put together, on the CPU."""
    result: dict[str, Tensor] = {}
    for part in parts:
        for name, value in part.values.items():
            if name not in result:
                result[name] = torch.empty((num_samples, rows, *value.shape[2:]), dtype=value.dtype)
            block = result[name][part.samples.start : part.samples.stop]
            block[:, part.index] = value.cpu()
    return result
