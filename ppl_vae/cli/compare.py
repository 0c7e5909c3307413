"""``ppl-vae compare``: which of several runs explains the rows of a data file best."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import ppl_vae
from ppl_vae.cli.console import CommandOutput, UsageError, reporting, table
from ppl_vae.cli.opened import OpenedRun, files_read, open_run
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    Data,
    Device,
    Draws,
    Drop,
    Fields,
    Force,
    Label,
    Out,
    Quiet,
    Seed,
    TrustCode,
    UnseenMissing,
)

if TYPE_CHECKING:
    from ppl_vae.evaluation.comparison import Comparison

DRAWS_OPTION = "--num-samples"
HEADS = {
    "log_prob": "log-likelihood", "se": "standard error", "difference": "difference",
    "difference_se": "standard error", "lower": "lower", "upper": "upper",
    "rows_better": "rows better", "unreliable": "rows not reliable",
}  # fmt: skip
SHARES = ("rows_better", "unreliable")


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN", help="Two run directories or more, or their .safetensors files."
        ),
    ],
    data: Data,
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    unseen_missing: UnseenMissing = False,
    label: Label = None,
    out: Out = None,
    num_samples: Draws = 5000,
    level: Annotated[float, typer.Option(help="Probability of the intervals.")] = 0.95,
    seed: Seed = 0,
    force: Force = False,
    device: Device = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs by the log-likelihood of the rows of a data file, best to be held-out rows.

    The columns of DATA are matched by name; all runs must observe the same ones, all as densities
    or all as probabilities. The table has the best run first, in nats a row, and each difference
    with its interval; the sentence below says what follows from it. With --out, the log-likelihood
    of each row is written to a file, a column for each run.
    """
    with reporting(as_json, quiet) as report:
        named = _named(runs)
        how: dict[str, Any] = {
            "trust_code": trust_code,
            "device": device,
            "out": out,
            "force": force,
            "unseen_missing": unseen_missing,
        }
        inputs = files_read(fields, data)
        opened = {
            name: open_run(run, label=label, inputs=inputs, **how) for name, run in named.items()
        }
        widest = _widest(opened)
        rows = widest.read(data, columns=columns, drop=drop, fields=fields, label=label)
        found = _compared(opened, rows, num_samples, level, widest.settings(seed, report))
        if out is not None:
            from ppl_vae.cli.outfile import write  # noqa: PLC0415  loads pandas

            write(out, found.rows)
        report.result({"data": data, "runs": named, **_as_json(found), "out": out})
        _show(report, found)
        if out is not None:
            report.show(f"{len(found.rows)} rows in {out}")


def _named(runs: list[Path]) -> dict[str, Path]:
    """Return the runs by the names of their directories, or by their paths where names are equal.

    Raises:
        UsageError: If there are fewer than two, or one is given twice.
    """
    if len(runs) < 2:
        raise UsageError(f"expected two runs or more before the data, got {len(runs)}: {runs[0]}")
    for run in runs:
        if runs.count(run) > 1:
            raise UsageError(f"{run}: expected each run once")
    names = [run.resolve().name for run in runs]
    return dict(zip(names if len(set(names)) == len(names) else map(str, runs), runs, strict=True))


def _widest(opened: dict[str, OpenedRun]) -> OpenedRun:
    """Return the run in whose form the data are read: that of the most numbers.

    The pair of each other run takes its own columns by their names. That is not possible where runs
    have other fields, or read sequences, whose columns have lost their names.

    Raises:
        UsageError: If the runs' data have other forms, or their plates other names.
    """
    first, *others = opened
    for name in others:
        for what in ("plate", "fields", "sequences"):
            ours, theirs = (_part(opened[each], what) for each in (first, name))
            if ours != theirs:
                raise UsageError(
                    f"{name}: expected a run with the {what} of {first}, {ours}, got {theirs}; "
                    "compare such runs in Python, on data in a form that both pairs take"
                )
    return max(opened.values(), key=lambda run: _numbers(run.example))


def _part(run: OpenedRun, what: str) -> Any:
    """Return what must be the same in all runs."""
    if what != "fields":
        return getattr(run, what)
    return list(run.example) if isinstance(run.example, dict) else "one table or array"


def _numbers(example: Any) -> int:
    """Return how many numbers a row has in all fields; 0 where the form is not known."""
    if example is None:
        return 0
    parts = example.values() if isinstance(example, dict) else example
    parts = parts if isinstance(example, dict | tuple) else [example]
    return sum(math.prod(part.shape[1:]) for part in parts)


def _compared(
    opened: dict[str, OpenedRun], rows: Any, num_samples: int, level: float,
    settings: dict[str, Any],
) -> Comparison:  # fmt: skip
    """Return the comparison of all runs on the rows."""
    from ppl_vae.evaluation.summary import UnreliableWarning  # noqa: PLC0415  loads torch

    pairs = {name: (run.model, run.guide) for name, run in opened.items()}
    # the table counts unreliable rows, and the sentences say what they mean
    with warnings.catch_warnings(action="ignore", category=UnreliableWarning):
        return ppl_vae.compare(pairs, rows, num_samples=num_samples, level=level, **settings)


def _as_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison under the names that ``--json`` prints."""
    return {
        "rows": len(found.rows), "left_out": found.left_out, "samples": found.num_samples,
        "level": found.level, "best": found.best,
        "pairs": found.frame.reset_index().to_dict("records"),
        "sentences": found.sentences(DRAWS_OPTION),
    }  # fmt: skip


def _show(report: CommandOutput, found: Comparison) -> None:
    """Print the table, the best run first, and the verdict."""
    lines = [
        [name, *(_cell(column, line[column]) for column in HEADS)]
        for name, line in found.frame.iterrows()
    ]
    count = len(found.rows) - found.left_out
    report.show(f"{count} row{'' if count == 1 else 's'}, nats a row")
    report.show(table(["run", *HEADS.values()], lines), *found.sentences(DRAWS_OPTION))


def _cell(column: str, value: float) -> str:
    """Return a number of the table as text; the first run has no difference."""
    if math.isnan(value):
        return ""
    return f"{100 * value:.1f} %" if column in SHARES else f"{value:.3f}"
