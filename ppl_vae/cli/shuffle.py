"""``ppl-vae shuffle``: Parquet files written anew, with their rows in a random order."""

from pathlib import Path
from typing import Annotated

import typer

from ppl_vae.bars import Bar
from ppl_vae.cli.console import UsageError, reporting
from ppl_vae.cli.options import AsJson, Quiet, Seed


def shuffle(
    data: Annotated[
        Path, typer.Argument(help="A folder of Parquet files, or one Parquet file.", metavar="DATA")
    ],
    out: Annotated[Path, typer.Option("--out", help="The new folder.")],
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the rows of Parquet files into a new folder in a random order.

    A fit to files that are larger than memory mixes some row groups at a time. Where files are
    sorted, ppl-vae lint says so, and this command mends it. All columns are kept. The command needs
    little memory, and as much space on the disk as the rows take unpacked.
    """
    with reporting(as_json, quiet) as report:
        from ppl_vae.data.row_groups import open_folder, row_groups_of  # noqa: PLC0415  slow
        from ppl_vae.data.shuffle import shuffle as write_shuffled  # noqa: PLC0415

        if not data.exists():
            raise UsageError(f"{data}: no such file or folder")
        rows = sum(group.rows for group in row_groups_of(open_folder(data), str(data)))
        bar = Bar("shuffle", report.progress)
        with bar.over(total=2 * rows, unit="row", unit_scale=True) as bar:
            files = write_shuffled(data, out, seed=seed, told=bar.update)
        report.result({"rows": rows, "files": files, "folder": str(out)})
        report.show(f"{rows:,} rows in {files} files in {out}")
