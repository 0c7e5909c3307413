"""Tables of polars, Arrow and duckdb as frames of pandas, through Arrow's C stream.

Every such table hands its columns over by one method, ``__arrow_c_stream__``, which pyarrow reads:
no library but pyarrow is imported for any of them.

Source: The Arrow PyCapsule interface, arrow.apache.org/docs/format/CDataInterface.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor


def of_pandas(values: Any, name: str) -> Any:
    """Return a table or a column of polars, Arrow or duckdb as one of pandas; others unchanged.

    Args:
        values: Anything. A table becomes a frame, a column a series, their rows counted from 0.
        name: The data's name, for messages.

    Raises:
        ValueError: If a table needs pyarrow, which is not installed; if it cannot be read, or is a
            plan of polars that is still to be computed.

    Example:
        >>> import pyarrow
        >>> of_pandas(pyarrow.table({"a": [1.0, None]}), "data")["a"].tolist()
        [1.0, nan]
        >>> of_pandas([1.0], "data")
        [1.0]
    """
    if isinstance(values, (pd.DataFrame, pd.Series, np.ndarray, Tensor)):
        return values
    is_table = hasattr(values, "__arrow_c_stream__") or hasattr(values, "__arrow_c_array__")
    if not is_table:
        if type(values).__name__ == "LazyFrame":
            raise ValueError(f"{name}: expected a table, got a LazyFrame; use .collect()")
        return values
    kind = f"{type(values).__module__.split('.')[0].lstrip('_')} {type(values).__name__}"
    try:
        arrow: Any = importlib.import_module("pyarrow")  # an extra, without types
    except ImportError as error:
        raise ValueError(f"{name}: reading a {kind} needs pyarrow: pip install pyarrow") from error
    try:
        return _read(arrow, values)
    except Exception as error:
        raise ValueError(
            f"{name}: expected a table that pyarrow can read, got a {kind}: {error}"
        ) from error


def _read(arrow: Any, values: Any) -> Any:
    """Return what pyarrow reads from a table, or from a column, which is no table."""
    try:
        table = arrow.table(values)
    except (TypeError, ValueError):  # ArrowInvalid is a ValueError
        column = values if hasattr(values, "__arrow_c_stream__") else arrow.array(values)
        return arrow.chunked_array(column).to_pandas()
    for position, field in enumerate(table.schema):
        if arrow.types.is_decimal(field.type):  # what a database returns for the number 2.5
            doubles = table[position].cast(arrow.float64())
            table = table.set_column(position, field.name, doubles)
    return table.to_pandas()
