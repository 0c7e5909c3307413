"""Open a run for a command; check the file for the results, and write the results."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ppl_vae
from ppl_vae.cli.console import CommandOutput, UsageError, preview
from ppl_vae.cli.pairs import on_device, read
from ppl_vae.cli.sequence_files import SequenceColumns

if TYPE_CHECKING:
    from ppl_vae.core.pair import Guide, Model
    from ppl_vae.saving.runs import Run

EXTENSIONS = (".csv", ".tsv", ".parquet", ".npy", ".npz")
"""Extensions of the files that results can be written to."""


@dataclass(frozen=True)
class OpenedRun:
    """The pair of a run directory, ready for use.

    Attributes:
        path: The run directory, or one of its ``.safetensors`` files.
        model: The model with its stored weights.
        guide: The guide with its stored weights; ``None`` for a pair without a guide.
        example: Two rows of zeros in the form of the run's data; ``None`` if saved without data.
        plate: Name of the row plate.
        sequences: The columns that the fit has read sequences from; ``None`` for other data.
    """

    path: Path
    model: Model
    guide: Guide
    example: Any
    plate: str
    sequences: SequenceColumns | None = None

    def settings(self, seed: int, report: CommandOutput) -> dict[str, Any]:
        """Return the arguments that every public function takes: ``seed, progress, plate``."""
        return {"seed": seed, "progress": report.progress, "plate": self.plate}

    def read(
        self,
        data: Path,
        *,
        columns: Sequence[str] | None = None,
        drop: Sequence[str] | None = None,
        fields: Sequence[str] | None = None,
        label: str | None = None,
    ) -> Any:
        """Return the rows of a data file in the form of the run's data; as ``pairs.read``."""
        choice: dict[str, Any] = {"columns": columns, "drop": drop, "label": label}
        of_sequences = SequenceColumns.wanted(data, self.sequences, step=None, **choice)
        return read(data, self.example, fields=fields, of_sequences=of_sequences, **choice)

    def rows(self) -> Any:
        """Return two rows of zeros in the form of the run's data.

        Raises:
            UsageError: If the pair was saved without data.
        """
        if self.example is None:
            raise UsageError(
                f"{self.path}: saved without data, so the form of its rows is unknown: give "
                "--like DATA"
            )
        return self.example


def open_run(
    run: Path,
    *,
    trust_code: bool,
    out: Path | None,
    force: bool,
    label: str | None = None,
    inputs: Iterable[Path | None] = (),
    device: str | None = None,
    unseen_missing: bool = False,
) -> OpenedRun:
    """Load the pair of a run, after a check that the results can be written.

    Args:
        run: The run directory, or one of its ``.safetensors`` files.
        trust_code: Whether to execute the copies of the user's own files in the run.
        out: File for the results, or ``None``.
        force: Whether ``out`` may replace a file.
        label: The column of row labels, which ``out`` must be able to hold.
        inputs: Files that the command reads, which ``out`` never replaces.
        device: Where the pair computes.
        unseen_missing: Whether categories of a table that the fit has not seen are missing values.

    Raises:
        UsageError: If there is no such directory or device, if ``out`` cannot be written, or if the
            run is of no table of columns of kinds, which alone has categories.
        ValueError: If the run is damaged, has no recipe, or needs ``--trust-code``.
    """
    check_out(out, force=force, inputs=inputs)
    if label is not None and out is not None and out.suffix.lower() in (".npy", ".npz"):
        raise UsageError(
            f"--id {label}: expected --out FILE with an ending of a table, .csv, .tsv or .parquet, "
            f"got {out}, whose rows have no labels"
        )
    record = read_run(run.parent if run.suffix == ".safetensors" else run)
    _check_opens(record, trust_code=trust_code)
    model, guide = on_device(ppl_vae.load(run, trust_code=trust_code), device)
    example = None if record.info["template"] is None else record.example()
    example = _with_unseen(example, run) if unseen_missing else example
    fitted = SequenceColumns.of_run(record.path)
    return OpenedRun(run, model, guide, example, record.info["plate"], fitted)


def _with_unseen(example: Any, run: Path) -> Any:
    """Return rows of a table with a schema that takes unknown categories for missing values.

    Raises:
        UsageError: If the rows are of other data.
    """
    if not hasattr(example, "schema"):
        raise UsageError(
            f"--unseen-missing: expected a run that was fitted to a table with kinds of columns, "
            f"got {run}"
        )
    from ppl_vae.data.mixed_tables import Table  # noqa: PLC0415  loads torch

    schema = replace(example.schema, unseen="missing")
    return Table(example, schema, example.frame, example.index)


def _check_opens(record: Run, *, trust_code: bool) -> None:
    """Check what ``load`` would refuse, to say what to do in words of the command line.

    Raises:
        ValueError: If the run has no recipe, or if its own source files are not trusted.
    """
    recipe = record.info["recipe"]
    if recipe is None:
        raise ValueError(
            f"{record.path}: holds weights without a recipe ({record.info['no_recipe']}); open it "
            "in Python: ppl_vae.load(run, model=..., guide=...)"
        )
    from ppl_vae.saving.recipes import users_files  # noqa: PLC0415  loads torch

    files = [str(record.path / file) for file in users_files(recipe)]
    if files and not trust_code:
        raise ValueError(
            f"{record.path}: made from the user's own files, copied to {', '.join(files)}; read "
            "them, then execute them by --trust-code"
        )


def read_run(run: Path) -> Run:
    """Read the record of a run directory, without its weights and code.

    Raises:
        UsageError: If there is no such directory; runs beside it are named.
        ValueError: If the directory is not a run, or is damaged.
    """
    if not run.is_dir():
        beside = run.parent.iterdir() if run.parent.is_dir() else []
        runs = [other.name for other in beside if (other / "run.json").is_file()]
        near = difflib.get_close_matches(run.name, runs, n=3, cutoff=0.4) or sorted(runs)[:5]
        hint = f"; in {run.parent} there is {', '.join(near)}" if near else ""
        raise UsageError(f"{run}: no such run directory{hint}")
    if (run / "member-0").is_dir():
        raise ValueError(
            f"{run}: holds an ensemble, which the command cannot open; open it in Python, by "
            f"AnomalyDetector.load, or give one of its pairs, as {run / 'member-0'}"
        )
    from ppl_vae.saving import runs as records  # noqa: PLC0415  loads torch

    return records.read_run(run)


def check_out(
    out: Path | None, *, force: bool, inputs: Iterable[Path | None] = (), option: str = "--out"
) -> None:
    """Check, before any work is done, that a file of results can be written.

    Args:
        out: The file; ``None`` where none is written.
        force: Whether it may replace a file.
        inputs: Files that the command reads, which it never replaces.
        option: The option that names the file.

    Raises:
        UsageError: If the file exists and may not be replaced, or is an input, if its folder does
            not exist, or if its extension is unknown.
    """
    if out is None:
        return
    if out.suffix.lower() not in EXTENSIONS:
        got = out.suffix or "no extension"
        raise UsageError(f"{option} {out}: expected one of {', '.join(EXTENSIONS)}, got {got}")
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"{option} {out}: expected a file in a folder that exists")
    if out.exists() and any(f is not None and f.exists() and out.samefile(f) for f in inputs):
        raise UsageError(f"{option} {out}: expected a file other than the data, which are kept")
    if out.exists() and not force:
        raise UsageError(f"{option} {out}: is there already; --force replaces it")


def check_holds_cells(out: Path | None, rows: Any, option: str = "--out") -> None:
    """Check, before any work is done, that a file can hold the cells of a mixed table.

    Args:
        out: The file; ``None`` where none is written.
        rows: The data, of any form.
        option: The option that names the file.

    Raises:
        UsageError: If the file holds numbers alone, and a column of the table has others.
    """
    if out is None or out.suffix.lower() not in (".npy", ".npz") or not hasattr(rows, "schema"):
        return
    from pandas.api.types import is_numeric_dtype  # noqa: PLC0415  slow

    columns = rows.schema.columns
    others = [c.name for c in columns if not is_numeric_dtype(c.type_of_cells)]
    if others:
        raise UsageError(
            f"{option} {out}: expected a name that ends in .csv, .tsv or .parquet, because column "
            f'"{others[0]}" of the table holds no numbers'
        )


def files_read(fields: Sequence[str] | None, *files: Path | None) -> list[Path | None]:
    """Return the files that a command reads: some files, and what ``--field`` may name."""
    return [*files, *(Path(word.partition("=")[2]) for word in fields or ())]


def any_number(values: Any) -> bool:
    """Return whether rows have any number other than 0.

    Args:
        values: A frame, an array or tensor, or a mapping or tuple of these.
    """
    if isinstance(values, tuple | dict):
        parts = values.values() if isinstance(values, dict) else values
        return any(map(any_number, parts))
    numbers = values.to_numpy() if hasattr(values, "to_numpy") else values
    return bool((numbers != 0).any())


def hand_over(values: Any, out: Path | None, report: CommandOutput) -> None:
    """Write rows to a file, or print the first of them.

    Args:
        values: A frame, an array or tensor, or a mapping or tuple of these.
        out: The file; if ``None``, the rows are printed (all of them under ``--json``).
        report: Output of the command.

    Raises:
        ValueError: If the file cannot hold these rows, or cannot be written.
    """
    from ppl_vae.cli.outfile import as_json, as_table, describe_rows, write  # noqa: PLC0415  pandas

    count, form = describe_rows(values)
    if out is not None:
        write(out, values)
        report.result({"rows": count, "form": form, "out": out})
        report.show(f"{count} rows ({form}) in {out}")
        return
    if report.as_json:
        report.result({"rows": count, "form": form, "out": None, **as_json(values)})
    try:
        report.show(preview(as_table(values)))
    except ValueError:  # the rows are no table, as images are not
        report.show(f"{count} rows: {form}")
    report.show("--out FILE writes them all")
