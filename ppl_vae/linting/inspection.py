"""What the linter's rules read and what they return.

A rule reads an ``Inspection``: a pair, its data, and its traces on a batch of a few rows. It yields
a ``Finding`` for each fault: one fault of the pair or of its data, with what to change.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.failed_calls import find_cause
from ppl_vae.core.failed_runs import FailedRun, error_text, raised_in
from ppl_vae.core.far_rows import failing_rows, without_rows
from ppl_vae.core.half import Half
from ppl_vae.core.handlers import Substitute, Unobserve
from ppl_vae.core.observed_values import row_shape_cause
from ppl_vae.core.pair import Pair
from ppl_vae.core.supports import validation_is_off
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows, map_batch
from ppl_vae.elbo.objectives import Objective, choose_objective
from ppl_vae.linting.watching import (
    Layers,
    ParameterLengthError,
    ParameterLengths,
    ParameterWatch,
    own_parameters,
)


@dataclass(frozen=True)
class Finding:
    """One fault: where it is, what was expected and what came, and what to change.

    Attributes:
        severity: ``"error"`` stops a fit, ``"warning"`` does not.
        where: The place of the fault: ``site "z"``, ``parameter "model.w"``, ``field "x"`` or
            ``model``.
        problem: What was expected and what came.
        fix: What to change.
    """

    severity: str
    where: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; {self.fix}"


def error(where: str, problem: str, fix: str) -> Finding:
    """Return a finding that stops a fit."""
    return Finding("error", where, problem, fix)


def warning(where: str, problem: str, fix: str) -> Finding:
    """Return a finding that ``fit`` only repeats as a warning."""
    return Finding("warning", where, problem, fix)


def site_error(name: str, problem: str, fix: str) -> Finding:
    """Return a finding about one site that stops a fit."""
    return error(f'site "{name}"', problem, fix)


class CannotRunError(Exception):
    """Raised where the model or the guide fails on a batch.

    Attributes:
        finding: The finding that says so.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@dataclass(frozen=True)
class Inspection:
    """A pair, its data, and its traces on one batch.

    Attributes:
        pair: The pair.
        rows: All the data.
        objective: The ELBO that the pair is checked for.
        kl_weighted: Whether the KL weight differs from 1 at some step.
        layers: The layers that have run so far.
        batch: The first rows of the data, at most ``LARGER_BATCH``, without rows on which the pair
            fails because of their own numbers.
        model_trace: The model's trace on the batch, with the guide's draws.
        guide_trace: The guide's trace on the batch.
        watches: ``{"model": ..., "guide": ...}``, the parameters that each half asked for.
        model_failure: What the model raised on the guide's draws, or ``None``. Where it raised,
            ``model_trace`` has draws from the prior instead.
    """

    LARGER_BATCH: ClassVar[int] = 16  # rows of the two batches, where the data have as many
    SMALLER_BATCH: ClassVar[int] = 9

    pair: Pair
    rows: Rows
    objective: Objective
    kl_weighted: bool
    layers: Layers
    batch: Batch
    model_trace: Trace
    guide_trace: Trace
    watches: dict[str, ParameterWatch]
    model_failure: Finding | None

    @classmethod
    def of(
        cls, pair: Pair, rows: Rows, objective: Objective | None, kl_weighted: bool, layers: Layers
    ) -> Inspection:
        """Run a pair on the first rows of its data.

        Args:
            pair: The pair.
            rows: The data.
            objective: The ELBO to check for; ``None`` chooses one from the sites.
            kl_weighted: Whether the KL weight differs from 1 at some step.
            layers: Records the layers that run.

        Raises:
            CannotRunError: If the guide fails, or the model fails even on draws from its prior.
        """
        batch = rows.take(torch.arange(min(len(rows), cls.LARGER_BATCH)), pair.device())

        def on(batch: Batch) -> Inspection:
            return cls._on_batch(pair, rows, batch, objective, kl_weighted, layers)

        try:
            inspection = on(batch)
        except CannotRunError as raised:
            cause = row_shape_cause(pair, batch)
            if cause is not None:
                raise CannotRunError(error(*cause)) from raised
            sound = _without_failing_rows(pair, rows, batch)
            if sound is None:
                raise
            return on(sound)
        sound = None
        if inspection.model_failure is not None:
            sound = _without_failing_rows(pair, rows, batch)
        return inspection if sound is None else on(sound)

    @classmethod
    def _on_batch(
        cls,
        pair: Pair,
        rows: Rows,
        batch: Batch,
        objective: Objective | None,
        kl_weighted: bool,
        layers: Layers,
    ) -> Inspection:
        """Run a pair on a batch; see ``of``."""
        watches = {"model": ParameterWatch(), "guide": ParameterWatch()}
        guide_trace = attempt(pair.guide, batch, pair.plate, watches["guide"])
        model_failure = None
        try:
            guide_draws = Substitute(drawn_values(guide_trace))
            model_trace = attempt(pair.model, batch, pair.plate, watches["model"], guide_draws)
        except CannotRunError as raised:  # draws from the prior show which shapes the model wants
            model_failure = raised.finding
            model_trace = attempt(pair.model, batch, pair.plate, watches["model"])
        chosen = objective or choose_objective(model_trace, guide_trace)
        return cls(
            pair, rows, chosen, kl_weighted, layers, batch, model_trace, guide_trace, watches,
            model_failure,
        )  # fmt: skip

    @property
    def row_count(self) -> int:
        """Number of rows in the batch."""
        return batch_rows(self.batch)

    @property
    def small_count(self) -> int:
        """Number of rows in the smaller batch, on which the pair is run for comparison."""
        return max(1, min(self.SMALLER_BATCH, self.row_count - 1))

    @property
    def halves(self) -> tuple[tuple[Half, Trace], tuple[Half, Trace]]:
        """Model and guide, each with its trace."""
        return (self.pair.model, self.model_trace), (self.pair.guide, self.guide_trace)

    def model_sites(self) -> dict[str, sites.Site]:
        """Return the model's sample sites by name."""
        return sites.sample_sites(self.model_trace)

    def guide_sites(self) -> dict[str, sites.Site]:
        """Return the guide's sample sites by name."""
        return sites.sample_sites(self.guide_trace)

    def shared_latents(self) -> dict[str, tuple[sites.Site, sites.Site]]:
        """Return the latents that model and guide share, as (model's site, guide's site)."""
        model_sites, latents = self.model_sites(), sites.with_role(self.guide_trace, "latent")
        return {n: (model_sites[n], site) for n, site in latents.items() if n in model_sites}

    @functools.cached_property
    def unvalidated(self) -> set[str]:
        """Sites of the model whose distribution was made with ``validate_args=False``.

        torch stores the choice only where the user made it; otherwise the distribution follows a
        global flag. So the model is run once with the global flag on: a distribution that still
        does not validate was told not to.
        """
        guide_draws = Substitute(drawn_values(self.guide_trace))
        try:
            with pyro.validation_enabled(True):
                trace = attempt(self.pair.model, self.batch, self.pair.plate, guide_draws)
                made = sites.sample_sites(trace).items()
                return {name for name, site in made if validation_is_off(site["fn"])}
        except CannotRunError:  # a distribution's parameters are not valid
            return set()

    def stored_parameters(self, half: Half, *, asked: bool) -> dict[str, Tensor]:
        """Return the parameters in a half's store that the half does not own as a module, by name.

        Args:
            half: The model or the guide.
            asked: Whether to return those that the half asked for by name, or all others.
        """
        owned, names = own_parameters(half), self.watches[half.role].names
        tables = half.store.tables.named_parameters()
        return {n: p for n, p in tables if (n in names) is asked and id(p) not in owned}

    def smaller(self) -> list[Trace]:
        """Run the pair on the first rows of the batch alone, with the draws of the whole batch.

        Returns:
            The traces of the model and the guide.

        Raises:
            CannotRunError: If the pair runs on one batch size only.
        """
        batch = map_batch(self.batch, lambda field: field[: self.small_count])
        return [
            attempt(half, batch, self.pair.plate, Substitute(drawn_values(trace, self._first_rows)))
            for half, trace in self.halves
        ]

    def rerun_model(self, batch: Batch) -> Trace:
        """Run the model on another batch while each latent and data site has its old value.

        Raises:
            CannotRunError: If the model fails on that batch.
        """
        old = sites.with_role(self.model_trace, "latent", "data")
        values = {name: site["value"] for name, site in old.items()}
        return attempt(self.pair.model, batch, self.pair.plate, Substitute(values), Unobserve())

    def _first_rows(self, site: sites.Site) -> Tensor:
        """Return a site's value for the rows of the smaller batch; unchanged outside the rows."""
        value: Tensor = site["value"]
        dim = -1 - site["fn"].event_dim
        if not sites.in_plate(site, self.pair.plate) or value.shape[dim] != self.row_count:
            return value
        return value.narrow(dim, 0, self.small_count)


def _without_failing_rows(pair: Pair, rows: Rows, batch: Batch) -> Batch | None:
    """Return a batch with sound rows in the places of those on which the pair fails.

    A covariance that a network computes from NaN, or from a number of 1e30, fails the run of the
    whole batch. The pass over the data names these rows; the other rules need sound ones.

    Args:
        pair: The pair.
        rows: The data.
        batch: The first rows.

    Returns:
        The batch; ``None`` where no single rows are at fault, or all rows.
    """
    try:
        failing = failing_rows(pair, batch).cpu()
    except Exception:  # not the numbers of single rows
        return None
    return without_rows(pair, rows, batch, failing) if bool(failing.any()) else None


def attempt(
    half: Half, batch: Batch, plate: str, *handlers: Messenger, positions: Tensor | None = None
) -> Trace:
    """Trace a half on a batch, inside handlers.

    Args:
        half: The model or the guide.
        batch: The rows.
        plate: Name of the row plate.
        handlers: Handlers around the half, the last one innermost.
        positions: Positions of the rows in the data, (rows,), for messages; ``None`` for the first
            rows.

    Raises:
        CannotRunError: If the half raises an error, or its row plate is not as long as the batch.
    """
    tracer = poutine.trace()
    failure = None

    def run() -> None:
        with contextlib.ExitStack() as stack:
            for handler in (*handlers, ParameterLengths(), tracer):
                stack.enter_context(handler)
            half(batch)

    try:
        run()
    except ParameterLengthError as raised:
        where = f'parameter "{raised.name}"'
        raise CannotRunError(error(where, raised.problem, raised.fix)) from raised
    except Exception as raised:
        failure = raised
    # the plate is in the trace even if a statement inside it failed, and is then the likely cause
    opened = tracer.trace.nodes.get(plate, {}).get("value")
    if isinstance(opened, Tensor) and len(opened) != batch_rows(batch):  # row numbers, or rows
        raise CannotRunError(_wrong_plate_length(half, plate, batch, len(opened))) from failure
    if failure is not None:
        index = torch.arange(batch_rows(batch)) if positions is None else positions
        parameters = {f"{half.role}.{name}": p for name, p in half.parameters().items()}
        cause = find_cause(FailedRun(failure, batch, index, half.role, plate, parameters, run))
        finding = _failed_run(half, batch, failure) if cause is None else error(*cause)
        raise CannotRunError(finding) from failure
    return tracer.get_trace()


def run_pair(pair: Pair, batch: Batch, positions: Tensor | None = None) -> tuple[Trace, Trace]:
    """Trace the guide on a batch, then the model with the guide's draws; return the model's first.

    Args:
        pair: The pair.
        batch: The rows.
        positions: As in ``attempt``.

    Raises:
        CannotRunError: If either half fails.
    """
    guide_trace = attempt(pair.guide, batch, pair.plate, positions=positions)
    draws = Substitute(drawn_values(guide_trace))
    return attempt(pair.model, batch, pair.plate, draws, positions=positions), guide_trace


def drawn_values(
    trace: Trace, read: Callable[[sites.Site], Tensor] = lambda site: site["value"]
) -> dict[str, Tensor]:
    """Return what a half drew, by site; ``read`` takes the value out of a site."""
    drawn = sites.with_role(trace, "latent", "auxiliary")
    return {name: read(site) for name, site in drawn.items()}


def _wrong_plate_length(half: Half, plate: str, batch: Batch, length: int) -> Finding:
    """Return the finding for a row plate that is not as long as the batch."""
    problem = (
        f"expected the {half.role} to open the row plate for the {batch_rows(batch)} rows of the "
        f"batch, got {length}"
    )
    fix = f'write pyro.plate("{plate}", len(x))'
    modules = [module for layer in half.layers().values() for module in layer.modules()]
    if any(isinstance(module, AutoGuide) for module in modules):
        fix = (
            "an autoguide's row latents are fixed to one batch: amortize them with a network, "
            "or pass row numbers as a field and index parameters by them"
        )
    return error(f'plate "{plate}"', problem, fix)


def _failed_run(half: Half, batch: Batch, failure: Exception) -> Finding:
    """Return the finding for a half that raised an error on a batch.

    A ``ValueError`` of the half's own code has the form "what is wrong; what to do": its mend is
    the finding's, and no other stands beside it.
    """
    fields = [tuple(tensor.shape) for tensor in as_tuple(batch)]
    shapes = dict(zip(batch, fields, strict=True)) if isinstance(batch, dict) else fields
    fix = f"make the {half.role} take these rows, whatever their number, or pass other data"
    if half.role == "guide":
        fix += (
            "; where the guide has parameters for single rows, pass row numbers as a field and "
            "index the parameters by them"
        )
    got, own_fix = error_text(failure), ""
    if isinstance(failure, ValueError) and not raised_in(failure, "torch", "pyro"):
        got, _, own_fix = got.partition("; ")
    problem = f"expected to run on a batch of shapes {shapes}, got {got}"
    return error(half.role, problem, own_fix or fix)
