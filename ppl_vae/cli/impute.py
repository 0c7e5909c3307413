"""``ppl-vae impute``: a data file with its missing cells filled by the pair of a run."""

from pathlib import Path
from typing import Annotated, Any

import typer

import ppl_vae
from ppl_vae.cli.console import UsageError, reporting
from ppl_vae.cli.opened import check_holds_cells, check_out, files_read, hand_over, open_run
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
    TrustCode,
    UnseenMissing,
)


def impute(
    run: Run,
    data: Data,
    out: Out = None,
    cells: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a line for each missing cell: its value, spread, interval, probability, "
            "k-hat and why it is unreliable.",
        ),
    ] = None,
    num_imputations: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="M",
            help="Write M completed files, in which each missing cell is a draw: FILE-1.csv to "
            "FILE-M.csv for --out FILE.csv. Their differences are the uncertainty.",
        ),
    ] = None,
    num_samples: Annotated[
        int, typer.Option(min=1, help="Draws of the latents for each row.")
    ] = 1000,
    level: Annotated[float, typer.Option(help="Probability of the intervals in --cells.")] = 0.9,
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    unseen_missing: UnseenMissing = False,
    label: Label = None,
    seed: Seed = 0,
    force: Force = False,
    device: Device = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fill the missing cells of a file from their posterior given the cells that are there.

    The completed file has the columns of DATA in their order: observed cells as they are, in
    missing ones the posterior mean, the median of positive numbers, the rounded mean of counts, the
    most probable category. Texts that a spreadsheet would calculate get an apostrophe in front, as
    in every file of results.
    """
    with reporting(as_json, quiet) as report:
        if num_imputations is not None and out is None:
            raise UsageError("--num-imputations: expected --out FILE beside it")
        inputs = files_read(fields, data)
        outs = _numbered(out, num_imputations)
        for numbered in outs:
            check_out(numbered, force=force, inputs=inputs)
        check_out(cells, force=force, inputs=inputs, option="--cells")
        if cells is not None and cells.suffix.lower() in (".npy", ".npz"):
            raise UsageError(f"--cells {cells}: expected a name of a .csv, .tsv or .parquet file")
        if cells is not None and cells.resolve() in [each.resolve() for each in outs]:
            raise UsageError(f"--cells {cells}: expected another file than that of --out")
        opened = open_run(
            run, trust_code=trust_code, device=device, out=None, force=force, label=label,
            inputs=inputs, unseen_missing=unseen_missing,
        )  # fmt: skip
        choice: dict[str, Any] = {"columns": columns, "drop": drop, "label": label}
        rows = opened.read(data, fields=fields, **choice)
        for numbered in outs:
            check_holds_cells(numbered, rows)
        found = ppl_vae.impute(
            opened.model, opened.guide, rows, num_samples=num_samples, level=level,
            **opened.settings(seed, report),
        )  # fmt: skip
        report.show(str(found), "")
        sets = [found.completed]
        if num_imputations is not None:
            sets = found.draw(num_imputations, seed=seed)
        if cells is not None:
            hand_over(_one_type_each(found.frame, cells), cells, report)
        files: list[Path | None] = [*outs] or [None]
        for completed, file in zip(sets, files, strict=True):
            if opened.sequences is not None and (file is None or file.suffix.lower() != ".npz"):
                completed = opened.sequences.table(completed)  # noqa: PLW2901
            hand_over(completed, file, report)


def _one_type_each(cells: Any, file: Path) -> Any:
    """Return the lines of the missing cells as a file holds them.

    A column of a Parquet file has one type, so that values of several columns are text there.

    Args:
        cells: The lines, a frame.
        file: The file.
    """
    mixed = ["column", "value", "lower", "upper"] if file.suffix.lower() == ".parquet" else []
    texts = {n: cells[n].map(str, na_action="ignore") for n in mixed if cells[n].dtype == object}
    return cells.assign(**texts)


def _numbered(out: Path | None, count: int | None) -> list[Path]:
    """Return the files of the results: one, or ``count`` with numbers behind the name.

    Example:
        >>> [path.name for path in _numbered(Path("full.csv"), 2)]
        ['full-1.csv', 'full-2.csv']
    """
    if out is None:
        return []
    if count is None:
        return [out]
    return [out.with_name(f"{out.stem}-{n}{out.suffix}") for n in range(1, count + 1)]
