"""``ppl-vae new``: a model, a guide and a script that fits them, copied to be edited."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated

import typer

from ppl_vae.cli.console import UsageError, reporting
from ppl_vae.cli.options import AsJson, Force, Quiet
from ppl_vae.cli.pairs import check_in_zoo
from ppl_vae.zoo.catalog import Entry, zoo

PACKAGE = '"""{}"""\n'
SCRIPT = '''"""Fit models/{model.name}.py and guides/{guide.name}.py to a data file.

    python fit.py DATA

DATA is a .csv, .tsv, .parquet, .npy or .npz file. Every fit is kept in a directory of its own
below runs/: ppl-vae show, encode and generate open it, and so does ppl_vae.load.
"""

import sys
from datetime import datetime
from pathlib import Path

import pyro
from guides.{guide.name} import {guide.class_name}
from models.{model.name} import {model.class_name}

from ppl_vae import build, fit, generate, lint
from ppl_vae import read_data

if len(sys.argv) != 2:
    sys.exit(__doc__)
data = read_data(sys.argv[1])
pyro.set_rng_seed(0)  # the first weights

{built}

print(lint(model, guide, data))
run = Path("runs", f"{{datetime.now():%Y-%m-%d-%H%M%S}}")
print(fit(model, guide, data, validation=0.1, epochs=200, patience=20, run=run))
print(f"\\nKept in {{run}}. New rows:\\n", generate(model, guide, data, num_samples=5))
'''


def new(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of the zoo.")],
    guide: Annotated[str, typer.Argument(metavar="GUIDE", help="A guide of the zoo.")],
    into: Annotated[Path, typer.Option(metavar="DIR", help="Where to put them.")] = Path(),
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Copy a model and a guide of the zoo, with a script that fits them, ready to edit.

    Makes models/MODEL.py, guides/GUIDE.py and fit.py.
    """
    with reporting(as_json, quiet) as report:
        halves = (_entry(model, "models"), _entry(guide, "guides"))
        files = _files(*halves)
        there = [str(into / name) for name in files if (into / name).exists()]
        if there and not force:
            raise UsageError(f"{', '.join(there)}: there already; --force replaces")
        _write(into, files)
        specs = [
            str(into / kind / f"{entry.name}.py") + f":{entry.class_name}"
            for kind, entry in zip(("models", "guides"), halves, strict=True)
        ]
        report.result({"files": [into / name for name in files], "pair": specs})
        report.show("\n".join(f"wrote {into / name}" for name in files))
        report.show(f"\nnext:  ppl-vae lint {' '.join(specs)} DATA")
        report.show(f"       ppl-vae fit {' '.join(specs)} DATA --run runs/first")
        report.show(f"or     python {into / 'fit.py'} DATA")


def _entry(name: str, kind: str) -> Entry:
    check_in_zoo(name, kind)
    return zoo(kind)[name]


def _files(model: Entry, guide: Entry) -> dict[str, str]:
    """What is written, by its place."""
    return {
        f"models/{model.name}.py": model.path.read_text(encoding="utf-8"),
        f"guides/{guide.name}.py": guide.path.read_text(encoding="utf-8"),
        "fit.py": SCRIPT.format(model=model, guide=guide, built=_built(model, guide)),
    }


def _write(into: Path, files: dict[str, str]) -> None:
    packages = {
        f"{kind}/__init__.py": PACKAGE.format(kind.title()) for kind in ("models", "guides")
    }
    for name, text in (files | packages).items():
        path = into / name
        if name in packages and path.exists():  # so that no other "models" is found first
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def _built(model: Entry, guide: Entry) -> str:
    """The lines that build the pair: a partner first, the width of the code once."""
    takes = {"model": _arguments(model), "guide": _arguments(guide)}
    classes = {"model": model.class_name, "guide": guide.class_name}
    order = ["guide", "model"] if "guide" in takes["model"] else ["model", "guide"]
    lines = ["latents = 8  # width of the code"] if "latents" in takes["model"] else []
    for half, partner in (order, order[::-1]):
        given = ["latents=latents"] if lines and "latents" in takes[half] else []
        given += [f"{partner}={partner}"] if partner in takes[half] else []
        lines.append(f"{half} = build({', '.join([classes[half], 'data', *given])})")
    return "\n".join(lines)


def _arguments(entry: Entry) -> list[str]:
    """Names of the constructor's arguments, without executing the file."""
    for node in ast.walk(ast.parse(entry.path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == entry.class_name:
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                    return [a.arg for a in (*part.args.args, *part.args.kwonlyargs)][1:]
    return []
