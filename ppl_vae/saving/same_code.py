"""Whether a pair still is the one that a run was made of: its code and its constructor arguments.

The code is compared as text: the statements that the model's and the guide's definition reach, in
the files that the run holds and in the files as they are now. The arguments are compared as the
recipe has them, and the recipe must rebuild the pair from the files that the run holds.
"""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows
from ppl_vae.saving import proof, storage
from ppl_vae.saving.recipes import users_files
from ppl_vae.saving.runs import INFO, read_run
from ppl_vae.saving.sources import Sources, source_of, sources_of
from ppl_vae.saving.statements import Statements, reached_statements


def kept_sources(path: Path, info: dict[str, Any]) -> Sources:
    """Return the user's code as a run directory holds it; executes nothing.

    Runs of older versions hold the files of the two halves alone.

    Raises:
        ValueError: If a file lies outside ``source/``, is missing, or is not as it was recorded.
    """
    recipe = info["recipe"] or {}
    modules = {half["class"].partition(":")[0]: half["file"]
               for half in recipe.values() if half is not None and "file" in half}  # fmt: skip
    modules |= info.get("modules", {})
    files = {}
    for file in {*modules.values(), *users_files(recipe)}:
        if not re.fullmatch(r"source/(model|guide|modules/\w+(\.\w+)*)\.py", file):
            raise ValueError(f"{path / INFO}: expected a file in source/, got {file}")
        files[file] = storage.read_bytes(path / file)
        if storage.sha256(files[file]) != info["sources"].get(file):
            raise ValueError(f"{path / file}: changed since the run was made")
    roots = {role: (place, name) for role, (place, name) in info.get("roots", {}).items()}
    return Sources(files, modules, roots)


def changed_sources(path: Path, info: dict[str, Any], pair: Pair) -> list[str]:
    """Return the user's source files that were edited since a run was created.

    An edit counts only if it touches what the model's or the guide's class or function reaches:
    its own text, constants and functions beside it, and what it imports from other files of the
    user's. Files of the library do not count: a newer version of the library resumes older runs.
    """
    now, kept = sources_of(pair), kept_sources(path, info)
    changed: list[str] = []
    for half in (pair.model, pair.guide):
        if half.role not in now.roots:
            continue
        place, name = now.roots[half.role]
        file = source_of(half.base)
        contents, before = now.contents(), kept.contents()
        old_place, old_name = kept.roots.get(half.role, (place, name))
        if half.role not in kept.roots:  # a run of an older version, or of code without a file
            copied = f"source/{half.role}.py"
            if copied not in info["sources"] or file is None:
                continue
            before = {place: storage.read_bytes(path / copied)}
            contents[place] = file.read_bytes()
        contents = {m: text for m, text in contents.items() if m == place or m in before}
        new = _from_root(reached_statements(contents, place, name), place)
        old = _from_root(reached_statements(before, old_place, old_name), old_place)
        differing = {key[0] for key in new.keys() | old.keys() if new.get(key) != old.get(key)}
        for module in sorted(differing):
            where = file if module == "" else getattr(sys.modules.get(module), "__file__", module)
            changed.append(str(where or place))
    return changed


def _from_root(statements: Statements, root: str) -> Statements:
    """Return reached statements with the root's module called "", whatever its name is."""
    return {("" if m == root else m, name): text for (m, name), text in statements.items()}


def recipe_matches(path: Path, info: dict[str, Any], pair: Pair, rows: Rows) -> bool:
    """Return whether the recipe in a run is still the recipe of a pair; True without a recipe.

    The recipe must rebuild the pair from the files that the run holds, and the pair must have been
    given the same arguments. Values of tensors are not compared: training may change a tensor that
    was a constructor argument, and the weights store its new value.
    """
    if info["recipe"] is None:
        return True
    if proof.fault(info["recipe"], pair, rows, kept_sources(path, info), path):
        return False
    if "modules" not in info:  # an older version wrote attributes in place of arguments
        return True
    sources = sources_of(pair)
    for recorded in (True, False):
        with contextlib.suppress(ValueError, TypeError):
            recipe = proof.described_pair(pair, sources, recorded=recorded)
            if _comparable(recipe) == _comparable(info["recipe"]):
                return True
    return False


def remove_outdated_recipe(path: Path, pair: Pair, rows: Rows) -> None:
    """Remove the recipe from a run whose fitted pair it no longer rebuilds, and warn.

    That happens where an attribute that the constructor sets changed during the fit, for example a
    temperature that a callback lowered. The weights remain.
    """
    info = read_run(path).info
    if info["recipe"] is None:
        return
    fault = proof.fault(info["recipe"], pair, rows, kept_sources(path, info), path)
    if fault:
        reason = (
            f"{fault}; it no longer rebuilds the pair, which changed during the fit: store such a "
            "number in a buffer"
        )
        storage.write_json(path / INFO, {**info, "recipe": None, "no_recipe": reason})
        warnings.warn(
            f"run: {path} holds the weights without a recipe: {reason}, or pass the pair: "
            "load(run, model=..., guide=...)",
            stacklevel=3,
        )


def _comparable(recipe: Any) -> Any:
    """Return a recipe without numbers in tensors and without places of files."""
    if isinstance(recipe, dict):
        left_out = ("tensor", "array", "file")
        parts = {k: _comparable(v) for k, v in recipe.items() if k not in left_out}
        for key in {"class", "member"} & parts.keys():
            parts[key] = str(parts[key]).partition(":")[2]
        return parts
    return [_comparable(v) for v in recipe] if isinstance(recipe, list) else recipe
