"""``build``: make a model or a guide whose sizes and scales come from the data.

    features     number of features in a row          (), or (channels, height, width) of an image
    steps        number of steps of a sequence        ()
    categories   largest code of each column plus 1   (), or one number a column
    rows         number of rows                       ()
    loc, scale   mean and standard deviation          (features,) each, data's units
    center       median                               (features,), data's units
    spread       interquartile range by 1.349         (features,), data's units: the sd of a normal
    rate         mean per unit of the field "size"    (features,), the data's unit by that of size
    exemplars    rows at equal distances, 500 at most (rows, features), data's units
    conditions   number of labels, or of covariates   (), from the field "y"
    classes      number of labels; -1, NaN are none   (), from the field "y"

Where nothing else is said, an argument is found in the field "x", else in the first field. An image
has one ``loc``, ``scale``, ``center``, ``spread`` and ``rate`` for each channel, (channels, 1, 1).
A class that asks for ``steps``, without a default, or whose ``forward`` reads ``lengths``, takes
sequences, rows of shape (steps, features), whose steps share what a feature has. Steps after the
end of a sequence, and cells that the field ``seen`` says are missing, are left out.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from ppl_vae.arguments import shown
from ppl_vae.data.columns import TableColumns, remember
from ppl_vae.data.rows import Data, as_rows
from ppl_vae.zoo.data_arguments import OF_COLUMNS, READERS, Source

T = TypeVar("T")


def build(cls: type[T], data: Data, **arguments: Any) -> T:
    """Return ``cls(...)`` with constructor arguments that are read from the data.

    The arguments ``features``, ``steps``, ``categories``, ``rows``, ``loc``, ``scale``, ``center``,
    ``spread``, ``rate``, ``exemplars``, ``conditions`` and ``classes`` are filled in where the
    constructor has them and the caller does not give them. They come from the field ``x`` of a
    mapping, else from the first field; ``conditions`` from the field ``y``: the number of labels
    where it holds integers, of covariates where it holds floats; ``classes`` from the labels there,
    among which -1 and NaN stand for none. ``loc``, ``scale`` and ``rate`` have shape (features,);
    missing values are left out of them, a constant feature has a scale of 1, and a feature without
    counts has the rate of half a count in all the data. Rows that are images have
    ``features=(channels, height, width)``, where the constructor's annotation of ``features``
    allows a sequence, and ``loc``, ``scale`` and ``rate`` of shape (channels, 1, 1). Rows of shape
    (steps, features) are for classes of sequences, which ask for ``steps`` or read the field
    ``lengths``.

    Args:
        cls: Class of a model or a guide.
        data: Rows in any form that ``fit`` takes.
        arguments: Constructor arguments; they take precedence over the data.

    Raises:
        ValueError: If the constructor has no argument of a given name, or an argument without a
            value, such as the partner of a half that needs one, or if the data cannot give an
            argument: ``features`` of images for a class that takes vectors, ``categories`` of
            numbers that are not whole, ``classes`` where no row has a label, ``rate`` where a size
            is not positive, is not one number a row, or is a field without a name.

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
    rows = as_rows(data).alone()  # what is read of a field is read of all its rows
    source = Source(rows, cls)
    read_names = [name for name in READERS if name in parameters and name not in arguments]
    if not source.takes_sequences and "steps" in read_names:
        read_names.remove("steps")  # it has a default: the steps of something else
    without = "y" not in rows.names and "conditions" in read_names
    if without and parameters["conditions"].default == 0:
        read_names.remove("conditions")  # a class that does without covariates
    for name in read_names:
        arguments[name] = READERS[name](source)
    missing = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind in _BY_NAME and name not in arguments
    ]
    if missing:
        raise ValueError(_without_value(cls, missing[0]))
    made = cls(**arguments)
    if not OF_COLUMNS.isdisjoint(read_names):
        name, columns = source.name, rows.columns
        named = {name: columns[name]} if name in columns else {}
        remember(made, TableColumns(named, rows.schema))
    return made


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _without_value(cls: type[Any], name: str) -> str:
    """Return the message that an argument of a constructor has no value."""
    what = f", the {name} that it is fitted with" if name in ("model", "guide") else ""
    return (
        f"{cls.__name__}: {name}: expected a value, got none: the data do not say it; "
        f"pass build({cls.__name__}, data, {name}=...){what}"
    )
