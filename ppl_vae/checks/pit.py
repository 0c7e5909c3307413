"""Where every observed cell lies among its own replicates: probability integral transforms (PIT).

    u = (#{s: x_s < x} + v (#{s: x_s = x} + 1)) / (S + 1)          v ~ Uniform(0, 1)

x is the observed value of a cell and x_s its value in replicate s of S. If x was drawn in the same
way as its replicates, u is uniform, even with ties and for discrete values. The cell lies in the
central interval of probability c where |u - 1/2| <= c / 2.

Sources: Dawid (1984), section 5.3 (the transform); Czado, Gneiting & Held (2009), section 2
(randomized for discrete values).
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ppl_vae.core.seeding import child
from ppl_vae.data.rows import generator

COVERAGE_LEVELS = {"50 %": 0.5, "90 %": 0.9}


@dataclass
class _Ranks:
    """Running counts of one site.

    Attributes:
        below: Replicates below the observed cell, (rows, features).
        equal: Replicates equal to the observed cell, (rows, features).
        unmasked: (rows, features) of bool; ``None`` where no cell is masked.
        count: Replicates so far.
    """

    below: Tensor
    equal: Tensor
    unmasked: Tensor | None
    count: int = 0


class RunningPIT:
    """PITs from replicates that come one group after another, in memory of one data set.

    Args:
        seed: Seeds the random numbers v; ``None`` uses the global generator.

    Example:
        >>> pit = RunningPIT(seed=0)
        >>> pit.add("x", torch.zeros(9, 1, 1), torch.ones(1, 1), None)  # 9 replicates below
        >>> bool(pit.values()["x"] >= 0.9)
        True
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self._ranks: dict[str, _Ranks] = {}

    def add(self, name: str, replicated: Tensor, observed: Tensor, unmasked: Tensor | None) -> None:
        """Count the replicates below and at each observed cell.

        Args:
            name: Name of the site.
            replicated: (replicates, rows, features), further replicates.
            observed: (rows, features).
            unmasked: (rows, features) of bool; ``None`` where no cell is masked.
        """
        if name not in self._ranks:
            zeros = torch.zeros(observed.shape, dtype=torch.int32)
            self._ranks[name] = _Ranks(zeros, zeros.clone(), unmasked)
        ranks = self._ranks[name]
        ranks.count += len(replicated)
        for replicate in replicated:
            ranks.below += replicate < observed
            ranks.equal += replicate == observed

    def counts(self) -> list[Tensor]:
        """Return copies of the counts of all sites, (rows, features) each."""
        return [c.clone() for ranks in self._ranks.values() for c in (ranks.below, ranks.equal)]

    def add_counts(self, counts: list[Tensor], replicates: int) -> None:
        """Add counts, in the form that ``counts`` gives, of further replicates."""
        remaining = iter(counts)
        for ranks in self._ranks.values():
            ranks.below += next(remaining)
            ranks.equal += next(remaining)
            ranks.count += replicates

    def values(self) -> dict[str, Any]:
        """Return the PITs as arrays, ``{site: (rows, features)}``, NaN in masked cells."""
        found = {}
        for name, ranks in self._ranks.items():
            random = generator(child(self.seed, 3))
            v = torch.rand(ranks.below.shape, generator=random, dtype=torch.double)
            u = (ranks.below.double() + v * (ranks.equal.double() + 1)) / (ranks.count + 1)
            if ranks.unmasked is not None:
                u = u.masked_fill(~ranks.unmasked, torch.nan)
            found[name] = u.numpy()
        return found


def coverage(pit: Any, features: list[str]) -> pd.DataFrame:
    """Return how many cells of each feature lie in central intervals of their replicates.

    Args:
        pit: (rows, features), from 0 to 1, NaN in masked cells.
        features: Names of the features.

    Returns:
        A frame with one row for each feature; columns ``cells`` (unmasked cells), ``50 %`` and
        ``90 %`` (share of these cells that lie in their interval).

    Example:
        >>> import numpy as np
        >>> coverage(np.array([[0.5], [0.99]]), ["a"])["50 %"].item()
        0.5
    """
    u = torch.from_numpy(pit)
    cells = (~u.isnan()).sum(0)
    columns = {"cells": cells.numpy()}
    for name, level in COVERAGE_LEVELS.items():
        columns[name] = (((u - 0.5).abs() <= level / 2).sum(0) / cells).numpy()
    return pd.DataFrame(columns, index=pd.Index(features, name="feature"))
