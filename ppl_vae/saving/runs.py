"""Run directories: a pair's weights, how to make it again, and what its fit did.

    run.json               recipe, versions, seed, objective and why, template of the data
    weights.safetensors    parameters and buffers, shared ones once
    source/                the files that define the model and the guide, as they were
    snapshot.safetensors   all that a fit needs to go on (and previous.safetensors before it)
    metrics.csv            the history, a line an epoch

Every file is written whole or not at all and is checked when it is read. Nothing is a pickle, and
no code of a run is executed unless ``trust_code=True``.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.rows import Batch, Data, Rows, as_rows, example_rows
from ppl_vae.saving.rebuild_check import (
    definition,
    in_library,
    proven_recipe,
    read_sources,
    rebuild_pair,
    source_of,
)
from ppl_vae.saving.storage import (
    read_bytes,
    read_json,
    read_tensors,
    sha256,
    write_json,
    write_tensors,
    write_whole,
)
from ppl_vae.zoo.source_files import class_in_file

FORMAT = 1
INFO, WEIGHTS, SNAPSHOT, PREVIOUS = (
    "run.json",
    "weights.safetensors",
    "snapshot.safetensors",
    "previous.safetensors",
)


@dataclass(frozen=True)
class Run:
    """What is in a run directory.

    Attributes:
        path: The directory.
        info: ``run.json``: recipe, versions, settings, objective, template and more.
    """

    path: Path
    info: dict[str, Any]

    def example(self) -> Any:
        """Two rows of zeros in the form of the data that the run was fitted to.

        Raises:
            ValueError: Where the pair was saved without data.
        """
        if self.info["template"] is None:
            raise ValueError(f"{self.path}: saved without data; its rows have no known form")
        return example_rows(self.info["template"])


def save(
    model: Model,
    guide: Guide,
    run: str | Path,
    *,
    data: Data | None = None,
    plate: str = "data",
) -> None:
    """Keep a pair in a new run directory.

    A recipe is kept too where the pair can be made again from the attributes of its constructor
    arguments, which is tried before it is written; else the weights alone, and ``load`` asks for
    the model and the guide.

    Args:
        model: The model.
        guide: The guide, or ``None``.
        run: A directory that does not exist yet, or is empty.
        data: Rows that the pair reads, in any form that ``fit`` takes: their form (not their
            values) is kept, and the recipe is proved on some of them.
        plate: Name of the row plate.

    Raises:
        ValueError: Where the directory is not empty.

    Example:
        >>> import tempfile
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> folder = tempfile.mkdtemp()
        >>> save(BernoulliModel(4), NormalGuide(4), folder)
        >>> model, guide = load(folder)
        >>> model.features
        4
    """
    path = Path(run)
    check_new(path)
    pair = Pair.of(model, guide, plate)
    rows = None if data is None else as_rows(data)
    info = begin_run(path, pair, rows, {})
    write_weights(path, pair.tensors(), info)
    write_json(path / INFO, {**info, "status": "saved"})


def load(
    run: str | Path,
    *,
    model: Callable[..., Any] | None = None,
    guide: Callable[..., Any] | None = None,
    trust_code: bool = False,
) -> tuple[Any, Any]:
    """Open a run again, in this process or on another machine.

    Args:
        run: The directory, or one of its ``.safetensors`` files, whose weights are then taken.
        model: The model to put the weights into, where the run has no recipe of it.
        guide: The guide, likewise.
        trust_code: Execute the copies of the user's own files that the run holds. Do that only
            for runs whose origin you trust.

    Returns:
        The model and the guide (``None`` for a pair that has none).

    Raises:
        ValueError: Where the run is damaged, is none, does not fit the given pair, needs
            ``model=`` and ``guide=``, or needs ``trust_code=True``.

    Example:
        ``model, guide = load("runs/x")``; see ``save`` for one that runs.
    """
    try:
        return _open(Path(run), model, guide, trust_code=trust_code)
    except (TypeError, KeyError, AttributeError, RuntimeError, RecursionError) as error:
        raise ValueError(
            f"{run}: not a run of ppl_vae, or damaged ({type(error).__name__}: {error})"
        ) from error


def _open(
    path: Path,
    model: Callable[..., Any] | None,
    guide: Guide,
    *,
    trust_code: bool,
) -> tuple[Any, Any]:
    path, file = (path.parent, path) if path.suffix == ".safetensors" else (path, path / WEIGHTS)
    info = read_run(path).info
    tensors = _weights(path, file, info)
    pair = _pair(path, info, model, guide, trust_code=trust_code)
    pair.load_tensors(tensors, _first_batch(info))
    return pair.model.function, None if info["guide"] is None else pair.guide.function


def read_run(run: str | Path) -> Run:
    """Read what a run directory says of itself, without its weights and without its code.

    Raises:
        ValueError: Where it is no run, or damaged.
    """
    path = Path(run)
    if not path.is_dir():
        raise ValueError(f"{path}: no such run directory")
    if not (path / INFO).exists():
        raise ValueError(f"{path}: no {INFO} in it: not a run of ppl_vae")
    info = read_json(path / INFO)
    if info.get("format") != FORMAT:
        raise ValueError(
            f"{path}: expected a run of format {FORMAT}, got {info.get('format')}; open it with "
            f"ppl_vae {info.get('versions', {}).get('ppl-vae', 'of another version')}"
        )
    return Run(path, info)


def check_new(path: Path) -> None:
    """Raise ``ValueError`` where a new run cannot begin: only an empty directory may exist."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"run: {path} exists; resume=True continues it, or choose another name")


def begin_run(path: Path, pair: Pair, rows: Rows | None, more: dict[str, Any]) -> dict[str, Any]:
    """Write the source and ``run.json`` of a new run; returns the latter's contents."""
    sources = read_sources(pair)
    checksums = {name: sha256(content) for name, content in sources.items()}
    recipe, reason = proven_recipe(pair, rows, checksums)
    info = {
        "format": FORMAT,
        "id": uuid.uuid4().hex,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "status": "running",
        "model": _title(pair.model.base),
        "guide": None if pair.guide.is_prior else _title(pair.guide.base),
        "plate": pair.plate,
        "recipe": recipe,
        "no_recipe": reason,
        "sources": checksums,
        "template": None if rows is None else rows.template(),
        "rows": None if rows is None else len(rows),
        "versions": _versions(),
        "threads": torch.get_num_threads(),
        **more,
    }
    _establish(path, sources, info)
    return info


def _establish(path: Path, sources: dict[str, bytes], info: dict[str, Any]) -> None:
    """Write a run's first files: as a whole directory, or into an empty one that is there."""
    if path.exists():
        _write_first_files(path, sources, info)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        _write_first_files(beside, sources, info)
        beside.chmod(0o777 & ~_umask())
        beside.replace(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _write_first_files(path: Path, sources: dict[str, bytes], info: dict[str, Any]) -> None:
    for name, content in sources.items():
        (path / name).parent.mkdir(exist_ok=True)
        write_whole(path / name, content)
    write_json(path / INFO, info)


def changed_sources(path: Path, info: dict[str, Any], pair: Pair) -> list[str]:
    """The user's files that are not as they were when a run began."""
    now = {f"source/{half.role}.py": source_of(half.base) for half in (pair.model, pair.guide)}
    halves = {"source/model.py": pair.model.base, "source/guide.py": pair.guide.base}
    return [
        str(file)
        for name, file in now.items()
        if file is not None
        and not in_library(file)
        and sha256(file.read_bytes()) != info["sources"].get(name)
        and definition(halves[name]) not in read_bytes(path / name).decode(errors="replace")
    ]


def recipe_still_holds(info: dict[str, Any], pair: Pair, rows: Rows) -> bool:
    """Whether the recipe of a run, if it has one, is still the pair's."""
    if info["recipe"] is None:
        return True
    return bool(_plain(proven_recipe(pair, rows, info["sources"])[0]) == _plain(info["recipe"]))


def withdraw_recipe(path: Path, pair: Pair, rows: Rows) -> None:
    """Keep the weights alone where an attribute of the pair changed while it was fitted."""
    info = read_run(path).info
    if not recipe_still_holds(info, pair, rows):
        reason = "an argument's attribute changed during the fit: keep such a number in a buffer"
        write_json(path / INFO, {**info, "recipe": None, "no_recipe": reason})
        warnings.warn(f"run: {path} holds the weights alone: {reason}", stacklevel=3)


def _plain(recipe: Any) -> Any:
    """A recipe without the values of tensors, which weights and snapshots hold."""
    if isinstance(recipe, dict):
        return {k: _plain(v) for k, v in recipe.items() if k != "tensor"}
    return [_plain(item) for item in recipe] if isinstance(recipe, list) else recipe


def write_weights(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write the weights of a run."""
    write_tensors(path / WEIGHTS, tensors, {"run": info["id"]})


def _weights(path: Path, file: Path, info: dict[str, Any]) -> dict[str, Tensor]:
    try:
        tensors, origin = read_tensors(file)
    except ValueError as error:
        sound = [name for name in (SNAPSHOT, PREVIOUS) if _is_sound(path / name, info)]
        offer = f'; {sound[0]} is sound: load("{path / sound[0]}")' if sound else ""
        raise ValueError(f"{error}{offer}") from error
    if origin["run"] != info["id"]:
        raise ValueError(f"{file}: belongs to another run than {path / INFO}")
    for kind in ("best/", "now/"):  # a snapshot: its best weights, or those it had
        part = {n.removeprefix(kind): t for n, t in tensors.items() if n.startswith(kind)}
        if part:
            return part
    return tensors


def _is_sound(file: Path, info: dict[str, Any]) -> bool:
    try:
        return bool(read_tensors(file)[1]["run"] == info["id"])
    except ValueError:
        return False


def _pair(
    path: Path,
    info: dict[str, Any],
    model: Callable[..., Any] | None,
    guide: Guide,
    *,
    trust_code: bool,
) -> Pair:
    """The given pair, or the one of the recipe."""
    if model is not None and (guide is not None or info["guide"] is None):
        return Pair.of(model, guide, info["plate"])
    if info["recipe"] is None:
        raise ValueError(
            f"{path}: holds weights without a recipe ({info['no_recipe']}); make the pair and "
            "pass it: load(run, model=..., guide=...)"
        )
    classes = _classes(path, info, trust_code=trust_code)
    try:
        built = rebuild_pair(info["recipe"], classes)
    except Exception as error:
        raise ValueError(
            f"{path}: its recipe does not build ({type(error).__name__}: {error}); pass "
            "model= and guide="
        ) from error
    halves = [built[0] if model is None else model, built[1] if guide is None else guide]
    return Pair.of(halves[0], halves[1], info["plate"])


def _classes(path: Path, info: dict[str, Any], *, trust_code: bool) -> dict[str, type]:
    """The user's classes that the recipe names, from the copies of their files."""
    told = [half for half in info["recipe"].values() if half is not None and "file" in half]
    if told and not trust_code:
        files = sorted({half["file"] for half in told})
        raise ValueError(
            f"{path}: made from files of its user's, copied to {', '.join(files)}; read them, then "
            "load(run, trust_code=True) executes them, or pass model= and guide="
        )
    classes = {}
    for half in told:
        name = half["file"]
        if not re.fullmatch(r"source/(model|guide)\.py", name):
            raise ValueError(f"{path / INFO}: expected a file in source/, got {name}")
        content = read_bytes(path / name)
        if sha256(content) != info["sources"].get(name):
            raise ValueError(f"{path / name}: changed since the run was made")
        classes[f"{name}:{half['class']}"] = class_in_file(
            path / name, half["class"].partition(":")[2], content
        )
    return classes


def _first_batch(info: dict[str, Any]) -> Batch | None:
    """Rows of zeros to run a pair on once, so that its parameters appear."""
    template = info["template"]
    return None if template is None else Rows(example_rows(template)).take(torch.arange(2))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _title(base: Any) -> str:
    return getattr(base, "__qualname__", type(base).__qualname__)


def _versions() -> dict[str, str]:
    names = ("ppl-vae", "pyro-ppl", "torch", "numpy", "pandas")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return {"python": platform.python_version(), **found}
