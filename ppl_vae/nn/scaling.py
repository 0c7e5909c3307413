"""Scaling inside the networks: data come in, and are scored, in their own units.

y = (x - loc) / scale        x: (..., features) in the data's units, y of about unit size
"""

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Subtract ``loc`` and divide by ``scale``; both are buffers, saved with the weights.

    Args:
        loc: Center, a number or (features,), in the data's units.
        scale: Spread, a positive number or (features,), in the data's units.

    Raises:
        ValueError: Where a scale is not positive.

    Example:
        >>> Standardize(loc=10.0, scale=2.0)(torch.tensor([12.0]))
        tensor([1.])
    """

    def __init__(self, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0) -> None:
        super().__init__()
        dtype = torch.get_default_dtype()
        self.register_buffer("loc", torch.as_tensor(loc, dtype=dtype).clone())
        self.register_buffer("scale", torch.as_tensor(scale, dtype=dtype).clone())
        if not bool((self.scale > 0).all()):
            raise ValueError(f"scale: expected positive numbers, got {scale}")

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) in the data's units -> (..., features) without units."""
        return (x.to(self.loc.dtype) - self.loc) / self.scale

    loc: Tensor
    scale: Tensor
