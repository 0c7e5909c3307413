"""Sparse matrices of scipy as data: stored sparse, and dense one batch of rows at a time.

A table of counts is mostly zeros: 1,000 cells by 13,714 genes have 6 % other numbers. A pair takes
dense rows, so that the rows of a batch, and no others, are made dense.

scipy is not needed by this library. Whoever passes a sparse matrix has imported it already; reading
one from a file imports it, and says how to install it where it is missing.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ppl_vae.data.conversion import check_numbers

SPARSE_FILE = {"format", "shape", "data"}
"""Arrays that every file of ``scipy.sparse.save_npz`` has; the others depend on the format."""


class SparseMatrix(Protocol):
    """A matrix or an array of ``scipy.sparse``, in any format, (rows, columns)."""

    shape: tuple[int, ...]

    def tocsr(self) -> Any:
        """Return the matrix in the format of compressed rows."""

    def toarray(self) -> Any:
        """Return the matrix as a dense array."""


def is_sparse(values: Any) -> bool:
    """Return whether values are a matrix or an array of ``scipy.sparse``, without importing it."""
    module = sys.modules.get("scipy.sparse")
    return module is not None and bool(module.issparse(values))


class SparseArray:
    """The rows of a sparse matrix, of which an index returns dense ones, as of a memory map.

    Args:
        matrix: A matrix or an array of ``scipy.sparse`` in any format, (rows, columns). Entries
            that stand several times are summed.
        name: The data's name, for messages.

    Attributes:
        shape: (rows, columns).
        ndim: 2.
        itemsize: Bytes of one number of a dense row.

    Raises:
        ValueError: If the matrix has other than two dimensions, or its values are not numbers.

    Example:
        >>> import scipy.sparse
        >>> counts = SparseArray(scipy.sparse.coo_array(([7, 1], ([0, 2], [1, 0]))), "data")
        >>> len(counts), counts[np.array([2, 0])]
        (3, array([[1, 0],
               [0, 7]]))
    """

    def __init__(self, matrix: Any, name: str) -> None:
        if matrix.ndim != 2:
            raise ValueError(
                f"{name}: expected a sparse matrix of shape (rows, columns), got shape "
                f"{matrix.shape}; pass .toarray()"
            )
        self._rows = matrix.tocsr()
        check_numbers(self._rows.data, name)
        if not self._rows.has_canonical_format:  # one that shares its memory stays as it is
            self._rows = self._rows.copy()
            self._rows.sum_duplicates()
        self.shape: tuple[int, int] = self._rows.shape
        self.ndim = 2
        self.itemsize = int(self._rows.dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the rows at some positions, (rows,), as a dense array, (rows, columns)."""
        dense: np.ndarray[Any, Any] = self._rows[positions].toarray()
        return dense


def read_sparse(path: Path) -> Any:
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
