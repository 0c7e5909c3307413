"""The recipe of a pair: the sources it comes from, and the proof that it makes the same pair.

A recipe is kept only after a pair made by it, with the weights put in, drew the same values and
gave the same log-probabilities as the pair it was told of, bit for bit.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pyro
import torch

from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Rows
from ppl_vae.saving.recipe import NoRecipe, describe, rebuild


def rebuild_pair(recipe: dict[str, Any], classes: dict[str, type]) -> tuple[Any, Any]:
    """Model and guide; a half that names its partner is made after it."""
    partners: dict[str, Any] = {}
    order = ["model", "guide"]
    if '{"partner": "guide"}' in json.dumps(recipe["model"]):
        order.reverse()
    for role in order:
        told = recipe[role]
        with forked(0):  # initial weights, which are replaced, cost the caller no draws
            partners[role] = None if told is None else rebuild(told, classes, partners)
    return partners["model"], partners["guide"]


def read_sources(pair: Pair) -> dict[str, bytes]:
    """The files that define the halves: ``{their place in a run: contents}``."""
    sources: dict[str, bytes] = {}
    for half in (pair.model, pair.guide):
        original = None if half.is_prior else source_of(half.base)
        if original is not None:
            sources[f"source/{half.role}.py"] = original.read_bytes()
    return sources


def definition(base: Any) -> str:
    """The text that defines a callable's class or function."""
    return inspect.getsource(base if inspect.isroutine(base) else type(base))


def in_library(file: Path) -> bool:
    """Whether a file is one of the library's own."""
    folders = {Path(module.__file__ or "").resolve().parent for module in _library_modules()}
    return bool(folders & set(file.resolve().parents))


def _library_modules() -> list[Any]:
    names = ("ppl_vae", "ppl_vae.models", "ppl_vae.guides")
    return [sys.modules[name] for name in names if name in sys.modules]


def source_of(base: Any) -> Path | None:
    """The file that defines a callable, if there is one."""
    target = base if inspect.isroutine(base) else type(base)
    try:
        file = inspect.getsourcefile(target)
    except (OSError, TypeError):
        return None
    return Path(file) if file is not None and Path(file).is_file() else None


def proven_recipe(
    pair: Pair, rows: Rows | None, sources: dict[str, str]
) -> tuple[dict[str, Any] | None, str]:
    """A recipe that was seen to make the same pair again, or why there is none."""
    strict = rows is None  # without rows there is no proof by numbers
    model, guide = pair.model.base, None if pair.guide.is_prior else pair.guide.base
    try:
        recipe = {
            "model": describe(model, {"guide": guide} if guide is not None else {}, strict=strict),
            "guide": None if guide is None else describe(guide, {"model": model}, strict=strict),
        }
        classes = {}
        for role, half in (("model", model), ("guide", guide)):
            told = recipe[role]
            if told is not None and "file" in told:
                told["file"] = f"source/{role}.py"
                if told["file"] not in sources:
                    raise NoRecipe(f"the file of {told['class']} cannot be read")
                classes[f"{told['file']}:{told['class']}"] = type(half)
        again = Pair.of(*rebuild_pair(recipe, classes), pair.plate)
        batch = None if rows is None else rows.take(torch.arange(min(len(rows), 16)))
        again.load_tensors(pair.tensors(), batch)
        if rows is not None and not _same(pair, again, rows):
            raise NoRecipe("the pair made again gives other numbers: an argument is no attribute")
    except Exception as error:
        return None, f"{error}" if isinstance(
            error, ValueError
        ) else f"{type(error).__name__}: {error}"
    return recipe, ""


def _same(pair: Pair, again: Pair, rows: Rows) -> bool:
    """Whether two pairs draw and score the same on some rows."""
    batch = rows.take(torch.arange(min(len(rows), 16)), pair.device())
    outcomes = []
    for half in (pair, again):
        with forked(0), half.evaluating(), pyro.validation_enabled(False):
            model_trace, guide_trace = sites.traces(half, batch)
        found = [
            *sites.sample_sites(model_trace).values(),
            *sites.sample_sites(guide_trace).values(),
        ]
        outcomes.append([(s["value"], s["fn"].log_prob(s["value"])) for s in found])
    return len(outcomes[0]) == len(outcomes[1]) and all(
        torch.equal(a, b)
        for left, right in zip(*outcomes, strict=True)
        for a, b in zip(left, right, strict=True)
    )
