"""``ppl-vae schema``: what kind of values each column of a table holds, as a fit would read it."""

from pathlib import Path
from typing import Annotated

import typer

from ppl_vae.cli.console import UsageError, reporting, with_options
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    Covariates,
    Data,
    Drop,
    Force,
    Ignore,
    Kinds,
    Label,
    Missing,
    Quiet,
    UnseenMissing,
)
from ppl_vae.cli.table_files import TableOptions


def schema(
    data: Data,
    columns: Columns = None,
    drop: Drop = None,
    label: Label = None,
    kinds: Kinds = None,
    ignore: Ignore = None,
    missing: Missing = None,
    covariates: Covariates = None,
    unseen_missing: UnseenMissing = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the schema to a .json file, for fit --schema."),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show the kind, the categories, the range and the gaps of each column of a table.

    The file that --out writes may be edited: a kind, the categories and their order, what stands
    for a gap. ppl-vae fit --schema FILE reads the data by it.
    """
    with reporting(as_json, quiet) as report:
        if out is not None and out.suffix.lower() != ".json":
            raise UsageError(f"--out {out}: expected a name that ends in .json")
        if out is not None and out.exists() and not force:
            raise UsageError(f"--out {out}: exists already; --force replaces it")
        options = TableOptions.of(
            kinds, ignore, missing, covariates, None, unseen_missing=unseen_missing
        )
        found = options.read(data, columns=columns, drop=drop, label=label).schema
        report.result({"out": out, **found.to_json()})
        report.show(with_options(str(found)))
        if out is not None:
            found.save(out)
            report.show("", f"written to {out}")
