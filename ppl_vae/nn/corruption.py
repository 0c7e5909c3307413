"""Corruptions of rows: noise that a network reads in train mode, and that evaluation leaves out.

    masking           y_d = 0 with probability share, else x_d
    Gaussian          y_d = x_d + sd e_d,  e_d ~ Normal(0, 1)
    salt and pepper   y_d = low or high, with probability share / 2 each, else x_d

x and y: (..., *row), of any shape. Every cell is corrupted on its own, anew at each call. In
evaluation mode y is x, as with dropout, which differs from masking in that it also scales the other
cells. The numbers come from torch's generator, so that a seed repeats them.

Source: Vincent et al. (2010), Stacked denoising autoencoders, section 3.3, Journal of Machine
Learning Research 11.
"""

import torch
from torch import Tensor, nn

from ppl_vae.arguments import check_number


class MaskingNoise(nn.Module):
    """Sets a random share of the cells to 0 in train mode: (..., *row) -> (..., *row).

    Args:
        share: Probability that a cell is set to 0, from 0 to 1.

    Raises:
        ValueError: If the share is no probability.

    Example:
        >>> MaskingNoise()
        MaskingNoise(share=0.25)
        >>> noise = MaskingNoise(share=1.0)
        >>> noise(torch.ones(3)), noise.eval()(torch.ones(3))
        (tensor([0., 0., 0.]), tensor([1., 1., 1.]))
    """

    def __init__(self, share: float = 0.25) -> None:
        super().__init__()
        _check_share(share)
        self.share = share

    def extra_repr(self) -> str:
        """Return the arguments, which the representation of the module shows."""
        return f"share={self.share:g}"

    def forward(self, x: Tensor) -> Tensor:
        """Return x with a share of its cells at 0; x itself in evaluation mode."""
        return x.where(torch.rand_like(x) >= self.share, 0.0) if self.training else x


class GaussianNoise(nn.Module):
    """Adds normal noise to every cell in train mode: (..., *row) -> (..., *row).

    Args:
        sd: Standard deviation of the noise, in the units of x.

    Raises:
        ValueError: If the standard deviation is not positive.

    Example:
        >>> noise = GaussianNoise(sd=0.5)
        >>> bool((noise(torch.ones(3)) != 1).all()), noise.eval()(torch.ones(3))
        (True, tensor([1., 1., 1.]))
    """

    def __init__(self, sd: float = 0.5) -> None:
        super().__init__()
        check_number("sd", sd, positive=True)
        self.sd = sd

    def extra_repr(self) -> str:
        """Return the arguments, which the representation of the module shows."""
        return f"sd={self.sd:g}"

    def forward(self, x: Tensor) -> Tensor:
        """Return x with noise; x itself in evaluation mode."""
        return x + self.sd * torch.randn_like(x) if self.training else x


class SaltAndPepperNoise(nn.Module):
    """Sets a random share of the cells to one of two values in train mode.

    Args:
        share: Probability that a cell is set to ``low`` or, as often, to ``high``.
        low: Least value of a cell, in the units of x; for standardized data two standard
            deviations below the mean.
        high: Largest value of a cell.

    Raises:
        ValueError: If the share is no probability, or ``high`` is not above ``low``.

    Example:
        >>> noise = SaltAndPepperNoise(share=1.0, low=0.0, high=1.0)
        >>> sorted(set(noise(torch.full((100,), 0.5)).tolist()))
        [0.0, 1.0]
    """

    def __init__(self, share: float = 0.25, low: float = -2.0, high: float = 2.0) -> None:
        super().__init__()
        _check_share(share)
        check_number("low", low)
        check_number("high", high)
        if high <= low:
            raise ValueError(f"high: expected a number above low={low:g}, got {high:g}")
        self.share, self.low, self.high = share, low, high

    def extra_repr(self) -> str:
        """Return the arguments, which the representation of the module shows."""
        return f"share={self.share:g}, low={self.low:g}, high={self.high:g}"

    def forward(self, x: Tensor) -> Tensor:
        """Return x with a share of its cells at the two values; x itself in evaluation mode."""
        if not self.training:
            return x
        u = torch.rand_like(x)
        return x.where(u >= self.share, x.new_tensor(self.low).where(u < self.share / 2, self.high))


def _check_share(share: float) -> None:
    """Raise ``ValueError`` unless a share is a probability."""
    check_number("share", share, least=0)
    if share > 1:
        raise ValueError(f"share: expected a probability, from 0 to 1, got {share:g}")
