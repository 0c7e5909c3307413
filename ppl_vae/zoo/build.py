"""Build a model or guide whose sizes and scales come from the data."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch
from torch import Tensor

from ppl_vae.data.fields import Field
from ppl_vae.data.rows import Data, Rows, as_rows

T = TypeVar("T")


def build(cls: type[T], data: Data, **arguments: Any) -> T:
    """Make ``cls(...)``, filling from the data what its constructor names and you do not give.

    Filled are the arguments called ``features``, ``categories``, ``rows``, ``loc`` and
    ``scale``, from the first field of the data. ``loc`` and ``scale`` are (features,) and in
    the data's units; a constant feature has a scale of 1.

    Args:
        cls: A model or guide class.
        data: The data in any form that ``fit`` takes.
        arguments: Constructor arguments; they win over the data.

    Raises:
        ValueError: For an argument that the constructor does not have, or one that the data
            cannot give (features of rows that are not vectors, categories of floats).

    Example:
        >>> from ppl_vae.models.gaussian import GaussianModel
        >>> build(GaussianModel, torch.randn(100, 3) * 5, latents=2).scale.shape
        torch.Size([3])
    """
    parameters = inspect.signature(cls).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in arguments if name not in parameters and not open_ended]
    if unknown:
        raise ValueError(
            f"{cls.__name__}: expected arguments among {list(parameters)}, got {unknown}"
        )
    rows = as_rows(data)
    for name, find in _FROM_DATA.items():
        if name in parameters and name not in arguments:
            arguments[name] = find(rows, cls.__name__)
    return cls(**arguments)


def _features(rows: Rows, owner: str) -> int:
    field = _matrix(rows, owner, "features")
    return int(field.array.shape[1])


def _categories(rows: Rows, owner: str) -> int:
    values = rows.fields[0].take(torch.arange(len(rows)))
    if values.is_floating_point() and not bool((values == values.round()).all()):
        raise ValueError(f"{owner}: categories: expected integer codes, got {values.dtype}")
    return int(values.max()) + 1


def _loc(rows: Rows, owner: str) -> Tensor:
    return _moments(_matrix(rows, owner, "loc"))[0]


def _scale(rows: Rows, owner: str) -> Tensor:
    return _moments(_matrix(rows, owner, "scale"))[1]


def _matrix(rows: Rows, owner: str, argument: str) -> Field:
    field = rows.fields[0]
    if field.array.ndim != 2:
        raise ValueError(
            f"{owner}: {argument}: expected rows that are vectors to find it in, got "
            f"{field.name} of shape {tuple(field.array.shape)}; give {argument}= yourself"
        )
    return field


def _moments(field: Field) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column's known values, in float64, block by block."""
    chunks = torch.arange(len(field.array)).split(65536)
    width = field.array.shape[1]
    total, spread, known = (torch.zeros(width, dtype=torch.float64) for _ in range(3))
    for index in chunks:
        values = field.take(index).double().cpu()
        total += values.nansum(0)
        known += (~values.isnan()).sum(0)
    loc = total / known.clamp_min(1)
    for index in chunks:
        spread += ((field.take(index).double().cpu() - loc) ** 2).nansum(0)
    scale = (spread / known.clamp_min(1)).sqrt()
    scale = torch.where(scale > 1e-12 * loc.abs().clamp_min(1.0), scale, torch.ones_like(scale))
    dtype = torch.get_default_dtype()
    return loc.to(dtype), scale.to(dtype)


_FROM_DATA = {
    "features": _features,
    "categories": _categories,
    "rows": lambda rows, owner: len(rows),
    "loc": _loc,
    "scale": _scale,
}
