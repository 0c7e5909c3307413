"""Networks of sequences that end at different steps, padded to one length.

    h_t = GRU(x_t, h_(t-1))    forwards: h_t has read x_1 ... x_t           h_0 = 0
    h_t = GRU(x_t, h_(t+1))    backwards: h_t has read x_t ... x_length     h_(length+1) = 0

    GatedTransition: g = sigmoid(MLP(z)), m = MLP(z)
                     loc = (1 - g) (W z + b) + g m,  scale = softplus(V relu(m) + c)

No state h_t of a step inside a sequence depends on what stands after its end.

Source: Krishnan, Shalit & Sontag (2017), section 3 and appendix, arXiv:1609.09869.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ppl_vae.nn.checked import check_sizes
from ppl_vae.nn.mlp import MLP


def step_mask(lengths: Tensor, steps: int) -> Tensor:
    """Return which steps are inside each sequence, (rows, steps) of bool, from lengths (rows,).

    Example:
        >>> step_mask(torch.tensor([1, 3]), 3).int().tolist()
        [[1, 0, 0], [1, 1, 1]]
    """
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def seen_cells(
    x: Tensor, lengths: Tensor | None = None, seen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return sequences with zeros in all cells that are not there, and which cells are there.

    Args:
        x: Sequences, (rows, steps, features); cells that are not there may hold anything, NaN too.
        lengths: Steps of each sequence, (rows,); all steps if ``None``.
        seen: Which cells were observed, (rows, steps, features) of bool; all if ``None``.

    Returns:
        The sequences in torch's default dtype, and the cells inside that were observed, of bool,
        (rows, steps, features) each.

    Example:
        >>> x, mask = seen_cells(torch.tensor([[[1.0], [torch.nan]]]), torch.tensor([1]))
        >>> x.flatten().tolist(), mask.flatten().tolist()
        ([1.0, 0.0], [True, False])
    """
    mask = torch.ones_like(x, dtype=torch.bool) if seen is None else seen.bool()
    if lengths is not None:
        mask = mask & step_mask(lengths, x.shape[1])[:, :, None]
    return torch.where(mask, x.to(torch.get_default_dtype()), 0.0), mask


def turned(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return sequences, (rows, steps, features), each turned round within its length.

    What stands after the end of a sequence comes from its first step. Turned twice, a sequence is
    as before.

    Example:
        >>> turned(torch.tensor([[[1.0], [2.0], [0.0]]]), torch.tensor([2])).flatten().tolist()
        [2.0, 1.0, 1.0]
    """
    if lengths is None:
        return x.flip(-2)
    steps = torch.arange(x.shape[-2], device=x.device)
    order = (lengths[:, None] - 1 - steps).clamp_min(0)[:, :, None]
    return x.gather(-2, order.expand_as(x))


class Recurrent(nn.Module):
    """A recurrent network: (..., steps, inputs) -> states after each step, (..., steps, hidden).

    Args:
        inputs: Size of what is read at a step.
        hidden: Size of a state.
        backwards: Whether each sequence is read from its end to its beginning.
        cell: Makes the network from ``inputs``, ``hidden`` and ``batch_first``: ``nn.GRU`` or
            ``nn.RNN``.

    Example:
        >>> Recurrent(3, 16)(torch.zeros(5, 100, 7, 3)).shape
        torch.Size([5, 100, 7, 16])
    """

    def __init__(
        self, inputs: int, hidden: int, backwards: bool = False,
        cell: Callable[..., nn.RNNBase] = nn.GRU,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(inputs=inputs, hidden=(hidden,))
        self.backwards = backwards
        self.cell = cell(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the states for sequences x, (..., steps, inputs); backwards, (rows, ...) only.

        Args:
            x: The sequences.
            lengths: Where each ends, (rows,), which only a network that reads backwards needs.
        """
        lead = x.shape[:-2]
        read = turned(x, lengths) if self.backwards else x
        states: Tensor = self.cell(read.reshape(-1, *x.shape[-2:]))[0]
        states = states.reshape(*lead, *states.shape[-2:])
        return turned(states, lengths) if self.backwards else states


class GatedTransition(nn.Module):
    """Location and scale of the state after z: a gate between a linear map and a network.

    The linear map starts as the identity, so that states move slowly at first.

    Args:
        latents: Size of a state.
        hidden: Size of the hidden layer of each of the two networks.

    Example:
        >>> loc, scale = GatedTransition(latents=2, hidden=16)(torch.zeros(5, 100, 2))
        >>> loc.shape, bool((scale > 0).all())
        (torch.Size([5, 100, 2]), True)
    """

    def __init__(self, latents: int, hidden: int) -> None:
        super().__init__()
        self.gate = MLP(latents, latents, (hidden,), nn.ReLU)
        self.proposal = MLP(latents, latents, (hidden,), nn.ReLU)
        self.linear, self.scale = nn.Linear(latents, latents), nn.Linear(latents, latents)
        with torch.no_grad():
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return loc and scale, (..., latents) each, of what follows z, (..., latents)."""
        gate, proposal = self.gate(z).sigmoid(), self.proposal(z)
        loc = (1 - gate) * self.linear(z) + gate * proposal
        return loc, nn.functional.softplus(self.scale(proposal.relu())) + 1e-4
