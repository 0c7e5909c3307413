"""Files of NumPy: one array, several as a mapping, or a sparse matrix of scipy.

A file that cannot be read raises a ``ValueError`` that names the file, and says what its headers
tell. Nothing in a file is ever executed.
"""

from __future__ import annotations

import contextlib
import importlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from ppl_vae.data.selection import FEATURES, ColumnChoice, ColumnChoiceError
from ppl_vae.data.tables import first_line

LARGE = 1 << 30  # bytes; an .npy file from this size on is memory-mapped and read batch by batch

SPARSE_FILE = {"format", "shape", "data"}
"""Arrays that every file of ``scipy.sparse.save_npz`` has; the others depend on the format."""


def read_numpy(path: Path, choice: ColumnChoice) -> Any:
    """Read an array, or several as a mapping; arrays of Python objects are refused."""
    if choice.is_given:
        raise ColumnChoiceError(
            f"{path}: columns=, drop= and index= choose columns of a table by name, got arrays, "
            "whose columns have no names"
        )
    large = path.stat().st_size > LARGE and path.suffix.lower() == ".npy"
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if large else None)
        if isinstance(loaded, np.ndarray):
            return choice.split_arrays({"": loaded}, str(path))[""]
        with loaded:
            is_sparse = set(loaded.files) >= SPARSE_FILE and loaded["format"].dtype.kind in "SU"
            arrays = {} if is_sparse else {name: loaded[name] for name in loaded.files}
        if is_sparse:
            arrays = {FEATURES: _read_sparse(path)}
    except ImportError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # NumPy has errors of many classes for a damaged file
        raise ValueError(f"{path}: {_fault_of_numpy_file(path, error)}") from error
    if not arrays:
        raise ValueError(f"{path}: expected arrays, got none")
    arrays = choice.split_arrays(arrays, str(path))
    single = len(arrays) == 1 and not isinstance(choice.like, Mapping | tuple) and not choice.fields
    return next(iter(arrays.values())) if single else arrays


def _read_sparse(path: Path) -> Any:
    """Return the sparse matrix in a file that ``scipy.sparse.save_npz`` wrote.

    Positions outside the matrix, which compiled code of scipy would write to unchecked, are an
    error.

    Raises:
        ImportError: If scipy is not installed.
        ValueError: If the file is damaged.
    """
    try:
        scipy_sparse = importlib.import_module("scipy.sparse")
    except ImportError as error:
        raise ImportError(
            f"{path}: reading a sparse matrix needs scipy: pip install scipy; or write the dense "
            "array, numpy.save(file, matrix.toarray())"
        ) from error
    matrix = scipy_sparse.load_npz(path)
    if hasattr(matrix, "check_format"):
        matrix.check_format(full_check=True)
    return matrix


def _fault_of_numpy_file(path: Path, error: Exception) -> str:
    """Return what is wrong with a file that NumPy refuses, from the headers of its arrays.

    A header has the dtype of an array and is read without the array, so nothing is executed.
    """
    is_archive = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        is_array = file.read(len(npy_format.MAGIC_PREFIX)) == npy_format.MAGIC_PREFIX
    if not is_archive and not is_array:
        return "not a NumPy file; write it with numpy.save or numpy.savez"
    with contextlib.suppress(Exception):  # a damaged header has no dtype
        if any(dtype.hasobject for dtype in _dtypes_in_headers(path, is_archive)):
            return "holds Python objects, which are never loaded; save arrays of numbers"
    return f"not a NumPy file, or damaged ({first_line(error)})"


def _dtypes_in_headers(path: Path, is_archive: bool) -> Iterator[np.dtype[Any]]:
    """Yield the dtype of the array in an ``.npy`` file, or of each array in an ``.npz`` file."""
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    yield _dtype_in_header(member)
    else:
        with path.open("rb") as file:
            yield _dtype_in_header(file)


def _dtype_in_header(file: IO[bytes]) -> np.dtype[Any]:
    """Return the dtype that the header of an array names."""
    first_version = npy_format.read_magic(file) == (1, 0)
    read = npy_format.read_array_header_1_0 if first_version else npy_format.read_array_header_2_0
    return np.dtype(read(file)[2])
