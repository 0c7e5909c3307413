"""What a command says: results on stdout, everything else on stderr, an exit code.

0     done
1     the data, the pair or the run is at fault
2     the command line is at fault
130   ended by Ctrl-C
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

FAULT, USAGE, INTERRUPTED = 1, 2, 130


class UsageError(ValueError):
    """The command line asks for what cannot be: an unknown name, a file that is not there."""


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """A ``ValueError`` inside is one of the command line's."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


class CommandOutput:
    """Where one command prints.

    Args:
        as_json: One JSON object on stdout, nothing else there.
        quiet: Nothing but errors.
    """

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.progress = not quiet and sys.stderr.isatty()
        self._untold: list[str] = []

    def result(self, values: Mapping[str, Any]) -> None:
        """The JSON object."""
        if self.as_json:
            typer.echo(json.dumps(plain(values), allow_nan=False))

    def show(self, *parts: str | Table) -> None:
        """Text and tables for people."""
        if self.as_json or self.quiet:
            return
        from rich.console import Console  # noqa: PLC0415  only where something is shown

        wide = None if sys.stdout.isatty() else 10_000  # a pipe has no edge to fold lines at
        console = Console(width=wide, markup=False, highlight=False)
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str))

    def note(self, text: str) -> None:
        """Something to know, on stderr; ``--quiet`` keeps it for the case of an error."""
        if self.quiet:
            self._untold.append(text)
        else:
            typer.echo(text, err=True)

    def faults(self, errors: Iterable[object]) -> typer.Exit:
        """Tell what is wrong with what was looked at; the exit to raise."""
        for error in errors:
            typer.echo(f"error: {error}", err=True)
        return typer.Exit(FAULT)

    def fail(self, error: ValueError) -> typer.Exit:
        """Tell an error; the exit to raise."""
        text = _in_options(str(error))
        for untold in self._untold:
            typer.echo(untold, err=True)
        typer.echo(f"error: {text}", err=True)
        self.result({"error": text})
        return typer.Exit(USAGE if isinstance(error, UsageError) else FAULT)


@contextlib.contextmanager
def reporting(as_json: bool, quiet: bool) -> Iterator[CommandOutput]:
    """Run a command: its errors and warnings become one readable line each."""
    report = CommandOutput(as_json, quiet)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest: report.note(f"warning: {message}")
        try:
            yield report
        except ValueError as error:
            raise report.fail(error) from error
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """A table whose cells are shown as they are."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = RichTable(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(Text(str(column)), overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    return made


def preview(frame: pd.DataFrame, rows: int = 10) -> Table:
    """The top left corner of a frame of numbers, as wide as the terminal."""
    each = max(8, *(len(name) for name in frame.columns)) + 3
    columns = max(1, (shutil.get_terminal_size((100, 24)).columns - 16) // each)
    shown = frame.iloc[:rows, :columns]
    more = ["..."] if len(frame.columns) > columns else []
    lines = [
        [label, *(f"{value:.4g}" for value in line), *more]
        for label, line in zip(shown.index, shown.to_numpy(), strict=True)
    ]
    if len(frame) > rows:
        lines.append(["..."])
    return table("", ["", *shown.columns, *more], lines)


def plain(value: Any) -> Any:
    """A value as JSON knows it: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # arrays, tensors and numpy's numbers
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _in_options(message: str) -> str:
    """A message of the library in words of the command line."""
    message = re.sub(r'load\("([^"]+)"\)', r"give \1 as RUN", message)
    return re.sub(
        r"\b(trust_code|resume|clip_norm)=(True)?(?=\W|$)",
        lambda match: "--" + match[1].replace("_", "-"),
        message,
    )
