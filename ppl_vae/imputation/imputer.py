"""Draws of the missing cells of some data, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ppl_vae.arguments import shown
from ppl_vae.bars import NO_BAR, Bar
from ppl_vae.core.blocks import blocks
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows
from ppl_vae.imputation.missing import MissingCells
from ppl_vae.imputation.posterior import CellPosterior
from ppl_vae.imputation.summaries import BlockDraws
from ppl_vae.predictive.row_form import CellPlaces

T = TypeVar("T")


@dataclass(frozen=True)
class Imputer:
    """Missing cells of some data, and what draws them.

    Attributes:
        pair: The pair.
        data: The data as they were given.
        rows: The same data as rows.
        cells: Their missing cells.
        places: The cells that the model's sites observe.
        num_samples: S, draws for each row.
    """

    pair: Pair
    data: Any
    rows: Rows
    cells: MissingCells
    places: CellPlaces
    num_samples: int

    def over_blocks(
        self, use: Callable[[BlockDraws], T], seed: int | None, bar: Bar = NO_BAR
    ) -> list[T]:
        """Draw the missing cells, a block of the rows that have some at a time.

        Args:
            use: Makes of the draws of a block what is kept; its cells are in the order of all
                missing cells. Its own random numbers follow the seed, too.
            seed: Seeds the draws.
            bar: The progress bar.

        Returns:
            What ``use`` returned, block after block.

        Raises:
            ValueError: If the importance weights of a row are NaN, or all of them are 0, or a mask
                changes from run to run.
        """
        incomplete, counts = self.cells.rows.unique(return_counts=True)
        rows = self.rows.subset(incomplete)
        posterior = CellPosterior(self.pair, rows, self.places, self.num_samples, int(counts.max()))
        ends = counts.cumsum(0)

        def work(batch: Batch, index: Tensor) -> T:
            draws = BlockDraws.of(posterior, batch)
            self._refuse_weights(incomplete[index], draws)
            part = slice(int(ends[index[0]] - counts[index[0]]), int(ends[index[-1]]))
            in_block = torch.searchsorted(incomplete[index], self.cells.rows[part])
            fields, places = self.cells.fields[part], self.cells.places[part]
            return use(draws.wanted(MissingCells(in_block, fields, places)))

        parts = blocks(self.pair, rows, work, seed=seed, bar=bar, size=posterior.size)
        return [part for _, part in parts]

    def _refuse_weights(self, index: Tensor, draws: BlockDraws) -> None:
        """Raise if the weights of a row are NaN or all 0.

        Args:
            index: The positions of the block's rows, (rows,).
            draws: The draws.
        """
        total = draws.log_weights.logsumexp(0)
        bad = (~total.isfinite()).nonzero().flatten()
        if len(bad):
            row = shown(self.rows.index[int(index[bad[0]])])
            raise ValueError(
                f"{self.rows.name}: row {row}: expected observed cells that the pair can score, "
                f"got log-weights whose sum is {float(total[bad[0]])}; look whether the row is far "
                "from the data, or leave it out"
            )
