"""Run directories: the record of a pair and of its fit, and ``save``.

    run.json               recipe, versions, seed, objective and reason, form of the data
    weights.safetensors    parameters and buffers; tensors that share memory are stored once
    source/                copies of the user's files that define the model and the guide, and of
                           those that they import
    snapshot.safetensors   everything that a fit needs to resume; previous.safetensors is the
                           snapshot before
    history.safetensors    the record of a fit that has ended, one row for each epoch
    lock                   locked by the process that writes into the directory
    metrics.csv            a copy of the record for other programs

Every file is written completely or not at all, and all but metrics.csv are checked when they are
read. Nothing is a pickle. ``loading.py`` opens a run again.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import math
import platform
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_vae.arguments import check_arguments
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.world import written_by_rank_0
from ppl_vae.data.columns import Columns
from ppl_vae.data.rows import Data, Rows
from ppl_vae.data.templates import example_rows, template_columns
from ppl_vae.saving import storage
from ppl_vae.saving.locks import RunLock, begin_directory, check_new
from ppl_vae.saving.proof import proven_recipe, refuse_within_a_check
from ppl_vae.saving.sources import sources_of

FORMAT = 1
"""Version of the layout of a run directory; a run of another version is refused."""

INFO = "run.json"
WEIGHTS = "weights.safetensors"
SNAPSHOT = "snapshot.safetensors"
PREVIOUS = "previous.safetensors"

LARGEST_EXAMPLE = 2**26
"""The most numbers that rows of zeros may hold which are made as a run says its data look."""


@dataclass(frozen=True)
class Run:
    """The record of a run directory, without weights and code.

    Attributes:
        path: The directory.
        info: Contents of ``run.json``: recipe, versions, settings, objective, form of the data.
    """

    path: Path
    info: dict[str, Any]

    @property
    def columns(self) -> Columns:
        """Names of the columns that the run was fitted to, by field; empty where unknown."""
        template = self.info["template"]
        return {} if template is None else template_columns(template)

    def example(self) -> Any:
        """Return two rows of zeros in the form of the data that the run was fitted to.

        Raises:
            ValueError: If the pair was saved without data, if a row is larger than any that
                should be made from what a file says, or if the file says nonsense.
        """
        template = self.info["template"]
        if template is None:
            raise ValueError(
                f"{self.path}: saved without data, so the form of its rows is unknown; pass rows"
            )
        try:
            size = 2 * sum(math.prod(map(int, entry["shape"])) for entry in template["fields"])
            if size > LARGEST_EXAMPLE:
                raise ValueError(
                    f"expected two rows of at most {LARGEST_EXAMPLE} numbers, got {size}; pass rows"
                )
            return example_rows(template)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{self.path / INFO}: form of the data: {error}") from error


def save(
    model: Model, guide: Guide, run: str | Path, *, data: Data | None = None, plate: str = "data"
) -> None:
    """Store a model and a guide in a new run directory, from which ``load`` opens them.

    Stored are the weights and, where possible, a recipe: the class of each half and the arguments
    that its constructor was given, with copies of the user's own files that the classes come from
    and import. Classes of the running script or notebook are written into a file. The recipe is
    tested before it is stored: it must rebuild, from those copies, a pair that gives the same
    numbers. If it cannot, a warning says why, the weights are stored alone, and ``load`` asks for
    the model and the guide.

    Of several processes that make this call, rank 0 alone writes.

    Args:
        model: The model.
        guide: The guide, or ``None``.
        run: A directory that does not exist yet, or is empty.
        data: Rows that the pair reads, in any form that ``fit`` takes. The form of the rows is
            stored (dtypes, shapes, column names), not their values, and the recipe is tested on
            the first rows.
        plate: Name of the row plate.

    Raises:
        ValueError: If the directory is not empty.

    Example:
        >>> import tempfile
        >>> from ppl_vae import load
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> folder = tempfile.mkdtemp()
        >>> save(BernoulliModel(4), NormalGuide(4), folder)
        >>> model, guide = load(folder)
        >>> model.features
        4
    """
    check_arguments(run=run)
    refuse_within_a_check("save")
    path = Path(run)
    with written_by_rank_0("save") as writes:
        if not writes:
            return
        check_new(path)
        pair = Pair.of(model, guide, plate)
        for name, tensor in pair.tensors().items():
            if torch.nn.parameter.is_lazy(tensor):
                raise ValueError(
                    f"{name.partition('.')[0]}: expected parameters that have shapes, got {name} "
                    "without one; fit the pair, or call it on a batch, before it is saved"
                )
        rows = None if data is None else pair.rows(data)
        info, lock = create_run(path, pair, rows, {})
        with contextlib.closing(lock):
            write_weights(path, pair.tensors(), info)
            storage.write_json(path / INFO, {**info, "status": "saved"})


def read_run(run: str | Path) -> Run:
    """Read the record of a run directory; reads no weights and executes no code.

    Raises:
        ValueError: If the directory is missing, is not a run, is damaged, or was written in the
            format of another version.
    """
    path = Path(run)
    if not path.is_dir():
        raise ValueError(f"{path}: no such run directory")
    if not (path / INFO).exists():
        raise ValueError(f"{path}: no {INFO} in it: not a run of ppl_vae")
    info = storage.read_json(path / INFO)
    if info.get("format") != FORMAT:
        raise ValueError(
            f"{path}: expected a run of format {FORMAT}, got {info.get('format')}; open it with "
            f"ppl_vae {info.get('versions', {}).get('ppl-vae', 'of another version')}"
        )
    return Run(path, info)


def create_run(
    path: Path, pair: Pair, rows: Rows | None, more: dict[str, Any]
) -> tuple[dict[str, Any], RunLock]:
    """Create a run directory with its source files and ``run.json``, without weights.

    Args:
        path: An absent or an empty directory.
        pair: The pair that is saved or about to be fitted.
        rows: Training rows, or ``None``.
        more: Further entries of ``run.json``, as the settings of a fit.

    Returns:
        The contents of ``run.json``, and the lock of the directory, which this process holds.

    Raises:
        ValueError: If the path is taken, or another process is beginning a run there.
        OSError: If the directory cannot be written.
    """
    sources = sources_of(pair)
    recipe, reason = proven_recipe(pair, rows, sources, path)
    info = {
        "format": FORMAT,
        "id": uuid.uuid4().hex,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "status": "running",
        "model": _qualified_name(pair.model.base),
        "guide": None if pair.guide.is_prior else _qualified_name(pair.guide.base),
        "plate": pair.plate,
        "recipe": recipe,
        "no_recipe": reason,
        "sources": {name: storage.sha256(content) for name, content in sources.files.items()},
        "modules": sources.modules,
        "roots": sources.roots,
        "dtype": str(torch.get_default_dtype()),
        "frozen": [name for name, p in pair.tensors().items() if _is_frozen(p)],
        "fields": pair.model.fitted_fields,
        "template": None if rows is None else rows.template(),
        "rows": None if rows is None else len(rows),
        "versions": _versions(),
        "threads": torch.get_num_threads(),
        **more,
    }
    lock = begin_directory(path, lambda folder: _write_first_files(folder, sources.files, info))
    try:
        _warn_of_what_is_not_kept(path, reason, sources.missing)
    except Warning:  # where warnings are errors
        lock.close()
        raise
    return info, lock


def _is_frozen(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is a parameter that no fit trains."""
    return isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad


def _warn_of_what_is_not_kept(path: Path, reason: str, missing: list[str]) -> None:
    """Warn where a run will not open by itself, or needs files that it does not hold."""
    if reason:
        warnings.warn(
            f"run: {path} holds the weights without a recipe: {reason}; load(run) will ask for "
            "model= and guide=",
            stacklevel=4,
        )
    if missing:
        warnings.warn(
            f"run: {path} does not hold {', '.join(missing)}, which the files of the pair import "
            "and which cannot be kept with them; load(run) needs them where Python finds modules",
            stacklevel=4,
        )


def _write_first_files(path: Path, sources: dict[str, bytes], info: dict[str, Any]) -> None:
    """Write the copies of the source files, then ``run.json``."""
    for name, content in sources.items():
        (path / name).parent.mkdir(exist_ok=True, parents=True)
        storage.write_whole(path / name, content)
    storage.write_json(path / INFO, info)


def write_weights(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write the weights file of a run.

    Args:
        path: The run directory.
        tensors: Parameters and buffers by name, as ``Pair.tensors()`` returns them.
        info: Contents of ``run.json``; its ``id`` marks the file as part of the run.

    Raises:
        OSError: If the file cannot be written.
    """
    storage.write_tensors(path / WEIGHTS, tensors, {"run": info["id"]})


def _qualified_name(base: Model) -> str:
    """Return the name of a function, or of an object's class."""
    return getattr(base, "__qualname__", type(base).__qualname__)


def _versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a fit's numbers."""
    versions = {"python": platform.python_version()}
    for name in ("ppl-vae", "pyro-ppl", "torch", "numpy", "pandas"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions
