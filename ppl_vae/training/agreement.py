"""What the processes of one fit must have in common: weights, data, settings, threads.

Each rank draws its own initial weights, and takes those of rank 0. All else is the user's: where it
differs, the fit would be none, and an error on every rank names what differs.
"""

from __future__ import annotations

import contextlib
import json
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import torch

from ppl_vae.arguments import shown
from ppl_vae.core.pair import Pair
from ppl_vae.core.world import World, as_bytes


@contextlib.contextmanager
def warnings_of_rank_0(team: World) -> Iterator[None]:
    """Make a context in which rank 0 alone warns: the others would say the same."""
    if team.first:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def noise_seed(team: World, seed: int | None, shards: int) -> int | None:
    """Return the seed of a fit's noise; where a fit from shards has none, rank 0 draws one."""
    if seed is None and shards > 1:
        seed = int(torch.randint(2**31, ()))
        seed = int(team.text(str(seed), "the seed of the fit"))
    return seed


def take_weights_of_rank_0(team: World, pair: Pair) -> None:
    """Copy rank 0's weights into the pair on the other ranks.

    Raises:
        ValueError: If a rank's pair has other parameters or buffers.
    """
    if team.size == 1:
        return
    tensors = pair.tensors()
    forms = {name: [str(t.dtype), *map(str, t.shape)] for name, t in tensors.items()}
    _check_alike(team, "the pair", forms)
    team.broadcast(list(tensors.values()), "the weights of rank 0")


def kinds_of_all(team: World, kinds: dict[int, str], reason: str) -> list[tuple[int, str, str]]:
    """Return every rank's kinds of step: rows of a batch, kind of step, the rank's reason.

    Args:
        team: The ranks.
        kinds: This rank's, ``{rows of a batch: kind of step}``.
        reason: This rank's.
    """
    texts = team.texts(json.dumps([sorted(kinds.items()), reason]), "the kinds of step")
    told = [json.loads(text) for text in texts]
    return [(size, kind, why) for of_rank, why in told for size, kind in of_rank]


def check_settings_alike(team: World, settings: dict[str, Any]) -> None:
    """Raise ``ValueError`` where data, settings or threads differ among the ranks.

    Args:
        team: The ranks.
        settings: What ``fit_settings`` returns.
    """
    if team.size > 1:
        threads = {"threads (OMP_NUM_THREADS)": torch.get_num_threads()}
        _check_alike(team, "fit", {**settings, **threads})


def check_weights_alike(team: World, pair: Pair, epoch: int) -> None:
    """Raise ``ValueError`` where the weights differ among the ranks at the end of an epoch.

    All ranks made the same updates, but machines of different kinds may round sums differently.
    """
    if team.size == 1:
        return
    checksum = 0
    for tensor in pair.tensors().values():
        checksum = zlib.crc32(as_bytes(tensor).cpu().numpy().tobytes(), checksum)

    def describe(checksums: list[str]) -> str:
        rank = next(r for r, other in enumerate(checksums) if other != checksums[0])
        return (
            f"fit: expected the same weights on every rank after epoch {epoch}, got others on rank "
            f"{rank} than on rank 0; run on machines of one kind, with one version of torch, and "
            "let nothing in the model or the guide depend on the rank"
        )

    team.check_same(str(checksum), "the weights at the end of an epoch", describe)


def _check_alike(team: World, what: str, values: dict[str, Any]) -> None:
    """Raise ``ValueError`` that names the first entry that is not the same on every rank."""

    def describe(texts: list[str]) -> str:
        first = json.loads(texts[0])
        rank = next(r for r, text in enumerate(texts) if text != texts[0])
        other = json.loads(texts[rank])
        names = [*first, *(name for name in other if name not in first)]
        name = next(name for name in names if first.get(name) != other.get(name))
        return (
            f"{what}: expected the same {name} on every rank, got {shown(first.get(name))} on rank "
            f"0 and {shown(other.get(name))} on rank {rank}; start one script, with one seed and "
            "the same data, on all of them"
        )

    team.check_same(
        json.dumps(values, sort_keys=True, default=str), f"{what} on every rank", describe
    )
