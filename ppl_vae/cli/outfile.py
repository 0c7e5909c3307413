"""Write rows to a file in the format of its extension; an error leaves no partial file."""

import contextlib
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.data.tables import flat_columns
from ppl_vae.safe_text import spreadsheet_text


def write(path: Path, values: Any) -> None:
    """Write rows to a .csv, .tsv, .parquet, .npy or .npz file.

    The rows go into a hidden file in the same folder, which is then renamed.

    Args:
        path: The file; replaced if it exists.
        values: A frame, an array or tensor, or a mapping or tuple of these.

    Raises:
        ValueError: If the format cannot hold the values, or if the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _WRITERS[path.suffix.lower()](beside, values)
        beside.replace(path)
    except ImportError as error:
        raise ValueError(f"{path}: writing Parquet needs pyarrow: pip install pyarrow") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def as_table(values: Any) -> pd.DataFrame:
    """Return rows as a frame whose columns have one name each.

    A frame and the series that were columns of the same table (``--field``) are one table again.

    Raises:
        ValueError: If the rows are several arrays, or arrays of more than two dimensions.
    """
    if isinstance(values, pd.Series):
        values = values.to_frame()
    if isinstance(values, Mapping) and _is_of_one_table(values):
        values = pd.concat(list(values.values()), axis=1)
    if isinstance(values, Mapping | tuple):
        raise ValueError(f"expected a table, got {len(values)} arrays; write an .npz file")
    if np.ndim(values) > 2:
        raise ValueError(f"expected a table, got shape {np.shape(values)}; write an .npy file")
    frame = flat_columns(
        values if isinstance(values, pd.DataFrame) else pd.DataFrame(np.asarray(values))
    )
    if frame.index.name is not None and frame.index.name in frame.columns:
        raise ValueError(
            f'the row labels and a column are both called "{frame.index.name}"; rename the column '
            "of labels in the data"
        )
    return frame


def _is_of_one_table(fields: Mapping[str, Any]) -> bool:
    """Return whether fields are frames and named series, whose columns have different names."""
    frames = [part.to_frame() if isinstance(part, pd.Series) else part for part in fields.values()]
    if not all(isinstance(frame, pd.DataFrame) for frame in frames):
        return False
    names = [str(name) for frame in frames for name in frame.columns]
    return len(set(names)) == len(names)


def describe_rows(values: Any) -> tuple[int, str]:
    """Return the number of rows, and in words the columns or the shape of a row.

    Example:
        >>> describe_rows(np.zeros((3, 28, 28)))
        (3, 'shape (28, 28)')
    """
    if isinstance(values, pd.DataFrame):
        names = [str(name) for name in flat_columns(values).columns]
        more = ", ..." if len(names) > 4 else ""
        return len(values), f"{len(names)} columns: {', '.join(names[:4])}{more}"
    if isinstance(values, pd.Series):
        return len(values), f"column {values.name}"
    if isinstance(values, tuple):
        values = dict(enumerate(values))
    if isinstance(values, Mapping):
        parts = {name: describe_rows(value) for name, value in values.items()}
        count = next(iter(parts.values()))[0]
        return count, "; ".join(f"{name}: {text}" for name, (_, text) in parts.items())
    return len(values), f"shape {tuple(values.shape[1:])}"


def as_json(values: Any) -> dict[str, Any]:
    """Return a dictionary with all values, to be part of a command's JSON object.

    Returns:
        ``{"values": ...}``; for a frame, the dictionary also has ``"columns"`` and ``"index"``.
        Arrays are not converted here: ``CommandOutput.result`` writes them as lists.
    """
    if isinstance(values, Mapping):
        return {"values": {name: np.asarray(value) for name, value in values.items()}}
    if isinstance(values, tuple):
        return {"values": [np.asarray(value) for value in values]}
    if isinstance(values, pd.DataFrame):
        frame = flat_columns(values)
        labels = {"columns": list(frame.columns), "index": list(frame.index)}
        return {**labels, "values": frame.to_numpy()}
    return {"values": np.asarray(values)}


def _csv(path: Path, values: Any, separator: str = ",") -> None:
    """Write a table as text; the row labels stand in the first column, under their name if any.

    Names and texts that a spreadsheet would take for formulas get an apostrophe in front, as
    ``spreadsheet_text`` describes. ``read_data`` takes the apostrophe off names and labels.
    """
    frame = as_table(values)
    has_labels = not isinstance(frame.index, pd.RangeIndex)
    if has_labels:
        frame = frame.set_axis(pd.Index(_texts(frame.index.tolist()), name=frame.index.name))
    for position, dtype in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype):
            texts = _texts(frame.iloc[:, position].tolist())
            frame = frame.assign(**{frame.columns[position]: texts})
    label = spreadsheet_text(str(frame.index.name or ""))
    frame = frame.set_axis(_texts(list(frame.columns)), axis=1)
    frame.to_csv(path, index=has_labels, index_label=label, sep=separator)


def _texts(values: list[Any]) -> list[Any]:
    """Return values with those that are texts as ``spreadsheet_text`` writes them."""
    return [spreadsheet_text(value) if isinstance(value, str) else value for value in values]


def _parquet(path: Path, values: Any) -> None:
    """Write a table with its row labels."""
    as_table(values).to_parquet(path)


def _npy(path: Path, values: Any) -> None:
    """Write one array."""
    if isinstance(values, Mapping | tuple):
        raise ValueError(f"expected one array, got {len(values)}; write an .npz file")
    with path.open("wb") as file:
        np.save(file, np.asarray(values), allow_pickle=False)


def _npz(path: Path, values: Any) -> None:
    """Write several named arrays; names that numpy.savez cannot take as arguments are allowed."""
    if isinstance(values, tuple):
        values = {f"arr_{i}": value for i, value in enumerate(values)}
    elif not isinstance(values, Mapping):
        values = {"data": values}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in values.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


_WRITERS: dict[str, Callable[[Path, Any], None]] = {
    ".csv": _csv,
    ".tsv": lambda path, values: _csv(path, values, "\t"),
    ".parquet": _parquet,
    ".npy": _npy,
    ".npz": _npz,
}
