"""Corruptions of rows: noise that a network reads in train mode, and that evaluation leaves out.

    masking           y_d = 0 with probability share, else x_d
    Gaussian          y_d = x_d + sd e_d,  e_d ~ Normal(0, 1)
    salt and pepper   y_d = low or high, with probability share / 2 each, else x_d

    affine            y = the image x turned, scaled and moved, by numbers of its own

x and y: (..., *row), of any shape, an image for the last. Every cell is corrupted on its own, or
every image as a whole, anew at each call. In
evaluation mode y is x, as with dropout, which differs from masking in that it also scales the other
cells. The numbers come from torch's generator, so that a seed repeats them.

Source: Vincent et al. (2010), Stacked denoising autoencoders, section 3.3, Journal of Machine
Learning Research 11.
"""

import math

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


class RandomAffine(nn.Module):
    """Turns, scales, slants and moves every image at random in train mode, by numbers of its own.

    A classifier of few labelled images that reads them so learns from many images.

    Args:
        degrees: Largest angle to turn by, to either side.
        shift: Largest distance to move by in each direction, as a share of the image's size.
        scale: Largest share by which an image grows or shrinks, below 1.
        shear: Largest slant: how far the top moves beside the bottom, as a share of the height.

    Raises:
        ValueError: If a number is negative, or ``scale`` is not below 1.

    Example:
        >>> moved = RandomAffine(degrees=10.0)
        >>> moved(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 1, 28, 28])
        >>> x = torch.rand(5, 1, 28, 28)
        >>> moved.eval()(x) is x
        True
    """

    def __init__(
        self, degrees: float = 15.0, shift: float = 0.1, scale: float = 0.15, shear: float = 0.2
    ) -> None:
        super().__init__()
        for name, value in (("degrees", degrees), ("shift", shift), ("shear", shear)):
            check_number(name, value, least=0)
        check_number("scale", scale, least=0)
        if scale >= 1:
            raise ValueError(f"scale: expected a share below 1, got {scale:g}")
        self.degrees, self.shift, self.scale, self.shear = degrees, shift, scale, shear

    def extra_repr(self) -> str:
        """Return the arguments, which the representation of the module shows."""
        return (
            f"degrees={self.degrees:g}, shift={self.shift:g}, scale={self.scale:g}, "
            f"shear={self.shear:g}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return images moved at random, (..., channels, height, width); x in evaluation mode."""
        if not self.training:
            return x
        images = x.reshape(-1, *x.shape[-3:])
        most = x.new_tensor([math.radians(self.degrees), self.scale, self.shear])
        most = torch.cat([most, x.new_full((2,), 2 * self.shift)])  # a side has a length of 2
        drawn = (2 * torch.rand(len(images), 5, device=x.device, dtype=x.dtype) - 1) * most
        angle, grow, slant, right, down = drawn.unbind(1)
        cos, sin = angle.cos() * (1 + grow), angle.sin() * (1 + grow)
        rows = [cos, slant - sin, right, sin, cos, down]
        where = nn.functional.affine_grid(
            torch.stack(rows, 1).reshape(-1, 2, 3), list(images.shape), align_corners=False
        )
        moved = nn.functional.grid_sample(images, where, align_corners=False)
        return moved.reshape(x.shape)


def _check_share(share: float) -> None:
    """Raise ``ValueError`` unless a share is a probability."""
    check_number("share", share, least=0)
    if share > 1:
        raise ValueError(f"share: expected a probability, from 0 to 1, got {share:g}")
