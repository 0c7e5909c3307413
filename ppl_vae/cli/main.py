"""``ppl-vae``: fit and use deep latent-variable models from the shell.

This file does not import torch, so that ``--help`` answers at once; a command imports it when it
runs.
"""

from collections.abc import Callable
from typing import Annotated

import typer

import ppl_vae
from ppl_vae.cli import (
    audit,
    check,
    compare,
    encode,
    evaluate,
    fit,
    generate,
    impute,
    lint,
    list_,
    new,
    report,
    schema,
    score,
    show,
    shuffle,
)

HELP = """Deep latent-variable models, written as Pyro model/guide pairs.

MODEL and GUIDE are names from the zoo, which ppl-vae list shows, or classes in your own files,
given as models/mine.py:Mine. DATA is a .csv, .tsv, .parquet, .npy or .npz file, or a folder of
Parquet files.
"""
EPILOG = (
    "Exit codes: 0 done; 1 an error in the data, the pair or the run (lint: errors were found; "
    "check --strict: a statistic is flagged); 2 an error in the command line; 130 interrupted by "
    "Ctrl-C. Results are printed on stdout, everything else on stderr."
)
COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_.list_zoo, "new": new.new, "lint": lint.lint, "fit": fit.fit,
    "evaluate": evaluate.evaluate, "check": check.check, "compare": compare.compare,
    "audit": audit.audit, "encode": encode.encode,
    "generate": generate.generate, "impute": impute.impute, "score": score.score,
    "report": report.report, "show": show.show,
    "schema": schema.schema, "shuffle": shuffle.shuffle,
}  # fmt: skip

app = typer.Typer(
    name="ppl-vae", epilog=EPILOG, no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False, rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
for name, command in COMMANDS.items():
    app.command(name, epilog=EPILOG)(command)


def _print_version(requested: bool) -> None:
    """Print the version and exit, if ``--version`` was given."""
    if requested:
        typer.echo(ppl_vae.__version__)
        raise typer.Exit


@app.callback(help=HELP)
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Accept the options that are given without a subcommand; the text of ``--help`` is HELP."""


def main() -> None:
    """Run the command ``ppl-vae`` on the arguments of the process."""
    app()
