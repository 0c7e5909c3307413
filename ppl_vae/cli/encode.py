"""``ppl-vae encode``: the latent codes of the rows of a data file."""

from typing import Annotated, Any

import typer

import ppl_vae
from ppl_vae.cli.console import reporting
from ppl_vae.cli.folders import DataFiles
from ppl_vae.cli.opened import files_read, hand_over, open_run
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    DataOrFolder,
    Device,
    Drop,
    Fields,
    Force,
    Label,
    OutOrFolder,
    Part,
    Quiet,
    Run,
    Seed,
    TrustCode,
    UnseenMissing,
)


def encode(
    run: Run,
    data: DataOrFolder,
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    unseen_missing: UnseenMissing = False,
    label: Label = None,
    out: OutOrFolder = None,
    part: Part = None,
    joint: Annotated[
        bool,
        typer.Option("--joint", help="The most probable joint values of latents that are summed."),
    ] = False,
    num_samples: Annotated[
        int, typer.Option(min=1, help="Draws for each row, where the guide has no closed form.")
    ] = 32,
    seed: Seed = 0,
    force: Force = False,
    device: Device = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compute the codes of every row: means and standard deviations, or probabilities of values.

    Columns of DATA are found by name. Without --out the first rows are shown. Of a folder, each
    file is encoded by itself.
    """
    with reporting(as_json, quiet) as report:
        files = DataFiles.of(data, out, part, force=force)
        opened = open_run(
            run, trust_code=trust_code, device=device, out=files.single_out, force=force,
            label=label, inputs=files_read(fields, data), unseen_missing=unseen_missing,
        )  # fmt: skip
        choice: dict[str, Any] = {
            "columns": columns,
            "drop": drop,
            "fields": fields,
            "label": label,
        }
        draws: dict[str, Any] = {"joint": joint, "num_samples": num_samples}
        settings = opened.settings(seed, report)
        how = {"command": "encode", "seed": seed, **choice, **draws}
        how |= {"unseen_missing": True} if unseen_missing else {}
        for file, result in files.left(run, **how):
            rows = opened.read(file, **choice)
            codes = ppl_vae.encode(opened.model, opened.guide, rows, **draws, **settings)
            hand_over(codes, result, report)
        files.tell(report)
