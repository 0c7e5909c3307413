"""What a fit did: one row an epoch, which objective and why, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class History:
    """The record of one fit.

    Attributes:
        frame: Columns ``epoch, step, elbo, validation_elbo, seconds``; ELBOs unweighted, in nats
            per row (``elbo`` is the mean over the epoch's batches, ``validation_elbo`` is of the
            held-out rows after it, NaN without them); ``step`` counts updates and ``seconds``
            the time since the fit began.
        objective: Class of the ELBO.
        reason: Why this one.
        stopped: ``"epochs"``, ``"patience"``, ``"callback"`` or ``"interrupted"``.
        best_epoch: Epoch whose weights the pair has now: the one of the best held-out ELBO, or
            the last where nothing was held out.
        step: Kind of the step: ``"eager"``, ``"traced"`` or ``"compiled"``.
        step_reason: Why this kind.
    """

    frame: pd.DataFrame
    objective: str
    reason: str
    stopped: str
    best_epoch: int
    step: str
    step_reason: str

    def plot(self, ax: Axes | None = None) -> Axes:
        """Learning curves: training and held-out ELBO over epochs."""
        from ppl_vae.plots.curves import learning_curves  # noqa: PLC0415  matplotlib loads slowly

        held_out = self.frame["validation_elbo"].notna().any()
        return learning_curves(
            self.frame["epoch"],
            self.frame["elbo"],
            self.frame["validation_elbo"] if held_out else None,
            best_epoch=self.best_epoch if held_out else None,
            ax=ax,
        )

    def __str__(self) -> str:
        last = self.frame.iloc[-1]
        best = self.frame.loc[self.frame["epoch"] == self.best_epoch].iloc[0]
        lines = [
            f"{len(self.frame)} epochs, {int(last['step'])} steps in {last['seconds']:.1f} s"
            f" (ended by: {self.stopped})",
            f"objective        {self.objective}: {self.reason}",
            f"step             {self.step}: {self.step_reason}",
            f"training ELBO    {last['elbo']:.3f} nats per row",
        ]
        if pd.notna(best["validation_elbo"]):
            lines.append(
                f"held-out ELBO    {best['validation_elbo']:.3f} nats per row"
                f" (epoch {self.best_epoch}, whose weights are kept)"
            )
        return "\n".join(lines)
