"""Why a pair fails although it runs on draws: its code meets all values of a summed latent at once.

A latent that is summed is not drawn: Pyro gives its site all of its values, along a dimension left
of those of every plate. Code that joins such a value with a draw (``torch.cat``), or reads its
dimensions from the left, fails there and nowhere else. So the pair is run once on draws, and once
with all values; where only the second run fails, the summed latent is the cause.
"""

from __future__ import annotations

from typing import Any

from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.failed_calls import find_cause
from ppl_vae.core.failed_runs import Cause, FailedRun, error_text
from ppl_vae.core.handlers import EnumerateInParallel
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, map_batch

FEW_ROWS = 3  # rows that are run on: all values of the latents have to fit in memory


class SummedShapes(Messenger):
    """Handler that stores the shape in which each summed latent has all of its values.

    Attributes:
        shapes: ``{site: shape}``, in the order of the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes: dict[str, tuple[int, ...]] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["infer"].get("_enumerate_dim") is not None:
            self.shapes[msg["name"]] = tuple(msg["value"].shape)


def cause_in_sums(pair: Pair, batch: Batch, positions: Tensor) -> Cause | None:
    """Return what made a pair fail with the values of its summed latents, ``None`` if all is well.

    Args:
        pair: The pair.
        batch: The rows that it failed on.
        positions: Their positions in the data, (rows,).
    """
    few_rows = map_batch(batch, lambda field: field[:FEW_ROWS])
    try:
        with pair.quiet_run():
            traces = sites.traces(pair, few_rows)
            all_sites = [site for trace in traces for site in sites.sample_sites(trace).values()]
            if not any(map(sites.is_enumerated, all_sites)):
                return None
            frames = [frame for site in all_sites for frame in site["cond_indep_stack"]]
            nesting = max((-frame.dim for frame in frames if frame.dim is not None), default=0)
            return _cause_with_all_values(pair, few_rows, positions[:FEW_ROWS], -1 - nesting)
    except Exception:  # the pair fails on draws as well, or the search does
        return None


def _cause_with_all_values(pair: Pair, batch: Batch, positions: Tensor, dim: int) -> Cause | None:
    """Return what fails where latents have all of their values; see ``cause_in_sums``.

    Args:
        pair: The pair.
        batch: A few rows.
        positions: Their positions in the data, (rows,).
        dim: The first dimension that a latent's values may lie along.
    """
    seen = SummedShapes()

    def run() -> None:
        guide = EnumMessenger(first_available_dim=dim)(EnumerateInParallel()(pair.guide))
        model = EnumMessenger(first_available_dim=dim)(EnumerateInParallel()(pair.model))
        with seen:
            draws = poutine.trace(guide).get_trace(batch)
            poutine.replay(model, trace=draws)(batch)

    try:
        run()
    except Exception as error:
        failed = FailedRun(error, batch, positions, "pair", pair.plate, pair.parameters(), run)
        return find_cause(failed) or _shape_cause(error, seen.shapes)
    return None


def _shape_cause(error: Exception, shapes: dict[str, tuple[int, ...]]) -> Cause | None:
    """Return the cause that code does not take the shape of the last latent that was summed."""
    if not shapes:
        return None
    name, shape = list(shapes.items())[-1]
    return Cause(
        f'site "{name}"',
        f"expected code that takes all values of a summed latent at once, here of shape {shape}, "
        f"got {error_text(error)}",
        "count dimensions from the right, and before torch.cat expand both tensors to "
        "torch.broadcast_shapes(a.shape[:-1], b.shape[:-1]); or draw the latent in the guide, "
        "without enumeration",
    )
