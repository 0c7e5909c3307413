"""A page for each file of models/ and guides/: equations, figure, partners, code."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import re
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from docutils import nodes
from matplotlib import pyplot as plt
from pyro import poutine
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.display import status_iterator

from extensions.benchmark_page import measured
from extensions.equations import columns, is_code, to_tex
from extensions.zoo_figures import draw, pair_of, rows_of
from ppl_vae import lint
from ppl_vae.cli.pairs import NO_GUIDE
from ppl_vae.zoo.catalog import Entry, zoo

ROOT = Path(__file__).parents[2]
FIRST = ("normal", "classifier", "smoothing", "recurrent", "dirichlet")
"""Guides that a model is fitted with for its figure, the first of them that fits to it."""

SHOWN_WITH = {
    "bayesian_decoder", "conditional", "deep_markov", "discrete", "gaussian", "hierarchical",
    "not_missing_at_random", "semisupervised", "sequence", "sigmoid_belief", "topics",
    "vector_quantized",
}  # fmt: skip
"""Models that a guide is fitted with for its figure, the first of them that fits to it."""


def partners(model: str) -> list[str]:
    """Return the names of the guides that fit to a model of the zoo, the best known first.

    A guide fits if it draws exactly the latents of the model, in their shapes, and the model gives
    these draws a finite log-density. ``"none"`` is in the list if the model draws no latent.
    """
    fitting = [name for name in (NO_GUIDE, *zoo("guides")) if _fits(model, name)]
    return sorted(fitting, key=lambda name: (FIRST.index(name) if name in FIRST else 99, name))


@functools.cache
def _fits(model: str, guide: str) -> bool:
    """Whether ``lint`` finds no error in a pair; the names of latents are compared first."""
    data = rows_of(model, guide, 60)
    with warnings.catch_warnings(), pyro.get_param_store().scope():
        warnings.simplefilter("ignore")
        try:
            pair = pair_of(model, guide, data, 2)
            return _same_latents(*pair, data) and not lint(*pair, data).errors
        except (ValueError, RuntimeError, TypeError, IndexError):
            return False


def _same_latents(model: Any, guide: Any, data: dict[str, Any]) -> bool:
    """Whether the guide draws latents of the names that the model leaves to it."""
    draws = []
    for half in (model, guide):
        names = inspect.signature(half.forward).parameters if half is not None else {}
        fields = {name: data[name] for name in names if name in data}
        with torch.no_grad():
            trace = poutine.trace(half or (lambda: None)).get_trace(**fields)
        draws.append({
            name
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and not site["is_observed"] and name != "data"
            and not (half is model and "enumerate" in site["infer"])
        })  # fmt: skip
    return draws[0] <= draws[1]


def equations(entry: Entry) -> str:
    """Return the equations of a file as a table in Markdown: the equation, and what it says."""
    lines = ["```{list-table}", ":class: equations", ":widths: auto", ""]
    for line in entry.equations.splitlines():
        left, note = columns(line)
        if not left:
            lines[-1] += f" {note}"
            continue
        shown = f"`{left}`" if is_code(left) else f"${to_tex(left)}$"
        lines += [f"* - {shown}", f"  - {f'`{note}`' if note else ''}"]
    return "\n".join([*lines, "```"])


def prose(entry: Entry) -> str:
    """Return the paragraphs of a file's docstring without title and equations, with links."""
    text = ast.get_docstring(ast.parse(entry.path.read_text(encoding="utf-8"))) or ""
    body = text.split("\n\n")[1:]
    kept = [part for part in body if not part.startswith("    ")]
    joined = "\n\n".join(textwrap.dedent(part) for part in kept).replace("``", "`")
    joined = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", joined)
    joined = re.sub(r"\b(models|guides)/(\w+)\.py", r"{zoo}`\1/\2`", joined)
    return re.sub(r"^(Rows|Source|Sources): ", r"**\1:** ", joined, flags=re.MULTILINE)


def page(kind: str, entry: Entry, fitting: list[str], figure: str) -> str:
    """Return the page of one file in Markdown.

    Args:
        kind: ``"models"`` or ``"guides"``.
        entry: The file.
        fitting: Names of the guides that fit to a model, or of the models that fit to a guide.
        figure: Name of its figure and what it shows; "" if there is none.
    """
    other = "guides" if kind == "models" else "models"
    links = [f"{{zoo}}`{other}/{name}`" for name in fitting if name != NO_GUIDE]
    links += ["no guide at all, as nothing is latent"] if NO_GUIDE in fitting else []
    numbers = [f"**Measured.** {line}" for line in measured(f"{kind}/{entry.name}")]
    return "\n\n".join([
        f"# {entry.name}", f"{entry.title.rstrip('.')}.", equations(entry), figure, prose(entry),
        f"**{other.capitalize()} that fit to it:** {', '.join(links)}.", *numbers,
        f"## The file {kind}/{entry.name}.py",
        f"Use it as it is, `from ppl_vae.{kind}.{entry.name} import {entry.class_name}`, or "
        "[copy and edit it](../../howto/write_a_pair.md).",
        f"```{{literalinclude}} ../../../{kind}/{entry.name}.py\n:language: python\n```",
    ]) + "\n"  # fmt: skip


def figure_of(kind: str, name: str, pairs: dict[str, list[str]], folder: Path, epochs: int) -> str:
    """Draw the figure of a file, unless it is there; returns the directive that shows it."""
    pair = next(
        (model, guides[0] if kind == "models" else name)
        for model, guides in pairs.items()
        if (model == name if kind == "models" else name in guides and model in SHOWN_WITH)
    )
    made = "generate" if kind == "models" else "reconstruct"
    path = folder / f"{kind}-{name}-{epochs}-{_digest(*pair)}.png"
    if not path.exists():
        figure = draw(*pair, made, epochs)
        figure.savefig(path, dpi=110)
        plt.close(figure)
    text = (
        f"Above: digits, as the model reads them. Below: rows that it generates after a short fit"
        f" with the guide {pair[1]}."
        if kind == "models"
        else "Above: digits. Below: what the code that this guide gives them keeps, decoded by the"
        f" model {pair[0]}, after a short fit."
    )
    return f"```{{figure}} /zoo/figures/{path.name}\n:alt: {text}\n\n{text}\n```"


def _digest(model: str, guide: str) -> str:
    """Return a number that changes with the files of a pair."""
    texts = [zoo("models")[model].path.read_bytes()]
    texts += [zoo("guides")[guide].path.read_bytes()] if guide != NO_GUIDE else []
    return hashlib.sha256(b"".join(texts)).hexdigest()[:8]


def write(app: Sphinx) -> None:
    """Write the pages of the zoo below ``zoo/`` of the sources."""
    folder, epochs = Path(app.srcdir) / "zoo", 1 if app.config.zoo_quick else 60
    pairs = {model: partners(model) for model in zoo("models")}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    index = ["# Zoo", "One readable file each, of at most 80 lines, to use, or to copy and edit."]
    for kind, title in (("models", "Models"), ("guides", "Guides")):
        (folder / kind).mkdir(exist_ok=True)
        for stale in {path.stem for path in (folder / kind).glob("*.md")} - set(zoo(kind)):
            (folder / kind / f"{stale}.md").unlink()  # of a file that is gone
        rows = []
        for name, entry in status_iterator(
            zoo(kind).items(), f"zoo: {kind}... ", length=len(zoo(kind)), verbosity=0
        ):
            fits = (
                pairs[name]
                if kind == "models"
                else [model for model, guides in pairs.items() if name in guides]
            )
            drawn = re.search(app.config.zoo_drawn, name)
            figure = figure_of(kind, name, pairs, folder / "figures", epochs) if drawn else ""
            text, path = page(kind, entry, fits, figure), folder / kind / f"{name}.md"
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
            about = entry.rows.replace("``", "`") or entry.title
            rows.append(f"| [{name}]({kind}/{name}.md) | {entry.title} | {about} |")
        head = "| file | what it is | rows it is for |\n|---|---|---|" if kind == "models" else (
            "| file | what it is |\n|---|---|")  # fmt: skip
        rows = (
            rows
            if kind == "models"
            else [row.rpartition("| ")[0].rstrip("| ") + " |" for row in rows]
        )
        hidden = "\n".join(f"{kind}/{name}" for name in zoo(kind))
        index += [f"## {title}", head + "\n" + "\n".join(rows)]
        index += [f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n{hidden}\n```"]
    (folder / "index.md").write_text("\n\n".join(index) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages of the zoo before Sphinx reads its sources; define the roles for links."""
    app.add_config_value("zoo_quick", False, "env", bool)
    app.add_config_value("zoo_drawn", "", "env", str)  # pattern of the files that have a figure
    app.connect("builder-inited", write)
    app.add_role("zoo", page_role("/zoo/{}"))
    app.add_role("example", page_role("/gallery/{}"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def page_role(pattern: str) -> Callable[..., tuple[list[nodes.Node], list[nodes.Node]]]:
    """Return a role that links to a generated page, with the last part of its name as text."""

    def role(
        _name: str, _raw: str, text: str, _line: int, inliner: Any, *_: Any, **__: Any
    ) -> tuple[list[nodes.Node], list[nodes.Node]]:
        shown = text.rpartition("/")[2]
        target = pattern.format(text.removesuffix(".py").removeprefix("examples/"))
        reference = addnodes.pending_xref(
            "", nodes.literal("", shown), refdomain="std", reftype="doc", reftarget=target,
            refexplicit=True, refwarn=True, refdoc=inliner.document.settings.env.docname,
        )  # fmt: skip
        return [reference], []

    return role
