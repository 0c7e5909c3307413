"""``build``: make a model or a guide whose sizes and scales come from the data.

    features     number of features in a row          ()
    categories   largest integer code plus one        ()
    rows         number of rows                       ()
    loc, scale   mean and standard deviation          (features,) each, data's units

An argument of one of these names is found in the first field of the data.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch
from torch import Tensor

from ppl_vae.arguments import shown
from ppl_vae.data.columns import remember
from ppl_vae.data.fields import Field
from ppl_vae.data.rows import Data, Rows, as_rows

T = TypeVar("T")


def build(cls: type[T], data: Data, **arguments: Any) -> T:
    """Return ``cls(...)`` with constructor arguments that are read from the data.

    The arguments ``features``, ``categories``, ``rows``, ``loc`` and ``scale`` are filled in
    where the constructor has them and the caller does not give them. They come from the first
    field of the data. ``loc`` and ``scale`` have shape (features,) and the data's units; missing
    values are left out of both, and a constant feature has a scale of 1.

    Args:
        cls: Class of a model or a guide.
        data: Rows in any form that ``fit`` takes.
        arguments: Constructor arguments; they take precedence over the data.

    Raises:
        ValueError: If the constructor has no argument of a given name, or if the data cannot
            give an argument: ``features`` of rows that are not vectors, ``categories`` of numbers
            that are not whole.

    Example:
        >>> from ppl_vae.models.gaussian import GaussianModel
        >>> build(GaussianModel, torch.randn(100, 3) * 5, latents=2).scale.shape
        torch.Size([3])
    """
    if not isinstance(cls, type):
        raise ValueError(f"cls: expected a class of models or guides, got {shown(cls)}")
    parameters = inspect.signature(cls).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in arguments if name not in parameters and not takes_any]
    if unknown:
        raise ValueError(
            f"{cls.__name__}: expected arguments among {list(parameters)}, got {unknown}"
        )
    rows = as_rows(data)
    read_names = [name for name in _READERS if name in parameters and name not in arguments]
    for name in read_names:
        arguments[name] = _READERS[name](rows, cls.__name__)
    made = cls(**arguments)
    if {"loc", "scale"} & set(read_names):  # numbers of single columns: their order matters
        first = rows.names[0]
        remember(made, {name: rows.columns[name] for name in rows.columns if name == first})
    return made


# One function for each argument. All take the rows, and the name of the class for messages.


def _features(rows: Rows, class_name: str) -> int:
    """Return the number of features in a row."""
    return int(_vectors(rows, class_name, "features").array.shape[1])


def _categories(rows: Rows, class_name: str) -> int:
    """Return the largest integer code, over all cells, plus one."""
    values = rows.fields[0].take(torch.arange(len(rows)))
    if values.is_floating_point() and not bool((values == values.round()).all()):
        raise ValueError(
            f"{class_name}: categories: expected integer codes, got {values.dtype} with fractions "
            "or missing values; encode the categories as 0, 1, 2, ..., or give categories= yourself"
        )
    return int(values.max()) + 1


def _loc(rows: Rows, class_name: str) -> Tensor:
    """Return the mean of each feature, (features,)."""
    return _mean_and_sd(_vectors(rows, class_name, "loc"))[0]


def _scale(rows: Rows, class_name: str) -> Tensor:
    """Return the standard deviation of each feature, (features,)."""
    return _mean_and_sd(_vectors(rows, class_name, "scale"))[1]


def _vectors(rows: Rows, class_name: str, argument: str) -> Field:
    """Return the first field of the data, whose rows must be vectors.

    Raises:
        ValueError: If a row has another number of dimensions than one; names the argument that
            was to be read.
    """
    field = rows.fields[0]
    if field.array.ndim != 2:
        raise ValueError(
            f"{class_name}: {argument}: expected data of shape (rows, features) to find it in, "
            f"got {field.name} of shape {tuple(field.array.shape)}; give {argument}= yourself"
        )
    return field


def _mean_and_sd(field: Field) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each feature, (features,) each, without missing cells.

    Two passes in float64 over blocks of rows: the squares of distances from the mean are summed,
    never the squares of the values, which would lose all digits where the mean is far from zero.
    The sums are over the whole data, however large the memory map; only one block is in memory.
    """
    blocks = torch.arange(len(field.array)).split(65536)
    width = field.array.shape[1]
    total, squares, count = (torch.zeros(width, dtype=torch.float64) for _ in range(3))
    for index in blocks:
        values = field.take(index).double().cpu()
        total += values.nansum(0)
        count += (~values.isnan()).sum(0)
    loc = total / count.clamp_min(1)
    for index in blocks:
        squares += ((field.take(index).double().cpu() - loc) ** 2).nansum(0)
    scale = (squares / count.clamp_min(1)).sqrt()
    varies = scale > 1e-12 * loc.abs().clamp_min(1.0)  # by more than rounding
    scale = torch.where(varies, scale, torch.ones_like(scale))
    dtype = torch.get_default_dtype()
    return loc.to(dtype), scale.to(dtype)


_READERS = {
    "features": _features,
    "categories": _categories,
    "rows": lambda rows, class_name: len(rows),
    "loc": _loc,
    "scale": _scale,
}
