"""Scaling of data inside a network, so that models and guides take the data in their own units.

    y = (x - loc) / scale        x: (..., features) in the data's units; y: the same shape

A network learns best from inputs of about unit size. Scaling the data beforehand would give that,
but log-probabilities would then be those of the scaled data. So the guide scales, and the data
themselves are left as they are.
"""

import torch
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


def neighbor_distance(rows: Tensor) -> Tensor:
    """Return how far a row is from the nearest other one, as the root mean square of a feature.

    The mean over all rows, (), between 0.01 and 1: rows of about unit size are further apart where
    they are few, and equal rows are 0 apart.

    Args:
        rows: (rows, features) of about unit size, two rows at least.

    Raises:
        ValueError: If there are fewer rows.

    Example:
        >>> import torch
        >>> neighbor_distance(torch.tensor([[0.0, 0.0], [0.3, 0.3], [0.5, 0.5]]))
        tensor(0.2333)
    """
    if rows.dim() != 2 or len(rows) < 2:
        raise ValueError(
            f"exemplars: expected rows of the data, (rows, features), two at least, got shape "
            f"{tuple(rows.shape)}"
        )
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = apart.fill_diagonal_(torch.inf).amin(1).mean() / rows.shape[1] ** 0.5
    return nearest.clamp(0.01, 1.0)
