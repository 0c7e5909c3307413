"""``ppl-vae list``: the models and guides of the zoo, with their equations."""

from typing import Any

from ppl_vae.cli.console import reporting, table
from ppl_vae.cli.options import AsJson, Quiet
from ppl_vae.zoo.catalog import Entry, zoo


def list_zoo(as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List the models and guides of the zoo, with their equations."""
    with reporting(as_json, quiet) as report:
        entries = {kind: zoo(kind) for kind in ("models", "guides")}
        report.result({kind: _as_json(of_kind) for kind, of_kind in entries.items()})
        for kind, of_kind in entries.items():
            cells = [(name, f"{e.title}\n{_compact(e.equations)}\n") for name, e in of_kind.items()]
            report.show(table([kind, ""], cells))


def _as_json(entries: dict[str, Entry]) -> dict[str, dict[str, Any]]:
    """Return the models or the guides under the names that ``--json`` prints."""
    return {
        name: {
            "title": entry.title, "equations": entry.equations.splitlines(),
            "class": entry.class_name, "path": entry.path,
        }
        for name, entry in entries.items()
    }  # fmt: skip


def _compact(equations: str) -> str:
    """Return equations without blank lines, and with gaps between columns cut to 3 spaces."""
    lines = [line for line in equations.splitlines() if line.strip()]
    return "\n".join("   ".join(part for part in line.split("  ") if part) for line in lines)
