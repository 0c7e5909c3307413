"""``ppl-vae show``: what is in a run, without executing anything of it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppl_vae.cli.console import reporting, table
from ppl_vae.cli.opened import read_run
from ppl_vae.cli.options import AsJson, Quiet, RunDirectory

STATUS = {
    "running": "running, or cut off: fit --resume continues it",
    "not finite": "ended by a loss or gradient that was not finite",
    "saved": "saved, not fitted in this directory",
}


def show(run: RunDirectory, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """What is in a run: its pair, its data's form, how the fit went, how to open it."""
    with reporting(as_json, quiet) as report:
        info = read_run(run).info
        last = _last_epoch(run)
        report.result({"run": run, **info, "last_epoch": last})
        report.show(table("", ["", str(run)], _lines(info, last)))


def _lines(info: Mapping[str, Any], last: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """What is worth reading, a line each."""
    status = info["status"]
    yield "status", f"{STATUS.get(status, status)} (begun {info['created']})"
    for half in ("model", "guide"):
        recipe = (info["recipe"] or {}).get(half)
        yield half, _call(recipe) if recipe else str(info[half] or "none")
    yield "data", _form(info)
    if "objective" in info:
        yield "objective", f"{info['objective']}: {info['reason']}"
    history = info.get("history") or {}
    if "error" in history:
        yield "error", str(history["error"])
    if "step_kind" in history:
        yield "step", f"{history['step_kind']}: {history['step_reason']}"
    best = history.get("best") or last
    if best:
        ended = f" (ended by: {history['stopped']})" if "stopped" in history else ""
        yield "fit", f"{last.get('epoch', best['epoch']):.0f} epochs{ended}"
        whose = ", whose weights are kept" if ended else ""
        yield "ELBO", f"{_elbos(best)}, in nats per row (epoch {best['epoch']:.0f}{whose})"
    settings = info.get("settings") or {}
    kept = [
        f"{key}={settings[key]}"
        for key in ("seed", "batch_size", "kl_weight", "clip_norm")
        if key in settings
    ]
    if kept:
        yield "settings", ", ".join(kept)
    yield "versions", ", ".join(f"{name} {number}" for name, number in info["versions"].items())
    yield "to open", _opening(info)


def _call(recipe: Mapping[str, Any]) -> str:
    """A recipe as the call that it stands for."""
    from ppl_vae.report.fit_facts import recipe_as_call  # noqa: PLC0415  loads torch

    return recipe_as_call(recipe) + (f"  in {recipe['file']}" if "file" in recipe else "")


def _form(info: Mapping[str, Any]) -> str:
    template = info["template"]
    if template is None:
        return "unknown: saved without data"
    names = template["keys"] or [""] * len(template["fields"])
    parts = []
    for name, field in zip(names, template["fields"], strict=True):
        labels = (
            [str(label) for label in field["labels"] or []] if field["source"] == "frame" else []
        )
        shown = (
            f"{len(labels)} columns: {', '.join(labels)}"
            if labels
            else f"shape {tuple(field['shape'])}"
        )
        parts.append(f"{name}: {shown}" if name else shown)
    return f"{info['rows']} rows to fit to, {'; '.join(parts)}"


def _elbos(row: Mapping[str, float | None]) -> str:
    shown = []
    for name, title in (("elbo", "training"), ("validation_elbo", "held-out")):
        value = row.get(name)
        if value is not None and not math.isnan(value):
            shown.append(f"{title} {value:.3f}")
    return ", ".join(shown)


def _opening(info: Mapping[str, Any]) -> str:
    if info["recipe"] is None:
        return f"in Python: load(run, model=..., guide=...); no recipe ({info['no_recipe']})"
    if any(half and "file" in half for half in info["recipe"].values()):
        files = ", ".join(info["sources"])
        return f"encode, generate with --trust-code, which executes {files}: read them first"
    return "encode, generate"


def _last_epoch(run: Path) -> dict[str, float]:
    """The last whole line of the record that grows during a fit."""
    try:
        with (run / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {key: float(value or "nan") for key, value in rows[-1].items()}
    except (OSError, ValueError, IndexError, TypeError, csv.Error):  # none, or cut at its end
        return {}
