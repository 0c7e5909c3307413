"""Families of distributions whose parameters come from the outputs of a network.

    parameter = transform(output)    transform: real numbers onto the parameter's constraint

A guide or a model that takes a family as an argument finds its class here, and the transform of
each parameter.

A positive parameter is 1 at an output of 0. Where the family has no finite variance there, as
StudentT with 1 degree of freedom, and has one with a parameter of 10, this parameter is 10 at an
output of 0 (``HEAVY``). A network's first outputs are near 0, and under a normal prior the ELBO of
draws without a finite variance is minus infinity.
"""

from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    SoftplusTransform,
    Transform,
)
from torch.distributions import transform_to

from ppl_vae.arguments import shown
from ppl_vae.distributions import additions

HEAVY = 10.0
"""The value, at an output of 0, of a parameter that makes tails heavy where it is small."""


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
        cls = getattr(additions, family, getattr(dist, family, None))
    if not (isinstance(cls, type) and issubclass(cls, TorchDistributionMixin)):
        raise ValueError(
            "family: expected a class of pyro.distributions or its name, as dist.Laplace or "
            f'"Laplace", got {shown(family)}'
        )
    return (
        additions.CenteredUniform
        if cls is dist.Uniform
        else cast("type[dist.TorchDistribution]", cls)
    )


def parameter_transforms(
    family: type[dist.TorchDistribution], positive: str = "exp"
) -> dict[str, Transform]:
    """Return how real numbers become each parameter of a family whose draws have gradients.

    The transform of a parameter is torch's for the parameter's constraint (``arg_constraints``). A
    positive parameter is 1 at an output of 0 under ``"exp"``; the degrees of freedom of
    ``StudentT`` are 10, and likewise each parameter without which the variance is not finite.

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
        >>> parameter_transforms(dist.StudentT)["df"](torch.zeros(1))
        tensor([10.])
        >>> parameter_transforms(dist.Poisson)
        Traceback (most recent call last):
        ValueError: family: expected one whose draws have gradients (reparameterized), got Poisson
    """
    name, to_positive = family.__name__, positive_transform(positive)
    no_gradients = f"family: expected one whose draws have gradients (reparameterized), got {name}"
    if family.has_rsample is False:  # a class of transformed distributions has a property here
        raise ValueError(no_gradients)
    found = family.arg_constraints
    if not isinstance(found, dict):  # a property: it takes a distribution that is made already
        raise _not_free("the parameters", name)
    transforms: dict[str, Transform] = {}
    for parameter, constraint in sorted(found.items()):
        if parameter == "probs" and "logits" in found:
            continue
        if constraints.is_dependent(constraint) or constraint.event_dim > 1:
            raise _not_free(parameter, name)
        inner = getattr(constraint, "base_constraint", constraint)
        is_positive = type(inner) in _FROM_ZERO and inner.lower_bound == 0
        transforms[parameter] = to_positive if is_positive else transform_to(inner)
    try:
        made = _at_zero(family, transforms)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"family: expected one that takes just {list(transforms)}, got {name}: {error}"
        ) from None
    if not made.has_rsample:
        raise ValueError(no_gradients)
    return _with_finite_variance(family, transforms, to_positive)


def _not_free(parameter: str, name: str) -> ValueError:
    """Return the error for a family whose parameters are matrices, or depend on each other."""
    return ValueError(
        "family: expected parameters that are numbers or vectors, each free of the others, "
        f"got {parameter} of {name}; copy a guide and write its sample statement"
    )


def _at_zero(
    family: type[dist.TorchDistribution], transforms: dict[str, Transform]
) -> dist.TorchDistribution:
    """Return the distribution that the outputs 0 give, of two numbers or of a vector of two."""
    return family(**{parameter: t(torch.zeros(2)) for parameter, t in transforms.items()})


def _with_finite_variance(
    family: type[dist.TorchDistribution], transforms: dict[str, Transform], to_positive: Transform
) -> dict[str, Transform]:
    """Return transforms with which the outputs 0 give a finite variance, where one change does.

    The map of a positive parameter is multiplied so that 0 becomes ``HEAVY``, and the parameter
    still takes every positive value.

    Args:
        family: A class of distributions.
        transforms: The transforms, by parameter.
        to_positive: The one among them that makes positive numbers.
    """
    factor = HEAVY / float(to_positive(torch.zeros(())))
    raised = ComposeTransform([to_positive, AffineTransform(0.0, factor)])
    positive = [parameter for parameter, t in transforms.items() if t is to_positive]
    changes = [transforms, *({**transforms, parameter: raised} for parameter in positive)]
    try:
        return next(c for c in changes if bool(_at_zero(family, c).variance.isfinite().all()))
    except (NotImplementedError, StopIteration):  # a variance that is not known, or never finite
        return transforms


_FROM_ZERO = (type(constraints.positive), type(constraints.nonnegative))
