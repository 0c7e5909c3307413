"""``ppl-vae list``: the models of the zoo by the rows they are for, its guides, their equations."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ppl_vae.cli.console import UsageError, reporting, table
from ppl_vae.cli.options import AsJson, Quiet
from ppl_vae.zoo.catalog import Entry, close_names, zoo

KINDS = ("models", "guides")


def list_zoo(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Models or guides to show with their equations."),
    ] = None,
    equations: Annotated[
        bool, typer.Option("--equations", help="Show all models and guides with their equations.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the models of the zoo by the rows that they are for, and the guides.

    With NAME, or with --equations, each is shown with its equations and its file.
    """
    with reporting(as_json, quiet) as report:
        entries = {kind: zoo(kind) for kind in KINDS}
        if names:
            entries = _chosen(entries, names)
        report.result({kind: _as_json(of_kind) for kind, of_kind in entries.items()})
        if names or equations:
            for of_kind in entries.values():
                for entry in of_kind.values():
                    report.show("\n".join(_details(entry)))
            return
        models = sorted(entries["models"].values(), key=lambda entry: (entry.rows, entry.name))
        cells = [(_sentence(entry.rows), entry.name, _sentence(entry.title)) for entry in models]
        report.show(table(["my rows are", "model", ""], cells))
        guides = [(entry.name, _sentence(entry.title)) for entry in entries["guides"].values()]
        report.show(
            table(
                ["guide", ""],
                [*guides, ("none", "No guide: nothing is latent, or the model sums it out")],
            )
        )
        report.show("ppl-vae list NAME shows equations, ppl-vae new MODEL GUIDE copies the files")


def _chosen(entries: dict[str, dict[str, Entry]], names: list[str]) -> dict[str, dict[str, Entry]]:
    """Return the entries of some names, by kind.

    Raises:
        UsageError: If the zoo has no model and no guide of a name; close names are listed.
    """
    known = [name for of_kind in entries.values() for name in of_kind]
    for name in names:
        if name not in known:
            hint = close_names(name, known)
            raise UsageError(f'no model or guide "{name}": the zoo has {", ".join(known)}{hint}')
    return {
        kind: {name: entry for name, entry in of_kind.items() if name in names}
        for kind, of_kind in entries.items()
    }


def _details(entry: Entry) -> Iterator[str]:
    """Yield the lines that describe a model or a guide: title, equations, rows and file."""
    yield f"{entry.name}: {entry.title}"
    yield ""
    yield from (f"    {line}".rstrip() for line in entry.equations.splitlines())
    yield ""
    if entry.rows:
        yield f"rows: {entry.rows}"
    yield f"class {entry.class_name} in {entry.path}"
    yield ""


def _sentence(text: str) -> str:
    """Return a text without the full stop at its end, for a cell of a table."""
    return text if text.endswith("...") else text.removesuffix(".")


def _as_json(entries: dict[str, Entry]) -> dict[str, dict[str, Any]]:
    """Return the models or the guides under the names that ``--json`` prints."""
    return {
        name: {
            "title": entry.title, "equations": entry.equations.splitlines(),
            "class": entry.class_name, "path": entry.path, "rows": entry.rows,
        }
        for name, entry in entries.items()
    }  # fmt: skip
