"""The record of a fit: one row an epoch, the objective and the step with reasons, the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ppl_vae.training import convergence
from ppl_vae.verdicts import Block, Line, Tone, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
@verdict
class History:
    """The record of one fit.

    Attributes:
        frame: One row an epoch, with the columns ``epoch``; ``step``, the updates done so far;
            ``elbo``, the mean over the epoch's batches; ``objective``, the training loss's
            negative, equal to ``elbo`` unless a KL weight, a scale of the user's, free bits,
            several importance-weighted particles or a term of the guide makes it differ;
            ``validation_elbo``, of the held-out rows after the epoch, from a draw for every row,
            NaN without held-out rows; ``seconds`` since the fit began. An ELBO is always the bound
            of the unscaled model and guide, as in ``elbo_terms``; all are in nats per row.
            ``frame.attrs["measure"]`` is ``measure``.
        objective: Class of the ELBO that was maximized, such as ``"TraceMeanField_ELBO"``.
        reason: Why this ELBO was chosen.
        stopped: What ended the fit: ``"epochs"``, ``"patience"``, ``"callback"`` or
            ``"interrupted"`` (Ctrl-C).
        best_epoch: Epoch whose weights the pair has now: the epoch of the best held-out ELBO, or
            the last epoch where no rows were held out.
        step: Kind of step: ``"eager"``, ``"traced"`` or ``"compiled"``.
        step_reason: Why this kind of step was chosen.
        validation_elbo: The held-out ELBO of the weights that the pair has now, in nats per row,
            from new draws; ``None`` without held-out rows. The largest number of a learning curve
            is too high on average, because it is the largest of many noisy ones.
        validation_elbo_se: Standard error of ``validation_elbo`` from the draws, in nats per row.
        measure: What is called ELBO here: ``"ELBO"``, or ``"log joint density"`` where the guide
            gives a latent of the rows as a point (a ``Delta``), which has no ELBO.
        shards: Pieces that each batch was cut into; the fit depends on their number, and not on the
            number of processes.
        threads: Threads of torch's that the fit ran on: one where a step is small
            (``ppl_vae.core.threads``), else what ``torch.get_num_threads()`` was.

    Example:
        >>> from ppl_vae import fit
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> pair = BernoulliModel(4, latents=2), NormalGuide(4, latents=2)
        >>> history = fit(*pair, torch.eye(4), epochs=2, progress=False)
        >>> len(history.frame), history.stopped, history.objective_differs
        (2, 'epochs', False)
        >>> history.converged, history.convergence(), history.held_out_elbo()
        (None, 'cannot be told: fewer than 24 epochs', 'unknown')
        >>> print(history.plot().get_ylabel())
        ELBO (nats per row; higher is better)
    """

    frame: pd.DataFrame
    objective: str
    reason: str
    stopped: str
    best_epoch: int
    step: str
    step_reason: str
    validation_elbo: float | None = None
    validation_elbo_se: float | None = None
    measure: str = "ELBO"
    shards: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        self.frame.attrs["measure"] = self.measure

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

    def best_row(self) -> dict[str, float | None]:
        """Return the best epoch's row of the frame as JSON can hold it: ``None`` for NaN."""
        row = self.frame.loc[self.frame["epoch"] == self.best_epoch].iloc[-1]
        values = {str(name): float(value) for name, value in row.items()}
        return {name: None if math.isnan(value) else value for name, value in values.items()}

    def summary(self, steps: int) -> dict[str, Any]:
        """Return what the record of a run directory says of the fit, after ``steps`` updates."""
        return {
            "epochs": len(self.frame), "step": steps, "stopped": self.stopped,
            "best_epoch": self.best_epoch, "best": self.best_row(),
            "validation_elbo": self.validation_elbo,
            "validation_elbo_se": self.validation_elbo_se, "measure": self.measure,
            "step_kind": self.step, "step_reason": self.step_reason, "shards": self.shards,
            "step_threads": self.threads,
        }  # fmt: skip

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the learning curves, training and held-out ELBO over epochs, and return the axes.

        Args:
            ax: Axes to draw in; new ones where ``None``.
        """
        from ppl_vae.plots.curves import learning_curves  # noqa: PLC0415  matplotlib loads slowly

        epochs, elbo, held_out = (self.frame[c] for c in ("epoch", "elbo", "validation_elbo"))
        shown: tuple[pd.Series | None, int | None] = held_out, self.best_epoch
        if held_out.isna().all():
            shown = None, None
        curve, best = shown
        return learning_curves(epochs, elbo, curve, best_epoch=best, measure=self.measure, ax=ax)

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        last = self.frame.iloc[-1]
        title = (
            f"{len(self.frame)} epochs, {int(last['step'])} steps in {last['seconds']:.1f} s"
            f" (ended by: {self.stopped})"
        )
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        lines = [
            Line(title, "title"),
            Line(f"{self.objective}: {self.reason}", label="objective"),
            Line(f"{self.step}: {self.step_reason}; {threads}", label="step"),
            Line(f"{last['elbo']:.3f} nats per row", label=f"training {self.measure}"),
        ]
        if self.objective_differs:
            differs = "the objective, which differs here from the ELBO"
            value = f"{last['objective']:.3f} nats per row: {differs}"
            lines.append(Line(value, label="trained value"))
        if self.validation_elbo is not None:
            lines.append(Line(self.held_out_elbo(), label=f"held-out {self.measure}"))
        tones: dict[bool | None, Tone] = {True: "good", False: "warning", None: "plain"}
        return [[*lines, Line(self.convergence(), tones[self.converged], label="converged")]]

    def convergence(self) -> str:
        """Return in words whether the fit has converged, and what to do where it has not."""
        column = self._judged_curve
        rows = "training" if column == "elbo" else "held-out"
        return convergence.verdict(self.frame[column], f"{rows} {self.measure}")

    @property
    def objective_differs(self) -> bool:
        """Whether what was trained differs from the ELBO in the last epoch, beyond rounding."""
        elbo, objective = self.frame.iloc[-1][["elbo", "objective"]]
        return bool(abs(objective - elbo) > 1e-6 * max(1.0, abs(elbo)))

    def held_out_elbo(self, write: Callable[[float], object] = "{:.3f}".format) -> str:
        """Return the held-out ELBO with its standard error and its origin, in words.

        Args:
            write: Writes a number, in nats per row, as text.
        """
        if self.validation_elbo is None or self.validation_elbo_se is None:
            return "unknown"
        return (
            f"{write(self.validation_elbo)} ± {write(self.validation_elbo_se)} nats per row"
            f" (new draws, at the weights of epoch {self.best_epoch}, which the pair has)"
        )
