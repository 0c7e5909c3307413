"""``ppl-vae check``: does the model make data like those of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

import ppl_vae
from ppl_vae.cli.console import FAULT, CommandOutput, UsageError, reporting, table
from ppl_vae.cli.opened import OpenedRun, open_run
from ppl_vae.cli.options import AsJson, Data, Force, Out, Quiet, Run, Seed, Statistics, TrustCode
from ppl_vae.cli.pairs import function, read

if TYPE_CHECKING:
    from ppl_vae.checks.predictive_checks import PredictiveCheck

FEWEST = 19  # replicates: checks.FEWEST, which loads torch
COLUMNS = ("observed", "mean", "lower", "upper", "p_value", "p_adjusted")


def check(
    run: Run,
    data: Data,
    statistics: Statistics = None,
    num_samples: Annotated[int, typer.Option(min=1, help="Replicates of the data.")] = 200,
    prior: Annotated[
        bool, typer.Option("--prior", help="Replicates of the model alone, without the guide.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where a statistic is flagged.")
    ] = False,
    out: Out = None,
    seed: Seed = 0,
    force: Force = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Statistics of the rows of a file beside those of replicates, flagged ones first.

    Columns of DATA are found by name. --out writes every feature's statistics. The exit code is 0
    whatever is found; with --strict it is 1 where a statistic is flagged (--json counts them).
    """
    with reporting(as_json, quiet) as report:
        if strict and num_samples < FEWEST:
            raise UsageError(f"--strict: expected --num-samples of at least {FEWEST}: with fewer "
                             "nothing can be flagged")  # fmt: skip
        if out is not None and out.exists() and data.exists() and out.samefile(data):
            raise UsageError(f"--out {out}: expected another file than the data")
        opened = open_run(run, trust_code=trust_code, out=out, force=force)
        own = [function(spec) for spec in statistics or ()]
        rows = read(data, opened.example)
        found = _checked(opened, rows, own, num_samples, seed, report, prior=prior)
        if out is not None:
            from ppl_vae.cli.outfile import write  # noqa: PLC0415  pandas

            write(out, found.features.reset_index())
        flagged = int(found.frame["flagged"].sum())
        lines = found.frame.reset_index().to_dict("records")
        report.result(
            {
                "run": run, "data": data, "rows": found.rows, "samples": num_samples,
                "prior": found.prior, "flagged": flagged, "statistics": lines, "out": out,
            }
        )  # fmt: skip
        _show(report, found)
        if out is not None:
            report.show(f"{len(found.features)} statistics of features in {out}")
    if strict and flagged:
        raise typer.Exit(FAULT)


def _checked(
    opened: OpenedRun,
    rows: Any,
    own: list[Any],
    num_samples: int,
    seed: int,
    report: CommandOutput,
    *,
    prior: bool,
) -> PredictiveCheck:
    return ppl_vae.predictive_check(
        opened.model,
        None if prior else opened.guide,
        rows,
        statistics=["built-in", *own],
        num_samples=num_samples,
        seed=seed,
        progress=report.progress,
        plate=opened.plate,
    )


def _show(report: CommandOutput, found: PredictiveCheck) -> None:
    """The table, and in words what it says."""
    title, *rest = str(found).partition("\n\n")[0].splitlines()
    notes = str(found).rpartition("\n\n")[2].splitlines()
    report.show(title, *rest)
    several = len(set(found.frame.index.get_level_values("site"))) > 1
    titles = (["site"] if several else []) + ["statistic", "feature", *COLUMNS, ""]
    lines = []
    for (site, statistic), line in zip(
        found.frame.index, found.frame.to_dict("records"), strict=True
    ):
        numbers = [f"{line[name]:.4g}" for name in COLUMNS]
        mark = "FLAGGED" if line["flagged"] else ""
        lines.append(([site] if several else []) + [statistic, line["feature"], *numbers, mark])
    report.show(table("", titles, lines))
    report.show(*notes)
