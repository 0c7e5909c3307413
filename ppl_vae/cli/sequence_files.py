"""Files of sequences for the commands: which of their columns a run has read, and in what order.

``ppl-vae fit ... --id machine --step t`` stores the names in the run directory, beside the fit. The
other commands find them there, so that a later file may have its columns in another order.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FILE = "sequences.json"


@dataclass(frozen=True)
class SequenceColumns:
    """The columns of a file that sequences are read from.

    Attributes:
        id: The column that says which sequence a line belongs to; ``None`` where each line is a
            sequence.
        step: The column of the steps' numbers; ``None`` where cells hold lists.
        columns: The features, in their order; ``None`` for all columns.
        drop: Columns to leave out.
    """

    id: str | None = None
    step: str | None = None
    columns: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()

    @classmethod
    def of_run(cls, run: Path) -> SequenceColumns | None:
        """Return the columns that the fit of a run has read; ``None`` for a run of other data.

        Raises:
            ValueError: If the file is damaged.
        """
        path = run / FILE
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            names = [found["id"], found["step"], *found["columns"]]
            if not all(isinstance(name, str | None) for name in names):
                raise TypeError
            return cls(found["id"], found["step"], tuple(found["columns"]))
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path}: damaged; name the columns again, by --id, --step and --columns"
            ) from None

    @classmethod
    def wanted(
        cls,
        path: Path,
        fitted: SequenceColumns | None,
        *,
        columns: Sequence[str] | None,
        drop: Sequence[str] | None,
        label: str | None,
        step: str | None,
    ) -> SequenceColumns | None:
        """Return the columns to read from a file; ``None`` where it is no file of sequences.

        Args:
            path: The file.
            fitted: The columns of the fit, in whose place options stand.
            columns: The option ``--columns``.
            drop: The option ``--drop``.
            label: The option ``--id``.
            step: The option ``--step``.
        """
        from ppl_vae.data.parquet import list_columns  # noqa: PLC0415  loads pandas

        lists = list_columns(path)
        if path.suffix.lower() in (".npy", ".npz") or not (step or lists or fitted):
            return None
        fitted = fitted or cls()
        if lists and fitted.step not in lists:  # a run may read lists and lines in turn
            fitted = replace(fitted, step=None)
        return cls(
            label or fitted.id, step or fitted.step,
            tuple(columns) if columns else fitted.columns, tuple(drop or ()),
        )  # fmt: skip

    def read(self, path: Path) -> Any:
        """Return the sequences in a file.

        Raises:
            ValueError: If the file cannot be read.
        """
        from ppl_vae.data.files import read_steps, sequences_in  # noqa: PLC0415  loads pandas

        frame = read_steps(
            path, columns=self.columns, drop=self.drop, index=self.id, step=self.step
        )
        return sequences_in(frame, index=self.id, step=self.step)

    def named(self, path: Path) -> SequenceColumns:
        """Return the columns with the names of all features, in the order of a file."""
        from ppl_vae.data.parts import read_parts  # noqa: PLC0415  loads pandas

        if self.columns is not None:
            return replace(self, drop=())
        with warnings.catch_warnings(action="ignore"):  # the whole file is read with warnings
            frame, _ = next(read_parts(path, 1, drop=self.drop, index=self.id))
        return SequenceColumns(
            self.id, self.step, tuple(name for name in frame.columns if name != self.step)
        )

    def save(self, run: Path) -> None:
        """Write the columns into a run directory."""
        names = asdict(self)
        del names["drop"]
        (run / FILE).write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")

    def table(self, data: Any) -> Any:
        """Return sequences as a frame in long form: a line for each step, numbered from 0.

        Args:
            data: Sequences with these features, as ``ppl_vae.sequences`` gives them.
        """
        import numpy as np  # noqa: PLC0415  the command answers a wrong name without these
        import pandas as pd  # noqa: PLC0415

        lengths = np.asarray(data["lengths"])
        row = np.repeat(np.arange(len(lengths)), lengths)
        step = np.arange(len(row)) - np.repeat(lengths.cumsum() - lengths, lengths)
        of_place = {self.id or "sequence": row, self.step or "step": step}
        values = np.asarray(data["x"])[row, step]
        return pd.DataFrame(of_place).join(pd.DataFrame(values, columns=list(self.columns or ())))
