"""Conversion of what a caller passes to a figure into numpy arrays."""

from typing import Any

import numpy as np
from torch import Tensor


def as_array(values: Any, where: str) -> np.ndarray:
    """Return numbers of any form as an array of floats.

    Args:
        values: A tensor on any device, with or without gradients; an array; a frame; or a (nested)
            list of them, all of one size.
        where: Name of the argument, for the message.

    Raises:
        ValueError: If the values are no numbers, or items of a list differ in size.

    Example:
        >>> as_array([torch.ones(2, requires_grad=True), [3, 4]], "rows")
        array([[1., 1.],
               [3., 4.]])
    """
    try:
        return np.asarray(_without_tensors(values), dtype=float)
    except (TypeError, ValueError) as failure:
        raise ValueError(
            f"{where}: expected numbers in an array, got {type(values).__name__} ({failure}); "
            "items of one list must have one size"
        ) from failure


def _without_tensors(values: Any) -> Any:
    """Return the values with each tensor, alone or within a list, as an array."""
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy()
    if isinstance(values, list | tuple):
        return [_without_tensors(value) for value in values]
    return values
