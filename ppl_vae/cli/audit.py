"""``ppl-vae audit``: can the guide of a run be trusted?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import ppl_vae
from ppl_vae.cli.console import UsageError, in_options, reporting
from ppl_vae.cli.opened import OpenedRun, open_run
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    Data,
    Device,
    Drop,
    Fields,
    Force,
    Label,
    Quiet,
    Run,
    Seed,
    TrustCode,
    UnseenMissing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_FOLDER = "audit"
GAP_ROWS = 200
TITLES = {
    "gap": "How far the guide is from the posterior, and why",
    "calibration": "Whether the guide's draws spread as the posterior does",
    "usage": "Which latents tell of the rows",
}
"""The verdicts, in the order in which they are printed, and what each is about."""


def audit(
    run: Run,
    data: Data,
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    unseen_missing: UnseenMissing = False,
    label: Label = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help=f"Where the figures go; RUN/{DEFAULT_FOLDER} by default."
        ),
    ] = None,
    gap_rows: Annotated[
        int, typer.Option(min=1, help="Rows whose gap is measured, evenly spaced in DATA.")
    ] = GAP_ROWS,
    seed: Seed = 0,
    force: Force = False,
    device: Device = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Judge the guide of a run: its gap, its calibration, and latents that nobody uses.

    Three verdicts are printed, each with a sentence that says what to do: how far the guide is from
    the posterior, and whether its family or its network is to blame; whether its draws are too
    narrow, too wide or beside the posterior, on rows that the model makes; and which latents tell
    of the rows at all. A figure of each is written. Where a pair allows no verdict, it is said why.
    """
    with reporting(as_json, quiet) as report:
        folder = (run.parent if run.suffix == ".safetensors" else run) if out is None else out
        folder = folder / DEFAULT_FOLDER if out is None else folder
        files = {name: folder / f"{name}.png" for name in TITLES}
        for file in files.values():
            if file.exists() and not force:
                raise UsageError(f"{file}: exists; --force replaces it, --out chooses a folder")
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--out {folder}: expected a folder, got a file")
        opened = open_run(
            run, trust_code=trust_code, device=device, out=None, force=force,
            unseen_missing=unseen_missing,
        )  # fmt: skip
        rows = opened.read(data, columns=columns, drop=drop, fields=fields, label=label)
        found = verdicts(opened, rows, gap_rows, opened.settings(seed, report))
        written = _drawn(found, files)
        report.result({"run": run, "data": data, "out": folder, **_as_json(found)})
        for name, title in TITLES.items():
            report.show(f"{title}\n")
            report.show(_told(found[name]), "")
        count = len(written)
        report.show(f"{count} figure{'' if count == 1 else 's'} in {folder}")


def verdicts(
    opened: OpenedRun, rows: Any, gap_rows: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the verdicts on a guide, by the names of ``TITLES``; an error in place of one.

    Args:
        opened: The pair.
        rows: The data.
        gap_rows: Rows whose gap is measured.
        settings: Seed, progress and plate, as every public function takes them.
    """
    pair = (opened.model, opened.guide)
    makers: dict[str, Callable[[], Any]] = {
        "gap": lambda: ppl_vae.inference_gap(*pair, some_rows(opened, rows, gap_rows), **settings),
        "calibration": lambda: ppl_vae.guide_calibration(*pair, rows, **settings),
        "usage": lambda: ppl_vae.latent_usage(*pair, rows, **settings),
    }
    found: dict[str, Any] = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ValueError as error:
            found[name] = error
    return found


def some_rows(opened: OpenedRun, rows: Any, count: int) -> Any:
    """Return so many rows of the data in its form, evenly spaced; all where there are no more."""
    from ppl_vae.core.pair import Pair  # noqa: PLC0415  loads torch
    from ppl_vae.data.rows import as_tuple, evenly_spaced  # noqa: PLC0415

    known = Pair.of(opened.model, opened.guide, opened.plate).rows(rows)
    if len(known) <= count:
        return rows
    places = evenly_spaced(len(known), count)
    return known.restore(as_tuple(known.take(places)), known.index[places.numpy()])


def _told(found: Any) -> str:
    """Return a verdict as text, or why there is none."""
    if isinstance(found, ValueError):
        return f"no verdict: {in_options(found)}\n"
    return f"{found}\n"


def _drawn(found: Mapping[str, Any], files: Mapping[str, Path]) -> list[Path]:
    """Write the figures of the verdicts that there are; return their files."""
    from ppl_vae.plots.png import png  # noqa: PLC0415  loads matplotlib

    written = []
    for name, verdict in found.items():
        if isinstance(verdict, ValueError):
            continue
        try:
            image = png(verdict.plot)
        except ValueError:  # no number that could be drawn
            continue
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_bytes(image.content)
        written.append(files[name])
    return written


def _as_json(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdicts under the names that ``--json`` prints."""
    gap, calibration, usage = (found[name] for name in TITLES)
    failed = {n: in_options(e) for n, e in found.items() if isinstance(e, ValueError)}
    result: dict[str, Any] = {"errors": failed}
    if "gap" not in failed:
        result["gap"] = {
            "cause": gap.cause, "rows": len(gap.frame), "unreliable": int(gap.unreliable.sum()),
            **gap.summary["mean"].to_dict(),
        }  # fmt: skip
    if "calibration" not in failed:
        lines = calibration.frame.astype({"dimension": str}).to_dict("records")
        result["calibration"] = {"passed": calibration.passed, "quantities": lines}
    if "usage" not in failed:
        result["usage"] = {"active": usage.active, "collapsed": usage.collapsed}
    return result
