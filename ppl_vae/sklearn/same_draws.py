"""Results of rows that depend on what stands in each row, and on nothing else in the call.

    place = key of the row's cells modulo 256;  rows of different places fill groups of 256

The library's functions draw the latents of a block of rows at once, so that a row's draws depend on
its place among the rows of a call. In scikit-learn the score of a row must not depend on how the
rows were cut or ordered. So every row is computed in a group of 256 rows, at a place that its own
cells decide, and every group has the same seed: the same row has the same draws, and the same
rounding of single precision, in every call. Places without a row hold a copy of another one, whose
results are not used. Few rows cost as much as 256.

What would break it: a pair in which rows influence each other, as batch normalization in training
mode does. The library runs networks in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ppl_vae.data.rows import Rows, as_tuple
from ppl_vae.nn import row_keys

GROUP = 256
PIECE = 8192  # rows whose keys are computed at once


def in_groups(rows: Rows, call: Callable[[torch.Tensor], pd.DataFrame]) -> pd.DataFrame:
    """Return what a function says of rows, computed in groups with the same draws for each row.

    Args:
        rows: N rows.
        call: A function of the positions of 256 rows, (256,), that returns a frame of 256 rows.

    Returns:
        N rows, numbered from 0, with the ``attrs`` of the first group.
    """
    places = keys_of(rows) % GROUP
    turn = pd.Series(places).groupby(places).cumcount().to_numpy()
    parts, order = [], []
    for group in range(int(turn.max()) + 1):
        members = np.flatnonzero(turn == group)
        filled = np.full(GROUP, members[0])
        filled[places[members]] = members
        found = call(torch.as_tensor(filled))
        parts.append(found.iloc[places[members]])
        order.append(members)
    attrs = parts[0].attrs
    for part in parts:
        part.attrs = {}  # pandas compares them when it joins frames
    whole = pd.concat(parts, ignore_index=True).iloc[np.argsort(np.concatenate(order))]
    whole = whole.reset_index(drop=True)
    whole.attrs = attrs
    return whole


def keys_of(rows: Rows) -> npt.NDArray[np.int64]:
    """Return a number for each row that its cells decide, (rows,), from 0 on."""
    parts = []
    for start in range(0, len(rows), PIECE):
        batch: Any = rows.take(torch.arange(start, min(start + PIECE, len(rows))))
        parts.append(row_keys(*as_tuple(batch)).numpy())
    keys: npt.NDArray[np.int64] = np.concatenate(parts).astype(np.int64)
    return (keys >> 1) & 0xFFFFFFFF
