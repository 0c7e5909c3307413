"""AnnData objects as data: a matrix of cells by genes, with columns of numbers for each cell.

    x        X or a layer, (cells, genes), dense or sparse; its columns have the names of the genes
    fields   columns of ``obs``, (cells,), one number a cell

The rows of every table that the library returns have the names of the cells, so that results go
back into the object: ``cells.obsm["z"] = encode(...)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import names_in, shown
from ppl_vae.data.columns import NamedFields
from ppl_vae.data.selection import FEATURES, missing_names


def from_anndata(
    cells: Any,
    *,
    layer: str | None = None,
    fields: str | Sequence[str] | Mapping[str, str] | None = None,
) -> NamedFields:
    """Return an AnnData object as data that every function takes.

    Args:
        cells: An ``anndata.AnnData``, or a view of one, in memory.
        layer: The layer to read; ``None`` for ``X``.
        fields: Columns of ``obs`` that are fields of their own, one number a cell: names, or names
            by the field's name, ``{"size": "total_counts"}``.

    Returns:
        The field ``x`` and the others. Genes are found by their names in later data, and the index
        of every result has the names of the cells.

    Raises:
        ValueError: If the object is none of AnnData, or is backed by its file; if it has no such
            layer or column, or a column holds text or categories.

    Example:
        >>> import anndata
        >>> obs = pd.DataFrame({"total": [3.0, 1.0]}, index=["c1", "c2"])
        >>> var = pd.DataFrame(index=["g1", "g2", "g3"])
        >>> cells = anndata.AnnData(np.ones((2, 3), "float32"), obs=obs, var=var)
        >>> data = from_anndata(cells, fields={"size": "total"})
        >>> data["x"].shape, data["size"].to_dict(), data.names_of("x")
        ((2, 3), {'c1': 3.0, 'c2': 1.0}, ['g1', 'g2', 'g3'])
    """
    if not is_anndata(cells):
        raise ValueError(f"cells: expected an AnnData object, got {shown(cells)}")
    if cells.isbacked:
        raise ValueError(
            "cells: expected an AnnData object in memory, got one backed by its file; call "
            "cells.to_memory(), of a part of the cells where all are too large"
        )
    sources = _sources(fields)
    if layer is not None and not isinstance(layer, str):
        raise ValueError(f"layer: expected the name of a layer, got {shown(layer)}")
    if layer is not None and (missing := missing_names([layer], cells.layers)):
        raise ValueError(f"layer: expected a layer of the object, got {missing}")
    if missing := missing_names(sources.values(), cells.obs.columns):
        raise ValueError(f"fields: expected columns of obs, got {missing}")
    matrix = cells.X if layer is None else cells.layers[layer]
    if matrix is None:
        layers = ", ".join(cells.layers) or "none"
        raise ValueError(f"cells: expected a matrix X, got none; layer= names one of {layers}")
    if not isinstance(matrix, np.ndarray) and hasattr(matrix, "tocsr"):
        matrix = matrix.tocsr()
    found = {FEATURES: matrix, **{key: _column(cells.obs[name]) for key, name in sources.items()}}
    return NamedFields(found, {FEATURES: list(cells.var_names)}, cells.obs_names)


def is_anndata(values: Any) -> bool:
    """Return whether values are an AnnData object, without importing the package."""
    return type(values).__name__ == "AnnData" and type(values).__module__.startswith("anndata")


def _sources(fields: Any) -> dict[str, str]:
    """Return the column of each field, by the field's name.

    Raises:
        ValueError: If the argument holds no names, or a field would have the name of the matrix.
    """
    if not isinstance(fields, Mapping):
        names = [] if fields is None else names_in("fields", fields)
        pairs = [(name, name) for name in names]
    else:
        pairs = list(fields.items())
    for key, name in pairs:
        if not isinstance(key, str) or not isinstance(name, str) or key == FEATURES:
            raise ValueError(
                f'fields: expected names of columns, by fields other than "{FEATURES}", got '
                f"{shown(fields)}"
            )
    return dict(pairs)


def _column(values: pd.Series) -> pd.Series:
    """Return a column of ``obs``.

    Raises:
        ValueError: If it holds text or categories.
    """
    if not pd.api.types.is_numeric_dtype(values):
        raise ValueError(
            f'fields: expected numbers in the column "{values.name}" of obs, got {values.dtype}; '
            "number the categories 0, 1, 2, ... in the same way in all data, as in "
            'cells.obs["batch_code"] = cells.obs["batch"].map({"first": 0, "second": 1})'
        )
    return values
