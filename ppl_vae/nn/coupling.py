"""Network of a coupling layer: how to shift and scale one half of a row, given the other half.

    m, s = network(a)                      a: (..., inputs); m, s: (..., outputs) each, no units
    m, s = network(a, context)             context: (..., context), such as a latent code
    |s| < bound                            in a layer: b -> m + exp(s) b, with the inverse
                                           b -> (b - m) exp(-s)

The bound keeps a layer's scale between exp(-bound) and exp(bound), wherever the data are: rows far
from the data overflow in no layer, and the density of a constant feature does not grow forever. A
new layer is near the identity, so that a flow begins near a normal density of its loc and scale.

Source: Dinh, Sohl-Dickstein & Bengio (2017), section 3.2, arXiv:1605.08803.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ppl_vae.nn.mlp import MLP


class CouplingNetwork(nn.Module):
    """A multilayer perceptron with two heads: a shift m, and a log-scale s within a bound.

    Args:
        inputs: Size of the half a that comes in; 0 makes m and s of a row without other features.
        outputs: Size of the half b that is shifted and scaled.
        context: Size of what else comes in, such as a latent code; 0 for nothing.
        hidden: Sizes of the hidden layers.
        bound: Largest absolute value of s.

    Example:
        >>> network = CouplingNetwork(inputs=2, outputs=3, context=8)
        >>> m, s = network(torch.zeros(100, 2), torch.zeros(5, 100, 8))  # 5 particles
        >>> m.shape, s.shape
        (torch.Size([5, 100, 3]), torch.Size([5, 100, 3]))
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        context: int = 0,
        hidden: Sequence[int] = (64,),
        bound: float = 2.0,
    ) -> None:
        super().__init__()
        self.inputs, self.context, self.bound = inputs, context, bound
        self.network = MLP(max(1, inputs + context), 2 * outputs, hidden)
        for parameter in self.network[-1].parameters():
            nn.init.uniform_(parameter, -0.01, 0.01)  # a layer begins near the identity

    def forward(self, half: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return m and s, (..., outputs) each.

        Args:
            half: The half a, (..., inputs).
            context: (..., context); its leading dimensions and those of ``half`` broadcast.
        """
        if context is not None:
            lead = torch.broadcast_shapes(half.shape[:-1], context.shape[:-1])
            half = torch.cat([half.expand(*lead, -1), context.expand(*lead, -1)], -1)
        elif not self.inputs:
            half = half.new_ones(*half.shape[:-1], 1)  # nothing to read: the network is a constant
        shift, log_scale = self.network(half).chunk(2, -1)
        return shift, bounded(log_scale, self.bound)


def bounded(values: Tensor, bound: float) -> Tensor:
    """Return values, (...), squeezed between -bound and bound; small ones hardly change."""
    return bound * (values / bound).tanh()
