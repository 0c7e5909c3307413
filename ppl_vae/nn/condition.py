"""Vectors joined with a condition, a label or covariates, for networks that read both.

labels      y: (rows,) of integers 0, ..., conditions - 1  ->  conditions indicators
covariates  y: (rows, conditions) or (rows,) of floats     ->  as they are
joined      (..., rows, size), y                           ->  (..., rows, size + conditions)

The dtype tells labels from covariates. Labels that were read as floats are made integers before:
``y.long()`` for a tensor, ``y.astype(int)`` for an array.
"""

import torch
from torch import Tensor, nn


class Condition(nn.Module):
    """A vector and a condition side by side: (..., rows, size) -> (..., rows, size + conditions).

    Args:
        conditions: Number of labels, or of covariates.

    Raises:
        ValueError: If there is no condition; if covariates are of another number, or if there is
            more than one label a row.
        RuntimeError: If a label is negative, or not below ``conditions``. The functions of the
            library then name the field and the row.

    Example:
        >>> Condition(3)(torch.zeros(2, 1), torch.tensor([0, 2]))
        tensor([[0., 1., 0., 0.],
                [0., 0., 0., 1.]])
        >>> Condition(2)(torch.zeros(1, 1), torch.tensor([[0.5, -3.0]]))
        tensor([[ 0.0000,  0.5000, -3.0000]])
    """

    def __init__(self, conditions: int) -> None:
        super().__init__()
        if conditions < 1:
            raise ValueError(f"conditions: expected a positive number, got {conditions}")
        self.conditions = conditions

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x, (..., rows, size), joined with y, (rows,) or (rows, conditions)."""
        given = y.reshape(len(y), -1)
        if not y.is_floating_point() and given.shape[1] == 1:
            given = nn.functional.one_hot(given[:, 0].long(), self.conditions)
        elif not y.is_floating_point() or given.shape[1] != self.conditions:
            raise ValueError(
                f"y: expected {self.conditions} covariates a row, as floats, or one label a row, "
                f"as integers, got {given.shape[1]} numbers a row of {y.dtype}; give covariates by "
                ".float(), labels by .long()"
            )
        return torch.cat([x, given.to(x.dtype).expand(*x.shape[:-1], -1)], -1)
