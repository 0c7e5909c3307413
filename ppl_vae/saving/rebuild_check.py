"""The proof that a recipe rebuilds the same pair, and the source files that the pair came from.

A recipe is read from attributes: the constructor argument ``latents`` from ``model.latents``. That
is a guess. An attribute may hold something else than the argument of its name, and a network of
the right sizes may have another activation. So the guess is tested before it is stored. The recipe
builds a second pair, the weights of the first are loaded into it, and both pairs are run on the
same rows with the same random state. Only where every drawn value and every log-probability agree
bit for bit is the recipe stored. Otherwise the run holds weights alone, and ``load`` asks for the
pair.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch, Rows
from ppl_vae.saving.recipe import NoRecipeError, describe, rebuild

ROWS_COMPARED = 16
"""The most rows on which a rebuilt pair is compared with the original."""


def rebuild_pair(recipe: dict[str, Any], classes: dict[str, type]) -> tuple[Model, Guide]:
    """Return a new model and guide made from the recipe of a pair.

    A half that takes the other half as an argument is made after it. The constructors draw initial
    weights from a copy of the random state, so the caller's generators do not move.

    Args:
        recipe: ``{"model": recipe, "guide": recipe or None}``.
        classes: The user's classes, by ``"file:module:Class"``.

    Raises:
        ValueError: If a class is missing, or not one of the library.
    """
    partners: dict[str, Any] = {}
    order = ["model", "guide"]
    if '{"partner": "guide"}' in json.dumps(recipe["model"]):
        order.reverse()
    for role in order:
        with forked(0):
            half = recipe[role]
            partners[role] = None if half is None else rebuild(half, classes, partners)
    return partners["model"], partners["guide"]


def read_sources(pair: Pair) -> dict[str, bytes]:
    """Return the contents of the files that define the model and the guide.

    Returns:
        ``{"source/model.py": contents, "source/guide.py": contents}``: the keys are the places of
        the copies in a run directory. A half that no file defines, or the prior, is left out.
    """
    sources: dict[str, bytes] = {}
    for half in (pair.model, pair.guide):
        file = None if half.is_prior else source_of(half.base)
        if file is not None:
            sources[f"source/{half.role}.py"] = file.read_bytes()
    return sources


def source_text(base: Model) -> str:
    """Return the text of the class or the function that defines a model or a guide.

    Raises:
        OSError: If the text cannot be found.
    """
    return inspect.getsource(base if inspect.isroutine(base) else type(base))


def source_of(base: Model) -> Path | None:
    """Return the file that defines a model or a guide; ``None`` where there is no such file."""
    target = base if inspect.isroutine(base) else type(base)
    try:
        file = inspect.getsourcefile(target)
    except (OSError, TypeError):
        return None
    return Path(file) if file is not None and Path(file).is_file() else None


def in_library(file: Path) -> bool:
    """Return whether a file belongs to the library, at any depth of its folders.

    In a checkout the library is three folders (``ppl_vae``, ``models``, ``guides``), in a wheel
    one. Their places are read from the imported packages, so both layouts hold. A package that
    has not been imported has no class in use.
    """
    names = ("ppl_vae", "ppl_vae.models", "ppl_vae.guides")
    files = [sys.modules[name].__file__ for name in names if name in sys.modules]
    folders = {Path(init).resolve().parent for init in files if init is not None}
    return bool(folders & set(file.resolve().parents))


def proven_recipe(
    pair: Pair, rows: Rows | None, sources: dict[str, str]
) -> tuple[dict[str, Any] | None, str]:
    """Return a recipe that was tested to rebuild the same pair, or the reason why there is none.

    Args:
        pair: The pair to describe.
        rows: Rows on which the rebuilt pair is compared. If ``None``, nothing can be compared, so
            every constructor argument must be an attribute, even one that has a default.
        sources: Checksums of the copied source files, by their place in the run directory.

    Returns:
        ``(recipe, "")``, or ``(None, reason)``.
    """
    try:
        recipe, classes = _describe_pair(pair, sources, strict=rows is None)
        rebuilt = Pair.of(*rebuild_pair(recipe, classes), pair.plate)
        for module in rebuilt.modules():  # devices draw different numbers from one seed
            module.to(pair.device())
        rebuilt.load_tensors(pair.tensors(), None if rows is None else _first_rows(rows))
        if rows is not None:
            batch = _first_rows(rows, pair.device())
            numbers, again = (_values_and_log_probs(p, batch) for p in (pair, rebuilt))
            if not _equal(numbers, again):
                raise NoRecipeError(
                    "the rebuilt pair gives other numbers: a constructor argument is not stored "
                    "as an attribute of the same name"
                )
    except ValueError as error:
        return None, str(error)
    except Exception as error:  # a constructor may be anybody's code
        return None, f"{type(error).__name__}: {error}"
    return recipe, ""


def _describe_pair(
    pair: Pair, sources: dict[str, str], *, strict: bool
) -> tuple[dict[str, Any], dict[str, type]]:
    """Return the recipe of both halves, and the user's classes that the recipe names.

    Raises:
        NoRecipeError: If a half cannot be described, or its file was not copied into the run.
    """
    model, guide = pair.model.base, None if pair.guide.is_prior else pair.guide.base
    recipe: dict[str, Any] = {
        "model": describe(model, {} if guide is None else {"guide": guide}, strict=strict),
        "guide": None if guide is None else describe(guide, {"model": model}, strict=strict),
    }
    classes: dict[str, type] = {}
    for role, half in (("model", model), ("guide", guide)):
        described = recipe[role]
        if described is None or "file" not in described:
            continue
        described["file"] = f"source/{role}.py"
        if described["file"] not in sources:
            raise NoRecipeError(f"the file of {described['class']} cannot be read")
        classes[f"{described['file']}:{described['class']}"] = type(half)
    return recipe, classes


def _first_rows(rows: Rows, device: torch.device | None = None) -> Batch:
    """Return a batch of the first rows, at most ``ROWS_COMPARED``."""
    return rows.take(torch.arange(min(len(rows), ROWS_COMPARED)), device)


def _values_and_log_probs(pair: Pair, batch: Batch) -> list[Tensor]:
    """Return the value and the log-probability of every sample site, model first, from seed 0."""
    with forked(0), pair.evaluating(), pyro.validation_enabled(False):
        traces = sites.traces(pair, batch)
    drawn = [site for trace in traces for site in sites.sample_sites(trace).values()]
    return [tensor for s in drawn for tensor in (s["value"], s["fn"].log_prob(s["value"]))]


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    """Return whether two lists hold the same tensors, bit for bit."""
    return len(first) == len(second) and all(
        torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )
