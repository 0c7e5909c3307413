"""Batches of sequences of like length, which have the steps of their longest sequence alone.

Padding costs as much time as data. So an epoch's rows are ordered by length before they are cut
into batches, and the batches are then put into a random order. Lengths are multiplied by random
numbers from 1 to ``SPREAD`` for it, so that the same rows do not meet in every epoch. Every row is
still in one batch an epoch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.handlers import Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows
from ppl_vae.data.steps import row_lengths, step_fields, trimmed
from ppl_vae.nn import KnownRows
from ppl_vae.training.batches import cut

SPREAD = 1.1


def rows_to_train_on(pair: Pair, rows: Rows, compiled: bool | str) -> Rows:
    """Return sequences whose batches are trimmed, where that changes nothing but the time.

    A compiled step holds for one number of steps, so that the user who insists on one trains on
    sequences as they are padded.

    Args:
        pair: The pair.
        rows: The data; what is no sequences is returned as it is.
        compiled: The argument ``compile`` of ``fit``.
    """
    if compiled is True or not step_fields(rows):
        return rows
    return trimmed(rows) if ignores_padding(pair, rows) else rows


def ignores_padding(pair: Pair, rows: Rows) -> bool:
    """Return whether model and guide give a row the same log-probabilities without its padding.

    The shortest sequences run with and without padding, with the same draws. A pair that cannot run
    on fewer steps, or that reads the number of steps, does not ignore it.

    Args:
        pair: The pair.
        rows: The data, which are sequences.
    """
    lengths = row_lengths(rows)
    index = lengths.argsort(stable=True)[:3]
    longest = rows.fields[rows.names.index("x")].array.shape[1]
    if int(lengths[index].max()) == longest:
        return False  # there is nothing to trim
    tops = [top for half in (pair.model, pair.guide) for top in half.layers().values()]
    if any(isinstance(layer, KnownRows) for top in tops for layer in top.modules()):
        return False  # it knows rows by all their cells, those of the padding too
    device = pair.device()
    try:
        with pair.quiet_run():
            draws, padded = _run(pair, rows.take(index, device), {})
            _, short = _run(pair, trimmed(rows).take(index, device), draws)
    except Exception:  # whatever the pair's code raises on fewer steps than it was made for
        return False
    return padded.keys() == short.keys() and all(
        torch.allclose(padded[key], log_prob, rtol=1e-4, atol=1e-4, equal_nan=True)
        for key, log_prob in short.items()
    )


def _run(
    pair: Pair, batch: Batch, draws: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[tuple[str, str], Tensor]]:
    """Run a pair on a batch.

    Args:
        pair: The pair.
        batch: The batch.
        draws: Values for latents, cut where the batch has fewer steps than they have.

    Returns:
        The values of all sites, by name, and the log-probability of each row, (rows,), by model or
        guide and name.
    """
    values, log_probs = {}, {}
    with _Cut(draws):
        traces = sites.traces(pair, batch)
    for half, trace in zip(("model", "guide"), traces, strict=True):
        for name, site in sites.sample_sites(trace).items():
            values[name] = site["value"]
            log_probs[half, name] = sites.row_log_prob(site)
    return values, log_probs


class _Cut(Substitute):
    """Handler that gives sites fixed values, cut to the shape that the site has here."""

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        if msg["name"] in self.values and not msg["is_observed"]:
            shape = msg["fn"].batch_shape + msg["fn"].event_shape
            msg["value"] = msg["value"][tuple(slice(size) for size in shape)]


def batches_of_epoch(
    rows: Rows, batch_size: int, join_last: bool, generator: torch.Generator
) -> list[Tensor]:
    """Draw the batches of an epoch: of sequences of like length, or of rows in any order.

    Args:
        rows: The data; sequences where their batches are trimmed.
        batch_size: Rows of every batch, except perhaps one.
        join_last: Whether a last row joins the batch before it.
        generator: Draws the order.

    Returns:
        The positions of the rows of each batch, (rows,).

    Example:
        >>> from ppl_vae import sequences
        >>> rows = trimmed(Rows(sequences([torch.ones(steps, 1) for steps in (9, 1, 9, 1)])))
        >>> batches = batches_of_epoch(rows, 2, False, torch.Generator())
        >>> sorted(sorted(batch.tolist()) for batch in batches)
        [[0, 2], [1, 3]]
    """
    if rows.trim is None:
        order = rows.order(generator)
        return cut(order, batch_size, join_last=join_last)
    stretch = torch.empty(len(rows)).uniform_(1.0, SPREAD, generator=generator)
    batches = cut((row_lengths(rows) * stretch).argsort(), batch_size, join_last=join_last)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]
