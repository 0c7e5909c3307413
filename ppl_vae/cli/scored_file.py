"""The file of results of ``ppl-vae score``, written in two passes over the rows.

Whether a row is flagged may depend on all rows. So the numbers of each row first go into a file of
records that has no name; then the records, and the columns of the data that are handed on, are
read again part by part and written with the decisions. No pass holds more than a part in memory.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ppl_vae.anomaly.decision import COLUMNS
from ppl_vae.bars import Bar
from ppl_vae.cli.growing_table import GrowingTable
from ppl_vae.data.files import check_exists
from ppl_vae.data.parts import kept_parts, rows_in_file

if TYPE_CHECKING:
    from ppl_vae.anomaly.decision import Decision
    from ppl_vae.anomaly.detector import AnomalyDetector

READ = 1 << 16  # rows that are read, or written, at a time
REASONS = 3  # columns that an explanation names, at most
REASONS_COLUMN = "reasons"
RECORD = np.dtype(
    [
        ("score", "f8"), ("level", "i8"), ("k_hat", "f8"), ("reliable", "?"),
        ("cells", "i4", (REASONS,)), ("shares", "f4", (REASONS,)),
    ]
)  # fmt: skip


class ScoredFile:
    """The results of the rows of a data file: columns handed on, scores and decisions.

    Args:
        data: The data file.
        out: The file of results, ``.csv``, ``.tsv`` or ``.parquet``.
        keep: Columns of the data that are handed on as they are.
        explain: Whether to name the columns that make flagged rows strange.

    Attributes:
        labels: The labels of the rows where these are no lines of the file, as sequences are none.

    Raises:
        ValueError: If there is no such data file, it lacks a column of ``keep`` or is no table, or
            the results have a column of that name.
    """

    def __init__(self, data: Path, out: Path, keep: Sequence[str], *, explain: bool) -> None:
        self.data, self.out, self.keep, self.explain = data, out, keep, explain
        self.labels: pd.Index | None = None
        self._labels: list[str] = []
        check_exists(data)
        for name in keep:
            if name in (*COLUMNS, REASONS_COLUMN):
                raise ValueError(
                    f"keep: expected columns of other names than those of the results, got "
                    f'"{name}"; rename it in {data}'
                )
        if keep:
            next(kept_parts(data, 1, keep))  # a column that is missing is refused at once

    def write(
        self,
        detector: AnomalyDetector,
        parts: Iterable[Any],
        decide: Decision,
        *,
        reference: Any = None,
        progress: bool | None = False,
    ) -> dict[str, Any]:
        """Score all rows, decide, and write the results.

        Args:
            detector: The detector.
            parts: The rows of the data file, in parts.
            decide: Which rows are flagged.
            reference: Clean rows, for an explanation.
            progress: Whether to show a bar.

        Returns:
            ``rows``, ``flagged`` and ``rows_per_second`` of the scoring.
        """
        total = rows_in_file(self.data)
        counts = np.zeros(len(detector.scores) + 1, dtype=np.int64)
        bar = Bar("scoring", progress).over(total=total, unit="row", unit_scale=True)
        began = time.perf_counter()
        with self._records() as file:
            with bar:
                scores = detector.parts(
                    parts,
                    reference=reference,
                    explained_rate=decide.rate,
                    total=total,
                    progress=False,
                )  # no row with a higher p-value is flagged at either rate
                for scored in scores:
                    file.write(self._as_records(scored).tobytes())  # tofile hides a full disk
                    counts += np.bincount(scored["level"] - 1, minlength=len(counts))
                    bar.update(len(scored))
            seconds = time.perf_counter() - began
            file.seek(0)
            flagged = 0
            with GrowingTable(self.out) as table:
                for kept, scored in self._read_again(file):
                    decided = decide(scored, counts)
                    flagged += int(decided["flagged"].sum())
                    table.append(pd.concat([kept, decided], axis=1))
        rows = int(counts.sum())
        return {"rows": rows, "flagged": flagged, "rows_per_second": rows / seconds}

    @contextlib.contextmanager
    def _records(self) -> Iterator[IO[bytes]]:
        """Open a file of records on the disk of the results, which no end of the process leaves.

        Raises:
            ValueError: If the disk is full, or the folder cannot be written.
        """
        try:
            with tempfile.TemporaryFile(dir=self.out.parent) as file:
                yield file
        except OSError as error:
            raise ValueError(f"{self.out}: cannot be written: {error}") from error

    def _as_records(self, scored: pd.DataFrame) -> Any:
        """Return the numbers of scored rows as records, with the largest attributions."""
        records = np.zeros(len(scored), RECORD)
        for name in ("score", "level", "k_hat", "reliable"):
            records[name] = scored[name]
        if self.explain:
            shares = scored.filter(regex="^attribution:")
            self._labels = [name.removeprefix("attribution:") for name in shares.columns]
            values = shares.to_numpy()
            largest = np.argsort(-values, axis=1, kind="stable")[:, :REASONS]
            count = largest.shape[1]
            records["cells"][:, :count] = largest
            records["shares"][:, :count] = np.take_along_axis(values, largest, 1)
        return records

    def _read_again(self, file: IO[bytes]) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        """Yield the columns that are handed on, and the numbers of the rows, part by part."""
        kept = kept_parts(self.data, READ, self.keep) if self.keep else None
        if self.labels is not None:
            name = self.labels.name or "row"
            column = pd.DataFrame({name: self.labels})
            kept = (column[start : start + READ] for start in range(0, len(column), READ))
        while content := file.read(READ * RECORD.itemsize):
            records = np.frombuffer(content, RECORD)
            names = ("score", "level", "k_hat", "reliable")
            frame = pd.DataFrame({name: records[name] for name in names})
            if self.explain:
                frame[REASONS_COLUMN] = self._reasons(records)
            handed_on = pd.DataFrame(index=frame.index)
            if kept is not None:
                handed_on = self._next(kept, len(frame)).set_axis(frame.index)
            yield handed_on, frame
        if kept is not None:
            self._next(kept, 0)

    def _next(self, kept: Iterator[pd.DataFrame], rows: int) -> pd.DataFrame:
        """Return the next part of the columns that are handed on, of as many rows as were scored.

        Raises:
            ValueError: If the data file has other rows by now.
        """
        part = next(kept, pd.DataFrame())
        if len(part) != rows:
            raise ValueError(f"{self.data}: has changed while it was scored; score it again")
        return part

    def _reasons(self, records: Any) -> list[str]:
        """Return which columns make each row strange, with their attributions in nats."""
        return [
            ", ".join(
                f"{self._labels[cell]} {share:+.1f}"
                for cell, share in zip(cells, shares, strict=True)
                if share > 0
            )
            for cells, shares in zip(records["cells"], records["shares"], strict=True)
        ]
