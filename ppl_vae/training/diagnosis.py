"""Which site, row and parameter made a step's loss or gradient stop being finite.

The batch is run again with the same draws, site by site: the first value or log-probability that
is not finite is the culprit; where all are finite, the first site whose log-probability has a
gradient that is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch, map_batch


class NotFiniteError(ValueError):
    """A loss or a gradient stopped being finite; the update was not applied.

    Attributes:
        culprit: What was found, if anything.
    """

    def __init__(self, message: str, culprit: Culprit | None) -> None:
        super().__init__(message)
        self.culprit = culprit


@dataclass(frozen=True)
class Culprit:
    """Where it began.

    Attributes:
        half: ``"model"`` or ``"guide"``.
        site: The site.
        what: ``"value"``, ``"log-probability"`` or ``"gradient of the log-probability"``.
        row: The first bad row's position in the data, -1 outside the row plate.
        rows: How many rows of the batch are bad.
        parameters: Parameters that hold or would receive something not finite.
    """

    half: str
    site: str
    what: str
    row: int
    rows: int
    parameters: tuple[str, ...]

    def __str__(self) -> str:
        text = f'site "{self.site}" of the {self.half}: its {self.what} is not finite'
        if self.row >= 0:
            text += f" in {self.rows} rows of the batch, the first is row {self.row} of the data"
        if self.parameters:
            more = f" and {len(self.parameters) - 1} more" if len(self.parameters) > 1 else ""
            text += f'; parameter "{self.parameters[0]}"{more} is affected'
        return text


def find_culprit(pair: Pair, batch: Batch, index: Tensor, draws: Tensor) -> Culprit | None:
    """Run a batch again and look.

    Args:
        pair: The pair, its weights those of the failed step.
        batch: The batch of that step.
        index: Its rows' positions in the data, (rows,).
        draws: State of torch's generator when the step began.

    Returns:
        The culprit, ``None`` where everything is finite.
    """
    holding = [name for name, p in pair.parameters().items() if not p.isfinite().all()]
    with forked(0), torch.enable_grad(), pyro.validation_enabled(False):
        torch.set_rng_state(draws)
        try:
            model_trace, guide_trace = sites.traces(pair, batch)
        except Exception:  # drawing from a broken distribution raises; the parameters tell
            return Culprit("pair", "?", "distribution", -1, 0, tuple(holding)) if holding else None
        found = [
            (half, name, site)
            for half, trace in (("guide", guide_trace), ("model", model_trace))
            for name, site in sites.with_role(trace, "latent", "data", "auxiliary").items()
        ]
        for half, name, site in found:
            log_prob = site["fn"].log_prob(site["value"])
            event = tuple(range(-site["fn"].event_dim, 0))
            value = ~site["value"].isfinite()
            value = value.flatten(-len(event)).any(-1) if event else value
            for what, bad in (("value", value), ("log-probability", ~log_prob.isfinite())):
                if bool(bad.any()):
                    return _culprit(pair, half, name, what, bad, site, index, holding)
        for half, name, site in found:
            culprit = _gradient_culprit(pair, half, name, site, batch, index)
            if culprit is not None:
                return culprit
    return None


def _culprit(
    pair: Pair,
    half: str,
    name: str,
    what: str,
    bad: Tensor,
    site: sites.Site,
    index: Tensor,
    parameters: list[str],
) -> Culprit:
    if not sites.in_plate(site, pair.plate) or bad.shape[-1:] != index.shape:
        return Culprit(half, name, what, -1, 0, tuple(parameters))
    rows = bad.flatten(0, -2).any(0) if bad.ndim > 1 else bad
    first = int(index[rows.cpu()][0])
    return Culprit(half, name, what, first, int(rows.sum()), tuple(parameters))


def _gradient_culprit(
    pair: Pair, half: str, name: str, site: sites.Site, batch: Batch, index: Tensor
) -> Culprit | None:
    """A site whose log-probability has a gradient that is not finite, and the rows it comes from.

    The rows are run one at a time: within a batch, NaN from one row reaches the gradient of all.
    """
    what, names = "gradient of the log-probability", _broken_gradients(pair, site)
    if not names:
        return None
    bad = []
    for i, position in enumerate(index.tolist()):
        row = map_batch(batch, lambda field, i=i: field[i : i + 1])
        try:
            traces = dict(zip(("model", "guide"), sites.traces(pair, row), strict=True))
        except Exception:  # a pair that cannot run on one row leaves the row unnamed
            break
        alone = sites.sample_sites(traces[half]).get(name)
        if alone is not None and _broken_gradients(pair, alone):
            bad.append(position)
    first = bad[0] if bad else -1
    return Culprit(half, name, what, first, len(bad), tuple(names))


def _broken_gradients(pair: Pair, site: sites.Site) -> list[str]:
    """Parameters whose gradient of the site's log-probability is not finite."""
    log_prob = site["fn"].log_prob(site["value"]).sum()
    if not log_prob.requires_grad:
        return []
    parameters = pair.trainable()
    values = list(parameters.values())
    gradients = torch.autograd.grad(log_prob, values, retain_graph=True, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    return [n for n, g in pairs if g is not None and not g.isfinite().all()]
