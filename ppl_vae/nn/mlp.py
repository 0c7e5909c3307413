"""Multilayer perceptron: linear layers with an activation between them.

    h_0 = x                                x: (..., inputs)
    h_i = activation(W_i h_(i-1) + b_i)    h_i: (..., hidden[i - 1])
    y   = W_n h_(n-1) + b_n                y: (..., outputs), no activation

Source: Kingma & Welling (2014), appendix C, arXiv:1312.6114 (one tanh layer).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from ppl_vae.nn.checked import check_sizes


class MLP(nn.Sequential):
    """A multilayer perceptron on the last dimension: (..., inputs) -> (..., outputs).

    Args:
        inputs: Size of the last dimension of what comes in.
        outputs: Size of the last dimension of what goes out.
        hidden: Sizes of the hidden layers, from first to last; ``()`` makes one linear layer.
        activation: Class or function that makes the module between two linear layers. A class of
            torch, as ``torch.nn.ReLU``, or a class or function of your own at the top level of a
            file can be stored in the recipe of a run; a ``lambda`` cannot.

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
        check_sizes(inputs=inputs, outputs=outputs, hidden=hidden)
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise((inputs, *hidden, outputs)):
            layers += [nn.Linear(width_in, width_out), activation()]
        super().__init__(*layers[:-1])
        self.inputs, self.outputs, self.hidden = inputs, outputs, tuple(hidden)
        self.activation = activation
