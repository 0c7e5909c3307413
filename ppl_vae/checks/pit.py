"""Where every observed cell lies among its own replicates: probability integral transforms.

    u = (#{s: x_s < x} + v (#{s: x_s = x} + 1)) / (S + 1)          v ~ Uniform(0, 1)

u is uniform where x is one more draw of what made its replicates, ties and discrete values
included. A cell lies in the central interval of share c where |u - 1/2| <= c / 2.

Sources: Dawid (1984), section 5.3 (the transform); Czado, Gneiting & Held (2009), section 2
(randomized for discrete values).
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ppl_vae.core.seeding import child
from ppl_vae.data.rows import generator

LEVELS = (0.5, 0.9)


class RunningPIT:
    """Counts of replicates below and at each observed cell, taken in as they come.

    Args:
        seed: Of the random numbers within ties.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self.names: list[str] = []
        self._below: dict[str, Tensor] = {}
        self._ties: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor | None] = {}
        self._count: dict[str, int] = {}

    def add(self, name: str, made: Tensor, seen: Tensor, kept: Tensor | None) -> None:
        """Count some replicates, (replicates, rows, features), beside (rows, features)."""
        if name not in self._below:
            self.names.append(name)
            self._below[name] = torch.zeros(seen.shape, dtype=torch.int32)
            self._ties[name] = torch.zeros(seen.shape, dtype=torch.int32)
            self._kept[name], self._count[name] = kept, 0
        self._count[name] += len(made)
        for one in made:
            self._below[name] += one < seen
            self._ties[name] += one == seen

    def values(self) -> dict[str, Any]:
        """``{site: (rows, features)}``, NaN under a mask."""
        found = {}
        for name in self.names:
            below, ties = self._below[name].double(), self._ties[name].double()
            chance = torch.rand(
                below.shape, generator=generator(child(self.seed, 3)), dtype=torch.double
            )
            u = (below + chance * (ties + 1)) / (self._count[name] + 1)
            kept = self._kept[name]
            found[name] = (u if kept is None else u.masked_fill(~kept, torch.nan)).numpy()
        return found

    @staticmethod
    def coverage(values: Any, features: list[str]) -> pd.DataFrame:
        """Share of a feature's cells in their central intervals, from (rows, features)."""
        u = torch.from_numpy(values)
        cells = (~u.isnan()).sum(0)
        inside = {
            f"{level:.0%}".replace("%", " %"): ((u - 0.5).abs() <= level / 2).sum(0) / cells
            for level in LEVELS
        }
        columns = {"cells": cells.numpy(), **{k: v.numpy() for k, v in inside.items()}}
        return pd.DataFrame(columns, index=pd.Index(features, name="feature"))
