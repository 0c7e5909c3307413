"""Data files in the forms that the functions of this library take.

    .csv .tsv          frame; the first line names the columns, a first column without a name
                       labels rows
    .csv.gz .tsv.gz    the same, packed by gzip
    .parquet           frame
    .npy               array, rows first
    .npz               one array, or several as a mapping of fields, or a sparse matrix of scipy
    a folder           of Parquet files: a table that is read row group by row group

A table whose lines are the steps of sequences, and a Parquet file whose cells hold lists, become
fields as ``sequences`` gives them.

Nothing in a file is ever executed. The error for a file that cannot be read says where the fault
is: the line, the column or the array.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import check_arguments, shown
from ppl_vae.data.columns import NamedFields
from ppl_vae.data.mixed_tables import Table, by_schema
from ppl_vae.data.numpy_files import read_numpy
from ppl_vae.data.parquet import list_columns, read_parquet
from ppl_vae.data.selection import FEATURES, ColumnChoice, ColumnChoiceError, missing_names
from ppl_vae.data.tables import read_csv

if TYPE_CHECKING:  # the command reads files without loading torch
    from ppl_vae.data.fields import Array
    from ppl_vae.data.rows import Data


def read_data(
    path: str | Path,
    like: Data | None = None,
    *,
    columns: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    index: str | None = None,
    fields: Mapping[str, str] | None = None,
    step: str | None = None,
) -> Array | tuple[Array, ...] | dict[str, Array]:
    """Read a data file, or open a folder of Parquet files.

    Args:
        path: A ``.csv``, ``.tsv``, ``.parquet``, ``.npy`` or ``.npz`` file; ``.csv.gz`` and
            ``.tsv.gz`` are unpacked as they are read. Or a folder of Parquet files, which may be
            larger than memory: its rows are read as they are needed, and nothing but labels and
            the names, types and sizes of columns is read now.
        like: Rows in the form that the result must have. Of a table, the columns are selected by
            name and put into this order; other columns may hold anything.
        columns: The columns of a table to read, in this order, by default all; other columns may
            hold anything.
        drop: Columns of a table to leave out.
        index: The column of a table that holds the labels of the rows, numbers or text. It is no
            feature: it becomes the frame's index, and results for each row have the same index.
        fields: Columns of a table, or arrays of an ``.npz`` file, that are fields of their own, by
            the field's name: ``{"size": "library"}``. The other columns become the field ``x``. A
            name with the ending of a data file is another file, with one column or array of as many
            rows: ``{"size": "sizes.npy"}``, for a file such as that of a sparse matrix, which has
            no place for more.
        step: The column of a table that numbers the steps of sequences: each line is a step, and
            ``index`` says of which sequence.

    Returns:
        A frame of numeric columns, an array, a sparse matrix of scipy, or a mapping of these and
        of series; N rows each. Missing cells are NaN, and a ``UserWarning`` counts them. Sequences
        as ``sequences`` gives them, where there is a ``step`` or columns hold lists. For a folder,
        a ``StoredTable`` in place of a frame, which every function of the library takes.

    Raises:
        ValueError: If the file is missing or damaged, holds text, lacks a column, or has not the
            form of ``like``. Every column that holds text is counted, and the first five are named.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "rows.csv")
        >>> people = {"name": ["Ann", "Bo"], "height": [1.8, 1.6], "weight": [70, 50]}
        >>> pd.DataFrame(people).to_csv(file, index=False)
        >>> read_data(file, drop="name").shape
        (2, 2)
        >>> read_data(file, columns=["weight"], index="name").index.tolist()
        ['Ann', 'Bo']
        >>> read_data(file, drop="name", fields={"size": "weight"})["size"].tolist()
        [70, 50]
        >>> log = {"id": ["b", "b", "a"], "t": [1, 2, 1], "speed": [0.5, 1.5, 2.5]}
        >>> pd.DataFrame(log).to_csv(file, index=False)
        >>> read_data(file, index="id", step="t")["lengths"].to_dict()
        {'b': 2, 'a': 1}
    """
    check_arguments(path=path)
    if step is not None and Path(path).is_dir():
        raise ColumnChoiceError(
            f"step: expected a file of sequences, got the folder {path}; a folder holds rows, so "
            "write its files into one, or read them one by one and join the frames"
        )
    if step is not None or list_columns(Path(path)):
        if fields:
            raise ColumnChoiceError(f"fields: expected none beside sequences, got {shown(fields)}")
        frame = read_steps(path, columns=columns, drop=drop, index=index, step=step)
        found = sequences_in(frame, index=index, step=step)
        return found if like is None else in_form_of(found, like, str(path))
    files = files_of_fields(fields)
    if files:
        names = {"columns": columns, "drop": drop, "index": index}
        return _with_files(Path(path), like, files, fields or {}, **names)
    choice = ColumnChoice.of(columns, drop, index, fields, like)
    path = Path(path)
    data = _read_file(path, choice)
    if isinstance(data, pd.DataFrame) or path.is_dir():
        data = choice.split(data)
    check_rows(data, path)
    result: Array | tuple[Array, ...] | dict[str, Array] = (
        data if like is None else in_form_of(data, like, str(path))
    )
    return result


def _read_file(path: Path, choice: ColumnChoice) -> Any:
    """Return what a file holds; errors as ``read_data``."""
    check_exists(path, or_folder=True)
    if path.is_dir():
        from ppl_vae.data.stored import read_folder  # noqa: PLC0415  loads torch

        return read_folder(path, choice)
    ending = ending_of(path)
    if ending not in _READERS:
        got = path.suffix or "no extension"
        raise ValueError(f"{path}: expected one of {', '.join(_READERS)}, got {got}")
    try:
        return _READERS[ending](path, choice)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_frame(
    path: str | Path,
    *,
    columns: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    index: str | None = None,
) -> pd.DataFrame:
    """Return the table in a file with columns of any kind, texts and dates as well.

    Arguments and errors are those of ``read_data``; ``ppl_vae.table`` makes data of the frame.
    """
    choice = ColumnChoice.of(columns, drop, index, None, None, mixed=True)
    frame = _read_file(Path(path), choice)
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(
            f"{path}: expected a table in one file, .csv, .tsv or .parquet, got another form"
        )
    return frame


def read_steps(
    path: str | Path, *, columns: Any = None, drop: Any = None, index: Any = None, step: Any = None
) -> pd.DataFrame:
    """Return the frame in a file of sequences; arguments and errors as ``read_data``.

    Returns:
        The features, and the column ``step`` where there is one; the index has the labels of the
        sequences, each as often as it has lines.
    """
    choice = ColumnChoice.of(columns, drop, index, None, None)
    names = choice.columns
    if step is not None:
        if not isinstance(step, str) or step in (*(names or ()), *choice.drop, index):
            raise ColumnChoiceError(
                f"step: expected a column that no other argument names, got {shown(step)}"
            )
        if index is None and not list_columns(Path(path)):
            raise ColumnChoiceError(
                f"step: expected a column beside index, the column of {path} that says which "
                f"sequence a line belongs to, got {shown(step)} and index=None"
            )
        names = None if names is None else (*names, step)
    choice = ColumnChoice(names, choice.drop, index, repeats=step is not None)
    frame = _read_file(Path(path), choice)
    if not isinstance(frame, pd.DataFrame):
        raise ColumnChoiceError(
            f"step: expected {path} to be a table, got arrays; an .npz file of sequences holds the "
            "arrays x, lengths and seen"
        )
    if step is not None and (missing := missing_names([step], frame.columns)):
        raise ColumnChoiceError(f"step: expected a column of {path}, got {missing}")
    return frame


def sequences_in(frame: pd.DataFrame, *, index: str | None, step: str | None) -> dict[str, Any]:
    """Return the sequences in a frame that ``read_steps`` gives."""
    from ppl_vae.data.sequences import sequences  # noqa: PLC0415  loads torch

    return sequences(frame, id=index, step=step)


def files_of_fields(fields: Any) -> dict[str, Path]:
    """Return the files among what fields are read from, by the field's name."""
    named = fields.items() if isinstance(fields, Mapping) else ()
    paths = {key: Path(name) for key, name in named if isinstance(name, str)}
    return {key: path for key, path in paths.items() if ending_of(path) in _READERS}


def _with_files(
    path: Path, like: Any, files: dict[str, Path], fields: Mapping[str, str], **names: Any
) -> dict[str, Array]:
    """Return the rows of a data file, with fields from files of their own.

    Args:
        path: The data file.
        like: Rows in the form of the result, with these fields, or ``None``.
        files: The file of each of these fields.
        fields: What all fields are read from, these ones as well.
        names: The arguments ``columns``, ``drop`` and ``index`` of ``read_data``.

    Raises:
        ValueError: If a file cannot be read, does not hold one column or array, or has another
            number of rows than the data file.
    """
    others = {key: name for key, name in fields.items() if key not in files}
    like_of: Mapping[str, Any] = like if isinstance(like, Mapping) else {}
    rest, key = like, FEATURES
    if like_of:
        rest = {key: part for key, part in like_of.items() if key not in files}
        if len(rest) == 1 and not others:
            ((key, rest),) = rest.items()
    data: Any = read_data(path, rest, fields=others, **names)
    data = dict(data) if isinstance(data, Mapping) else {key: data}
    for key, file in files.items():
        values = np.asarray(_one_array(file))
        data[key] = values if key not in like_of else in_form_of(values, like_of[key], str(file))
    check_rows(data, path)
    return {key: data[key] for key in {**like_of, **data}}


def _one_array(file: Path) -> Any:
    """Return the one column or array in a file, (rows,) of a column."""
    values: Any = read_data(file)
    if isinstance(values, pd.DataFrame) and len(values.columns) == 1:
        return values.iloc[:, 0]
    if isinstance(values, np.ndarray):
        return values
    got = list(values) if isinstance(values, Mapping | pd.DataFrame) else "a sparse matrix"
    raise ValueError(f"{file}: expected one column or array for a field, got {shown(got)}")


def is_readable(path: Path) -> bool:
    """Return whether the ending of a file's name is one that ``read_data`` knows."""
    return ending_of(path) in _READERS


def ending_of(path: Path) -> str:
    """Return the ending of a file's name that says how to read it, such as ``.csv.gz``."""
    count = 2 if path.suffix.lower() == ".gz" else 1
    return "".join(path.suffixes[-count:]).lower()


def check_exists(path: Path, *, or_folder: bool = False) -> None:
    """Raise ``ValueError`` where there is no such file, with files of close names as a hint.

    Args:
        path: The file.
        or_folder: Whether it may be a folder.
    """
    if path.is_file() or (or_folder and path.is_dir()):
        return
    if path.is_dir():
        raise ValueError(f"{path}: expected a file, got a folder")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no such file; there is no folder {path.parent}")
    others = [other.name for other in path.parent.iterdir() if other.is_file()]
    near = difflib.get_close_matches(path.name, others, n=3, cutoff=0.5)
    near = near or [name for name in sorted(others) if ending_of(Path(name)) in _READERS][:5]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"{path}: no such file{hint}")


def check_rows(data: Any, path: Path) -> None:
    """Raise ``ValueError`` where arrays are not numbers, have no rows, or differ in length."""
    named = data.items() if isinstance(data, Mapping) else [("", data)]
    lengths = {}
    for name, array in named:
        where = f'{path}: array "{name}"' if name else str(path)
        if isinstance(array, np.ndarray) and array.dtype.kind not in "biuf":
            raise ValueError(f"{where}: expected numbers, got dtype {array.dtype}")
        if np.ndim(array) == 0:
            raise ValueError(f"{where}: expected rows along the first dimension, got one number")
        lengths[name] = array.shape[0]  # a sparse matrix has no len
        if lengths[name] == 0:
            raise ValueError(f"{where}: expected at least one row, got none")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: expected arrays of one length, got {lengths}")


# The form of a run's data


def in_form_of(data: Any, like: Any, where: str) -> Any:
    """Return what was read in the form of ``like``: a tuple, a mapping, a frame or an array.

    Args:
        data: The file's content.
        like: Rows of the wanted form.
        where: The file, or the place in the file, for messages.

    Raises:
        ValueError: If fields are missing, or rows have another shape.
    """
    if isinstance(like, Table):
        if not isinstance(data, pd.DataFrame):
            raise ValueError(f"{where}: expected a table whose columns have names, got arrays")
        return by_schema(data, like.schema, where)
    if isinstance(like, tuple):
        _check_field_count(data, len(like), where)
        fields = zip(data.items(), like, strict=True)
        return tuple(in_form_of(field, part, f'{where}["{key}"]') for (key, field), part in fields)
    if isinstance(like, Mapping):
        _check_field_count(data, len(like), where)
        if missing := missing_names(like, data):
            raise ValueError(
                f"{where}: expected the run's arrays, got {missing}; fields= says which one it is"
            )
        found = {
            key: in_form_of(data[key], _with_steps_of(data, like, key), f'{where}["{key}"]')
            for key in like
        }
        return NamedFields(found, data.columns) if isinstance(data, NamedFields) else found
    if isinstance(data, Mapping):
        raise ValueError(f"{where}: expected one table or array, got arrays {list(data)}")
    if isinstance(like, pd.DataFrame) and isinstance(data, pd.DataFrame):
        return data.set_axis(like.columns, axis=1)  # the reader has selected them by name
    try:
        expected = tuple(like.shape[1:])
    except (AttributeError, TypeError, RuntimeError):
        raise ValueError(f"like: expected rows of data, got {shown(like)}") from None
    got = tuple(data.shape[1:])
    if expected != got:
        raise ValueError(f"{where}: expected rows of shape {expected}, got {got}")
    return data


def _with_steps_of(data: Mapping[str, Any], like: Mapping[str, Any], key: str) -> Any:
    """Return a field of ``like``; of sequences, padded to as many steps as the data are.

    Args:
        data: The file's content.
        like: Rows of the wanted form.
        key: Name of the field.
    """
    part: Any = like[key]
    x: Any = like.get(FEATURES)
    if "lengths" not in like or np.ndim(x) != 3 or np.ndim(part) < 2:
        return part
    if part.shape[1] != x.shape[1] or np.ndim(data[key]) != np.ndim(part):
        return part
    return np.zeros((len(part), data[key].shape[1], *part.shape[2:]))


def _check_field_count(data: Any, count: int, where: str) -> None:
    """Raise ``ValueError`` where a file has fewer arrays than the wanted form has fields."""
    present = len(data) if isinstance(data, Mapping) else 1
    if present < count:
        raise ValueError(
            f"{where}: expected an .npz file of {count} arrays, got {present}; fields= names the "
            "file of a field that has one of its own"
        )


_READERS: dict[str, Callable[[Path, ColumnChoice], Any]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".npy": read_numpy,
    ".npz": read_numpy,
    ".csv.gz": read_csv,
    ".tsv.gz": read_csv,
}
