"""Callbacks for ``fit``: they write the history where other tools read it, and watch the latents.

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
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ppl_vae.arguments import check_arguments, check_count

if TYPE_CHECKING:
    from ppl_vae.data.rows import Data

__all__ = ["CSV", "ActiveUnits", "CollapseWarning", "TensorBoard"]


class CollapseWarning(UserWarning):
    """Warning that the posterior of a latent has collapsed onto the prior during a fit.

    Example:
        A fit that must not collapse ends at once:

        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", CollapseWarning)
        ...     warnings.warn("z has collapsed", CollapseWarning, stacklevel=1)
        Traceback (most recent call last):
        ppl_vae.callbacks.CollapseWarning: z has collapsed
    """


class ActiveUnits:
    """Count the active latents of the rows during a fit, and warn once if a site has none left.

    A latent is active where its posterior mean varies from row to row (``latent_usage`` has the
    measure). Latents that are all inactive early in a fit may still wake, above all under a KL
    weight that rises; so the warning waits for ``patience`` looks in a row.

    The fit has the same random numbers with this callback and without it.

    Args:
        data: Some rows, in any form that ``fit`` takes: those of the fit, or held-out ones. At most
            500 of them are looked at, chosen by the seed.
        every: Epochs from one look to the next.
        patience: Looks in a row without an active latent of a site, after which to warn.
        seed: Chooses the rows, and seeds the draws of guides whose means depend on draws.
        plate: Name of the row plate.

    Attributes:
        frame: A line for each look: ``epoch``, ``step``, ``active`` (the number of active latents),
            ``latents`` (the number of all), ``collapsed`` (names of the sites without an active
            latent). A second fit with the same callback begins a new frame.

    Raises:
        ValueError: If ``every`` or ``patience`` is below 1; in the fit, if there are fewer than two
            rows, or the pair has no latent of the rows.

    Example:
        >>> import torch
        >>> from ppl_vae import fit
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = (torch.rand(50, 4) > 0.5).float()
        >>> watch = ActiveUnits(x)
        >>> history = fit(
        ...     BernoulliModel(4, 2), NormalGuide(4, 2), x, epochs=2, callbacks=[watch],
        ...     progress=False,
        ... )
        >>> watch.frame["epoch"].tolist(), watch.frame["latents"].tolist()
        ([1, 2], [2, 2])
    """

    MOST_ROWS = 500

    def __init__(
        self,
        data: Data,
        *,
        every: int = 1,
        patience: int = 5,
        seed: int = 0,
        plate: str = "data",
    ) -> None:
        check_count("every", every)
        check_count("patience", patience)
        check_arguments(seed=seed)
        self.data, self.every, self.patience = data, every, patience
        self.seed, self.plate = seed, plate
        self._begin()

    def _begin(self) -> None:
        """Forget an earlier fit."""
        columns = ["epoch", "step", "active", "latents", "collapsed"]
        self.frame = pd.DataFrame(columns=columns)
        self._lines: list[dict[str, Any]] = []
        self._looks: dict[str, int] = {}  # in a row, without an active latent
        self._last, self._warned = 0, False

    def __call__(self, row: dict[str, float], model: Any, guide: Any) -> None:
        """Look at the latents after an epoch, where one is due."""
        from ppl_vae.core.pair import Pair  # noqa: PLC0415  loads torch
        from ppl_vae.latents.activity import active, activities  # noqa: PLC0415
        from ppl_vae.latents.latent_runs import ChosenRows  # noqa: PLC0415

        epoch = int(row["epoch"])
        if epoch <= self._last:
            self._begin()
        self._last = epoch
        if epoch % self.every:
            return
        pair = Pair.of(model, guide, self.plate)
        chosen = ChosenRows(pair, pair.rows(self.data), self.MOST_ROWS, self.seed)
        found = {name: active(each) for name, each in activities(chosen, self.seed).items()}
        collapsed = [name for name, each in found.items() if not each.any()]
        line = {
            "epoch": epoch,
            "step": int(row["step"]),
            "active": sum(int(each.sum()) for each in found.values()),
            "latents": sum(len(each) for each in found.values()),
            "collapsed": collapsed,
        }
        self._lines.append(line)
        self.frame = pd.DataFrame(self._lines)
        self._looks = {name: self._looks.get(name, 0) + 1 for name in collapsed}
        late = [name for name, looks in self._looks.items() if looks >= self.patience]
        if late and not self._warned:
            self._warned = True
            warnings.warn(
                f'site "{late[0]}": expected latents whose posterior mean varies from row to row, '
                f"got none in {self.patience} looks up to epoch {epoch}: the posterior has "
                "collapsed onto the prior; fit a new pair with a KL warm-up, "
                "kl_weight=ppl_vae.schedules.linear(steps), then with free bits, "
                "elbo=ppl_vae.RowELBO(free_bits=0.1), or with a weaker decoder",
                CollapseWarning,
                stacklevel=2,
            )


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
