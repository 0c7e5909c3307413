"""Networks of rows of one shape, run on rows with any number of dimensions in front.

    x: (..., *row)  ->  (rows, *row)  ->  network  ->  (rows, *out)  ->  (..., *out)

A convolution of torch takes one batch dimension. A model also runs with particles, or with the
values of an enumerated latent, in front of the rows: those dimensions are flattened into one
before the network runs, and restored afterwards.
"""

from torch import Tensor, nn


class AnyBatch(nn.Module):
    """A network that any number of dimensions may lead: (..., *row) -> (..., *out).

    Args:
        network: Network (rows, *row) -> (rows, *out).
        row_dims: Number of dimensions of what the network reads in one row: 1 for a vector, 3 for
            an image (channels, height, width).

    Raises:
        ValueError: If what comes in has fewer dimensions than ``row_dims``.

    Example:
        >>> import torch
        >>> network = AnyBatch(nn.Conv2d(1, 6, kernel_size=3), row_dims=3)
        >>> network(torch.zeros(5, 100, 1, 8, 8)).shape
        torch.Size([5, 100, 6, 6, 6])
    """

    def __init__(self, network: nn.Module, row_dims: int) -> None:
        super().__init__()
        self.network, self.row_dims = network, row_dims

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs, (..., *out), for rows x, (..., *row)."""
        if x.dim() < self.row_dims:
            raise ValueError(
                f"expected rows of {self.row_dims} dimensions, got the shape {tuple(x.shape)}"
            )
        lead = x.shape[: x.dim() - self.row_dims]
        out: Tensor = self.network(x.reshape(-1, *x.shape[x.dim() - self.row_dims :]))
        return out.reshape(*lead, *out.shape[1:])
