"""The page of benchmarks: tables made from the lines that the benchmarks have written.

``docs/benchmarks.toml`` says which fields of which file make a table. No measured number stands in
a text: whoever runs the command gets a file with the same fields, and the page with new numbers.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
ROW = "name of the row"  # no field of a benchmark has this name


def lines_of(table: dict[str, Any]) -> pd.DataFrame:
    """Return the lines of a table's file with the fields that it asks for; the last of doubles."""
    rows = [json.loads(line) for line in (RESULTS / table["file"]).read_text().splitlines()]
    wanted = table.get("where", {})
    frame = pd.json_normalize([row for row in rows if wanted.items() <= row.items()])
    if "columns" in table:
        named = frame[list(table["columns"])].rename(columns=table["columns"])
        return named.melt(var_name=ROW)
    return frame.rename(columns={table["by"]: ROW})


def shown(values: pd.Series) -> str:
    """Return the mean of some numbers, with the least and the most where there are several."""
    values = values.dropna()
    if not len(values):
        return ""
    digits = 2 if values.abs().max() >= 10 else 3
    mean = f"{values.mean():.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({values.min():.{digits}f} to {values.max():.{digits}f}, {len(values)} runs)"


def markdown(table: dict[str, Any]) -> str:
    """Return one table with its title, its words and its command."""
    frame, published = lines_of(table), table.get("published", {})
    if "across" in table:  # a column for each value of a field
        (field,) = table["values"]
        values = {name: name for name in frame[table["across"]].unique()}
        table = {**table, "values": values}
        frame = frame.pivot_table(field, ROW, table["across"], sort=False).reset_index()
    titles = [table.get("by", "method"), *table["values"].values()]
    titles += ["published"] if published else []
    rows = []
    for name, lines in frame.groupby(ROW, sort=False):
        cells = [str(name), *(shown(lines[field]) for field in table["values"])]
        cells += [str(published.get(name, ""))] if published else []
        rows.append(cells)
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in [titles, ["---"] * len(titles), *rows])
    source = f"Published: {table['source']}." if published else ""
    parts = [f"## {table['title']}", table["text"], body, source]
    return "\n\n".join([*filter(None, parts), f"```sh\n{table['command']}\n```"])


def measured(path: str) -> list[str]:
    """Return what the tables say of a file of the zoo (``"models/vampprior"``), in sentences."""
    found = []
    for table in tables():
        for name in (row for row, of in table.get("zoo", {}).items() if of == path):
            lines = lines_of(table)
            lines = lines[lines[ROW] == name]
            numbers = [f"{title} {shown(lines[field])}" for field, title in table["values"].items()]
            published = table.get("published", {}).get(name)
            beside = f" (published: {published})" if published is not None else ""
            place = f"[{table['title']}](/benchmarks.md)"
            found += [f"{place}: {', '.join(numbers)}{beside}."] if len(lines) else []
    return found


def tables() -> list[dict[str, Any]]:
    """Return the tables of ``benchmarks.toml``."""
    text = (ROOT / "docs" / "benchmarks.toml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text)["table"]
    return found


def write(app: Sphinx) -> None:
    """Write the tables, which ``benchmarks.md`` includes."""
    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    text = "\n\n".join(markdown(table) for table in tables()) + "\n"
    (folder / "benchmarks.md").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the tables before Sphinx reads its sources."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
