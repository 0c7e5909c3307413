"""Vectors replaced by the nearest of a few: a codebook, with gradients straight through.

    k = argmin_j |z - c_j|^2             z: (..., size); c: (codes, size)
    q = c_k forwards, z backwards        d q / d z = 1, d q / d c = 0

Source: van den Oord, Vinyals & Kavukcuoglu (2017), section 3.2, arXiv:1711.00937.
"""

import torch
from torch import Tensor


def nearest_code(z: Tensor, codebook: Tensor) -> Tensor:
    """Return the number of the vector of a codebook that is nearest to each vector.

    Args:
        z: Vectors, (..., size).
        codebook: The vectors to choose among, (codes, size).

    Returns:
        Whole numbers from 0, (...); the first of vectors at one distance.

    Example:
        >>> nearest_code(torch.tensor([[0.9], [2.2]]), torch.tensor([[0.0], [1.0], [2.0]]))
        tensor([1, 2])
    """
    with torch.no_grad():
        distances = codebook.square().sum(-1) - 2 * z @ codebook.T  # less |z|^2, as for all codes
        return distances.argmin(-1)


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """Return a value whose gradient goes to another tensor of its shape, as if it were that tensor.

    Args:
        value: What is returned; it gets no gradient.
        source: What gets the gradient.

    Example:
        >>> z, code = torch.tensor(0.9, requires_grad=True), torch.tensor(1.0)
        >>> (3 * straight_through(code, z)).backward()
        >>> z.grad
        tensor(3.)
    """
    return value.detach() + (source - source.detach())
