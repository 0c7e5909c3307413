"""``ppl-vae generate``: new rows from the model of a run."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import ppl_vae
from ppl_vae.cli.console import UsageError, reporting
from ppl_vae.cli.opened import (
    any_number,
    check_holds_cells,
    files_read,
    hand_over,
    open_run,
)
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    Device,
    Drop,
    Fields,
    Force,
    Out,
    Quiet,
    Run,
    Seed,
    TrustCode,
)


def generate(
    run: Run,
    num_samples: Annotated[int, typer.Option(min=1, help="Number of new rows.")] = 100,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="Rows from which the new rows take the columns that the model does not draw "
            "(covariates; rows are chosen at random). Without it those columns are zero.",
        ),
    ] = None,
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="The value of a covariate in all new rows: sex=Female for a covariate of a table, "
            "or a field that the model reads. May be repeated.",
        ),
    ] = None,
    expected: Annotated[
        bool, typer.Option("--expected", help="The expected row of the drawn latents, not a draw.")
    ] = False,
    out: Out = None,
    seed: Seed = 0,
    force: Force = False,
    device: Device = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw new rows from the model of a run, in the form of its data.

    Without --out the first rows are shown.
    """
    with reporting(as_json, quiet) as report:
        inputs = files_read(fields, like)
        opened = open_run(
            run, trust_code=trust_code, device=device, out=out, force=force, inputs=inputs
        )
        if like is None and opened.sequences is not None:
            raise UsageError(
                f"{run}: of sequences, whose lengths the model does not draw: give --like DATA, "
                "from whose sequences they are taken"
            )
        rows = (
            opened.rows()
            if like is None
            else opened.read(like, columns=columns, drop=drop, fields=fields)
        )
        check_holds_cells(out, rows)
        values = _values(given or ())
        if like is None and (note := _of_zeros(rows, set(values))):
            report.note(note)
        settings = opened.settings(seed, report)
        generated = ppl_vae.generate(
            opened.model, opened.guide, rows, num_samples=num_samples, expected=expected,
            given=values, **settings,
        )  # fmt: skip
        if like is None and opened.sequences is None and not any_number(generated):
            report.note(
                "note: all new rows are 0; a model that takes the total of a row from the data, "
                "such as the length of a document, needs --like DATA"
            )
        if like is not None and hasattr(generated, "columns") and hasattr(rows, "schema"):
            report.note(str(ppl_vae.privacy_check(generated, rows, progress=report.progress)))
        if opened.sequences is not None and (out is None or out.suffix.lower() != ".npz"):
            generated = opened.sequences.table(generated)
        hand_over(generated, out, report)


def _of_zeros(rows: Any, given: set[str]) -> str:
    """Return a note on what is 0, or of a first category, in rows of no file; "" for nothing.

    Args:
        rows: Rows in the form of the data.
        given: Names of the fields and the covariates that have values from the command.
    """
    if hasattr(rows, "schema"):
        names = [str(column.name) for column in rows.schema.given]
        if not (left := [name for name in names if name not in given]):
            return ""
        return (
            f"note: the covariates {', '.join(left)} have the mean or the first category in these "
            "rows; --given NAME=VALUE gives them, or --like DATA takes them from rows of a file"
        )
    fields = set(rows) if isinstance(rows, dict) else set(map(str, range(len(rows))))
    has_more = isinstance(rows, tuple | dict) and len(rows) > 1
    if not has_more or fields <= {"x", "seen", *given}:
        return ""
    return (
        "note: fields that the model reads and does not draw (a size, say) are 0 in these rows; "
        "--like DATA takes them from rows of a file"
    )


def _values(words: Sequence[str]) -> dict[str, Any]:
    """Return the values of covariates from words of the form ``NAME=VALUE``.

    A value is a number, or else a text.

    Raises:
        UsageError: If a word has another form.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--given: expected NAME=VALUE, got {word}")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found
