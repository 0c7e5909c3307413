"""The rule on rows that files hold in an order, and that training mixes some row groups at a time.

    spread of a pool's mean  =  sqrt(variance of the row groups' means / row groups in a pool)

An epoch of a table that is larger than memory takes the row groups in a random order, and mixes the
rows of one pool of them. Where the files are sorted by a column, or rows of one time or place stand
together, the rows of a pool are alike: each stretch of an epoch trains on other data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ppl_vae.data.stored import StoredTable
from ppl_vae.linting.inspection import Finding, Inspection, warning

LARGEST_SPREAD = 0.1
"""Spread of a pool's mean, in standard deviations of the column, that is worth a warning. The mean
of a batch of 100 random rows spreads as much."""


def rows_in_an_order(inspection: Inspection) -> Iterator[Finding]:
    """Find stored tables whose row groups differ so much that pools of them do as well.

    The moments of the row groups are those that reading all rows has left.

    Args:
        inspection: The pair and its data, all rows of which have been read.
    """
    for field in inspection.rows.fields:
        table = field.array
        mixed = table.groups_mixed if isinstance(table, StoredTable) else None
        if not isinstance(table, StoredTable) or mixed is None or len(table.moments) < 2:
            continue
        spread = _spread_of_means(table) / np.sqrt(mixed)
        column = int(spread.argmax())
        if spread[column] <= LARGEST_SPREAD:
            continue
        more = int((spread > LARGEST_SPREAD).sum()) - 1
        yield warning(
            f'{field.name}: column "{table.columns[column]}"',
            f"expected rows in no order, as training mixes {mixed} of {len(table.moments)} row "
            f"groups at a time, got groups whose means differ: the mean of so many spreads by "
            f"{spread[column]:.2f} standard deviations of the column"
            + (f" ({more} more columns are like it)" if more else ""),
            "write the rows in a random order once: ppl-vae shuffle DATA --out FOLDER",
        )


def _spread_of_means(table: StoredTable) -> np.ndarray[Any, Any]:
    """Return the standard deviation of the row groups' means, in those of the columns, (columns,).

    What the means of random rows may spread by is taken off: their variance, and four standard
    errors of a variance from so many means.
    """
    groups = list(table.moments.values())
    rows = np.array([group.rows for group in groups], dtype=np.float64)[:, None]
    means = np.stack([group.mean for group in groups])
    within = np.stack([group.variance for group in groups])
    mean = (rows * means).sum(0) / rows.sum()
    between = (rows * (means - mean) ** 2).sum(0) / rows.sum()
    whole = between + (rows * within).sum(0) / rows.sum()
    free = len(groups) - 1
    by_chance = whole * free / rows.sum() * (1 + 4 * np.sqrt(2 / free))
    share = np.maximum(between - by_chance, 0.0) / np.where(whole > 0, whole, 1.0)
    return np.asarray(np.sqrt(share))
