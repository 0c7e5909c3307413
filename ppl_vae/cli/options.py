"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A model from the zoo, or a class in a file: file.py:Class."
    ),
]
Guide = Annotated[
    str,
    typer.Argument(
        metavar="GUIDE", help="A guide from the zoo, a class in a file: file.py:Class, or none."
    ),
]
Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A .csv, .csv.gz, .tsv, .parquet, .npy or .npz file, or a folder of Parquet files.",
    ),
]
DataOrFolder = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A .csv, .csv.gz, .tsv, .parquet, .npy or .npz file, or a folder of files of one such "
        "kind, each of which is data of its own.",
    ),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N",
        help="The part of the folder's files to read: 3/16 for every 16th file from the 3rd on, so "
        "that 16 machines share them.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="A column of the table to read, in place of all. May be repeated."
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A column of the table to leave out. May be repeated."),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="NAME",
        help="The column of the table that labels the rows, numbers or text: it is no feature, and "
        "every file of results for rows has it, to join on. With --step, the lines that share a "
        "label are one sequence.",
    ),
]
Step = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The column of the table that numbers the steps of sequences, whole numbers that "
        "rise: each line is a step, of the sequence that --id says. A Parquet file whose cells "
        "hold lists needs none. The run keeps the names for the other commands.",
    ),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        metavar="FIELD=NAME",
        help="A column of the table, or an array of the .npz file, that is a field of its own: "
        "size=library passes the column library as size, and the other columns as x. A run finds "
        "the column again by its name. size=sizes.npy reads a file of its own, with as many rows. "
        "May be repeated.",
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="COLUMN=KIND",
        help="What a column of a table holds, where the guess is wrong: age=count. Kinds are real, "
        "positive, count, date, binary, categorical, ordinal, identifier, text. May be repeated.",
    ),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="NAME",
        help="A column of the table that the model does not read. May be repeated.",
    ),
]
Missing = Annotated[
    list[str] | None,
    typer.Option(
        "--missing",
        metavar="TEXT",
        help="A text or number of the table that stands for a missing value: '?'. May be repeated.",
    ),
]
Covariates = Annotated[
    list[str] | None,
    typer.Option(
        "--covariate",
        metavar="NAME",
        help="A column of the table that the model is given and does not describe. May be "
        "repeated.",
    ),
]
UnseenMissing = Annotated[
    bool,
    typer.Option(
        "--unseen-missing", help="Take categories that the fit has not seen for missing values."
    ),
]
SchemaFile = Annotated[
    Path | None,
    typer.Option(
        "--schema",
        metavar="FILE",
        help="A JSON file with the schema of the table, as ppl-vae schema writes it.",
    ),
]
Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory, or one of its .safetensors files.")
]
RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A constructor argument: model.latents=8 for the model, guide.latents=8 for the "
        "guide, latents=8 for both. A value is a number, a text, or a network such as "
        "GaussianNoise(0.5). May be repeated.",
    ),
]
Statistics = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE.py:NAME",
        help="A function T(x) or T(x, latents) in a file, added to the built-in statistics. The "
        "file is executed. May be repeated.",
    ),
]
Plate = Annotated[str, typer.Option(metavar="NAME", help="Name of the row plate.")]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="Where the pair computes: cpu, cuda, cuda:1, mps; the CPU by default. Of processes "
        "that share a fit, each takes a device of its own for cuda.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random draws.")]
Draws = Annotated[int, typer.Option(min=1, help="Draws of the latents for each row.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write the results to a .csv, .tsv, .parquet, .npy or .npz file."
    ),
]
OutOrFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write the results to a .csv, .tsv, .parquet, .npy or .npz file; of a folder of data "
        "to a folder, which has a file of results for each file, and skips those that it has.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="Execute the copies of your model and guide files that the run stores."
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the results as one JSON object, of a folder one for each file."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
