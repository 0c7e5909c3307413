"""``ppl-vae new``: copy a model and a guide of the zoo, with a script that fits them, to edit."""

import ast
from pathlib import Path
from typing import Annotated

import typer

from ppl_vae.cli.console import UsageError, reporting
from ppl_vae.cli.options import AsJson, Force, Quiet
from ppl_vae.cli.pairs import NO_GUIDE, check_in_zoo
from ppl_vae.zoo.catalog import Entry, zoo

PACKAGE_FILE = '"""{}"""\n'
SCRIPT = '''"""Fit {files} to a data file.

    python fit.py DATA

DATA is a .csv, .tsv, .parquet, .npy or .npz file. A column that is a field of its own is named by
read_data(..., fields={{"size": "library"}}). Each fit is stored in its own run directory
below runs/. Open a run with ppl-vae show, evaluate, encode or generate, or with ppl_vae.load.
"""

import sys
from datetime import datetime
from pathlib import Path

import pyro
{imports}

from ppl_vae import build, fit, generate, lint
from ppl_vae import read_data

if len(sys.argv) != 2:
    sys.exit(__doc__)
data = read_data(sys.argv[1])
pyro.set_rng_seed(0)  # for the initial weights

{built}

print(lint(model, guide, data))
run = Path("runs", f"{{datetime.now():%Y-%m-%d-%H%M%S}}")
print(fit(model, guide, data, validation=0.1, epochs=200, patience=20, run=run))
print(f"\\nStored in {{run}}. New rows:\\n", generate(model, guide, data, num_samples=5))
'''


def new(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model from the zoo.")],
    guide: Annotated[
        str,
        typer.Argument(metavar="GUIDE", help="A guide from the zoo; none where nothing is latent."),
    ],
    into: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder to write the files to.")
    ] = Path(),
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Copy a model and a guide from the zoo into your own files, with a script that fits them.

    Writes models/MODEL.py, guides/GUIDE.py and fit.py, for you to edit. GUIDE is none for a model
    with nothing latent.
    """
    with reporting(as_json, quiet) as report:
        halves = {"models": _entry(model, "models")}
        if guide != NO_GUIDE:
            halves["guides"] = _entry(guide, "guides")
        _check_fits(halves)
        files = _files(halves)
        existing = [str(into / name) for name in files if (into / name).exists()]
        if existing and not force:
            raise UsageError(f"{', '.join(existing)}: exists; --force replaces it")
        _write(into, files)
        specs = [
            str(into / kind / f"{entry.name}.py") + f":{entry.class_name}"
            for kind, entry in halves.items()
        ]
        specs += [] if "guides" in halves else [NO_GUIDE]
        report.result({"files": [into / name for name in files], "pair": specs})
        report.show("\n".join(f"wrote {into / name}" for name in files))
        report.show(f"\nnext:  ppl-vae lint {' '.join(specs)} DATA")
        report.show(f"       ppl-vae fit {' '.join(specs)} DATA --run runs/first")
        report.show(f"or     python {into / 'fit.py'} DATA")


def _entry(name: str, kind: str) -> Entry:
    """Return the zoo's entry for a name; raise ``UsageError`` if there is none."""
    check_in_zoo(name, kind)
    return zoo(kind)[name]


def _check_fits(halves: dict[str, Entry]) -> None:
    """Raise ``UsageError`` for a guide without latents to draw, or for latents without a guide.

    Args:
        halves: ``{"models": entry, "guides": entry}``, without guides where none is to be used.
    """
    model = halves["models"]
    if model.needs_guide and "guides" not in halves:
        guides = " or ".join(zoo("guides"))
        raise UsageError(
            f"{model.name} has latents, which a guide draws: expected {guides} as GUIDE, got "
            f"{NO_GUIDE}"
        )
    if not model.needs_guide and "guides" in halves:
        raise UsageError(
            f"{model.name} has nothing latent for a guide to draw: expected {NO_GUIDE} as GUIDE, "
            f"got {halves['guides'].name}"
        )


def _files(halves: dict[str, Entry]) -> dict[str, str]:
    """Return the contents of the files to write, by their paths.

    Args:
        halves: ``{"models": entry, "guides": entry}``, without guides where nothing is latent.
    """
    names = {kind: f"{kind}/{entry.name}.py" for kind, entry in halves.items()}
    imports = [
        f"from {kind}.{entry.name} import {entry.class_name}"
        for kind, entry in sorted(halves.items())
    ]
    script = SCRIPT.format(
        files=" and ".join(names.values()),
        imports="\n".join(imports),
        built=_built(halves["models"], halves.get("guides")),
    )
    copies = {names[kind]: entry.path.read_text("utf-8") for kind, entry in halves.items()}
    return {**copies, "fit.py": script}


def _write(into: Path, files: dict[str, str]) -> None:
    """Write the files, and an ``__init__.py`` in each folder that has none.

    With the ``__init__.py`` files, ``fit.py`` imports these folders, and not another package that
    happens to be named ``models`` or ``guides``.
    """
    packages = {
        f"{kind}/__init__.py": PACKAGE_FILE.format(kind.title()) for kind in ("models", "guides")
    }
    for name, text in (files | packages).items():
        path = into / name
        if name in packages and path.exists():
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def _built(model: Entry, guide: Entry | None) -> str:
    """Return the lines of ``fit.py`` that build the pair.

    A half that takes the other half as an argument is built second, and the number of latents is
    given once for both.
    """
    takes = {"model": _arguments(model), "guide": [] if guide is None else _arguments(guide)}
    lines = ["latents = 8  # dimensions of the latent space"] if "latents" in takes["model"] else []

    def call(half: str, partner: str, class_name: str) -> str:
        given = ["latents=latents"] if lines and "latents" in takes[half] else []
        given += [f"{partner}={partner}"] if partner in takes[half] else []
        return f"{half} = build({', '.join([class_name, 'data', *given])})"

    of_model = call("model", "guide", model.class_name)
    of_guide = "guide = None" if guide is None else call("guide", "model", guide.class_name)
    guide_first = "guide" in takes["model"]
    return "\n".join([*lines, *((of_guide, of_model) if guide_first else (of_model, of_guide))])


def _arguments(entry: Entry) -> list[str]:
    """Return the names of the constructor's arguments, read without executing the file."""
    for node in ast.walk(ast.parse(entry.path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == entry.class_name:
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                    return [a.arg for a in (*part.args.args, *part.args.kwonlyargs)][1:]
    return []
