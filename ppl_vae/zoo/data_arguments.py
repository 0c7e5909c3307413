"""Constructor arguments of models and guides as the data say them: one function for each.

A ``Source`` is the field that the arguments of one class are read from.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data.cells import cell_name
from ppl_vae.data.fields import Field
from ppl_vae.data.rows import Rows, evenly_spaced
from ppl_vae.zoo.moments import SeenCells, blocks, mean_and_sd, quartiles


class Source:
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
        self._mean_and_sd: tuple[Tensor, Tensor] | None = None

    @property
    def takes_sequences(self) -> bool:
        """Whether the class is for sequences: it asks for their number of steps, or for lengths."""
        steps = inspect.signature(self.cls).parameters.get("steps")
        return "lengths" in self._reads or (steps is not None and steps.default is steps.empty)

    @property
    def _reads(self) -> list[str]:
        """Names of the fields that the class reads."""
        forward = getattr(self.cls, "forward", None)
        return list(inspect.signature(forward).parameters) if callable(forward) else []

    def mean_and_sd(self, argument: str) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each feature or channel, computed once.

        Args:
            argument: The argument that is to be read, for the message of ``checked_shape``.
        """
        if self._mean_and_sd is None:
            self._mean_and_sd = mean_and_sd(self._there, self.checked_shape(argument))
        return self._mean_and_sd

    def quartiles(self, argument: str) -> Tensor:
        """Return the quartiles of each feature or channel; ``argument`` as in ``mean_and_sd``."""
        return quartiles(self._there, self.checked_shape(argument))

    @property
    def _there(self) -> Field:
        """The field, with NaN in the cells that are not there."""
        fields = dict(zip(self.rows.names, self.rows.fields, strict=True))
        if self.takes_sequences:
            masks = [fields.get(n) if n != self.name else None for n in ("lengths", "seen")]
        else:
            masks = [None, fields.get("seen") if "seen" in self._reads else None]
        return self.field if masks == [None, None] else SeenCells.of_fields(self.field, *masks)

    def checked_shape(self, argument: str) -> tuple[int, ...]:
        """Return the shape of a row: (features,), or (channels, height, width) of an image.

        The shape of a row (steps, features), a sequence, is that of one step: (features,).

        Args:
            argument: The argument that is to be read, for the message.

        Raises:
            ValueError: If the class takes no rows of this shape.
        """
        if self.takes_sequences:
            if len(self.shape) == 2:
                return self.shape[1:]
            raise ValueError(
                f"{self.cls.__name__}: {argument}: expected sequences, data of shape (rows, steps, "
                f"features), got {self.field.name} of shape {tuple(self.field.array.shape)}; one "
                "feature a step is data[:, :, None]"
            )
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


def _features(source: Source) -> int | tuple[int, ...]:
    """Return the number of features in a row, or the shape of an image."""
    shape = source.checked_shape("features")
    return shape[0] if len(shape) == 1 else shape


def _steps(source: Source) -> int:
    """Return the number of steps of a sequence."""
    source.checked_shape("steps")
    return int(source.shape[0])


def _categories(source: Source) -> int | tuple[int, ...]:
    """Return the largest integer code of each column plus one; one number for rows of one code."""
    largest: list[Tensor] = []
    start = 0
    for values in blocks(source.field):
        if values.is_floating_point():
            wrong = ~values.isfinite() | (values != values.round())
            if bool(wrong.any()):
                raise _no_code(source, values, wrong, start)
        largest.append(values.amax(0))
        start += len(values)
    codes = torch.stack(largest).amax(0)
    if codes.dim() != 1:
        return int(codes.max()) + 1
    return tuple(int(code) + 1 for code in codes)


def _no_code(source: Source, values: Tensor, wrong: Tensor, start: int) -> ValueError:
    """Return the error for a cell that is no integer code, with its row and column.

    Args:
        source: The field.
        values: A block of its rows, (rows, ...).
        wrong: Which cells of the block are no codes; one of them at least.
        start: Number of rows before the block.
    """
    row, *place = wrong.nonzero()[0].tolist()
    name = cell_name(place, values.shape[1:], [(values.shape[1:], source.field.labels)])
    value = float(values[(row, *place)])
    got = "NaN" if math.isnan(value) else f"{value:g}"
    return ValueError(
        f"{source.cls.__name__}: categories: expected integer codes, got {got} in row "
        f"{start + row}{name and f', {name}'}; encode the categories as 0, 1, "
        "2, ..., missing values too, or leave the row out"
    )


def _loc(source: Source) -> Tensor:
    """Return the mean of each feature, (features,), or of each channel."""
    return source.mean_and_sd("loc")[0]


def _scale(source: Source) -> Tensor:
    """Return the standard deviation of each feature, (features,), or of each channel."""
    return source.mean_and_sd("scale")[1]


def _center(source: Source) -> Tensor:
    """Return the median of each feature, (features,), or of each channel."""
    return source.quartiles("center")[1]


def _spread(source: Source) -> Tensor:
    """Return a spread of each feature, or of each channel, that outliers do not move.

    It is the interquartile range by 1.349, which is the standard deviation of a normal variable.
    Where the quartiles are equal, it is the standard deviation.
    """
    lower, _, upper = source.quartiles("spread")
    spread = (upper - lower) / 1.349
    return torch.where(spread > 0, spread, source.mean_and_sd("spread")[1])


def _rate(source: Source) -> Tensor:
    """Return the mean of each feature, or of each channel, per unit of the field ``size``.

    This is the maximum likelihood of a Poisson rate: the sum of the counts by the sum of the sizes.
    A feature without counts, whose rate would be 0, is taken to have half a count in all the data.

    Raises:
        ValueError: If a size is not a positive number, if a row has several of them, or if the data
            are a tuple, of which none can be known as the size.
    """
    loc = source.mean_and_sd("rate")[0]
    if source.rows.keys is None and len(source.rows.fields) > 1:
        raise ValueError(
            f"{source.cls.__name__}: rate: expected fields with names, got a tuple of "
            f"{len(source.rows.fields)}, in which no field is known as the size; pass a mapping, "
            '{"x": counts, "size": size}, or give rate= yourself'
        )
    size = torch.ones((), dtype=torch.float64)
    if "size" in source.rows.names:
        field = source.rows.fields[source.rows.names.index("size")]
        if math.prod(field.array.shape[1:]) != 1:
            raise ValueError(
                f"{field.name}: expected one size for each row, shape ({len(source.rows)},), got "
                f"shape {tuple(field.array.shape)}"
            )
        sizes = field.take(torch.arange(len(field.array))).double()
        bad = ~((sizes > 0) & sizes.isfinite()).reshape(len(sizes), -1).all(1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise ValueError(
                f"{field.name}: expected positive numbers, got {sizes[row].flatten()[0]:g} in row "
                f"{row} ({int(bad.sum())} of {len(sizes)} rows); leave these rows out, or give "
                "each row its exposure"
            )
        size = sizes.mean()
    rate = loc.double() / size
    return rate.clamp_min(0.5 / (len(source.rows) * float(size))).to(loc.dtype)


def _columns(source: Source) -> list[dict[str, Any]]:
    """Return the columns of a table as its schema tells them; of other data, columns of numbers."""
    if source.rows.schema is not None:
        return [column.layout() for column in source.rows.schema.modelled]
    loc, scale = source.mean_and_sd("columns")
    names = source.field.columns or range(len(loc))
    return [
        {"name": name, "kind": "real", "loc": float(center), "scale": float(spread),
         "categories": 0, "atoms": []}
        for name, center, spread in zip(names, loc, scale, strict=True)
    ]  # fmt: skip


def _exemplars(source: Source) -> Tensor:
    """Return rows of the data at equal distances, (rows, features); the mean in missing cells.

    They are 500 at most, and hold 100,000 numbers at most, which a recipe can store.
    """
    loc, count = source.mean_and_sd("exemplars")[0], len(source.rows)
    most = min(count, 500, max(1, 100_000 // math.prod(source.shape)))
    rows = source.field.take(evenly_spaced(count, most)).to(loc.dtype)
    return torch.where(rows.isnan(), loc, rows)


def _labels_field(source: Source, argument: str, what: str) -> Tensor:
    """Return the values of the field ``y``, (rows, ...).

    Args:
        source: The data.
        argument: The argument that is to be read, for the message.
        what: What the field holds, in words.

    Raises:
        ValueError: If the data have no field ``y``.
    """
    names = source.rows.names
    if "y" not in names:
        raise ValueError(
            f"{source.cls.__name__}: {argument}: expected a field y with {what}, got "
            f'fields {", ".join(names)}; pass {{"x": rows, "y": labels}}'
        )
    field = source.rows.fields[names.index("y")]
    return field.take(torch.arange(len(field.array)))


def _conditions(source: Source) -> int:
    """Return the number of labels in the field ``y``, the largest plus one, or of covariates.

    Integers are labels, one a row; floats are covariates. One covariate of whole numbers may well
    be a label that was read as floats: a warning says how to make labels of it.

    Raises:
        ValueError: If the data have no field ``y``, if a row has several integers, or if a label is
            negative.
    """
    cls = source.cls.__name__
    values = _labels_field(source, "conditions", "labels or covariates")
    if not values.is_floating_point():
        _refuse_several(values, cls, "conditions")
        return _label_count(values.reshape(len(values)), cls)
    columns = values[0].numel()
    if columns == 1 and bool((values == values.round()).all()):
        warnings.warn(
            f"{cls}: conditions: the field y has whole numbers as floats, which are taken for one "
            "covariate; labels are integers (y.astype(int), y.long()), and conditions=1 says that "
            "it is a covariate",
            stacklevel=3,
        )
    return columns


def _classes(source: Source) -> int:
    """Return the number of labels in the field ``y``, the largest plus one; -1 and NaN are none.

    Raises:
        ValueError: If the data have no field ``y``, if a row has several numbers, if one is no
            whole number, or if no row has a label.
    """
    cls = source.cls.__name__
    values = _labels_field(source, "classes", "labels, and -1 or NaN where a row has none")
    _refuse_several(values, cls, "classes")
    labels = values.reshape(len(values)).double()
    labels = labels[~labels.isnan() & (labels != -1)]
    if not len(labels):
        raise ValueError(
            f"{cls}: classes: expected a label in at least one row of the field y, got -1 or NaN "
            f"in all {len(values)} rows; give some rows their labels, or fit a model of clusters"
        )
    broken = (labels != labels.round()) | labels.isinf()
    if bool(broken.any()):
        number = float(labels[broken][0])
        raise ValueError(
            f"{cls}: classes: expected labels 0, 1, 2, ... in the field y, got {number:g}; number "
            "the labels from 0"
        )
    return _label_count(labels, cls, "classes")


def _refuse_several(values: Tensor, cls: str, argument: str) -> None:
    """Raise ``ValueError`` if rows have several labels.

    Args:
        values: (rows, ...).
        cls: Name of the class to make, for the message.
        argument: The argument that is to be read, likewise.
    """
    if values[0].numel() != 1:
        raise ValueError(
            f"{cls}: {argument}: expected one label a row in the field y, got {values[0].numel()} "
            f"{'numbers' if values.is_floating_point() else 'integers'} a row; "
            + ("pass covariates as floats" if argument == "conditions" else ONE_HOT)
        )


def _label_count(labels: Tensor, cls: str, argument: str = "conditions") -> int:
    """Return the largest of some labels, plus one.

    Args:
        labels: (rows,) whole numbers.
        cls: Name of the class to make, for messages.
        argument: The argument that is to be read, likewise.

    Raises:
        ValueError: If a label is negative.
    """
    bad = labels.double() < 0
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"{cls}: {argument}: expected labels 0, 1, 2, ... in the field y, got "
            f"{int(labels[row])} in row {row} ({int(bad.sum())} of {len(bad)} rows); number the "
            "labels from 0, or leave these rows out"
        )
    count = int(labels.max()) + 1
    if count > max(MOST_LABELS, len(labels)):
        raise ValueError(
            f"{cls}: {argument}: expected labels 0, 1, 2, ... in the field y, got {count - 1} "
            f"among {len(labels)} of them; number them from 0, as pandas.factorize(labels)[0] does"
        )
    return count


ONE_HOT = "of labels as indicators pass the places of the ones, y.argmax(1)"

MOST_LABELS = 1000
"""So many kinds of labels may be among fewer rows; more are taken for numbers of another kind."""

OF_COLUMNS = {
    "loc",
    "scale",
    "center",
    "spread",
    "rate",
    "exemplars",
    "columns",
}  # the order of the columns matters

READERS: dict[str, Callable[[Source], Any]] = {
    "features": _features,
    "columns": _columns,
    "steps": _steps,
    "categories": _categories,
    "rows": lambda source: len(source.rows),
    "loc": _loc,
    "scale": _scale,
    "center": _center,
    "spread": _spread,
    "rate": _rate,
    "exemplars": _exemplars,
    "conditions": _conditions,
    "classes": _classes,
}
