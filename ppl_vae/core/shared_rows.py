"""Results for rows of which each process has computed some, brought together on all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ppl_vae.core.world import World

Key = TypeVar("Key")


def exchange_rows(
    team: World, results: dict[Key, Tensor], places: Sequence[Tensor]
) -> dict[Key, Tensor]:
    """Return results of which each rank has some rows, with the rows of all ranks.

    Args:
        team: The ranks.
        results: ``{name: (rows, ...)}``, with the same names in the same order on every rank.
        places: Positions of the rows of each piece of work; piece b is that of rank b mod size.

    Returns:
        ``{name: (rows, ...)}`` in the widest dtype that a rank has; tensors of the right dtype are
        filled in place.
    """
    dtypes = team.texts(json.dumps([str(t.dtype) for t in results.values()]), "dtypes of results")
    by_name = list(zip(*map(json.loads, dtypes), strict=True))
    owned = [torch.cat([places[0][:0], *places[rank :: team.size]]) for rank in range(team.size)]
    longest = max(map(len, owned))
    for (name, value), names in zip(results.items(), by_name, strict=True):
        wider = value.dtype
        for dtype in names:
            wider = torch.promote_types(wider, getattr(torch, dtype.removeprefix("torch.")))
        whole = results[name] = value.to(wider)
        own = owned[team.rank]
        sent = whole.new_zeros((longest, *whole.shape[1:]))
        sent[: len(own)] = whole[own]
        for rank, part in enumerate(team.gather(sent, f"results of rows, {len(by_name)} names")):
            whole[owned[rank]] = part[: len(owned[rank])]
    return results
