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


def spacing(exemplars: Tensor, scale: Tensor, features: int) -> Tensor:
    """Return how far a row is from the nearest other row, as the root mean square of a feature.

    The mean over all rows, (), without units, bounded by 0.01 and 1. Equal rows are 0 apart.

    Args:
        exemplars: Rows of the data, (rows, features), two at least.
        scale: Spread of the data, (features,), in the data's units.
        features: Number of features in a row.

    Raises:
        ValueError: If there are fewer rows, if they have another shape, or if one is not finite.

    Example:
        >>> import torch
        >>> spacing(torch.tensor([[0.0, 0.0], [0.3, 0.3], [0.5, 0.5]]), torch.ones(2), 2)
        tensor(0.2333)
    """
    sound = isinstance(exemplars, Tensor) and tuple(exemplars.shape[1:]) == (features,)
    if not sound or len(exemplars) < 2 or not bool(exemplars.isfinite().all()):
        got = f"shape {tuple(exemplars.shape)}" if isinstance(exemplars, Tensor) else exemplars
        raise ValueError(
            f"exemplars: expected two rows of the data or more, finite numbers of shape (rows, "
            f"{features}), got {got}; build() takes them from the data"
        )
    rows = exemplars.to(scale) / scale
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    nearest: Tensor = apart.fill_diagonal_(torch.inf).amin(1).mean() / features**0.5
    return nearest.clamp(0.01, 1.0)
