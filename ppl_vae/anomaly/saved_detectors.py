"""Detectors in run directories: the calibration beside the weights that it was made with.

    run/                          one pair: what ``save`` or ``fit(run=...)`` writes, and
      detector.safetensors        the scores of the calibration rows; how they were computed; the
                                  form of these rows; a SHA-256 of the weights of each pair
    run/member-0, member-1, ...   the pairs of an ensemble, each a run of its own, beside that file

The file is written whole or not at all, and is checked when it is read. It is no pickle.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ppl_vae.anomaly.conformal import Floats
from ppl_vae.anomaly.scoring import Scoring
from ppl_vae.core.pair import Guide, Model
from ppl_vae.core.world import written_by_rank_0
from ppl_vae.data.rows import Data
from ppl_vae.saving import storage
from ppl_vae.saving.loading import load
from ppl_vae.saving.locks import LOCK, RunLock, is_taken
from ppl_vae.saving.runs import INFO, WEIGHTS, read_run, save

DETECTOR = "detector.safetensors"
FORMAT = 1
"""Version of the layout of the file; a file of another version is refused."""


@dataclass(frozen=True)
class Contents:
    """What a detector is beside its pairs.

    Attributes:
        scoring: How rows are scored.
        scores: (n,) scores of the calibration rows, rising, in nats.
        form: Form of the calibration rows, as ``Rows.template`` gives it.
        weights: SHA-256 of the weights of each pair.
    """

    scoring: Scoring
    scores: Floats
    form: dict[str, Any]
    weights: list[str]


def write(
    run: Path,
    pairs: Sequence[tuple[Model, Guide]],
    contents: Contents,
    example: Data,
    *,
    overwrite: bool = False,
) -> None:
    """Write a detector into a run directory, and its pairs where they are not there yet.

    Of several processes that make this call, rank 0 alone writes.

    Args:
        run: The run directory.
        pairs: The pair, or those of an ensemble.
        contents: The rest of the detector.
        example: A few rows, on which the pairs can be run.
        overwrite: Whether to replace a detector that is there.

    Raises:
        ValueError: If the directory holds anything but these pairs, or a detector already.
        OSError: If the directory cannot be written.
    """
    with written_by_rank_0("a detector") as writes:
        if writes:
            _write(run, pairs, contents, example, overwrite=overwrite)


def _write(
    run: Path,
    pairs: Sequence[tuple[Model, Guide]],
    contents: Contents,
    example: Data,
    *,
    overwrite: bool,
) -> None:
    """Write a detector, as ``write`` says."""
    _refuse_taken(run, overwrite=overwrite)
    places = _places(run, len(pairs))
    if len(pairs) > 1:
        _refuse_other_entries(run, places)
    new = [not is_taken(place) for place in places]
    for place, is_new, expected in zip(places, new, contents.weights, strict=True):
        if not is_new and _stored_weights(place) != expected:
            raise ValueError(
                f"run: {place} holds other weights than those that the calibration rows were "
                "scored with; calibrate the pair that load(run) gives, or choose another directory"
            )
    for place, is_new, (model, guide) in zip(places, new, pairs, strict=True):
        if is_new:
            save(model, guide, place, data=example, plate=contents.scoring.plate)
    info = {
        "format": FORMAT,
        "scoring": dataclasses.asdict(contents.scoring),
        "form": contents.form,
        "weights": contents.weights,
    }
    with contextlib.closing(RunLock(run)):
        _refuse_taken(run, overwrite=overwrite)
        storage.write_tensors(run / DETECTOR, {"scores": torch.as_tensor(contents.scores)}, info)


def read(
    run: Path, given: Sequence[tuple[Model, Guide]] | None, *, trust_code: bool
) -> tuple[Contents, list[tuple[Any, Any]]]:
    """Return a detector's contents and its pairs, from a run directory.

    Args:
        run: The run directory.
        given: Pairs to load the weights into; ``None`` to build them from the run.
        trust_code: Whether to execute the copies of the user's own files in the run.

    Raises:
        ValueError: If there is no detector, a file is damaged, or the weights are others than those
            that the calibration rows were scored with.
    """
    if not run.is_dir():
        raise ValueError(f"run: {run}: no such run directory")
    if not (run / DETECTOR).exists():
        raise ValueError(f"run: {run}: no {DETECTOR} in it; detector.save(run) writes one")
    contents = _contents(run / DETECTOR)
    places = _places(run, len(contents.weights))
    pairs = [(None, None)] * len(places) if given is None else list(given)
    if len(pairs) != len(places):
        raise ValueError(f"model: expected {len(places)} pairs, as {run} holds, got {len(pairs)}")
    loaded = []
    for place, expected, (model, guide) in zip(places, contents.weights, pairs, strict=True):
        if _stored_weights(place) != expected:
            raise ValueError(
                f"run: {place} holds other weights than those that the calibration rows were "
                "scored with; make a new detector, and save(run, overwrite=True) replaces this one"
            )
        loaded.append(load(place, model=model, guide=guide, trust_code=trust_code))
    return contents, loaded


def _contents(file: Path) -> Contents:
    """Return what a detector's file says, or raise ``ValueError`` that names the file."""
    tensors, info = storage.read_tensors(file)
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise ValueError(f"{file}: expected a detector of format {FORMAT}; make a new detector")
    try:
        scores = tensors["scores"].numpy()
        return Contents(Scoring(**info["scoring"]), scores, info["form"], info["weights"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: not a detector, or damaged ({error})") from error


def _places(run: Path, count: int) -> list[Path]:
    """Return the run directory of each pair."""
    return [run] if count == 1 else [run / f"member-{i}" for i in range(count)]


def _stored_weights(place: Path) -> str:
    """Return the SHA-256 of the weights in a run directory.

    Raises:
        ValueError: If it is no run, has no weights yet, or the weights are damaged.
    """
    info = read_run(place).info
    if not (place / WEIGHTS).exists():
        raise ValueError(f"run: {place} holds no weights: its fit has not ended")
    tensors, owner = storage.read_tensors(place / WEIGHTS)
    if owner["run"] != info["id"]:
        raise ValueError(f"{place / WEIGHTS}: belongs to another run than {place / INFO}")
    return storage.tensors_checksum(tensors)


def _refuse_other_entries(run: Path, places: Sequence[Path]) -> None:
    """Raise ``ValueError`` if a directory for an ensemble holds anything but its members."""
    if not is_taken(run):
        return
    if not run.is_dir():
        raise ValueError(f"run: expected a directory, got the file {run}")
    names = {LOCK, DETECTOR, *(place.name for place in places)}
    others = sorted(entry.name for entry in run.iterdir() if entry.name not in names)
    if others:
        raise ValueError(
            f"run: expected a new directory for the {len(places)} pairs of an ensemble, got {run} "
            f"with {others[0]} in it; choose another name"
        )


def _refuse_taken(run: Path, *, overwrite: bool) -> None:
    """Raise ``ValueError`` if a directory holds a detector that must not be replaced."""
    if not overwrite and (run / DETECTOR).exists():
        raise ValueError(f"run: {run / DETECTOR} exists; overwrite=True replaces it")
