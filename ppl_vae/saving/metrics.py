"""The record of a fit: a table of numbers that grows by one row an epoch.

A snapshot stores the table as one tensor, (epochs, columns): the header of a safetensors file,
where texts go, is limited in size. ``metrics.csv`` is a copy of the table for other programs, which
nothing in this library reads.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

COLUMNS = ("epoch", "step", "elbo", "objective", "validation_elbo", "seconds")
WHOLE_NUMBERS = ("epoch", "step")


class Metrics:
    """The record of a fit, one row for each epoch that ended, with the columns ``COLUMNS``.

    A row takes 48 bytes of memory, so that a fit of millions of epochs has room for its record.

    Args:
        stored: What ``tensor`` returned, (epochs, columns), or a list of dictionaries, as older
            versions of the library stored the record; an empty record by default.

    Raises:
        ValueError: If the tensor has another number of columns, or NaN in place of an epoch.

    Example:
        >>> metrics = Metrics()
        >>> metrics.append({"epoch": 1, "step": 4, "elbo": -2.5, "objective": -2.5, "seconds": 0.1})
        >>> metrics.lines().strip()
        '1,4,-2.5,-2.5,,0.1'
    """

    def __init__(self, stored: Tensor | Sequence[Mapping[str, float]] = ()) -> None:
        self._values = array("d")
        if isinstance(stored, Tensor):
            if stored.dim() != 2 or stored.shape[1] != len(COLUMNS):
                raise ValueError(
                    f"the history of the fit: expected a tensor of {len(COLUMNS)} columns, got the "
                    f"shape {tuple(stored.shape)}"
                )
            if not stored[:, : len(WHOLE_NUMBERS)].isfinite().all():
                raise ValueError("the history of the fit: expected numbers of epochs, got NaN")
            self._values.frombytes(stored.double().contiguous().numpy().tobytes())
            return
        for row in stored:
            self.append(row)

    def __len__(self) -> int:
        return len(self._values) // len(COLUMNS)

    def append(self, row: Mapping[str, float]) -> None:
        """Add the row of an epoch; a column that the row lacks is NaN."""
        self._values.extend(float(row.get(name, np.nan)) for name in COLUMNS)

    def tensor(self) -> Tensor:
        """Return a copy of the record as a tensor of float64, (epochs, columns)."""
        return torch.from_numpy(np.array(self._values)).reshape(-1, len(COLUMNS))

    def frame(self, start: int = 0) -> pd.DataFrame:
        """Return the record as a frame, one row an epoch, from position ``start`` on."""
        values = np.array(self._values[start * len(COLUMNS) :]).reshape(-1, len(COLUMNS))
        frame = pd.DataFrame(values, columns=list(COLUMNS))
        return frame.astype(dict.fromkeys(WHOLE_NUMBERS, np.int64))

    def lines(self, start: int = 0) -> str:
        """Return the epochs from position ``start`` on as lines of a CSV file; NaN stays empty."""
        width, whole = len(COLUMNS), len(WHOLE_NUMBERS)
        values = self._values[start * width :]
        rows = [values[first : first + width] for first in range(0, len(values), width)]
        cells = (
            [str(int(number)) for number in row[:whole]]
            + ["" if math.isnan(number) else repr(number) for number in row[whole:]]
            for row in rows
        )
        return "".join(",".join(row) + "\n" for row in cells)
