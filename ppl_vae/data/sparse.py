"""Sparse matrices of scipy as data: stored sparse, and dense one batch of rows at a time.

A table of counts is mostly zeros: 1,000 cells by 13,714 genes have 6 % other numbers. A pair takes
dense rows, so that the rows of a batch, and no others, are made dense.

scipy is not needed by this library: whoever passes a sparse matrix has imported it already.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ppl_vae.data.conversion import check_numbers


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
        self._rows = _narrowed(self._rows)
        self.shape: tuple[int, int] = self._rows.shape
        self.ndim = 2
        self.itemsize = int(self._rows.dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the rows at some positions, (rows,), as a dense array, (rows, columns)."""
        dense: np.ndarray[Any, Any] = self._rows[positions].toarray()
        return dense

    def with_columns(self, positions: Sequence[int]) -> SparseArray:
        """Return the columns at some positions, in that order."""
        return SparseArray(self._rows[:, list(positions)], "data")

    def moments(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return mean and standard deviation of each column, (columns,) of float64 each.

        The time grows with the number of entries that are stored. Missing cells are left out.
        """
        columns, values = self._rows.indices, self._rows.data.astype(np.float64)
        columns, values = columns[~np.isnan(values)], values[~np.isnan(values)]
        stored = np.bincount(self._rows.indices, minlength=self.shape[1])
        present = np.bincount(columns, minlength=self.shape[1])
        count = np.maximum(len(self) - stored + present, 1)  # zeros that are not stored count
        mean = np.bincount(columns, values, self.shape[1]) / count
        squares = np.bincount(columns, (values - mean[columns]) ** 2, self.shape[1])
        return mean, np.sqrt((squares + (len(self) - stored) * mean**2) / count)


def _narrowed(matrix: Any) -> Any:
    """Return a matrix of doubles in single precision, where torch's default dtype is that.

    Each batch would be converted otherwise. A matrix stays as it is where a number is too large:
    the error for the batch then names the row.
    """
    if matrix.dtype != np.float64 or torch.get_default_dtype() != torch.float32:
        return matrix
    with np.errstate(over="ignore"):
        narrowed = matrix.astype(np.float32)
    overflows = np.isinf(narrowed.data) & ~np.isinf(matrix.data)
    return matrix if overflows.any() else narrowed
