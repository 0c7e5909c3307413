"""The reference: a page for each public name, and lists of them by topic.

The topics are the folders in which the names are defined, so that a new public name is in the
reference without a line here; ``TITLES`` has the words for a folder.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import ppl_vae

TITLES = {
    "training": "Fit", "linting": "Check a pair before it is fitted", "zoo": "Build a pair",
    "evaluation": "How good is the fit", "elbo": "Objectives and better guides",
    "checks": "Does the model describe the data", "predictive": "Replicated data and forecasts",
    "latents": "Codes and new rows", "imputation": "Missing cells", "anomaly": "Strange rows",
    "data": "Data of any form", "core": "Types, and work on many processes",
    "saving": "Runs", "report": "Report", "arviz": "Other tools",
}  # fmt: skip
MODULES = {
    "sklearn": "Estimators for scikit-learn",
    "sklearn.pyod": "For programs that are written for pyod",
    "callbacks": "Callbacks for `fit`",
    "schedules": "KL weights as functions of the step",
    "nn": "Networks for models and guides",
    "distributions": "Distributions that torch lacks",
    "plots": "Figures: arrays in, matplotlib axes out",
}
"""Public modules beside the top level: all names that they offer have a page too."""


def write(folder: Path) -> None:
    """Write the pages of the reference to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    topics: dict[str, list[str]] = {topic: [] for topic in TITLES}
    for name in ppl_vae.__all__:
        defined = getattr(inspect.getmodule(getattr(ppl_vae, name)), "__name__", "")
        home = defined.removeprefix("ppl_vae.").split(".")[0]  # an alias of a type has another
        topics[home if home in TITLES else "core"].append(f"ppl_vae.{name}")
    lists = [(TITLES[topic], sorted(names, key=str.lower)) for topic, names in topics.items()]
    for module, title in MODULES.items():
        loaded = importlib.import_module(f"ppl_vae.{module}")
        lists.append((title, [f"ppl_vae.{module}.{name}" for name in offered(loaded)]))
    index = ["# Reference", "Every public name, by topic."]
    for title, names in lists:
        rows = [
            f"| [`{name.removeprefix('ppl_vae.')}`]({name}.md) | {summary(name)} |"
            for name in names
        ]
        index += [f"## {title}", "| name | what it is |\n|---|---|\n" + "\n".join(rows)]
    every = [name for _, names in lists for name in names]
    hidden = "```{toctree}\n:hidden:\n:maxdepth: 1\n\n" + "\n".join(every) + "\n```"
    _write(folder / "index.md", "\n\n".join([*index, hidden]) + "\n")
    for name in every:
        _write(folder / f"{name}.md", page(name))
    for stale in {path.stem for path in folder.glob("*.md")} - {"index", *every}:
        (folder / f"{stale}.md").unlink()  # of a name that is gone


def offered(module: ModuleType) -> list[str]:
    """Return the names that a public module offers: ``__all__``, or what it defines itself."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if name[0] != "_" and getattr(value, "__module__", "") == module.__name__
    ]
    return sorted(names, key=str.lower)


def find(name: str) -> object:
    """Return what a dotted name stands for."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def summary(name: str) -> str:
    """Return the first sentence of a docstring."""
    text = inspect.getdoc(find(name)) or ""
    first = re.split(r"(?<=[.!?])\s", text.split("\n\n")[0].replace("\n", " "))[0]
    return re.sub(r"``([^`]+)``", r"`\1`", first).replace("|", "\\|")


def page(name: str) -> str:
    """Return the page of one name in Markdown, filled in by autodoc."""
    value = find(name)
    if inspect.isclass(value):
        outside = [base.__name__ for base in value.__mro__ if "ppl_vae" not in base.__module__]
        directive = f".. autoclass:: {name}\n   :members:"
        directive += f"\n   :inherited-members: {','.join(outside)}"
        requests = [member for member in dir(value) if re.fullmatch("set_.*_request", member)]
        directive += f"\n   :exclude-members: {','.join(requests)}" if requests else ""
    elif callable(value):
        directive = f".. autofunction:: {name}"
    else:
        directive = f".. autodata:: {name}"
    return f"# {name.removeprefix('ppl_vae.')}\n\n```{{eval-rst}}\n{directive}\n```\n"


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
