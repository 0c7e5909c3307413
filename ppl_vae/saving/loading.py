"""``load``: open a run directory as a model and a guide with the stored weights.

A run may come from anywhere, so nothing in it is trusted. Every file is checked against its
checksum. Of the library, of torch and of Pyro only the classes are imported that ``importable.py``
allows. The copies of a user's own source files are executed only under ``trust_code=True``, and
only if their bytes are those that the run recorded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_vae.arguments import check_arguments
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.rows import Batch, Rows
from ppl_vae.saving.kept_code import KeptCode
from ppl_vae.saving.recipes import rebuild_pair, users_files
from ppl_vae.saving.runs import INFO, PREVIOUS, SNAPSHOT, WEIGHTS, Run, read_run
from ppl_vae.saving.same_code import kept_sources
from ppl_vae.saving.storage import read_tensors


def load(
    run: str | Path, *, model: Model | None = None, guide: Guide = None, trust_code: bool = False
) -> tuple[Any, Any]:
    """Return the model and the guide of a run directory, with their stored weights.

    The pair is rebuilt from the recipe in the run, on any machine. Where the run holds weights
    without a recipe, pass a model and a guide of the same classes and sizes; the weights are
    loaded into them in place.

    Args:
        run: The run directory, or one ``.safetensors`` file in it. Of a snapshot the weights of
            the best held-out ELBO are taken, or the last ones where no rows were held out.
        model: The model to load the weights into, in place of the one that the recipe builds.
        guide: The guide to load the weights into, likewise.
        trust_code: Whether to execute the copies of the user's own source files in the run. The
            files can do anything that you can do: read them first, or trust their origin.

    Returns:
        The model and the guide; the guide is ``None`` for a pair that has none.

    Raises:
        ValueError: If the directory is not a run, if a file in it is damaged, if the weights do
            not fit the given pair, or if ``model=`` and ``guide=`` or ``trust_code=True`` are
            needed. The message says which.

    Example:
        >>> import tempfile
        >>> from ppl_vae import save
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> folder = tempfile.mkdtemp()
        >>> save(BernoulliModel(4, latents=2), NormalGuide(4, latents=2), folder)
        >>> model, guide = load(folder)
        >>> type(guide).__name__, guide.latents
        ('NormalGuide', 2)
    """
    check_arguments(run=run, trust_code=trust_code)
    try:
        path = Path(run)
        is_file = path.suffix == ".safetensors"
        path, file = (path.parent, path) if is_file else (path, path / WEIGHTS)
        info = read_run(path).info
        weights = _read_weights(path, file, info)
        pair = _given_or_rebuilt(path, info, model, guide, trust_code=trust_code)
        record = Run(path, info)
        pair.load_tensors(weights, _example_batch(record))
        if model is None and guide is None:  # a pair of the caller's is frozen as the caller wants
            pair.freeze(info.get("frozen", ()))
        pair.remember_columns(record.columns)
        if info.get("fields") is not None:  # a run of no fit, or an older one, does not hold them
            pair.model.remember_fields(info["fields"])
        return pair.model.function, None if info["guide"] is None else pair.guide.function
    except (TypeError, KeyError, AttributeError, RuntimeError, RecursionError) as error:
        raise ValueError(
            f"{run}: not a run of ppl_vae, or damaged ({type(error).__name__}: {error})"
        ) from error


def _read_weights(path: Path, file: Path, info: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights in a file of a run, by name.

    A weights file holds nothing else. A snapshot holds two sets of weights, under the prefixes
    ``best/`` (best held-out ELBO, only where rows were held out) and ``now/``, and more tensors.

    Raises:
        ValueError: If the file is damaged or of another run. If a snapshot of the run is sound,
            the message says how to load the snapshot.
    """
    try:
        tensors, owner = read_tensors(file)
    except ValueError as error:
        sound = [name for name in (SNAPSHOT, PREVIOUS) if _is_sound(path / name, info)]
        offer = f'; {sound[0]} is sound: load("{path / sound[0]}")' if sound else ""
        raise ValueError(f"{error}{offer}") from error
    if owner["run"] != info["id"]:
        raise ValueError(f"{file}: belongs to another run than {path / INFO}")
    for prefix in ("best/", "now/"):
        weights = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        if weights:
            return weights
    return tensors


def _is_sound(file: Path, info: dict[str, Any]) -> bool:
    """Return whether a tensor file exists, is undamaged and belongs to the run."""
    try:
        return bool(read_tensors(file)[1]["run"] == info["id"])
    except ValueError:
        return False


def _given_or_rebuilt(
    path: Path, info: dict[str, Any], model: Model | None, guide: Guide, *, trust_code: bool
) -> Pair:
    """Return the pair to load the weights into: each half given by the caller, or rebuilt.

    Raises:
        ValueError: If a half is not given and the run has no recipe, or the recipe fails.
    """
    if model is not None and (guide is not None or info["guide"] is None):
        return Pair.of(model, guide, info["plate"])
    if info["recipe"] is None:
        raise ValueError(
            f"{path}: holds weights without a recipe ({info['no_recipe']}); make the pair and "
            "pass it: load(run, model=..., guide=...)"
        )
    dtype = str(torch.get_default_dtype())
    if info.get("dtype", dtype) != dtype:  # data would be converted to another dtype than weights
        raise ValueError(
            f"{path}: was made under the default dtype {info['dtype']}, got {dtype}; call "
            f"torch.set_default_dtype({info['dtype']}) before load"
        )
    code = _users_code(path, info, trust_code=trust_code)
    try:
        rebuilt = rebuild_pair(info["recipe"], code)
    except Exception as error:  # a constructor may be anybody's code
        raise ValueError(
            f"{path}: its recipe does not build the pair ({type(error).__name__}: {error}); pass "
            "model= and guide="
        ) from error
    model = rebuilt[0] if model is None else model
    guide = rebuilt[1] if guide is None else guide
    return Pair.of(model, guide, info["plate"])


def _users_code(path: Path, info: dict[str, Any], *, trust_code: bool) -> KeptCode:
    """Return the user's own code that a run holds, ready to be executed.

    Nothing is executed before the recipe names a class in it.

    Raises:
        ValueError: If the recipe needs such code and it is not trusted, or a file is not as it
            was recorded, or lies outside ``source/``.
    """
    needed = users_files(info["recipe"])
    if not needed:
        return KeptCode(path, {})
    if not trust_code:
        raise ValueError(
            f"{path}: made from the user's own files, copied to {', '.join(needed)}; read them, "
            "then execute them by load(run, trust_code=True), or pass model= and guide="
        )
    return kept_sources(path, info).code(path)


def _example_batch(record: Run) -> Batch | None:
    """Return a batch of two rows of zeros like the run's data; ``None`` if saved without data.

    Parameters of some pairs appear on the first call only (autoguides, lazy layers). Such a pair
    is run once on this batch, so that there are parameters to load the weights into.

    Raises:
        ValueError: If the run says that its rows are larger than should be made.
    """
    if record.info["template"] is None:
        return None
    return Rows(record.example()).take(torch.arange(2))
