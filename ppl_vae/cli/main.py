"""``ppl-vae``: fit and use deep latent-variable models from the shell.

Nothing here loads torch; a command does when it runs.
"""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from ppl_vae.cli import check, encode, evaluate, fit, generate, lint, list_, new, report, show

HELP = """Deep latent-variable models, written as Pyro model/guide pairs.

A model or guide is a name of the zoo (ppl-vae list) or a class of your own file,
models/mine.py:Mine. DATA is a .csv, .tsv, .parquet, .npy or .npz file.
"""
EPILOG = (
    "Exit codes: 0 done; 1 the data, the pair or the run is at fault (lint errors and flags under "
    "check --strict too); "
    "2 the command line is at fault; 130 ended by Ctrl-C. Results go to stdout, all else to stderr."
)

app = typer.Typer(
    name="ppl-vae",
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list", epilog=EPILOG)(list_.list_zoo)
app.command("new", epilog=EPILOG)(new.new)
app.command("lint", epilog=EPILOG)(lint.lint)
app.command("fit", epilog=EPILOG)(fit.fit)
app.command("evaluate", epilog=EPILOG)(evaluate.evaluate)
app.command("check", epilog=EPILOG)(check.check)
app.command("encode", epilog=EPILOG)(encode.encode)
app.command("generate", epilog=EPILOG)(generate.generate)
app.command("report", epilog=EPILOG)(report.report)
app.command("show", epilog=EPILOG)(show.show)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(importlib.metadata.version("ppl-vae"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print it and exit."
        ),
    ] = False,
) -> None:
    """Options of the command itself."""


options.__doc__ = HELP


def main() -> None:
    """Run the command."""
    app()
