"""A run opened for use: its pair, the form of its data, and where results go."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ppl_vae
from ppl_vae.cli.console import CommandOutput, UsageError, preview

if TYPE_CHECKING:
    from ppl_vae.saving.runs import Run as Held

EXTENSIONS = (".csv", ".tsv", ".parquet", ".npy", ".npz")


@dataclass(frozen=True)
class OpenedRun:
    """What a run directory held.

    Attributes:
        path: The directory.
        model: The model, with its weights.
        guide: The guide, likewise; ``None`` for a pair without one.
        example: Rows in the form of the run's data; ``None`` where it was saved without data.
        plate: Name of the row plate.
    """

    path: Path
    model: Any
    guide: Any
    example: Any
    plate: str

    def rows(self) -> Any:
        """Rows in the form of the run's data.

        Raises:
            UsageError: Where the run does not know its form.
        """
        if self.example is None:
            raise UsageError(f"{self.path}: saved without data: give --like DATA")
        return self.example


def open_run(run: Path, *, trust_code: bool, out: Path | None, force: bool) -> OpenedRun:
    """Load a run, after a look at where its results are to go.

    Raises:
        UsageError: Where there is no such directory, or ``out`` cannot be written.
        ValueError: Where the run is damaged, or holds code that is not trusted.
    """
    check_out(out, force=force)
    held = read_run(run.parent if run.suffix == ".safetensors" else run)
    _check_opens(held, trust_code=trust_code)
    model, guide = ppl_vae.load(run, trust_code=trust_code)
    known = held.info["template"] is not None
    return OpenedRun(run, model, guide, held.example() if known else None, held.info["plate"])


def _check_opens(held: Held, *, trust_code: bool) -> None:
    """What ``load`` would refuse, with what to do about it here."""
    recipe = held.info["recipe"]
    if recipe is None:
        raise ValueError(
            f"{held.path}: holds weights without a recipe ({held.info['no_recipe']}); open it in "
            "Python: ppl_vae.load(run, model=..., guide=...)"
        )
    told = [half["file"] for half in recipe.values() if half and "file" in half]
    files = sorted({str(held.path / file) for file in told})
    if files and not trust_code:
        raise ValueError(
            f"{held.path}: made from files of its user's, kept in {', '.join(files)}; read them, "
            "then --trust-code executes them"
        )


def read_run(run: Path) -> Held:
    """What a run says of itself.

    Raises:
        UsageError: Where there is no such directory; runs near it are named.
        ValueError: Where it is no run, or damaged.
    """
    if not run.is_dir():
        beside = run.parent.iterdir() if run.parent.is_dir() else []
        runs = [other.name for other in beside if (other / "run.json").is_file()]
        near = difflib.get_close_matches(run.name, runs, n=3, cutoff=0.4) or sorted(runs)[:5]
        hint = f"; in {run.parent} there is {', '.join(near)}" if near else ""
        raise UsageError(f"{run}: no such run directory{hint}")
    from ppl_vae.saving.runs import read_run as read  # noqa: PLC0415  loads torch

    return read(run)


def check_out(out: Path | None, *, force: bool) -> None:
    """Refuse, before any work, a file that cannot or must not be written.

    Raises:
        UsageError: Where it is there, its folder is not, or its extension is unknown.
    """
    if out is None:
        return
    if out.suffix.lower() not in EXTENSIONS:
        got = out.suffix or "no extension"
        raise UsageError(f"--out {out}: expected one of {', '.join(EXTENSIONS)}, got {got}")
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"--out {out}: expected a file in a folder that is there")
    if out.exists() and not force:
        raise UsageError(f"--out {out}: is there already; --force replaces it")


def hand_over(values: Any, out: Path | None, report: CommandOutput) -> None:
    """Write rows to a file, or show them.

    Args:
        values: A frame, an array or tensor, or a mapping or tuple of those.
        out: The file; the rows are shown if ``None``.
        report: Where they are shown.
    """
    from ppl_vae.cli.outfile import as_json, as_table, describe_rows, write  # noqa: PLC0415  pandas

    count, shape = describe_rows(values)
    if out is not None:
        write(out, values)
        report.result({"rows": count, "form": shape, "out": out})
        report.show(f"{count} rows ({shape}) in {out}")
        return
    if report.as_json:
        report.result({"rows": count, "form": shape, "out": None, **as_json(values)})
    try:
        report.show(preview(as_table(values)))
    except ValueError:  # no table
        report.show(f"{count} rows: {shape}")
    report.show("--out FILE writes them all")
