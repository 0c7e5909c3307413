"""``ppl-vae score``: how strange the rows of a data file are, and which are flagged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import ppl_vae
from ppl_vae.cli.console import UsageError, reporting, usage
from ppl_vae.cli.opened import open_run
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    Data,
    Drop,
    Fields,
    Force,
    Quiet,
    Run,
    Seed,
    TrustCode,
)
from ppl_vae.cli.pairs import read, read_in_parts


def score(
    run: Run,
    data: Data,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The results, a .csv, .tsv or .parquet file.")
    ],
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="CLEAN",
            help="A data file of clean rows that the run was not fitted to. Without it the run "
            "must hold a detector, as --keep-detector or AnomalyDetector.save leaves it there.",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(help="Share of clean rows that may be flagged; 0.05 where no rate is given."),
    ] = None,
    false_discovery_rate: Annotated[
        float | None, typer.Option(help="Share of the flagged rows that may be clean.")
    ] = None,
    score: Annotated[
        str,
        typer.Option(metavar="NAME", help="The score, with --calibrate; one of anomaly_scores."),
    ] = "negative_log_likelihood",
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Name the columns that make a flagged row strange, with the nats that its score "
            "falls by where the column has an ordinary value; needs "
            "--calibrate.",
        ),
    ] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A column of the table that the results have, too, as an id or a date. May be "
            "repeated.",
        ),
    ] = None,
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    num_samples: Annotated[
        int, typer.Option(min=1, help="Draws of the latents for each row, with --calibrate.")
    ] = 100,
    seed: Seed = 0,
    keep_detector: Annotated[
        bool,
        typer.Option("--keep-detector", help="Store the calibration in the run, for later calls."),
    ] = False,
    force: Force = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score every row of a file, of any length, and flag the strange rows at a known rate.

    The file is read and scored in parts, so that the memory stays the same. The results are in the
    order of the rows: the columns of --keep, the score in nats (the higher, the stranger), its
    p-value and q-value, whether the row is flagged, k-hat and whether the score is reliable.
    """
    with reporting(as_json, quiet) as report:
        _check_arguments(out, data, calibrate, explain=explain, keep_detector=keep_detector)
        opened = open_run(run, trust_code=trust_code, out=out, force=force)
        from ppl_vae.cli.scored_file import READ, ScoredFile  # noqa: PLC0415  loads pandas

        with usage():
            scored_file = ScoredFile(data, out, keep or [], explain=explain)
        choice: dict[str, Any] = {"columns": columns, "drop": drop, "fields": fields}
        clean = None
        if calibrate is None:
            detector = ppl_vae.AnomalyDetector.load(run, trust_code=trust_code)
        else:
            clean = read(calibrate, opened.example, **choice)
            detector = ppl_vae.AnomalyDetector(
                opened.model, opened.guide, clean, score=score, num_samples=num_samples, seed=seed,
                plate=opened.plate,
            )  # fmt: skip
        if keep_detector:
            detector.save(run)  # refused before the work, where the run holds a detector
        decision = detector.decision(false_alarm_rate, false_discovery_rate)
        report.show(str(detector))
        parts = read_in_parts(data, READ, opened.example, **choice)
        found = scored_file.write(
            detector,
            parts,
            decision,
            reference=clean if explain else None,
            progress=report.progress,
        )
        report.result({"run": run, "data": data, "out": out, **found})
        report.show(
            f"{found['flagged']:,} of {found['rows']:,} rows are flagged, in {out} "
            f"({found['rows_per_second']:,.0f} rows per second)"
        )


def _check_arguments(
    out: Path, data: Path, calibrate: Path | None, *, explain: bool, keep_detector: bool
) -> None:
    """Check what can be told before anything is loaded."""
    if out.suffix.lower() not in (".csv", ".tsv", ".parquet"):
        got = out.suffix or "no extension"
        raise UsageError(f"--out {out}: expected a .csv, .tsv or .parquet file, got {got}")
    if out.exists() and data.exists() and out.samefile(data):
        raise UsageError(f"--out {out}: expected a file other than the data")
    for option, given in (("--explain", explain), ("--keep-detector", keep_detector)):
        if given and calibrate is None:
            raise UsageError(f"{option}: expected --calibrate CLEAN beside it, got none")
