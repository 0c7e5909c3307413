"""``ppl-vae score``: how strange the rows of a data file are, and which are flagged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import ppl_vae
from ppl_vae.cli.console import CommandOutput, UsageError, reporting, usage
from ppl_vae.cli.folders import DataFiles
from ppl_vae.cli.opened import OpenedRun, files_read, open_run, read_run
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    DataOrFolder,
    Device,
    Drop,
    Fields,
    Force,
    Part,
    Quiet,
    Run,
    Seed,
    TrustCode,
    UnseenMissing,
)
from ppl_vae.cli.pairs import read_in_parts
from ppl_vae.cli.table_files import without_kept

if TYPE_CHECKING:
    from ppl_vae.anomaly.decision import Decision
    from ppl_vae.anomaly.detector import AnomalyDetector
    from ppl_vae.cli.scored_file import ScoredFile


_OF_CALIBRATION = ("score", "reference", "num_samples", "seed", "explain", "keep_detector")
"""Arguments that a stored detector has already, or that need the calibration rows."""


def score(
    context: typer.Context,
    run: Run,
    data: DataOrFolder,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The results, a .csv, .tsv or .parquet file; of a folder of data a folder, which "
            "has a file of results for each file, and skips those that it has.",
        ),
    ],
    part: Part = None,
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
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="NORMAL",
            help="A data file of normal rows, as those of the fit, for --score typicality.",
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Name the columns that make a flagged row strange, with the nats that its score "
            "falls by where the column has an ordinary value; needs "
            "--calibrate. Not for sequences.",
        ),
    ] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A column of the table that the results have, too, as an id or a date. May be "
            "repeated. Not for sequences.",
        ),
    ] = None,
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    unseen_missing: UnseenMissing = False,
    num_samples: Annotated[
        int, typer.Option(min=1, help="Draws of the latents for each row, with --calibrate.")
    ] = 100,
    seed: Seed = 0,
    keep_detector: Annotated[
        bool,
        typer.Option(
            "--keep-detector",
            help="Store the calibration in the run, for later calls; with --force in place of one "
            "that is there.",
        ),
    ] = False,
    force: Force = False,
    device: Device = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score every row of a file, of any length, and flag the strange rows at a known rate.

    The file is read and scored in parts, so that the memory stays the same. The results are in the
    order of the rows: the columns of --keep, the score in nats (the higher, the stranger), its
    p-value and q-value, whether the row is flagged, k-hat and whether the score is reliable. Of a
    folder, each file is scored by itself; q-values are of the rows of one file.
    """
    with reporting(as_json, quiet) as report:
        files = DataFiles.of(data, out, part, force=force)
        _check_arguments(files, run, calibrate, _given(context), keep_detector=keep_detector)
        opened = open_run(
            run, trust_code=trust_code, device=device, out=files.single_out, force=force,
            inputs=files_read(fields, data, calibrate, reference), unseen_missing=unseen_missing,
        )  # fmt: skip
        from ppl_vae.anomaly.saved_detectors import DETECTOR  # noqa: PLC0415  loads torch

        if opened.sequences is not None and (keep or explain):
            raise UsageError(
                "--keep, --explain: expected none for a run of sequences, whose lines in the file "
                "are no rows of the results"
            )
        choice: dict[str, Any] = {"columns": columns, "drop": drop, "fields": fields}
        rates = {"false_alarm_rate": false_alarm_rate, "false_discovery_rate": false_discovery_rate}
        stored = _stored(run, trust_code=trust_code) if calibrate is None else None
        how: dict[str, Any] = {"detector": run / DETECTOR}
        if calibrate is not None:
            how = {"calibrate": calibrate, "score": score, "reference": reference}
            how |= {"num_samples": num_samples, "seed": seed}
        how |= {**rates, **choice, "keep": keep or [], "explain": explain}
        how |= {"unseen_missing": True} if unseen_missing else {}
        to_make = list(_results(files, run, how))
        clean = None
        if stored is not None:
            detector, decision = stored, stored.decision(**rates)
        else:
            assert calibrate is not None
            _refuse_stored(run, keep_detector=keep_detector, force=force)
            clean = opened.read(calibrate, **choice)
            decision = _decision(calibrate, clean, opened, rates)
            detector = ppl_vae.AnomalyDetector(
                opened.model, opened.guide, clean, score=score, num_samples=num_samples, seed=seed,
                reference=None if reference is None else opened.read(reference, **choice),
                plate=opened.plate,
            )  # fmt: skip
        if keep_detector:
            detector.save(run, overwrite=force)
        report.show(str(detector))
        for scored_file in to_make:
            _score(
                scored_file, detector, decision, opened, choice, clean if explain else None, report
            )
        files.tell(report)


def _results(files: DataFiles, run: Path, how: dict[str, Any]) -> Iterator[ScoredFile]:
    """Yield what is to be made of each file whose results are not there yet."""
    from ppl_vae.cli.scored_file import ScoredFile  # noqa: PLC0415  loads pandas

    for file, result in files.left(run, command="score", **how):
        assert result is not None  # --out is required
        with usage():
            yield ScoredFile(file, result, how["keep"], explain=how["explain"])


def _score(
    scored_file: ScoredFile, detector: AnomalyDetector, decision: Decision, opened: OpenedRun,
    choice: dict[str, Any], clean: Any, report: CommandOutput,
) -> None:  # fmt: skip
    """Score the rows of one file, write the results and say how many are flagged."""
    from ppl_vae.cli.scored_file import READ  # noqa: PLC0415  loads pandas

    data, out = scored_file.data, scored_file.out
    if opened.sequences is None:
        read = without_kept(choice, opened.example, scored_file.keep)
        parts = read_in_parts(data, READ, opened.example, **read)
    else:  # the steps of a sequence may stand anywhere in the file
        whole = opened.read(data, **choice)
        parts, scored_file.labels = iter([whole]), whole["lengths"].index
    found = scored_file.write(detector, parts, decision, reference=clean, progress=report.progress)
    report.result({"run": opened.path, "data": data, "out": out, **found})
    report.show(
        f"{found['flagged']:,} of {found['rows']:,} rows are flagged, in {out} "
        f"({found['rows_per_second']:,.0f} rows per second)"
    )


def _given(context: typer.Context) -> list[str]:
    """Return the arguments in ``_OF_CALIBRATION`` that the command line has."""
    sources = {name: context.get_parameter_source(name) for name in _OF_CALIBRATION}
    return [name for name, source in sources.items() if source and source.name != "DEFAULT"]


def _check_arguments(
    files: DataFiles, run: Path, calibrate: Path | None, given: Sequence[str], *,
    keep_detector: bool,
) -> None:  # fmt: skip
    """Check what can be told before anything is loaded."""
    out = files.single_out
    if out is not None and out.suffix.lower() not in (".csv", ".tsv", ".parquet"):
        got = out.suffix or "no extension"
        raise UsageError(f"--out {out}: expected a .csv, .tsv or .parquet file, got {got}")
    if given and calibrate is None:
        raise UsageError(
            f"--{given[0].replace('_', '-')}: expected --calibrate CLEAN beside it, got none"
        )
    if run.suffix == ".safetensors" and (calibrate is None or keep_detector):
        raise UsageError(
            f"{run}: expected the run directory, which holds the detector, got a file in it; give "
            f"{run.parent}, or --calibrate CLEAN without --keep-detector"
        )


def _stored(run: Path, *, trust_code: bool) -> AnomalyDetector:
    """Return the detector that a run holds."""
    from ppl_vae.anomaly.saved_detectors import DETECTOR  # noqa: PLC0415  loads torch

    if run.is_dir() and not (run / DETECTOR).exists():
        raise ValueError(f"{run}: no detector in it; give clean rows, --calibrate CLEAN")
    return ppl_vae.AnomalyDetector.load(run, trust_code=trust_code)


def _refuse_stored(run: Path, *, keep_detector: bool, force: bool) -> None:
    """Raise ``UsageError``, before the work, if a stored detector must not be replaced."""
    from ppl_vae.anomaly.saved_detectors import DETECTOR  # noqa: PLC0415  loads torch

    if keep_detector and not force and (run / DETECTOR).exists():
        raise UsageError(f"--keep-detector: {run} holds a detector already; --force replaces it")


def _decision(
    calibrate: Path, clean: Any, opened: OpenedRun, rates: dict[str, float | None]
) -> Decision:
    """Return the decision at a rate, before the calibration rows are scored.

    Raises:
        ValueError: If the rate needs more rows, or the pair was fitted to these.
    """
    from ppl_vae.anomaly.decision import Decision  # noqa: PLC0415  loads torch
    from ppl_vae.core.pair import Pair  # noqa: PLC0415
    from ppl_vae.report.run_facts import find_split  # noqa: PLC0415

    folder = opened.path.parent if opened.path.is_file() else opened.path
    rows = Pair.of(opened.model, opened.guide, opened.plate).rows(clean, "calibration")
    fitted = find_split(rows, read_run(folder).info).get("fitted", ())
    if len(fitted):
        raise ValueError(
            f"{calibrate}: expected rows that the run was not fitted to, got {len(fitted)} of its "
            f"fit among {len(rows)}: the pair finds them less strange than new rows, and there "
            "would be too many false alarms; give rows that were held out"
        )
    return Decision.of(len(rows), **rates)
