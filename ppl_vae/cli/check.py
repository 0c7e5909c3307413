"""``ppl-vae check``: does the model of a run make data like those of a file?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import ppl_vae
from ppl_vae.cli.console import FAULT, CommandOutput, UsageError, reporting, table
from ppl_vae.cli.opened import files_read, open_run
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    Data,
    Device,
    Drop,
    Fields,
    Force,
    Label,
    Out,
    Quiet,
    Run,
    Seed,
    Statistics,
    TrustCode,
    UnseenMissing,
)
from ppl_vae.cli.pairs import function

if TYPE_CHECKING:
    from ppl_vae.checks.predictive_checks import PredictiveCheck

MIN_REPLICATES = 19  # as in ppl_vae.checks.predictive_checks, whose import would load torch
NUMBERS = ("observed", "mean", "lower", "upper", "p_value", "p_adjusted")


def check(
    run: Run,
    data: Data,
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    unseen_missing: UnseenMissing = False,
    label: Label = None,
    statistics: Statistics = None,
    num_samples: Annotated[
        int, typer.Option(min=1, help="Number of replicates of the data.")
    ] = 200,
    prior: Annotated[
        bool, typer.Option("--prior", help="Draw latents from the prior, without the guide.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any statistic is flagged.")
    ] = False,
    out: Out = None,
    seed: Seed = 0,
    force: Force = False,
    device: Device = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare the statistics of a data file with those of data sets that the model simulates.

    Flagged statistics, those that the model does not reproduce, come first. Columns of DATA are
    found by name. --out writes the statistics of every feature to a file. The exit code is 0,
    unless --strict is given and a statistic is flagged: then it is 1. --json has the number of
    flagged statistics.
    """
    with reporting(as_json, quiet) as report:
        if strict and num_samples < MIN_REPLICATES:
            raise UsageError(
                f"--strict: expected --num-samples of at least {MIN_REPLICATES}, got "
                f"{num_samples}; with fewer nothing can be flagged"
            )
        inputs = files_read(fields, data)
        opened = open_run(
            run,
            trust_code=trust_code,
            device=device,
            out=out,
            force=force,
            inputs=inputs,
            unseen_missing=unseen_missing,
        )
        functions = [function(spec) for spec in statistics or ()]
        rows = opened.read(data, columns=columns, drop=drop, fields=fields, label=label)
        guide, settings = None if prior else opened.guide, opened.settings(seed, report)
        result = ppl_vae.predictive_check(
            opened.model, guide, rows, statistics=["built-in", *functions],
            num_samples=num_samples, **settings,
        )  # fmt: skip
        if out is not None:
            from ppl_vae.cli.outfile import write  # noqa: PLC0415  pandas

            write(out, result.features.reset_index())
        flagged = int(result.frame["flagged"].sum())
        lines = result.frame.reset_index().to_dict("records")
        report.result(
            {
                "run": run, "data": data, "rows": result.rows, "samples": num_samples,
                "prior": result.prior, "flagged": flagged, "statistics": lines, "out": out,
            }
        )  # fmt: skip
        _show(report, result)
        if out is not None:
            report.show(f"{len(result.features)} statistics of features written to {out}")
    if strict and flagged:
        raise typer.Exit(FAULT)


def _show(report: CommandOutput, result: PredictiveCheck) -> None:
    """Print the check: its headline, the table of statistics, and its notes."""
    report.show(*result.headline)
    several_sites = len(set(result.frame.index.get_level_values("site"))) > 1
    heads = ["statistic", "feature", *NUMBERS, ""]
    lines = []
    for line in result.lines.reset_index().to_dict("records"):
        numbers = [f"{line[name]:.4g}" for name in NUMBERS]
        cells = [line["statistic"], line["feature"], *numbers]
        cells.append("FLAGGED" if line["flagged"] else "")
        lines.append([line["site"], *cells] if several_sites else cells)
    report.show(table(["site", *heads] if several_sites else heads, lines))
    report.show(*result.notes)
