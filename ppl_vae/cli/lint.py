"""``ppl-vae lint``: check a pair and its data for faults before a fit."""

from typing import Any

import ppl_vae
from ppl_vae.cli.console import reporting, table
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    Covariates,
    Data,
    Device,
    Drop,
    Fields,
    Guide,
    Ignore,
    Kinds,
    Label,
    Missing,
    Model,
    Plate,
    Quiet,
    SchemaFile,
    Seed,
    Settings,
    Step,
    UnseenMissing,
)
from ppl_vae.cli.pairs import build_pair, check_names, read
from ppl_vae.cli.sequence_files import SequenceColumns
from ppl_vae.cli.table_files import TableOptions

SHOWN_COLUMNS = ["site", "role", "distribution", "guide", "event_shape", "plates", "estimator"]


def lint(
    model: Model,
    guide: Guide,
    data: Data,
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    label: Label = None,
    step: Step = None,
    kinds: Kinds = None,
    ignore: Ignore = None,
    missing: Missing = None,
    covariates: Covariates = None,
    unseen_missing: UnseenMissing = False,
    schema: SchemaFile = None,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = None,
    plate: Plate = "data",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Check a pair and its data for faults before a fit.

    Prints a table of the sites of the model and the guide, and each fault with its remedy. Exits
    with 1 if an error is found; warnings do not count as errors.
    """
    with reporting(as_json, quiet) as report:
        check_names(model, guide)
        choice: dict[str, Any] = {"columns": columns, "drop": drop, "label": label}
        options = TableOptions.of(
            kinds, ignore, missing, covariates, schema, unseen_missing=unseen_missing
        )
        if options.are_wanted(model):
            rows: Any = options.read(data, **choice)
        else:
            of_sequences = SequenceColumns.wanted(data, None, step=step, **choice)
            rows = read(data, fields=fields, of_sequences=of_sequences, **choice)
        pair = build_pair(model, guide, rows, settings, seed, device)
        found = ppl_vae.lint(*pair, rows, seed=seed, plate=plate)
        objective = found.objective
        report.result(
            {
                "ok": not found.errors, "objective": objective and objective.name,
                "reason": objective and objective.reason,
                "sites": found.sites.to_dict("records"),
                "findings": [{**vars(f), "message": str(f)} for f in found.findings],
            }
        )  # fmt: skip
        report.show(table(SHOWN_COLUMNS, found.sites[SHOWN_COLUMNS].itertuples(index=False)))
        if objective is not None:
            report.show(f"objective: {objective.name} ({objective.reason})")
        for finding in found.warnings:
            report.note(f"warning: {finding}")
        if found.errors:
            raise report.faults(found.errors)
        report.show("no findings" if not found.findings else "no errors")
