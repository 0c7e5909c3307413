"""How many values discrete latents have together, counted from their shapes.

    V          values of one variable: 2 for 0 and 1, K for K categories
    n          variables of a latent in a row: its event's, times the places of plates in the row
    joint      the product of V^n over latents

No table of the configurations is built, so that the count may be any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions import constraints
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.supports import support_of


def values_of_event(fn: Any) -> int | float:
    """Return how many values one event of a discrete distribution has; infinity if without end.

    Args:
        fn: A distribution; its batch counts as one.

    Example:
        >>> import pyro.distributions as dist
        >>> values_of_event(dist.Bernoulli(torch.full((5, 3), 0.5)).to_event(1))
        8
        >>> values_of_event(dist.Categorical(torch.ones(4))), values_of_event(dist.Poisson(1.0))
        (4, inf)
    """
    support: Any = support_of(fn)
    numbers = int(fn.event_shape.numel())
    if isinstance(support, type(constraints.one_hot)):
        values = int(fn.event_shape[-1])
        return int(values ** (numbers // values))
    if isinstance(support, type(constraints.boolean)):
        return int(2**numbers)
    if isinstance(support, constraints.integer_interval):
        ends = torch.as_tensor(support.upper_bound) - torch.as_tensor(support.lower_bound)
        return int((int(ends.max()) + 1) ** numbers)
    return math.inf


def numbers_of_categories(fn: Any) -> Tensor:
    """Return the category of each variable in each value of a discrete distribution.

    Args:
        fn: A distribution whose values can be enumerated.

    Returns:
        (values, variables) of integers. A one-hot variable's category is the place of its 1, that
        of 0 and 1 the number itself; a distribution of single numbers counts its values from 0.

    Example:
        >>> import pyro.distributions as dist
        >>> numbers_of_categories(dist.OneHotCategorical(torch.ones(3)))
        tensor([[0],
                [1],
                [2]])
        >>> from ppl_vae.distributions import BernoulliVector
        >>> numbers_of_categories(BernoulliVector(torch.zeros(2))).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    values = support_values(fn)
    if not fn.event_dim:
        return torch.arange(len(values), device=values.device)[:, None]
    is_one_hot = isinstance(support_of(fn), type(constraints.one_hot))
    return (values.argmax(-1) if is_one_hot else values.long()).reshape(len(values), -1)


def support_values(fn: Any) -> Tensor:
    """Return the values of a discrete distribution, (values, ...) with the dimensions of an event.

    Args:
        fn: A distribution whose values can be enumerated; its batch has the same values throughout.
    """
    values: Tensor = fn.enumerate_support(expand=False)
    return values.reshape(len(values), *fn.event_shape)


def joint_configurations(
    latents: Mapping[str, sites.Site], model_trace: Trace, plate: str
) -> int | float:
    """Return how many configurations discrete latents of one row have together.

    The places of a plate inside the rows count apart, V at each, where all that follows the latent
    in the model stands in the plate; else together, V^places.

    Args:
        latents: Discrete sites of the guide in the row plate, by name.
        model_trace: Trace of the model.
        plate: Name of the row plate.
    """
    count: Any = 1
    for name, site in latents.items():
        values = values_of_event(site["fn"])
        if values == math.inf:
            return math.inf
        inner = inner_plates(site, plate)
        together = inner and not is_summed_by_place(name, model_trace, plate)
        count *= values ** math.prod(inner.values()) if together else values
    return int(count)


def inner_plates(site: sites.Site, plate: str) -> dict[str, int]:
    """Return the plates that a site stands in, other than the row plate, with their sizes."""
    frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
    return {frame.name: frame.size for frame in frames if frame.name != plate}


def is_summed_by_place(name: str, model_trace: Trace, plate: str) -> bool:
    """Return whether the model's sites after a latent stand in all of the latent's plates.

    A sum over the latent's values can then be taken at each place of a plate by itself.

    Args:
        name: Name of the latent.
        model_trace: Trace of the model.
        plate: Name of the row plate.
    """
    in_model = sites.sample_sites(model_trace)
    if name not in in_model:
        return False
    inner = inner_plates(in_model[name], plate)
    names = list(in_model)
    after = [in_model[other] for other in names[names.index(name) + 1 :]]
    return all(inner.keys() <= inner_plates(site, plate).keys() for site in after)


def count_in_words(count: int | float) -> str:
    """Return a number of configurations as text.

    Example:
        >>> count_in_words(6561), count_in_words(2**200), count_in_words(math.inf)
        ('6,561', '10^60', 'infinitely many')
    """
    if count == math.inf:
        return "infinitely many"
    return f"{count:,}" if count < 10**6 else f"10^{round(math.log10(count))}"
