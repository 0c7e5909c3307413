"""``ppl-vae new``: copy a model and a guide of the zoo, with a script that fits them, to edit."""

import ast
from collections.abc import Collection
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
read_data(..., fields={{{example}}}). Each fit is stored in its own run directory
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
{read}
pyro.set_rng_seed(0)  # for the initial weights

{built}

print(lint(model, guide, data))
run = Path("runs", f"{{datetime.now():%Y-%m-%d-%H%M%S}}")
print(fit(model, guide, data, {stop}, run=run))
print(f"\\nStored in {{run}}. New rows:\\n", generate(model, guide, data, num_samples=5))
'''


def new(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model from the zoo.")],
    guide: Annotated[
        str,
        typer.Argument(
            metavar="GUIDE", help="A guide from the zoo; none where nothing is to be drawn."
        ),
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
    with nothing latent, or whose latents are all summed out.
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
    fields = {name for entry in halves.values() for name in _arguments(entry, "forward")}
    by_index = "index" in fields  # parameters for single rows, so that none can be held out
    script = SCRIPT.format(
        files=" and ".join(names.values()),
        imports="\n".join([*["import torch"] * by_index, *imports]),
        example='"y": "label"' if "y" in fields else '"size": "library"',
        read="\n".join(_reading(fields)),
        built=_built(halves["models"], halves.get("guides")),
        stop="epochs=200" if by_index else "validation=0.1, epochs=200, patience=20",
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


def _reading(fields: Collection[str]) -> list[str]:
    """Return the lines of ``fit.py`` that read the data, with the fields that the pair takes."""
    given = ', fields={"y": "label"})  # your column of labels' if "y" in fields else ")"
    lines = [f"data = read_data(sys.argv[1]{given}"]
    if "index" in fields:
        whole = "**data" if "y" in fields else '"x": data'
        count = 'data["x"]' if "y" in fields else "data"
        lines += [
            f'data = {{{whole}, "index": torch.arange(len({count}))}}  # the place of each row'
        ]
    return lines


def _built(model: Entry, guide: Entry | None) -> str:
    """Return the lines of ``fit.py`` that build the pair.

    A half that takes the other half as an argument is built second, and the number of latents is
    given once for both.
    """
    takes = {
        "model": _arguments(model, "__init__"),
        "guide": {} if guide is None else _arguments(guide, "__init__"),
    }
    given_once = takes["model"].get("latents", "").isdigit()
    lines = ["latents = 8  # dimensions of the latent space"] if given_once else []
    chosen = "latents" if given_once else "model.latents"  # by the model, from the data

    def call(half: str, partner: str, class_name: str) -> str:
        of_both = "latents" in takes["model"] and "latents" in takes[half]
        given = [f"latents={chosen}"] if of_both and (given_once or half == "guide") else []
        given += [f"{partner}={partner}"] if partner in takes[half] else []
        return f"{half} = build({', '.join([class_name, 'data', *given])})"

    of_model = call("model", "guide", model.class_name)
    of_guide = "guide = None" if guide is None else call("guide", "model", guide.class_name)
    guide_first = "guide" in takes["model"]
    return "\n".join([*lines, *((of_guide, of_model) if guide_first else (of_model, of_guide))])


def _arguments(entry: Entry, method: str) -> dict[str, str]:
    """Return the arguments of a method of the class, read without executing the file.

    Returns:
        ``{name: default as it is written, "" without one}``, without ``self``.
    """
    for node in ast.walk(ast.parse(entry.path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == entry.class_name:
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == method:
                    names = [a.arg for a in (*part.args.args, *part.args.kwonlyargs)]
                    written = [*part.args.defaults, *part.args.kw_defaults]
                    defaults = ["" if d is None else ast.unparse(d) for d in written]
                    padded = [""] * (len(names) - len(defaults)) + defaults
                    return dict(list(zip(names, padded, strict=True))[1:])
    return {}
