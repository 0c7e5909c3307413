"""Callbacks for ``fit`` that write the history where other tools read it.

A callback is called once an epoch as ``callback(row, model, guide)``; ``row`` is the epoch's entry
of the history: ``epoch``, ``step``, ``elbo`` and ``validation_elbo`` in nats per row (NaN without
held-out rows), ``seconds``.

    fit(model, guide, x, validation=0.1, callbacks=[TensorBoard("runs/tb"), CSV("runs/fit.csv")])

Any function of these three arguments serves as well, so that no other tracker needs a class here.
Weights & Biases:

    import wandb

    tracker = wandb.init(project="digits", config={"latents": 8})

    def log(row, model, guide):
        tracker.log(row, step=row["step"])

    fit(model, guide, x, validation=0.1, callbacks=[log])
    tracker.finish()

MLflow:

    import mlflow

    def log(row, model, guide):
        mlflow.log_metrics(row, step=row["step"])

    with mlflow.start_run():
        mlflow.log_params({"latents": 8})
        fit(model, guide, x, validation=0.1, callbacks=[log])
"""

from __future__ import annotations

import csv
import importlib.util
import io
import math
from pathlib import Path
from typing import Any

__all__ = ["CSV", "TensorBoard"]


class TensorBoard:
    """Write the ELBOs of every epoch as TensorBoard events.

    The scalars are ``elbo``, ``objective`` and ``validation_elbo``, in nats per row, over steps;
    NaN is left out.
    A fit that is resumed goes on in the same folder. TensorBoard then hides older events at the
    same steps or later ones, which a process that was killed may have left; so a new fit deserves
    a new folder.

    Args:
        folder: Where the event files go; made where it does not exist.

    Raises:
        ValueError: If the package ``tensorboard`` is not installed.

    Example:
        ``fit(model, guide, x, callbacks=[TensorBoard("runs/tb")])``, then on the command line
        ``tensorboard --logdir runs/tb``.
    """

    def __init__(self, folder: str | Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ValueError(
                "TensorBoard: expected the package tensorboard, which is not installed; "
                "pip install tensorboard, or write the history with CSV(path)"
            )
        self.folder = Path(folder)
        self._writer: Any = None
        self._last_step = math.inf

    def __call__(self, row: dict[str, float], model: Any, guide: Any) -> None:
        """Write one epoch's scalars, and flush them to the disk."""
        if row["step"] <= self._last_step:  # the first epoch of a fit that begins or is resumed
            self._begin(int(row["step"]))
        for name in ("elbo", "objective", "validation_elbo"):
            if not math.isnan(row[name]):
                self._writer.add_scalar(name, row[name], int(row["step"]))
        self._writer.flush()
        self._last_step = row["step"]

    def _begin(self, step: int) -> None:
        """Open an event file whose events replace older ones at ``step`` or later."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  optional package

        if self._writer is not None:
            self._writer.close()
        self._writer = SummaryWriter(str(self.folder), purge_step=step)


class CSV:
    """Append every epoch's entry of the history to a file, one line an epoch.

    Nothing that the file holds is ever overwritten. A new or empty file begins with the names of
    the columns. A file that holds a history already is appended to, as a resumed fit needs: where a
    process was killed, the resumed fit may repeat some epochs, and the last line of an epoch
    counts. Any other file is refused.

    A line is written in one piece, so that a program that reads the file meanwhile does not meet
    half a line.

    Args:
        path: The file, usually ``*.csv``; its folder is made where it does not exist.

    Raises:
        ValueError: If the file holds something else than a history.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "fit.csv"
        >>> write = CSV(path)
        >>> write({"epoch": 1, "elbo": -3.5}, None, None)
        >>> write({"epoch": 2, "elbo": -3.0}, None, None)
        >>> print(path.read_text().strip())
        epoch,elbo
        1,-3.5
        2,-3.0
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._check_columns(["epoch"])

    def __call__(self, row: dict[str, float], model: Any, guide: Any) -> None:
        """Append one epoch."""
        self._check_columns(list(row))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            header = [list(row)] if file.tell() == 0 else []
            buffer = io.StringIO()
            csv.writer(buffer, lineterminator="\n").writerows([*header, list(row.values())])
            file.write(buffer.getvalue())

    def _check_columns(self, columns: list[str]) -> None:
        """Raise ``ValueError`` where the file has a first line that does not begin with these."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return
        with self.path.open(newline="", errors="replace") as file:
            first = next(csv.reader(file), [])
        if first[: len(columns)] != columns:
            raise ValueError(
                f"CSV: expected {self.path} to be new or to hold a history with the columns "
                f"{', '.join(columns)}, got {', '.join(first)[:80]!r}; choose another file"
            )
