"""``RefinedGuide``: a guide, and for each of some rows an offset of every latent's distribution.

    q_r(z given x_r) = q(z given x_r) moved by offset_r       r: one of N rows (``moved``)

The rows are known by their contents (``ppl_vae.nn.row_keys``), so that any block of them is taken,
in any order. Other rows have no offset, and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from ppl_vae.core import sites
from ppl_vae.core.half import Half, named_fields
from ppl_vae.elbo.moved import moved, normal_of
from ppl_vae.elbo.within_family import moved_within_family
from ppl_vae.nn.row_keys import refuse_other_rows, row_keys


class MoveSites(Messenger):
    """Handler that moves the distributions of some latents by offsets.

    Args:
        offsets: ``{site: (rows, plates inside the rows..., numbers of the offset)}``.
        widen: Whether a distribution may leave its family.
    """

    def __init__(self, offsets: Mapping[str, Tensor], *, widen: bool = True) -> None:
        super().__init__()
        self.offsets = offsets
        self.move = moved if widen else moved_within_family

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.offsets and not msg["is_observed"]:
            # the row plate is at dim -1, right of the plates inside the rows
            msg["fn"] = self.move(msg["fn"], self.offsets[msg["name"]].movedim(0, -2))


class NormalLatents(Messenger):
    """Handler that draws each latent from the normal with its distribution's mean and sd.

    Only distributions over all reals whose mean and standard deviation are finite are replaced:
    mixtures, which cannot be reparameterized, and families that have no correlations.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if _is_no_latent(msg) or msg["type"] != "sample" or site_is_subsample(msg):
            return
        normal = normal_of(msg["fn"])
        msg["fn"] = msg["fn"] if normal is None else normal


class PriorGuide(nn.Module):
    """The guide that draws the latents of a model from their prior, or a normal like it.

    Args:
        model: The model, which runs on the rows; what it observes is hidden.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model

    def forward(self, *fields: Tensor, **named: Tensor) -> None:
        """Draw the latents of a batch."""
        with poutine.block(hide_fn=_is_no_latent), NormalLatents():
            names = named_fields(self.model, tuple(named))
            self.model(*fields, **{name: named[name] for name in names})


def _is_no_latent(msg: Any) -> bool:
    """Return whether a message is that of a sample statement which draws no latent."""
    draws = msg["type"] == "sample" and not site_is_subsample(msg)
    return draws and sites.role(msg) != "latent"


class RefinedGuide(nn.Module):
    """A guide with offsets for N rows, as ``refine`` returns it; it takes no other rows.

    Args:
        guide: The guide that the offsets begin at.
        rows: N.
        shapes: Shape of one row's offset of each latent, ``{site: (plates..., numbers)}``.
        widen: Whether a distribution may leave its family.

    Attributes:
        sites: Names of the latents that have offsets.
        offsets: The offsets of each latent, (rows, plates..., numbers), in the order of ``sites``.
        batch_offsets: Offsets of the rows of the next batches, in their order, in place of those
            that are looked up; ``None`` but while the offsets are being found.
        keys: The keys of the rows, (rows,), rising.
        order: The position of the row of each key, (rows,).
    """

    keys: Tensor
    order: Tensor

    def __init__(
        self,
        guide: Callable[..., Any],
        rows: int,
        shapes: Mapping[str, Sequence[int]],
        *,
        widen: bool = True,
    ) -> None:
        super().__init__()
        self.guide, self.widen = guide, widen
        owner = Half(guide, "guide", "").module  # of a method, or inside Pyro's handlers
        self.owner = None if owner is guide else owner
        self.sites = list(shapes)
        self.batch_offsets: Mapping[str, Tensor] | None = None
        self.offsets = nn.ParameterList(torch.zeros(rows, *shape) for shape in shapes.values())
        self.register_buffer("keys", torch.zeros(rows, dtype=torch.int64))
        self.register_buffer("order", torch.arange(rows))

    def forward(self, *fields: Tensor, **named: Tensor) -> None:
        """Draw the latents of a batch of the refined rows.

        Raises:
            ValueError: If a row of the batch is none of the refined rows.
        """
        taken = {name: named[name] for name in named_fields(self.guide, tuple(named))}
        offsets = self.batch_offsets
        try:
            offsets = self.offsets_of(*fields, **named) if offsets is None else offsets
        except ValueError:
            self.guide(*fields, **taken)  # makes the parameters that appear on a first call
            raise
        with MoveSites(offsets, widen=self.widen):
            self.guide(*fields, **taken)

    def offsets_of(self, *fields: Tensor, **named: Tensor) -> dict[str, Tensor]:
        """Return the offsets of the rows of a batch, ``{site: (rows, plates..., numbers)}``.

        Raises:
            ValueError: If a row of the batch is none of the refined rows.
        """
        keys = row_keys(*fields, *named.values())
        places = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        known = self.keys[places] == keys
        refuse_other_rows(
            known, "the rows that the guide was refined for; call refine(model, guide, data) with "
            "the rows that are to be evaluated"
        )  # fmt: skip
        positions = self.order[places]
        return {
            name: torch.where(_in_rows(known, offset), offset[positions], torch.nan)
            for name, offset in zip(self.sites, self.offsets, strict=True)
        }

    @torch.no_grad()
    def set_rows(self, keys: Tensor, offsets: Mapping[str, Tensor]) -> None:
        """Set the keys of the rows, (rows,), and their offsets."""
        order = keys.argsort(stable=True)  # the keys may be on another device than the guide
        self.order.copy_(order)
        self.keys.copy_(keys[order])
        for name, offset in zip(self.sites, self.offsets, strict=True):
            offset.copy_(offsets[name])


def _in_rows(known: Tensor, offset: Tensor) -> Tensor:
    """Return booleans of rows, (rows,), in as many dimensions as an offset has."""
    return known.reshape(-1, *(1,) * (offset.ndim - 1))
