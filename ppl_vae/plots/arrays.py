"""What figures draw from: tensors on any device, with or without gradients, and all else."""

from typing import Any

import numpy as np
from torch import Tensor


def as_array(values: Any, where: str) -> np.ndarray:
    """Numbers as an array of floats.

    Args:
        values: Tensor, array, frame or (nested) list of one of them, of one size.
        where: The argument's name, for the message.

    Raises:
        ValueError: Where they are no numbers, or no array of them.
    """
    try:
        return np.asarray(_plain(values), dtype=float)
    except (TypeError, ValueError) as failure:
        raise ValueError(
            f"{where}: expected numbers in an array, got {type(values).__name__} ({failure}); "
            "items of one list must have one size"
        ) from failure


def _plain(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy()
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return values
