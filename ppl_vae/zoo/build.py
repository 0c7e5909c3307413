"""``build``: make a model or a guide whose sizes and scales come from the data.

    features     number of features in a row          (), or (channels, height, width) of an image
    categories   largest code of each column plus 1   (), or one number a column
    rows         number of rows                       ()
    loc, scale   mean and standard deviation          (features,) each, data's units
    rate         mean per unit of the field "size"    (features,), the data's unit by that of size

An argument of one of these names is found in the first field of the data. An image has one ``loc``,
``scale`` and ``rate`` for each channel, (channels, 1, 1).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
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

    The arguments ``features``, ``categories``, ``rows``, ``loc``, ``scale`` and ``rate`` are
    filled in where the constructor has them and the caller does not give them. They come from the
    field ``x`` of a mapping, else from the first field. ``loc``, ``scale`` and ``rate`` have shape
    (features,); missing values are left out of them, and a constant feature has a scale of 1. Rows
    that are images have ``features=(channels, height, width)``, where the constructor's annotation
    of ``features`` allows a sequence, and ``loc``, ``scale`` and ``rate`` of shape
    (channels, 1, 1).

    Args:
        cls: Class of a model or a guide.
        data: Rows in any form that ``fit`` takes.
        arguments: Constructor arguments; they take precedence over the data.

    Raises:
        ValueError: If the constructor has no argument of a given name, or if the data cannot
            give an argument: ``features`` of images for a class that takes vectors, ``categories``
            of numbers that are not whole.

    Example:
        >>> from ppl_vae.models.gaussian import GaussianModel
        >>> build(GaussianModel, torch.randn(100, 3) * 5, latents=2).scale.shape
        torch.Size([3])
        >>> build(GaussianModel, torch.rand(100, 1, 28, 28)).features
        (1, 28, 28)
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
    source = _Source(rows, cls)
    read_names = [name for name in _READERS if name in parameters and name not in arguments]
    for name in read_names:
        arguments[name] = _READERS[name](source)
    made = cls(**arguments)
    if {"loc", "scale", "rate"} & set(read_names):  # numbers of single columns: order matters
        name = source.name
        remember(made, {name: rows.columns[name]} if name in rows.columns else {})
    return made


class _Source:
    """The field of the data that constructor arguments are read from.

    Args:
        rows: The data.
        cls: The class to make, for messages and for the annotation of its ``features``.
    """

    def __init__(self, rows: Rows, cls: type[Any]) -> None:
        self.rows, self.cls = rows, cls
        self.name = "x" if "x" in rows.names else rows.names[0]
        self.field = rows.fields[rows.names.index(self.name)]
        self.shape = tuple(self.field.array.shape[1:])

    def checked_shape(self, argument: str) -> tuple[int, ...]:
        """Return the shape of a row: (features,), or (channels, height, width) of an image.

        Args:
            argument: The argument that is to be read, for the message.

        Raises:
            ValueError: If a row is neither, or if the class takes vectors and a row is an image.
        """
        features = inspect.signature(self.cls).parameters.get("features")
        takes_images = features is not None and "Sequence" in str(features.annotation)
        if len(self.shape) == 1 or (len(self.shape) == 3 and takes_images):
            return self.shape
        expected = "(rows, features)"
        mend = (
            f"give {argument}= yourself, or pass each row as a vector: data.reshape(len(data), -1)"
        )
        if takes_images:
            expected += " or (rows, channels, height, width)"
            mend += "; gray images need a channel: data[:, None]"
        raise ValueError(
            f"{self.cls.__name__}: {argument}: expected data of shape {expected} to find it in, "
            f"got {self.field.name} of shape {tuple(self.field.array.shape)}; {mend}"
        )


# One function for each argument.


def _features(source: _Source) -> int | tuple[int, ...]:
    """Return the number of features in a row, or the shape of an image."""
    shape = source.checked_shape("features")
    return shape[0] if len(shape) == 1 else shape


def _categories(source: _Source) -> int | tuple[int, ...]:
    """Return the largest integer code of each column plus one; one number for rows of one code."""
    values = source.field.take(torch.arange(len(source.rows)))
    if values.is_floating_point() and not bool((values == values.round()).all()):
        raise ValueError(
            f"{source.cls.__name__}: categories: expected integer codes, got {values.dtype} with "
            "fractions or missing values; encode the categories as 0, 1, 2, ..., or give "
            "categories= yourself"
        )
    if values.dim() != 2:
        return int(values.max()) + 1
    return tuple(int(code) + 1 for code in values.amax(0))


def _loc(source: _Source) -> Tensor:
    """Return the mean of each feature, (features,), or of each channel."""
    return _mean_and_sd(source.field, source.checked_shape("loc"))[0]


def _scale(source: _Source) -> Tensor:
    """Return the standard deviation of each feature, (features,), or of each channel."""
    return _mean_and_sd(source.field, source.checked_shape("scale"))[1]


def _rate(source: _Source) -> Tensor:
    """Return the mean of each feature, or of each channel, per unit of the field ``size``.

    This is the maximum likelihood of a Poisson rate: the sum of the counts by the sum of the sizes.
    A feature that is 0 in every row counts as half a unit in one row: with a rate of 0 it could
    not be above 0 in any other row either.
    """
    loc = _mean_and_sd(source.field, source.checked_shape("rate"))[0]
    loc = torch.where(loc == 0, 0.5 / len(source.rows), loc)
    if "size" not in source.rows.names:
        return loc
    size = source.rows.fields[source.rows.names.index("size")]
    return loc / size.take(torch.arange(len(source.rows))).double().mean().to(loc.dtype)


def _mean_and_sd(field: Field, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each feature or channel, without missing cells.

    Two passes in float64 over blocks of rows: the squares of distances from the mean are summed,
    never the squares of the values, which would lose all digits where the mean is far from zero.
    The sums are over the whole data, however large the memory map; only one block is in memory.

    Args:
        field: The field of the data.
        shape: Shape of a row, (features,) or (channels, height, width).

    Returns:
        (features,) each, or (channels, 1, 1) each.
    """
    blocks = torch.arange(len(field.array)).split(max(1, (1 << 26) // max(1, math.prod(shape))))
    total, squares, count = (torch.zeros(shape[0], dtype=torch.float64) for _ in range(3))
    for index in blocks:
        values = field.take(index).double().cpu().transpose(0, 1).flatten(1)  # (features, cells)
        total += values.nansum(1)
        count += (~values.isnan()).sum(1)
    loc = total / count.clamp_min(1)
    for index in blocks:
        values = field.take(index).double().cpu().transpose(0, 1).flatten(1)
        squares += ((values - loc[:, None]) ** 2).nansum(1)
    scale = (squares / count.clamp_min(1)).sqrt()
    varies = scale > 1e-12 * loc.abs().clamp_min(1.0)  # by more than rounding
    scale = torch.where(varies, scale, torch.ones_like(scale))
    dtype, each = torch.get_default_dtype(), (shape[0], *(1 for _ in shape[1:]))
    return loc.to(dtype).reshape(each), scale.to(dtype).reshape(each)


_READERS: dict[str, Callable[[_Source], Any]] = {
    "features": _features,
    "categories": _categories,
    "rows": lambda source: len(source.rows),
    "loc": _loc,
    "scale": _scale,
    "rate": _rate,
}
