"""The rule on columns whose values lie so far from 0 that the dtype rounds what differs among them.

    steps of a column  =  (largest - smallest) / (eps * largest absolute value)

eps is the spacing of the dtype's numbers at 1: 1.2e-7 in single precision, into which data in
double precision are converted. Seconds since 1970, for example, are rounded to 128 seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ppl_vae.linting.constant_columns import column_names
from ppl_vae.linting.inspection import Finding, Inspection, warning

FEWEST_STEPS = 100
"""Steps of the dtype in the range of a column, below which rounding is worth a warning: its error
is then about 2 % of the column's standard deviation."""


def rounded_columns(
    inspection: Inspection, lows: Mapping[str, Tensor], highs: Mapping[str, Tensor]
) -> Iterator[Finding]:
    """Find columns of continuous data whose differences the dtype rounds.

    Args:
        inspection: The pair and its data.
        lows: Smallest value of each column, (columns,), by continuous data site.
        highs: Largest value of each column, likewise.
    """
    for name, low in lows.items():
        high = highs[name]
        step = torch.finfo(low.dtype).eps * torch.maximum(low.abs(), high.abs())
        rounded = ((high > low) & (high - low < FEWEST_STEPS * step)).nonzero().flatten()
        if len(rounded):
            kind = "single" if low.dtype == torch.float32 else str(low.dtype)
            yield warning(
                f'site "{name}"',
                f"expected columns whose values {kind} precision tells apart, got {len(rounded)} "
                f"whose whole range has fewer than {FEWEST_STEPS} of its steps "
                f"({column_names(inspection, name, rounded)}): what differs among rows is rounded",
                "subtract a constant from such a column before the fit (its mean, a start time), "
                "or call torch.set_default_dtype(torch.float64) before the pair is made",
            )
