"""Families of distributions whose parameters come from the outputs of a network.

    parameter = transform(output)    transform: real numbers onto the parameter's constraint

A guide or a model that takes a family as an argument finds its class here, and the transform of
each parameter.
"""

from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.distributions.transforms import ExpTransform, SoftplusTransform, Transform
from torch.distributions import transform_to

from ppl_vae import distributions
from ppl_vae.arguments import shown


def positive_transform(positive: str) -> Transform:
    """Return the map from real to positive numbers that a constructor's ``positive`` names.

    Args:
        positive: ``"exp"``, or ``"softplus"`` for log(1 + exp(x)), which grows like x itself.

    Raises:
        ValueError: If it is another word.

    Example:
        >>> positive_transform("exp")(torch.zeros(2))
        tensor([1., 1.])
    """
    maps = {"exp": ExpTransform, "softplus": SoftplusTransform}
    if positive not in maps:
        raise ValueError(f'positive: expected "exp" or "softplus", got {shown(positive)}')
    return maps[positive]()


def find_family(family: Any) -> type[dist.TorchDistribution]:
    """Return the class of distributions that an argument ``family`` is, or is the name of.

    Args:
        family: A class of Pyro's distributions, of ``ppl_vae.distributions``, or of a user's own;
            or a name of the first two, as a command line gives it. ``Uniform`` is taken by center
            and width.

    Raises:
        ValueError: If the class is none of Pyro's form, or no class has the name.

    Example:
        >>> find_family("StudentT").__name__, find_family(dist.Uniform).__name__
        ('StudentT', 'CenteredUniform')
    """
    cls = family
    if isinstance(family, str):
        cls = getattr(distributions, family, getattr(dist, family, None))
    if not (isinstance(cls, type) and issubclass(cls, TorchDistributionMixin)):
        raise ValueError(
            "family: expected a class of pyro.distributions or its name, as dist.Laplace or "
            f'"Laplace", got {shown(family)}'
        )
    return (
        distributions.CenteredUniform
        if cls is dist.Uniform
        else cast("type[dist.TorchDistribution]", cls)
    )


def parameter_transforms(
    family: type[dist.TorchDistribution], positive: str = "exp"
) -> dict[str, Transform]:
    """Return how real numbers become each parameter of a family whose draws have gradients.

    The transform of a parameter is torch's for the parameter's constraint (``arg_constraints``).

    Args:
        family: A class of distributions. Each parameter is a number, or a vector as that of
            ``Dirichlet``.
        positive: How positive parameters are made: ``"exp"`` or ``"softplus"``.

    Returns:
        ``{parameter: transform}`` in alphabetical order, so that the order never changes.

    Raises:
        ValueError: If the draws of the family have no gradients (are not reparameterized), or its
            parameters cannot be set one by one.

    Example:
        >>> list(parameter_transforms(dist.StudentT))
        ['df', 'loc', 'scale']
        >>> parameter_transforms(dist.Poisson)
        Traceback (most recent call last):
        ValueError: family: expected one whose draws have gradients (reparameterized), got Poisson
    """
    name, to_positive = family.__name__, positive_transform(positive)
    no_gradients = f"family: expected one whose draws have gradients (reparameterized), got {name}"
    if family.has_rsample is False:  # a class of transformed distributions has a property here
        raise ValueError(no_gradients)
    found = dict(sorted(cast("dict[str, Any]", family.arg_constraints).items()))
    if "logits" in found:
        found.pop("probs", None)
    transforms: dict[str, Transform] = {}
    for parameter, constraint in found.items():
        if constraints.is_dependent(constraint) or constraint.event_dim > 1:
            raise ValueError(
                "family: expected parameters that are numbers or vectors, each free of the others, "
                f"got {parameter} of {name}; copy a guide and write its sample statement"
            )
        inner = getattr(constraint, "base_constraint", constraint)
        is_positive = type(inner) in _FROM_ZERO and inner.lower_bound == 0
        transforms[parameter] = to_positive if is_positive else transform_to(inner)
    try:
        made = family(**{parameter: t(torch.zeros(2)) for parameter, t in transforms.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"family: expected one that takes just {list(transforms)}, got {name}: {error}"
        ) from None
    if not made.has_rsample:
        raise ValueError(no_gradients)
    return transforms


_FROM_ZERO = (type(constraints.positive), type(constraints.nonnegative))
