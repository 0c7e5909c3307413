"""Multilayer perceptron on the last dimension.

    h_1 = a(W_1 x + b_1), ..., y = W_n h_(n-1) + b_n        x: (..., inputs), y: (..., outputs)

Source: Kingma & Welling (2014), appendix C, arXiv:1312.6114 (one tanh layer).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


class MLP(nn.Sequential):
    """Linear layers with an activation between them.

    Args:
        inputs: Width of the last dimension that comes in.
        outputs: Width of the last dimension that goes out.
        hidden: Widths of the layers between, first to last.
        activation: Makes the module between two layers.

    Example:
        >>> import torch
        >>> MLP(8, 64, hidden=(128, 128))(torch.zeros(5, 100, 8)).shape
        torch.Size([5, 100, 64])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (64,),
        activation: Callable[[], nn.Module] = nn.Tanh,
    ) -> None:
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise((inputs, *hidden, outputs)):
            layers += [nn.Linear(width_in, width_out), activation()]
        super().__init__(*layers[:-1])
        self.inputs, self.outputs, self.hidden = inputs, outputs, tuple(hidden)
        self.activation = activation
