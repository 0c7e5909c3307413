"""The record of a fit: one row an epoch, the objective and the step with reasons, the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from ppl_vae.training import convergence

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class History:
    """The record of one fit.

    Attributes:
        frame: One row an epoch, with the columns ``epoch``; ``step``, the updates done so far;
            ``elbo``, the mean over the epoch's batches; ``validation_elbo``, of the held-out rows
            after the epoch, NaN without held-out rows; ``seconds`` since the fit began. ELBOs are
            of the unweighted objective, in nats per row.
        objective: Class of the ELBO that was maximized, such as ``"TraceMeanField_ELBO"``.
        reason: Why this ELBO was chosen.
        stopped: What ended the fit: ``"epochs"``, ``"patience"``, ``"callback"`` or
            ``"interrupted"`` (Ctrl-C).
        best_epoch: Epoch whose weights the pair has now: the epoch of the best held-out ELBO, or
            the last epoch where no rows were held out.
        step: Kind of step: ``"eager"``, ``"traced"`` or ``"compiled"``.
        step_reason: Why this kind of step was chosen.
    """

    frame: pd.DataFrame
    objective: str
    reason: str
    stopped: str
    best_epoch: int
    step: str
    step_reason: str

    @property
    def converged(self) -> bool | None:
        """Whether the fit has converged: False where the ELBO still rises, ``None`` if unknown.

        The held-out ELBO is judged where rows were held out, else the training ELBO; see
        ``ppl_vae.training.convergence``. True says that the curve is flat, not that the fit has
        found the best weights.
        """
        return convergence.has_converged(self.frame[self._judged_curve])

    @property
    def _judged_curve(self) -> str:
        """Name of the column that says whether the fit has converged."""
        return "elbo" if self.frame["validation_elbo"].isna().all() else "validation_elbo"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the learning curves, training and held-out ELBO over epochs, and return the axes.

        Args:
            ax: Axes to draw in; new ones where ``None``.
        """
        from ppl_vae.plots.curves import learning_curves  # noqa: PLC0415  matplotlib loads slowly

        epochs, elbo, held_out = (self.frame[c] for c in ("epoch", "elbo", "validation_elbo"))
        if held_out.isna().all():
            return learning_curves(epochs, elbo, None, best_epoch=None, ax=ax)
        return learning_curves(epochs, elbo, held_out, best_epoch=self.best_epoch, ax=ax)

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
                f" (epoch {self.best_epoch}, whose weights the pair has)"
            )
        names = {"elbo": "training ELBO", "validation_elbo": "held-out ELBO"}
        column = self._judged_curve
        said = convergence.verdict(self.frame[column], names[column])
        return "\n".join([*lines, f"converged        {said}"])
