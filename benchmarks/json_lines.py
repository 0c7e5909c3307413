"""Results of a benchmark in a file, one JSON object a line, so that a cut-off run can go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class ResultLines:
    """The lines of one file; without a file nothing is stored, and nothing is found.

    Args:
        path: The file; made with the first line. A last line that was cut off is left out.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        text = path.read_text() if path is not None and path.exists() else ""
        self.ends_in_half_a_line = not text.endswith("\n") and bool(text)
        for line in text.splitlines():
            try:
                self.rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue

    def find(self, **settings: Any) -> dict[str, Any] | None:
        """Return the first row with all of these settings, or ``None``."""
        matching = (row for row in self.rows if settings.items() <= row.items())
        return next(matching, None)

    def append(self, row: dict[str, Any]) -> None:
        """Add a row at the end of the file."""
        self.rows.append(row)
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write("\n" * self.ends_in_half_a_line + json.dumps(row) + "\n")
        self.ends_in_half_a_line = False
