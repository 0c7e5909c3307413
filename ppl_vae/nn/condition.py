"""Vectors joined with a condition, a label or covariates, for networks that read both.

labels      y: (rows,) of integers 0, ..., conditions - 1  ->  conditions indicators
covariates  y: (rows, conditions) or (rows,) of floats     ->  as they are
joined      (..., rows, size), y                           ->  (..., rows, size + conditions)

The dtype tells labels from covariates. Labels that were read as floats are made integers before:
``y.long()`` for a tensor, ``y.astype(int)`` for an array.
"""

import torch
from torch import Tensor, nn


def beside(*vectors: Tensor) -> Tensor:
    """Return vectors as one, (..., size + size + ...), whose dimensions before are made alike.

    Indicators of a label, which are whole numbers, become floats as the first vector is.

    Example:
        >>> beside(torch.zeros(5, 3), torch.ones(2, 1, 4, dtype=torch.long)).shape
        torch.Size([2, 5, 7])
    """
    lead = torch.broadcast_shapes(*(v.shape[:-1] for v in vectors))
    return torch.cat([v.to(vectors[0].dtype).expand(*lead, v.shape[-1]) for v in vectors], -1)


def seen_labels(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return labels as whole numbers, and which rows have one, (rows,) each.

    Args:
        y: Labels 0, 1, ..., and -1 or NaN where a row has none, (rows,) or (rows, 1), of integers
            or floats.

    Returns:
        The labels, with 0 where there is none, and True where there is one.

    Raises:
        ValueError: If a row has several numbers. One that is no label, as -2, is returned as it is,
            and refused where it is used.

    Example:
        >>> seen_labels(torch.tensor([2.0, torch.nan, -1.0]))
        (tensor([2, 0, 0]), tensor([ True, False, False]))
    """
    given = y.reshape(len(y), -1)
    if given.shape[1] != 1:
        raise ValueError(f"y: expected one label a row, got {given.shape[1]} numbers a row")
    given = given[:, 0]
    seen = ~(given.isnan() | (given == -1))
    return torch.where(seen, given, torch.zeros_like(given)).long(), seen


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
