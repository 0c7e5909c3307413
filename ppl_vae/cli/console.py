"""What a command prints and how it exits: results on stdout, everything else on stderr.

Exit codes:

    0     done
    1     an error in the data, the pair or the run
    2     an error in the command line
    130   interrupted by Ctrl-C
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
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ppl_vae.safe_text import printable

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

FAULT, USAGE, INTERRUPTED = 1, 2, 130

_OPTIONS = {
    "index": "--id", "fields": "--field", "calibration": "--calibrate", "kinds": "--kind",
    "covariates": "--covariate",
}  # fmt: skip
"""Options of the command that have another name than the argument in Python."""


class UsageError(ValueError):
    """An error in the command line, such as an unknown name or a file that does not exist.

    The command exits with 2 for this error, and with 1 for any other ``ValueError``.
    """


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Turn a ``ValueError`` raised inside the ``with`` block into a ``UsageError``."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


class CommandOutput:
    """The output of one command: results, notes and errors.

    Texts may hold names from the user's files. Whatever is printed goes through ``printable``, so
    that no name moves the cursor, colours the screen or turns the direction of a line; JSON has
    escapes of its own.

    Args:
        as_json: Print one JSON object on stdout and nothing else there.
        quiet: Print nothing but errors.

    Attributes:
        progress: ``progress`` of the library's functions: none with ``quiet``.
    """

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.progress = False if quiet else None
        self._held_back: list[str] = []

    def result(self, values: Mapping[str, Any]) -> None:
        """Print the result as a JSON object, if ``--json`` was given."""
        if self.as_json:
            typer.echo(json.dumps(json_value(values), allow_nan=False))

    def show(self, *parts: str | Table) -> None:
        """Print text and tables for people, unless ``--json`` or ``--quiet`` was given."""
        if self.as_json or self.quiet:
            return
        from rich.console import Console  # noqa: PLC0415  only where something is shown

        width = None if sys.stdout.isatty() else 10_000  # in a pipe, lines are never folded
        console = Console(width=width, markup=False, highlight=False)
        for part in parts:
            shown = printable(part) if isinstance(part, str) else part
            console.print(shown, soft_wrap=isinstance(part, str))

    def note(self, text: str) -> None:
        """Print a note or a warning on stderr.

        With ``--quiet`` the note is held back, and printed only if the command ends in an error.
        """
        if self.quiet:
            self._held_back.append(text)
        else:
            typer.echo(printable(text), err=True)

    def faults(self, errors: Iterable[object]) -> typer.Exit:
        """Print errors that a command found in its input, and return the exit to raise."""
        for error in errors:
            typer.echo(printable(f"error: {error}"), err=True)
        return typer.Exit(FAULT)

    def fail(self, error: ValueError) -> typer.Exit:
        """Print the error that ends a command, and return the exit to raise."""
        text = in_options(error)
        for note in self._held_back:
            typer.echo(printable(note), err=True)
        typer.echo(printable(f"error: {text}"), err=True)
        self.result({"error": text})
        return typer.Exit(USAGE if isinstance(error, UsageError) else FAULT)


@contextlib.contextmanager
def reporting(as_json: bool, quiet: bool) -> Iterator[CommandOutput]:
    """Run a command inside a ``with`` block: each error and each warning becomes one line.

    Yields:
        The output of the command.

    Raises:
        typer.Exit: With the exit code, after an error or Ctrl-C.
    """
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


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """Return a table for ``CommandOutput.show``; the text of a cell is never read as markup.

    Control characters of a cell are shown as escapes, ends of lines included.

    Args:
        columns: Headings.
        rows: Cells, whose ``str`` is shown.
    """
    from rich import box  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        shown.add_column(Text(printable(str(column), allowed="")), overflow="fold")
    for row in rows:
        shown.add_row(*(Text(printable(str(cell), allowed="")) for cell in row))
    return shown


def preview(frame: pd.DataFrame, rows: int = 10) -> Table:
    """Return the first rows and columns of a frame, as many as fit the terminal.

    Args:
        frame: Numbers, texts and dates.
        rows: Number of rows to show, at most.
    """
    width = max(8, *(len(str(name)) for name in frame.columns)) + 3
    columns = max(1, (shutil.get_terminal_size((100, 24)).columns - 16) // width)
    shown = frame.iloc[:rows, :columns]
    more = ["..."] if len(frame.columns) > columns else []
    lines = [[label, *map(_cell, line), *more] for label, *line in shown.itertuples(name=None)]
    if len(frame) > rows:
        lines.append(["..."])
    return table(["", *shown.columns, *more], lines)


def _cell(value: Any) -> str:
    """Return a cell of a preview: a number in a few digits, the beginning of a text."""
    if isinstance(value, str):
        return value if len(value) <= 12 else value[:11] + "…"
    try:
        return str(value) if isinstance(value, Integral) else f"{value:.4g}"
    except (TypeError, ValueError):
        return str(value)


def json_value(value: Any) -> Any:
    """Return a value that JSON can hold; NaN and infinite numbers become ``None``.

    Example:
        >>> json_value({"path": Path("x"), "values": (1.0, float("nan"))})
        {'path': 'x', 'values': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # arrays, tensors and numpy's numbers
        return json_value(value.tolist())
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _as_option(argument: str) -> str:
    """Return the option of the command that stands for an argument of the library."""
    return _OPTIONS.get(argument, "--" + argument.replace("_", "-"))


def in_options(error: ValueError) -> str:
    """Return an error of the library with Python arguments spelled as command line options."""
    return with_options(str(error))


def with_options(text: str) -> str:
    """Return a text of the library with Python arguments spelled as command line options.

    The library advises in Python: ``resume=True continues it``. A user of the command reads
    ``--resume continues it``. Only the spelling changes; nothing is decided by the text.

    Example:
        >>> with_options('"?" looks like a gap: missing=["?"] makes it one')
        '"?" looks like a gap: --missing "?" makes it one'
        >>> with_options("leave the column out: ignore=['id']")
        "leave the column out: --ignore 'id'"
    """
    message = re.sub(r'load\("([^"]+)"\)', r"give \1 as RUN", text)
    message = message.replace("save(run, overwrite=True)", "score --keep-detector --force")
    message = message.replace('table(..., unseen="missing")', "--unseen-missing")
    message = message.replace('unseen="missing"', "--unseen-missing")
    message = re.sub(r'\bkinds=\{"([^"]*)": "(\w+)"\}', r'--kind "\1=\2"', message)
    message = re.sub(r"\b(missing|ignore)=\[([^\]]*)\]", r"--\1 \2", message)
    return re.sub(
        r"\b(trust_code|resume|clip_norm|columns|drop|index|fields|keep|kinds|covariates)=(True)?"
        r"(?=\W|$)"
        r"|(?<!-)\b(columns|drop|index|fields|keep|calibration|reference|score|false_alarm_rate"
        r"|false_discovery_rate|kinds|ignore|missing|covariates)(?=: expected|: column)",
        lambda match: _as_option(match[1] or match[3]),
        message,
    )
