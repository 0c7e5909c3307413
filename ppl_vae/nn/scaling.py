"""Scaling of data inside a network, so that models and guides take the data in their own units.

    y = (x - loc) / scale        x: (..., features) in the data's units; y: the same shape

A network learns best from inputs of about unit size. Scaling the data beforehand would give that,
but log-probabilities would then be those of the scaled data. So the guide scales, and the data
themselves are left as they are.
"""

from torch import Tensor, nn

from ppl_vae.nn.checked import expanded


class Standardize(nn.Module):
    """The map ``(x - loc) / scale``, which gives data of about unit size.

    ``loc`` and ``scale`` are buffers: they are saved with the weights and are not trained.

    Args:
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Raises:
        ValueError: If a scale is zero, negative or NaN.

    Example:
        >>> import torch
        >>> Standardize(loc=10.0, scale=2.0)(torch.tensor([12.0]))
        tensor([1.])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0) -> None:
        super().__init__()
        self.register_buffer("loc", expanded("loc", loc))
        self.register_buffer("scale", expanded("scale", scale))
        if not bool((self.scale > 0).all()):
            raise ValueError(
                f"scale: expected positive numbers, got {scale}; a constant feature needs a scale "
                "of 1, which build() gives it"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return rows x, (..., features) in the data's units, scaled to about unit size."""
        return (x.to(self.loc.dtype) - self.loc) / self.scale
