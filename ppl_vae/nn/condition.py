"""Vectors joined with a condition, a label or covariates, for networks that read both.

labels      y: (rows,) of integers 0, ..., conditions - 1  ->  conditions indicators
covariates  y: (rows, conditions) or (rows,) of numbers    ->  as they are
joined      (..., rows, size), y                           ->  (..., rows, size + conditions)
"""

import torch
from torch import Tensor, nn


class Condition(nn.Module):
    """A vector and a condition side by side: (..., rows, size) -> (..., rows, size + conditions).

    Args:
        conditions: Number of labels, or of covariates.

    Raises:
        ValueError: If covariates are of another number.

    Example:
        >>> Condition(3)(torch.zeros(2, 1), torch.tensor([0, 2]))
        tensor([[0., 1., 0., 0.],
                [0., 0., 0., 1.]])
    """

    labels: Tensor

    def __init__(self, conditions: int) -> None:
        super().__init__()
        self.conditions = conditions
        self.register_buffer("labels", torch.arange(conditions), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x, (..., rows, size), joined with y, (rows,) or (rows, conditions)."""
        if y.is_floating_point():
            given = y.reshape(len(y), -1).to(x.dtype)
        else:
            given = (y.reshape(-1, 1) == self.labels).to(x.dtype)  # (rows, conditions)
        if given.shape[-1] != self.conditions:
            raise ValueError(
                f"y: expected {self.conditions} covariates a row, got {given.shape[-1]}; labels "
                "are integers, one a row"
            )
        return torch.cat([x, given.expand(*x.shape[:-1], -1)], -1)
