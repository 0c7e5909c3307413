"""``ppl-vae report``: write an HTML report of a fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppl_vae.cli.audit import GAP_ROWS, verdicts
from ppl_vae.cli.console import CommandOutput, UsageError, in_options, reporting
from ppl_vae.cli.opened import open_run, read_run
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    Device,
    Drop,
    Fields,
    Force,
    Label,
    Quiet,
    Run,
    Seed,
    Statistics,
    TrustCode,
    UnseenMissing,
)
from ppl_vae.cli.pairs import function

if TYPE_CHECKING:
    from ppl_vae.anomaly.detector import AnomalyDetector
    from ppl_vae.core.pair import Guide, Model

DEFAULT_NAME = "report.html"


def report(
    run: Run,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="Rows to measure the fit on, preferably held-out rows. Without DATA, the report "
            "has only what the run directory says.",
        ),
    ] = None,
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    unseen_missing: UnseenMissing = False,
    label: Label = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"The .html file to write; RUN/{DEFAULT_NAME} by default."
        ),
    ] = None,
    num_samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Draws of the latents for each row; 1000 by default, or fewer, at least 100, "
            "where networks are large and rows many.",
        ),
    ] = None,
    replicates: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Replicated data sets for each predictive check; 200 by default, or at least 100.",
        ),
    ] = None,
    statistics: Statistics = None,
    image_shape: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE", help="HEIGHT,WIDTH or CHANNELS,HEIGHT,WIDTH of rows that are images."
        ),
    ] = None,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit", help="Judge the guide, too, as ppl-vae audit does: a section more."
        ),
    ] = False,
    no_rows: Annotated[
        bool,
        typer.Option("--no-rows", help="Show no single rows, where rows are confidential."),
    ] = False,
    seed: Seed = 0,
    force: Force = False,
    device: Device = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write an HTML report of a fit: settings, curves, log-likelihood, checks, strange rows, code.

    The report is a single file, with its figures inside. It shows the names of features, in figures
    how their values are distributed, some rows beside generated ones, and the strangest rows: their
    labels and scores, and of images the images; --no-rows leaves them out. A detector that the run
    holds, as score --keep-detector stores it, judges the rows.
    """
    with reporting(as_json, quiet) as console:
        folder = run.parent if run.suffix == ".safetensors" else run
        file = folder / DEFAULT_NAME if out is None else out
        opened_run = read_run(folder)
        _check_file(file, force=force)
        shape = _shape(image_shape)
        own = [function(spec) for spec in statistics or ()]
        model = guide = rows = detector = None
        judged: list[Any] = []
        if audit and data is None:
            raise UsageError("--audit: expected DATA, on which the guide is judged")
        if data is not None:
            opened = open_run(
                run,
                trust_code=trust_code,
                device=device,
                out=None,
                force=force,
                unseen_missing=unseen_missing,
            )
            model, guide = opened.model, opened.guide
            rows = opened.read(data, columns=columns, drop=drop, fields=fields, label=label)
            if run == folder:  # a snapshot's weights may be others than the detector's
                detector = _detector(folder, model, guide, console)
            if audit:
                found = verdicts(opened, rows, GAP_ROWS, opened.settings(seed, console))
                judged = [each for each in found.values() if not isinstance(each, ValueError)]
                for each in found.values():
                    if isinstance(each, ValueError):
                        console.note(f"warning: the report has no verdict: {in_options(each)}")
        from ppl_vae.report.page import write_report  # noqa: PLC0415  loads torch

        write_report(
            model, guide, rows, file, run=folder, num_samples=num_samples, replicates=replicates,
            statistics=["built-in", *own], detector=detector, audit=judged,
            image_shape=shape,
            show_rows=not no_rows, seed=seed, overwrite=force, progress=console.progress,
            plate=opened_run.info["plate"],
        )  # fmt: skip
        console.result({"run": run, "data": data, "out": file, "bytes": file.stat().st_size})
        console.show(f"report in {file}")
        if data is None:
            console.show(f"to measure the fit on rows as well: ppl-vae report {run} DATA --force")


def _detector(
    folder: Path, model: Model, guide: Guide, console: CommandOutput
) -> AnomalyDetector | None:
    """Return the detector that a run holds, of the pair that was loaded.

    Returns:
        The detector; ``None`` where there is none, or, with a warning, one that cannot be used.
    """
    from ppl_vae.anomaly.detector import AnomalyDetector  # noqa: PLC0415  loads torch
    from ppl_vae.anomaly.saved_detectors import DETECTOR  # noqa: PLC0415

    if not (folder / DETECTOR).exists():
        return None
    try:
        return AnomalyDetector.load(folder, model=model, guide=guide)
    except ValueError as error:
        console.note(f"warning: the report does without the run's detector: {in_options(error)}")
        return None


def _shape(text: str | None) -> tuple[int, ...] | None:
    """Return the shape of an image from ``"28,28"``; ``None`` for none."""
    if text is None:
        return None
    sizes = text.split(",")
    if len(sizes) not in (2, 3) or not all(size.strip().isdecimal() for size in sizes):
        raise UsageError(f"--image-shape {text}: expected HEIGHT,WIDTH or CHANNELS,HEIGHT,WIDTH")
    return tuple(map(int, sizes))


def _check_file(file: Path, *, force: bool) -> None:
    """Raise ``UsageError``, before any work, for a file that cannot or must not be written."""
    if file.suffix.lower() not in (".html", ".htm"):
        got = file.suffix or "no extension"
        raise UsageError(f"--out {file}: expected a .html file, got {got}")
    if file.is_dir() or not file.parent.is_dir():
        raise UsageError(f"--out {file}: expected a file in a folder that exists")
    if file.exists() and not force:
        raise UsageError(f"{file}: exists; --force replaces it, --out chooses another file")
