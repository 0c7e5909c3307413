"""Which imputed cells are not to be relied on, why, and the warning about them."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from torch import Tensor

from ppl_vae.arguments import shown
from ppl_vae.evaluation.psis import k_threshold
from ppl_vae.evaluation.summary import MOST_DRAWS, UnreliableWarning
from ppl_vae.verdicts import Line

ENOUGH = 100  # effective draws that are enough where the tail of the weights is unknown
FEW_DRAWS = "few draws count"
FAR_TAIL = "value outside its interval"


def reasons(found: dict[str, Tensor], num_samples: int) -> np.ndarray:
    """Return why each missing cell is not to be relied on, (cells,) of text; "" for reliable ones.

    Args:
        found: ``ess`` and ``k_hat`` of the rows of the cells, and ``outside``, (cells,) each.
        num_samples: S.
    """
    few = few_draws_count(found["ess"].numpy(), found["k_hat"].numpy(), num_samples)
    of_tail = np.where(found["outside"].numpy(), FAR_TAIL, "")
    return np.where(few, FEW_DRAWS, of_tail).astype(object)


def few_draws_count(ess: np.ndarray, k_hat: np.ndarray, num_samples: int) -> np.ndarray:
    """Return which weights are not reliable: too heavy a tail, or an unknown one and few draws.

    The tail is unknown where the largest weights are equal, as of discrete latents that are drawn.

    Args:
        ess: Effective numbers of draws.
        k_hat: Shapes of the tails; NaN where unknown.
        num_samples: S.

    Example:
        >>> few_draws_count(np.array([90.0, 90.0, 900.0]), np.array([0.1, np.nan, np.nan]), 2000)
        array([False,  True, False])
    """
    many = np.where(
        np.isnan(k_hat), min(ENOUGH, MOST_DRAWS * num_samples), MOST_DRAWS * num_samples
    )
    return np.asarray(~((k_hat <= k_threshold(num_samples)) | (ess >= many)))


def warn(frame: pd.DataFrame, rows: Tensor, incomplete: int) -> None:
    """Warn of cells that are not to be relied on, if any.

    Args:
        frame: The lines of the missing cells.
        rows: The row of each cell, (cells,).
        incomplete: Number of rows with missing cells.
    """
    messages = []
    if count := _rows_with(frame, rows, FEW_DRAWS):
        messages.append(
            f"few draws count in {count} of {incomplete} rows with missing cells, so that "
            "their values and intervals are not reliable; refine the guide for these rows, "
            "refine(model, guide, data), train the guide further, or raise num_samples"
        )
    if (frame["reason"] == FAR_TAIL).any():
        messages.append(_of_tail(frame))
    for message in messages:
        warnings.warn(f"impute: {message}", UnreliableWarning, stacklevel=3)


def lines(frame: pd.DataFrame, rows: Tensor, incomplete: int) -> list[Line]:
    """Return what a text says of the reliability; the arguments are those of ``warn``."""
    found = [Line("the importance weights of all these rows are reliable", "good")]
    if count := _rows_with(frame, rows, FEW_DRAWS):
        first = shown(frame["row"][frame["reason"] == FEW_DRAWS].iloc[0])
        text = f"{count:,} of {incomplete:,} rows are unreliable, first row {first}"
        found = [Line(text, "warning")]
    if (frame["reason"] == FAR_TAIL).any():
        found.append(Line(_of_tail(frame), "warning"))
    return found


def _rows_with(frame: pd.DataFrame, rows: Tensor, reason: str) -> int:
    """Return the number of rows with a cell that is not to be relied on for a reason."""
    return len(np.unique(rows.numpy()[frame["reason"] == reason]))


def _of_tail(frame: pd.DataFrame) -> str:
    """Return the sentence on values that a far tail decides."""
    chosen = frame[frame["reason"] == FAR_TAIL]
    first = chosen.iloc[0]
    count = f"{len(chosen):,} value{'s are' if len(chosen) > 1 else ' is'}"
    return (
        f"{count} outside the central 90% of the draws, first row {shown(first['row'])}, column "
        f"{shown(first['column'])}: a few far draws decide the mean; take the median of draw(100), "
        "or give the column a likelihood with a lighter tail"
    )
