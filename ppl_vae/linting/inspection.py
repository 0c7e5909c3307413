"""What the linter looks at: a pair run on two batch sizes, its layers and parameters watched."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import pyro
import torch
from pyro import poutine
from pyro.distributions import ExpandedDistribution, Independent, MaskedDistribution
from pyro.infer.autoguide import AutoGuide
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ppl_vae.compat import argument_checks_off, buffers_of, constrained_parameters
from ppl_vae.core import sites
from ppl_vae.core.handlers import Substitute, Unobserve
from ppl_vae.core.pair import Half, Pair
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows, map_batch
from ppl_vae.elbo.objectives import Objective, choose_objective

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


def error(where: str, problem: str, fix: str) -> Finding:
    """A fault that ``fit`` refuses."""
    return Finding("error", where, problem, fix)


def warning(where: str, problem: str, fix: str) -> Finding:
    """A fault that ``fit`` only repeats."""
    return Finding("warning", where, problem, fix)


def site_error(name: str, problem: str, fix: str) -> Finding:
    """A fault of one site that ``fit`` refuses."""
    return error(f'site "{name}"', problem, fix)


class CannotRunError(Exception):
    """The pair cannot be run at all; carries the finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


class Layers:
    """Every layer of a pair that runs inside ``with``; their buffers are put back.

    Attributes:
        names: Each layer's name; its class for a layer of a plain function.
        ran: The layers that have run, an outer one before those inside it.
    """

    def __init__(self, pair: Pair) -> None:
        self.names: dict[nn.Module, str] = {}
        self.ran: dict[nn.Module, None] = {}
        self._before: list[tuple[nn.Module, dict[str, tuple[Tensor, Tensor]]]] = []
        self._tops = pair.modules()

    def __enter__(self) -> Self:
        for top in self._tops:
            for name, module in top.named_modules():
                self._meet(module, name)
        self._hook = register_module_forward_pre_hook(self._run)
        return self

    def __exit__(self, *raised: object) -> None:
        self._hook.remove()
        for module, buffers in self._before:
            for name, (buffer, value) in buffers.items():
                buffers_of(module)[name] = buffer.copy_(value)

    def _run(self, module: nn.Module, inputs: Any) -> None:
        self.ran.setdefault(module)
        self._meet(module)

    def _meet(self, module: nn.Module, name: str = "") -> None:
        if module not in self.names:
            self.names[module] = name or type(module).__name__
            held = {key: (b, b.clone()) for key, b in buffers_of(module).items() if b is not None}
            self._before.append((module, held))


class Watch(Messenger):
    """Notes the parameters that are asked for, and names that stand for two of them.

    Attributes:
        names: Every name asked for.
        twins: Names under which two different parameters were asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.twins: list[str] = []
        self._seen: dict[str, object] = {}

    def __enter__(self) -> Self:
        self._hook = register_module_forward_pre_hook(self._enter_module)
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._hook.remove()
        super().__exit__(*raised)

    def _enter_module(self, module: nn.Module, inputs: Any) -> None:
        if isinstance(module, PyroModule):  # a constrained parameter's message has no tensor
            for name in constrained_parameters(module):
                self._note(name, module)

    def _pyro_param(self, msg: Any) -> None:
        self.names.add(msg["name"])
        initial = msg["args"][1] if len(msg["args"]) > 1 else None
        if isinstance(initial, nn.Parameter):
            self._note(msg["name"], initial)

    def _note(self, name: str, holder: object) -> None:
        if self._seen.setdefault(name, holder) is not holder and name not in self.twins:
            self.twins.append(name)


@dataclass(frozen=True)
class Inspection:
    """A pair, its data, and its traces on one batch.

    Attributes:
        watches: By half, the names of its parameters.
        misfit: What the model raised on the guide's draws, if it did; then ``model_trace`` is of
            the prior.
    """

    pair: Pair
    rows: Rows
    objective: Objective
    kl_weighted: bool
    layers: Layers
    batch: Batch
    model_trace: Trace
    guide_trace: Trace
    watches: dict[str, Watch]
    misfit: Finding | None

    @classmethod
    def of(
        cls,
        pair: Pair,
        rows: Rows,
        objective: Objective | None,
        kl_weight: float | Callable[[int], float],
        layers: Layers,
    ) -> Inspection:
        """Run the pair once; raises ``CannotRunError`` with the finding where it does not run."""
        batch = rows.take(torch.arange(min(len(rows), LARGE)), pair.device())
        watches = {"model": Watch(), "guide": Watch()}
        guide_trace = attempt(pair.guide, batch, pair.plate, watches["guide"])
        misfit = None
        try:
            proposed = Substitute(drawn_values(guide_trace))
            model_trace = attempt(pair.model, batch, pair.plate, watches["model"], proposed)
        except CannotRunError as raised:  # the guide's draws do not fit: see what the model wants
            misfit = raised.finding
            model_trace = attempt(pair.model, batch, pair.plate, watches["model"])
        return cls(
            pair,
            rows,
            objective or choose_objective(model_trace, guide_trace),
            callable(kl_weight) or kl_weight != 1.0,
            layers,
            batch,
            model_trace,
            guide_trace,
            watches,
            misfit,
        )

    @property
    def row_count(self) -> int:
        """Rows of the larger batch."""
        return batch_rows(self.batch)

    @property
    def small_count(self) -> int:
        """Rows of the smaller batch."""
        return SMALL if self.row_count > SMALL else max(1, self.row_count - 1)

    @property
    def halves(self) -> tuple[tuple[Half, Trace], tuple[Half, Trace]]:
        """Model and guide, each with its trace."""
        return (self.pair.model, self.model_trace), (self.pair.guide, self.guide_trace)

    def model_sites(self) -> dict[str, sites.Site]:
        """Sites of the model on the larger batch."""
        return sites.sample_sites(self.model_trace)

    def guide_sites(self) -> dict[str, sites.Site]:
        """Sites of the guide on the larger batch."""
        return sites.sample_sites(self.guide_trace)

    def shared_latents(self) -> dict[str, tuple[sites.Site, sites.Site]]:
        """The guide's latents that the model has too, as (model's site, guide's site)."""
        ours, latents = self.model_sites(), sites.with_role(self.guide_trace, "latent")
        return {name: (ours[name], site) for name, site in latents.items() if name in ours}

    @functools.cached_property
    def unvalidated(self) -> set[str]:
        """Sites of the model whose distribution was made with ``validate_args=False``.

        Seen while validation is on, where any other distribution validates.
        """
        proposed = Substitute(drawn_values(self.guide_trace))
        try:
            with pyro.validation_enabled(True):
                trace = attempt(self.pair.model, self.batch, self.pair.plate, proposed)
        except CannotRunError:  # its own parameters are not valid
            return set()
        return {name for name, site in sites.sample_sites(trace).items() if _opted_out(site["fn"])}

    def smaller(self) -> list[Trace]:
        """Traces (model, guide) of the first rows alone, every draw as on the larger batch.

        Raises ``CannotRunError`` where the pair runs on one batch size only.
        """
        batch = map_batch(self.batch, lambda field: field[: self.small_count])
        return [
            attempt(half, batch, self.pair.plate, Substitute(drawn_values(trace, self._first_rows)))
            for half, trace in self.halves
        ]

    def replicated(self, batch: Batch) -> Trace:
        """The model on another batch, every latent and every data site's value as on this one."""
        held = sites.with_role(self.model_trace, "latent", "data")
        values = {name: site["value"] for name, site in held.items()}
        return attempt(self.pair.model, batch, self.pair.plate, Substitute(values), Unobserve())

    def _first_rows(self, site: sites.Site) -> Tensor:
        value: Tensor = site["value"]
        dim = -1 - site["fn"].event_dim
        if not sites.in_plate(site, self.pair.plate) or value.shape[dim] != self.row_count:
            return value
        return value.narrow(dim, 0, self.small_count)


def _opted_out(fn: Any) -> bool:
    """Whether a distribution, or what a wrapper is around, has ``validate_args=False``."""
    while not argument_checks_off(fn):
        if not isinstance(fn, (Independent, MaskedDistribution, ExpandedDistribution)):
            return False  # the base of a transformed one is torch's own affair
        fn = fn.base_dist
    return True


def attempt(half: Half, batch: Batch, plate: str, *handlers: Messenger) -> Trace:
    """Trace a half on a batch inside handlers, the last one innermost.

    Raises:
        CannotRunError: Where it raises anything, or its row plate is not as long as the batch.
    """
    tracer = poutine.trace()
    failure = None
    ran: list[nn.Module] = []
    hook = register_module_forward_pre_hook(lambda module, _: ran.append(module))
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(hook.remove)
            for handler in (*handlers, tracer):
                stack.enter_context(handler)
            half(batch)
    except Exception as raised:
        failure = raised
    opened = tracer.trace.nodes.get(plate, {}).get("value")  # there, even if what is in it failed
    if isinstance(opened, Tensor) and opened.numel() != batch_rows(batch):
        problem = (
            f"expected the {half.role} to open it for the {batch_rows(batch)} rows of the batch, "
            f"got {opened.numel()}"
        )
        fix = f'write pyro.plate("{plate}", len(x))'
        if any(isinstance(module, AutoGuide) for module in ran):
            fix = (
                "an autoguide's row latents are fixed to one batch: amortize them with a network, "
                "or pass row numbers as a field and index parameters by them"
            )
        raise CannotRunError(error(f'plate "{plate}"', problem, fix)) from failure
    if failure is not None:
        raise CannotRunError(_raised(half, batch, failure)) from failure
    return tracer.get_trace()


def drawn_values(
    trace: Trace, read: Callable[[sites.Site], Tensor] = lambda site: site["value"]
) -> dict[str, Tensor]:
    """What a half drew, by site; ``read`` takes the value out of a site."""
    drawn = sites.with_role(trace, "latent", "auxiliary")
    return {name: read(site) for name, site in drawn.items()}


def variables(half: Half) -> dict[int, str]:
    """Names by ``id`` of what a half's code sees: its variables and its owner's attributes."""
    code = half.base.forward if isinstance(half.base, nn.Module) else half.base
    code = getattr(code, "__func__", code)
    seen = dict(getattr(half.owner, "__dict__", {}))
    if inspect.isfunction(code):
        with contextlib.suppress(ValueError):  # a variable without a value yet
            known = inspect.getclosurevars(code)
            seen |= {**known.globals, **known.nonlocals}
    held = half.module.named_parameters() if half.module is not None else ()
    return {id(value): name for name, value in (*seen.items(), *held)}


def _raised(half: Half, batch: Batch, failure: Exception) -> Finding:
    fields = [tuple(tensor.shape) for tensor in as_tuple(batch)]
    shapes = dict(zip(batch, fields, strict=True)) if isinstance(batch, dict) else fields
    fix = f"make the {half.role} take these rows, whatever their number, or pass other data"
    if half.role == "guide":
        fix += (
            "; where it has parameters for single rows, pass row numbers as a field and index the "
            "parameters by them"
        )
    return error(
        half.role,
        f"expected to run on a batch of shapes {shapes}, got {type(failure).__name__}: "
        + " ".join(str(failure).split()),
        fix,
    )
