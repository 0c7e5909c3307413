"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model of the zoo, or file.py:Class.")
]
Guide = Annotated[
    str, typer.Argument(metavar="GUIDE", help="A guide of the zoo, file.py:Class, or none.")
]
Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="A .csv, .tsv, .parquet, .npy or .npz file.")
]
Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="The directory of a run, or one of its .safetensors files."),
]
RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A constructor argument: model.latents=8, guide.latents=8, or latents=8 for each "
        "that has it. May be repeated.",
    ),
]
Statistics = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE.py:NAME",
        help="A function T(x), or T(x, latents), beside the built-in statistics; the file is "
        "executed. May be repeated.",
    ),
]
Plate = Annotated[str, typer.Option(metavar="NAME", help="Name of the row plate.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every draw.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where to write: .csv, .tsv, .parquet, .npy or .npz."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Execute the model and guide files kept in the run.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
