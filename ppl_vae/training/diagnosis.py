"""Diagnosis of a step whose loss or gradient is not finite: which site, row and parameter.

The failed batch runs again with the same weights and the same draws, and the sites are looked at in
the order in which they ran, the guide's first. The culprit is the first site whose value or
log-probability is not finite. Where all of these are finite, the culprit is the first site whose
log-probability has a gradient that is not (the root of a number at 0, for example). Where the whole
gradient is finite but too large to be used, the parameter with the largest gradient is named.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch, map_batch
from ppl_vae.elbo.loss import Gradients
from ppl_vae.training.clipping import clip_factor


class NotFiniteError(ValueError):
    """A loss or a gradient stopped being finite; its update was not applied.

    Attributes:
        culprit: Where that began; ``None`` where no site can be named.
    """

    def __init__(self, message: str, culprit: Culprit | None) -> None:
        super().__init__(message)
        self.culprit = culprit


@dataclass(frozen=True)
class Culprit:
    """The site where a loss or a gradient stopped being finite.

    Attributes:
        half: ``"model"`` or ``"guide"``; ``"pair"`` where the pair could not run again.
        site: Name of the site; ``"?"`` where the pair could not run again.
        what: ``"value"``, ``"log-probability"``, ``"gradient of the log-probability"`` or
            ``"distribution"``.
        row: Position in the data of the first bad row; -1 for a site outside the row plate.
        rows: Number of bad rows in the batch; 0 for a site outside the row plate.
        parameters: Names of parameters that are not finite themselves, or whose gradient of the
            site's log-probability is not.
    """

    half: str
    site: str
    what: str
    row: int
    rows: int
    parameters: tuple[str, ...]

    def __str__(self) -> str:
        if self.site == "?":
            text = "the pair cannot run with these weights"
        else:
            text = f'site "{self.site}" of the {self.half}: its {self.what} is not finite'
        if self.row >= 0:
            text += f" in {self.rows} rows of the batch, the first is row {self.row} of the data"
        if self.parameters:
            more = f" and {len(self.parameters) - 1} more" if len(self.parameters) > 1 else ""
            text += f'; parameter "{self.parameters[0]}"{more} is affected'
        return text


def too_large(names: list[str], gradients: Gradients, limit: float) -> str:
    """Return words for the largest gradient, where the gradients are finite but cannot be used.

    Args:
        names: Names of the parameters.
        gradients: One gradient for each parameter, or ``None``.
        limit: Largest norm of all gradients together.

    Returns:
        The words; ``""`` where the gradients can be used, or are not finite.
    """
    present = [(g, name) for g, name in zip(gradients, names, strict=True) if g is not None]
    sizes = {name: g.abs().max().item() for g, name in present if g.numel()}
    finite = all(map(math.isfinite, sizes.values()))
    if not sizes or not finite or clip_factor([g for g, _ in present], limit).isfinite():
        return ""
    largest = max(sizes, key=sizes.__getitem__)
    return (
        f'parameter "{largest}" has the largest gradient, {sizes[largest]:.3g}, whose square is no '
        "finite number"
    )


def find_culprit(pair: Pair, batch: Batch, positions: Tensor, rng_state: Tensor) -> Culprit | None:
    """Run a failed batch again and return where it stopped being finite.

    Args:
        pair: The pair, with the weights of the failed step.
        batch: The batch of that step.
        positions: Positions of the batch's rows in the data, (rows,).
        rng_state: State of torch's generator when the step began.

    Returns:
        The culprit; ``None`` where every value, log-probability and gradient is finite.
    """
    bad = tuple(name for name, p in pair.parameters().items() if not p.isfinite().all())
    with forked(0), torch.enable_grad(), pyro.validation_enabled(False):
        torch.set_rng_state(rng_state)
        try:
            model_trace, guide_trace = sites.traces(pair, batch)
        except Exception:  # drawing from a broken distribution raises: parameters alone can tell
            return Culprit("pair", "?", "distribution", -1, 0, bad) if bad else None
        in_order = [
            (half, name, site)
            for half, trace in (("guide", guide_trace), ("model", model_trace))
            for name, site in sites.with_role(trace, "latent", "data", "auxiliary").items()
        ]
        for half, name, site in in_order:
            for what, not_finite in _not_finite_cells(site).items():
                if bool(not_finite.any()):
                    row, rows = _bad_rows(pair, site, not_finite, positions)
                    return Culprit(half, name, what, row, rows, bad)
        for half, name, site in in_order:
            culprit = _gradient_culprit(pair, half, name, site, batch, positions)
            if culprit is not None:
                return culprit
    return None


def _not_finite_cells(site: sites.Site) -> dict[str, Tensor]:
    """Return where a site's value and its log-probability are not finite, of batch shape each."""
    value = ~site["value"].isfinite()
    if site["fn"].event_dim:
        value = value.flatten(-site["fn"].event_dim).any(-1)
    return {"value": value, "log-probability": ~site["fn"].log_prob(site["value"]).isfinite()}


def _bad_rows(pair: Pair, site: sites.Site, bad: Tensor, positions: Tensor) -> tuple[int, int]:
    """Return the position of the first bad row and the number of bad rows; (-1, 0) off the plate.

    Args:
        pair: The pair.
        site: The site.
        bad: Which cells are bad, (..., rows) of bool.
        positions: Positions of the batch's rows in the data, (rows,).
    """
    if not sites.in_plate(site, pair.plate) or bad.shape[-1:] != positions.shape:
        return -1, 0
    rows = bad.flatten(0, -2).any(0) if bad.ndim > 1 else bad
    return int(positions[rows.cpu()][0]), int(rows.sum())


def _gradient_culprit(
    pair: Pair, half: str, name: str, site: sites.Site, batch: Batch, positions: Tensor
) -> Culprit | None:
    """Return the culprit where a site's log-probability has a gradient that is not finite.

    The rows run one at a time to find the bad ones: within a batch, NaN from one row reaches the
    gradient of every parameter.
    """
    names = _broken_gradients(pair, site)
    if not names:
        return None
    bad = []
    for i, position in enumerate(positions.tolist()):
        row = map_batch(batch, lambda field, i=i: field[i : i + 1])
        try:
            traces = dict(zip(("model", "guide"), sites.traces(pair, row), strict=True))
        except Exception:  # a pair that cannot run on one row leaves the row unnamed
            break
        alone = sites.sample_sites(traces[half]).get(name)
        if alone is not None and _broken_gradients(pair, alone):
            bad.append(position)
    first = bad[0] if bad else -1
    return Culprit(half, name, "gradient of the log-probability", first, len(bad), tuple(names))


def _broken_gradients(pair: Pair, site: sites.Site) -> list[str]:
    """Return the parameters whose gradient of the site's log-probability is not finite."""
    log_prob = site["fn"].log_prob(site["value"]).sum()
    if not log_prob.requires_grad:
        return []
    parameters = pair.trainable()
    values = list(parameters.values())
    gradients = torch.autograd.grad(log_prob, values, retain_graph=True, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    return [n for n, g in pairs if g is not None and not g.isfinite().all()]


def first_line(error: Exception) -> str:
    """Return an error's class and the first line of its message, whole sentences of a long one."""
    line = (str(error).strip().splitlines() or [""])[0]
    if len(line) > 300:
        line = line[:300].rpartition(". ")[0] or line[:300]
    return f"{type(error).__name__}: {line}"
