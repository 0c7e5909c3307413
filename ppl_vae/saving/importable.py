"""The classes and functions of the library, of torch and of Pyro that a recipe may name.

ppl_vae.models.bernoulli:BernoulliModel   models, guides and networks of the library
torch.nn:Linear                           layers of torch
pyro.nn:PyroModule[Linear]                the same as Pyro modules
pyro.infer.autoguide.guides:AutoNormal    autoguides, and the networks of pyro.nn
pyro.distributions:Laplace                classes of distributions, as values of arguments
"""

from __future__ import annotations

import importlib
from typing import Any

import pyro.distributions
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import nn

import ppl_vae.distributions

_LIBRARY_MODULES = (
    "ppl_vae.models.", "ppl_vae.guides.", "ppl_vae.nn.", "ppl_vae.elbo.refined_guide",
)  # fmt: skip
_PYRO_MODULES = ("pyro.infer.autoguide.", "pyro.nn.dense_nn", "pyro.nn.auto_reg_nn")

ACTIVATIONS = frozenset(
    name
    for name, cls in vars(nn).items()
    if getattr(cls, "__module__", "") == "torch.nn.modules.activation"
    and name != "MultiheadAttention"
) | {"Identity"}
"""Names of the classes that a recipe may hold as a value: activations of ``torch.nn``."""

ACTIVATION_FUNCTIONS = {
    f"{place}{name}": getattr(module, name)
    for place, module in (("", torch), ("functional.", nn.functional))
    for name in (
        *("celu", "elu", "gelu", "hardtanh", "leaky_relu", "logsigmoid", "mish", "relu", "relu6"),
        *("selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh", "sin", "exp"),
    )
    if hasattr(module, name)
}
"""Functions of torch that a recipe may hold as a value, by name."""


def importable_class(name: str) -> type:
    """Import the class of the library, of torch or of Pyro that a recipe names.

    A recipe is data from anywhere, so a name that leads to other code is refused: the module must
    be one of a few, and what is found there must be a module class defined in them.

    Raises:
        ValueError: If the name is not that of such a class.
    """
    place, _, qualname = name.partition(":")
    if place == "pyro.nn" and qualname.startswith("PyroModule[") and qualname.endswith("]"):
        layer: Any = importable_class(f"torch.nn:{qualname[11:-1]}")
        return PyroModule[layer]
    allowed = place == "torch.nn" or place.startswith(_LIBRARY_MODULES + _PYRO_MODULES)
    if not allowed or not qualname.isidentifier():
        raise ValueError(f"expected a class of the library, got {name}")
    cls = getattr(importlib.import_module(place), qualname, None)
    if not isinstance(cls, type) or imported_name(cls) != name:
        raise ValueError(f"expected a class of the library, got {name}")
    return cls


def imported_name(cls: type) -> str | None:
    """Return the name by which a recipe refers to a class that is imported; ``None`` for others."""
    place, name = cls.__module__, cls.__qualname__
    if place.startswith("torch.nn.modules.") and getattr(nn, name, None) is cls:
        return f"torch.nn:{name}"
    if place.startswith(_LIBRARY_MODULES + _PYRO_MODULES) and issubclass(cls, nn.Module):
        return f"{place}:{name}"
    if place == "pyro.nn.module" and "__getitem__" in name:
        layer: Any = cls.__mro__[1]
        inner = imported_name(layer)
        if inner is not None and inner.startswith("torch.nn:") and PyroModule[layer] is cls:
            return f"pyro.nn:PyroModule[{inner.partition(':')[2]}]"
    return None


def distribution_name(cls: type) -> str | None:
    """Return the name by which a recipe refers to a class of distributions; ``None`` for others.

    Example:
        >>> distribution_name(pyro.distributions.Laplace)
        'pyro.distributions:Laplace'
    """
    for module in (pyro.distributions, ppl_vae.distributions):
        name = f"{module.__name__}:{cls.__name__}"
        if issubclass(cls, TorchDistributionMixin) and vars(module).get(cls.__name__) is cls:
            return name
    return None


def importable_distribution(name: str) -> type:
    """Return the class of distributions that a recipe names.

    Raises:
        ValueError: If the name is not that of a class of distributions of Pyro or of the library.
    """
    place, _, cls_name = name.partition(":")
    for module in (pyro.distributions, ppl_vae.distributions):
        cls = vars(module).get(cls_name)
        if module.__name__ == place and isinstance(cls, type) and distribution_name(cls) == name:
            return cls
    raise ValueError(f"expected a class of distributions, got {name}")
