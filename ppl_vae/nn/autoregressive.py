"""Logits of a sequence of codes, each from the codes before it: a small causal transformer.

    h_i = start + p_0 for i = 0, else embedding[k_(i-1)] + p_i       h_i: (hidden,)
    h   = h + attention(norm(h)), h = h + MLP(norm(h))               in each layer; i reads 0 ... i
    l_i = W norm(h_i)                                                l_i: (codes,), W = 0 at first

So all codes have one probability before anything is learned, whatever the other weights are.

Source: Vaswani et al. (2017), section 3, arXiv:1706.03762; Xiong et al. (2020), arXiv:2002.04745
(the norm before each layer).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from ppl_vae.nn.checked import check_sizes
from ppl_vae.nn.mlp import MLP


class CausalAttention(nn.Module):
    """Self-attention in which no position reads a later one: (rows, positions, width) -> the same.

    Args:
        width: Size of the vector at each position, a multiple of ``heads``.
        heads: Number of heads.

    Example:
        >>> import torch
        >>> CausalAttention(8)(torch.zeros(5, 7, 8)).shape
        torch.Size([5, 7, 8])
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        check_sizes(width=width, heads=heads)
        if width % heads:
            raise ValueError(f"width: expected a multiple of {heads} heads, got {width}")
        self.heads = heads
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Return vectors of the same shape, (rows, positions, width)."""
        parts = self.read(h).unflatten(-1, (3, self.heads, -1)).movedim(-4, -2)
        query, key, value = parts.unbind(-4)  # (rows, heads, positions, width / heads) each
        found = scaled_dot_product_attention(query, key, value, is_causal=True)
        written: Tensor = self.write(found.movedim(-3, -2).flatten(-2))
        return written


class CodeLogits(nn.Module):
    """Logits of each code given the codes before it: (..., positions) -> (..., positions, codes).

    Args:
        positions: Number of codes in a row.
        codes: Number of values of each code.
        hidden: Size of the vector at each position, a multiple of 4.
        layers: Number of layers of attention.

    Example:
        >>> import torch
        >>> CodeLogits(7, codes=16)(torch.zeros(5, 7, dtype=torch.long)).shape
        torch.Size([5, 7, 16])
    """

    def __init__(self, positions: int, codes: int, hidden: int = 64, layers: int = 2) -> None:
        super().__init__()
        check_sizes(positions=positions, codes=codes, layers=layers)
        self.positions, self.codes = positions, codes
        self.embedding = nn.Embedding(codes + 1, hidden)  # the last one stands before the first code
        self.places = nn.Parameter(0.1 * torch.randn(positions, hidden))
        self.attend = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), CausalAttention(hidden)) for _ in range(layers)
        )
        self.mix = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), MLP(hidden, hidden, (2 * hidden,), nn.SiLU))
            for _ in range(layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, codes))
        nn.init.zeros_(self.head[1].weight)
        nn.init.zeros_(self.head[1].bias)

    def forward(self, k: Tensor) -> Tensor:
        """Return logits, (..., positions, codes), for codes k, (..., positions)."""
        before = pad(k[..., :-1].reshape(-1, self.positions - 1), (1, 0), value=self.codes)
        h = self.embedding(before) + self.places
        for attend, mix in zip(self.attend, self.mix, strict=True):
            h = h + attend(h)
            h = h + mix(h)
        logits: Tensor = self.head(h)
        return logits.reshape(*k.shape, self.codes)
