"""What the linter looks at: a pair run on two batch sizes, with its parameters' names watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from ppl_vae import sites
from ppl_vae.handlers import Substitute, Unobserve
from ppl_vae.objectives import Objective, choose
from ppl_vae.pair import Pair
from ppl_vae.rows import Batch, Rows, as_tuple, map_batch

LARGE, SMALL = 16, 9  # rows of the two batches, where the data have as many


@dataclass(frozen=True)
class Finding:
    """One fault: where it is, what it is and what to change.

    Attributes:
        severity: ``"error"`` stops a fit, ``"warning"`` does not.
        where: ``site "z"``, ``parameter "model.w"``, ``field "x"``, ``model``.
        problem: What was expected and what came.
        fix: What to change.
    """

    severity: str
    where: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; {self.fix}"


class CannotRunError(Exception):
    """The pair cannot be run at all; carries the finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


class WatchParameters(Messenger):
    """Notes parameters that are asked for under one name with different tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, nn.Parameter] = {}
        self.twins: list[str] = []

    def _pyro_param(self, msg: Any) -> None:
        initial = msg["args"][1] if len(msg["args"]) > 1 else None
        if isinstance(initial, nn.Parameter):
            first = self.seen.setdefault(msg["name"], initial)
            if first is not initial and msg["name"] not in self.twins:
                self.twins.append(msg["name"])


@dataclass(frozen=True)
class Inspection:
    """A pair, its data, and its traces on one batch.

    Attributes:
        twins: By half, names under which two different parameters were asked for.
        misfit: What the model raised on the guide's draws, if it did; then ``model_trace`` is of
            the prior.
    """

    pair: Pair
    rows: Rows
    objective: Objective
    kl_weighted: bool
    batch: Batch
    model_trace: Trace
    guide_trace: Trace
    twins: dict[str, list[str]]
    misfit: Finding | None

    @classmethod
    def of(
        cls,
        pair: Pair,
        rows: Rows,
        objective: Objective | None,
        kl_weight: float | Callable[[int], float],
    ) -> Inspection:
        """Run the pair once; raises ``CannotRunError`` with the finding where it does not run."""
        count = min(len(rows), LARGE)
        device = pair.device()
        batch = rows.take(torch.arange(count), device)
        watches = {half.role: WatchParameters() for half in (pair.model, pair.guide)}
        guide_trace = attempt(pair.guide, batch, "guide", watches["guide"])
        drawn = sites.with_role(guide_trace, "latent", "auxiliary")
        proposed = Substitute({name: site["value"] for name, site in drawn.items()})
        misfit = None
        try:
            model_trace = attempt(proposed(pair.model), batch, "model", watches["model"])
        except CannotRunError as error:  # the guide's draws do not fit: see what the model wants
            misfit = error.finding
            model_trace = attempt(pair.model, batch, "model", watches["model"])
        return cls(
            pair,
            rows,
            objective or choose(model_trace, guide_trace),
            callable(kl_weight) or kl_weight != 1.0,
            batch,
            model_trace,
            guide_trace,
            {role: watch.twins for role, watch in watches.items()},
            misfit,
        )

    @property
    def row_count(self) -> int:
        """Rows of the larger batch."""
        return len(as_tuple(self.batch)[0])

    @property
    def small_count(self) -> int:
        """Rows of the smaller batch."""
        return SMALL if self.row_count > SMALL else max(1, self.row_count - 1)

    def model_sites(self) -> dict[str, sites.Site]:
        """Sites of the model on the larger batch."""
        return sites.sites(self.model_trace)

    def guide_sites(self) -> dict[str, sites.Site]:
        """Sites of the guide on the larger batch."""
        return sites.sites(self.guide_trace)

    def smaller(self) -> tuple[Trace, Trace]:
        """Traces (model, guide) of the first rows alone, every draw as on the larger batch.

        Raises ``CannotRunError`` where the pair runs on one batch size only.
        """
        batch = map_batch(self.batch, lambda field: field[: self.small_count])
        traces = []
        for half, trace in (
            (self.pair.model, self.model_trace),
            (self.pair.guide, self.guide_trace),
        ):
            drawn = sites.with_role(trace, "latent", "auxiliary")
            values = {name: self._first_rows(site) for name, site in drawn.items()}
            traces.append(attempt(Substitute(values)(half), batch, half.role))
        return traces[0], traces[1]

    def replicated(self, batch: Batch) -> Trace:
        """The model on another batch, every latent and every data site's value as on this one."""
        values = {
            name: site["value"]
            for name, site in sites.with_role(self.model_trace, "latent", "data").items()
        }
        handler = Substitute(values)
        return poutine.trace(handler(Unobserve()(self.pair.model))).get_trace(batch)

    def _first_rows(self, site: sites.Site) -> Tensor:
        if not sites.in_plate(site, self.pair.plate):
            value: Tensor = site["value"]
            return value
        dim = -1 - site["fn"].event_dim
        full: Tensor = site["value"]
        return full.narrow(dim, 0, self.small_count) if full.shape[dim] == self.row_count else full


def attempt(half: Any, batch: Batch, role: str, watch: Messenger | None = None) -> Trace:
    """Trace a half on a batch; raises ``CannotRunError`` where it raises anything."""
    try:
        with watch or Messenger():
            return poutine.trace(half).get_trace(batch)
    except Exception as error:
        fields = [tuple(tensor.shape) for tensor in as_tuple(batch)]
        shapes = dict(zip(batch, fields, strict=True)) if isinstance(batch, dict) else fields
        raise CannotRunError(
            Finding(
                "error",
                role,
                f"failed on a batch of shapes {shapes}: {type(error).__name__}: {error}",
                f"make the {role} take these rows, whatever their number, or pass other data",
            )
        ) from error
