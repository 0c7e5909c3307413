"""Constructor arguments of models, guides and networks: checked, and refused by their names.

    check_sizes(latents=8, layers=4)                          whole numbers, 1 or more
    check_row(features)                                       one such number, or three of an image
    expanded("scale", 2.0, features, positive=True)           a tensor with one number a feature
    shaped("centers", centers, like=self.centers)             a tensor of exactly that shape
    cholesky_factors("covariances", found, like=self.factors)  the same, for covariances

A wrong argument would otherwise be an error of torch, which knows none of these names, or would
give a pair whose fit is NaN.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.arguments import check_count, shown


def check_sizes(**sizes: Any) -> None:
    """Raise ``ValueError`` unless every size is a whole number of at least 1.

    Args:
        sizes: The sizes by the names of their arguments. For ``hidden``, a sequence of sizes.

    Raises:
        ValueError: At the first size that is none; the argument is named.

    Example:
        >>> check_sizes(latents=8, hidden=(64, 64))
        >>> check_sizes(latents=8, rank=0)
        Traceback (most recent call last):
        ValueError: rank: expected a whole number of at least 1, got 0
    """
    for name, size in sizes.items():
        if name == "hidden":
            if not isinstance(size, Sequence) or isinstance(size, str):
                raise ValueError(f"hidden: expected sizes of layers, as (64,), got {shown(size)}")
            for layer in size:
                check_count("hidden", layer)
        elif name == "features" and isinstance(size, Sequence):
            raise ValueError(
                f"features: expected the number of features of a vector, got {shown(size)}; make "
                "each row a vector, data.reshape(len(data), -1), or take a class for images"
            )
        else:
            check_count(name, size)


def check_row(features: Any) -> None:
    """Raise ``ValueError`` unless an argument ``features`` is the size of a vector or of an image.

    Args:
        features: Number of features of a row, or (channels, height, width) of an image.

    Example:
        >>> check_row((1, 28, 28))
        >>> check_row((28, 28))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: features: expected (channels, height, width), got (28, 28)...
    """
    if not isinstance(features, Sequence) or isinstance(features, str):
        check_count("features", features)
        return
    if len(features) != 3:
        raise ValueError(
            f"features: expected (channels, height, width), got {shown(features)}; gray images "
            "need a channel, data[:, None], and vectors have their number of features"
        )
    for size in features:
        check_count("features", size)


def expanded(
    name: str,
    value: Any,
    shape: int | Sequence[int] | None = None,
    *,
    positive: bool = False,
    least: float = -math.inf,
) -> Tensor:
    """Return a number, or a tensor with a number for each feature, as a tensor of its own.

    Args:
        name: The argument's name, for messages.
        value: A number, or anything that expands to ``shape``.
        shape: Number of features, or the shape of a row; ``()`` for one number, ``None`` for the
            shape that ``value`` has.
        positive: Whether all numbers must be above 0.
        least: The least number allowed.

    Returns:
        A new tensor of the shape, of torch's default dtype.

    Raises:
        ValueError: If ``value`` holds no numbers, has another shape, or a number is out of range.

    Example:
        >>> expanded("scale", 2.0, 3, positive=True)
        tensor([2., 2., 2.])
        >>> expanded("scale", torch.tensor([1.0, -1.0]), 2, positive=True)
        Traceback (most recent call last):
        ValueError: scale: expected positive numbers, got -1
    """
    try:
        numbers = torch.as_tensor(value, dtype=torch.get_default_dtype())
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}: expected numbers, got {shown(value)}") from None
    sizes = (shape,) if isinstance(shape, int) else tuple(numbers.shape if shape is None else shape)
    try:
        tensor = numbers.expand(sizes).clone()
    except RuntimeError:
        form = f"a number or the shape {sizes}" if sizes else "one number"
        raise ValueError(f"{name}: expected {form}, got shape {tuple(numbers.shape)}") from None
    wrong = ~(tensor > 0) if positive else ~(tensor >= least) & (least > -math.inf)
    if bool(wrong.any()):
        kind, bound = ("positive ", "") if positive else ("", f" of at least {least:g}")
        expected = f"{kind}numbers{bound}" if sizes else f"a {kind}number{bound}"
        raise ValueError(f"{name}: expected {expected}, got {float(tensor[wrong][0]):g}")
    return tensor


def shaped(name: str, value: Any, like: Tensor, *, positive: bool = False) -> Tensor:
    """Return numbers as a tensor with the shape, dtype and device of another; nothing expands.

    Args:
        name: The argument's name, for messages.
        value: The numbers: a tensor, an array or lists.
        like: The tensor that they are to be stored in.
        positive: Whether all numbers must be above 0.

    Raises:
        ValueError: If ``value`` holds no numbers, has another shape, or a number is not finite or
            out of range.

    Example:
        >>> shaped("centers", [[0.0, 1.0]], torch.zeros(3, 2))
        Traceback (most recent call last):
        ValueError: centers: expected the shape (3, 2), got (1, 2)
    """
    numbers = expanded(name, value, positive=positive)
    if numbers.shape != like.shape:
        raise ValueError(
            f"{name}: expected the shape {tuple(like.shape)}, got {tuple(numbers.shape)}"
        )
    if not bool(numbers.isfinite().all()):
        raise ValueError(f"{name}: expected finite numbers, got {numbers[~numbers.isfinite()][0]}")
    return numbers.to(like)


def cholesky_factors(name: str, value: Any, like: Tensor) -> Tensor:
    """Return the Cholesky factors of full covariances, with the shape of another tensor.

    Args:
        name: The argument's name, for messages.
        value: Covariances, (..., d, d): a tensor, an array or lists.
        like: The tensor that the factors are to be stored in.

    Raises:
        ValueError: As ``shaped``; if a matrix is not symmetric, or not positive definite.

    Example:
        >>> cholesky_factors("covariances", [[4.0, 0.0], [0.0, 9.0]], torch.zeros(2, 2)).diag()
        tensor([2., 3.])
    """
    matrices = shaped(name, value, like).double()
    sizes = matrices.abs().amax((-2, -1), keepdim=True)
    if bool(((matrices - matrices.mT).abs() > 1e-4 * sizes).any()):
        raise ValueError(f"{name}: expected symmetric matrices, got one that is not")
    found = torch.linalg.cholesky_ex(matrices)
    factors: Tensor = found[0]
    if bool(found[1].any()):
        raise ValueError(
            f"{name}: expected positive definite matrices, got one whose least eigenvalue is "
            f"{float(torch.linalg.eigvalsh(matrices).min()):.2g}"
        )
    return factors.to(like)
