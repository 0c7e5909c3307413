"""The linter's rules under the ELBO: its value, its gradients, and unregistered parameters."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import pyro
import pyro.ops.provenance
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ppl_vae.core import sites
from ppl_vae.core.failed_runs import error_text
from ppl_vae.core.failed_sums import cause_in_sums
from ppl_vae.data.rows import Batch, batch_rows
from ppl_vae.elbo.factors import OutsidePlateError, plate_fault
from ppl_vae.elbo.loss import BatchLoss
from ppl_vae.elbo.particles import draw_particles, plate_nesting
from ppl_vae.elbo.sum_memory import TooManyConfigurationsError, draw_of_one_row
from ppl_vae.linting.inspection import Finding, Inspection, error, site_error, warning
from ppl_vae.linting.watching import names_of_values, own_parameters


def under_elbo(inspection: Inspection, batch: Batch) -> Iterator[Finding]:
    """Compute the ELBO and its gradient on a batch, and find what is wrong with either.

    Faults are an ELBO that raises or is not finite, a parameter without a finite gradient, a
    parameter in the loss that an optimizer would never receive, and whatever Pyro's own checks
    warn of.

    Args:
        inspection: The pair and its traces.
        batch: Rows to compute the ELBO on.
    """
    weight = torch.tensor(0.5) if inspection.kl_weighted else None
    loss_of = _batch_loss(inspection)
    parameters = _parameters_to_train(inspection)
    try:
        with (
            warnings.catch_warnings(action="always", record=True) as caught,
            torch.enable_grad(),
            pyro.validation_enabled(True),
        ):
            try:
                losses, surrogate = loss_of(batch, weight)
            except ValueError as failure:
                if not _has_no_gradient(failure):
                    raise
                # not negative_elbo, which would leave out the KL weight that is tried here
                losses = loss_of.objective.loss(loss_of.model, loss_of.guide, batch)
                surrogate = losses
            leaves = _trainable_leaves(surrogate)
            gradients = _gradients(surrogate, parameters)
    except Exception as failure:
        yield _failed_elbo(inspection, batch, failure)
        return
    if bool(losses.isfinite().all()):
        yield from _warnings_of_pyro(inspection, caught)
        if parameters and not surrogate.requires_grad:
            yield _nothing_reached(list(parameters))
        else:
            yield from _gradient_findings(gradients)
        yield from _unregistered(inspection, leaves)
        return
    fix = "keep the scales of the model and of the guide away from 0"
    yield error("model and guide", f"expected a finite ELBO, got {-float(losses.sum())}", fix)


def unsound_sums(inspection: Inspection) -> Iterator[Finding]:
    """Find sites that depend on a summed latent but stand outside one of its plates.

    The pair is run once with its latents enumerated, as the ELBO would run it, after a run of a
    single row has shown that the latents' joint values fit in memory.
    """
    halves = inspection.model_sites(), inspection.guide_sites()
    summed = any(sites.is_enumerated(site) for half in halves for site in half.values())
    if not (inspection.objective.enumerates and summed):
        return
    try:
        with contextlib.suppress(OutsidePlateError):  # told below
            draw_of_one_row(inspection.pair, inspection.batch)
        nesting = plate_nesting(inspection.pair, inspection.batch)
        draw = draw_particles(inspection.pair, inspection.batch, nesting, None, Messenger())
        missing = list(draw.missing_plates())
    except TooManyConfigurationsError as raised:
        yield site_error(raised.site, raised.problem, raised.mend)
        return
    except Exception:  # what fails here fails under the ELBO as well, which says so
        return
    for name, latent, plate in missing:
        yield site_error(name, *plate_fault(latent, plate))


def summed_over_all_rows(inspection: Inspection) -> list[str]:
    """Return the latents outside the row plate that are summed exactly, by name.

    The likelihood of all rows stands inside one sum over the latent's values, which Pyro takes at
    one scale: a batch of some of the rows, scaled to the data set, is no estimate of the sum.
    """
    if not inspection.objective.enumerates:
        return []
    all_sites = {**inspection.guide_sites(), **inspection.model_sites()}.items()
    outside = [(n, s) for n, s in all_sites if not sites.in_plate(s, inspection.pair.plate)]
    return [name for name, site in outside if sites.is_enumerated(site)]


def _warnings_of_pyro(
    inspection: Inspection, caught: list[warnings.WarningMessage]
) -> Iterator[Finding]:
    """Return a finding for each warning that came from a file of Pyro, in Pyro's words.

    Calls of torch's functions on tensors that carry their provenance pass through a file of Pyro.
    What torch warns of in such a call is named after that file, and is no warning of Pyro's.

    Args:
        inspection: The pair and its traces.
        caught: All warnings that the ELBO's run gave.
    """
    folder = Path(pyro.__file__).parent
    of_pyro = [
        caught_one
        for caught_one in caught
        if folder in Path(caught_one.filename).parents
        and Path(caught_one.filename) != Path(pyro.ops.provenance.__file__)
    ]
    for text in dict.fromkeys(" ".join(str(warned.message).split()) for warned in of_pyro):
        yield warning(
            "model and guide",
            f"expected no warning of Pyro under {inspection.objective.name}, got: {text}",
            "change the sites that Pyro names, or make sure that they are meant so",
        )


def _batch_loss(inspection: Inspection) -> BatchLoss:
    """Return the loss of a batch under a new copy of the ELBO, which is not the user's object.

    The copy does not warn that nothing is enumerated: the loss is right without.
    """
    objective = type(inspection.objective).of(inspection.objective.elbo, "tried")
    if isinstance(objective.elbo, TraceEnum_ELBO):
        objective.elbo.strict_enumeration_warning = False
    return BatchLoss(inspection.pair, objective, len(inspection.rows))


def _failed_elbo(inspection: Inspection, batch: Batch, failure: Exception) -> Finding:
    """Return the finding for an ELBO that raised an error.

    A latent that only the model has, and sums out, cannot have a KL weight: Pyro sums over its
    values together with the likelihood, and one sum has one scale. Whether the weight is the
    cause is found by trying: the ELBO is computed once more without it.
    """
    in_model, in_guide = inspection.model_sites(), inspection.guide_sites()
    only_in_model = [name for name in in_model if name not in in_guide]
    summed_out = [name for name in only_in_model if sites.is_enumerated(in_model[name])]
    if summed_out and inspection.kl_weighted and _runs_unweighted(inspection, batch):
        problem = "expected a KL weight of 1 on a site that the model sums out, got another"
        fix = "leave kl_weight at 1, or enumerate the site in the guide"
        return site_error(summed_out[0], problem, fix)
    cause = cause_in_sums(inspection.pair, batch, torch.arange(batch_rows(batch)))
    if cause is not None:
        return error(*cause)
    return error(
        "model and guide",
        f"expected {inspection.objective.name} to run, got {error_text(failure)}",
        "print(lint(...)) shows each site's shapes and plates",
    )


def _has_no_gradient(failure: ValueError) -> bool:
    """Return whether ``TraceEnum_ELBO`` itself refused a loss that depends on no parameter.

    Its method ``differentiable_loss`` raises for nothing else; what raises in the pair is raised in
    a function that the method calls.
    """
    *_, (frame, _) = traceback.walk_tb(failure.__traceback__)
    return frame.f_code is TraceEnum_ELBO.differentiable_loss.__code__


def _runs_unweighted(inspection: Inspection, batch: Batch) -> bool:
    """Return whether the ELBO can be computed with a KL weight of 1."""
    try:
        with pyro.validation_enabled(True):
            _batch_loss(inspection).negative_elbo(batch)
    except Exception:
        return False
    return True


# Gradients


def _parameters_to_train(inspection: Inspection) -> dict[str, Tensor]:
    """Return the trainable parameters that model and guide have asked for, by name.

    An autoguide runs the model when it is set up, so the model's parameters enter the guide's
    store. The guide itself never asks for them; they are left out.
    """
    stored = [inspection.stored_parameters(half, asked=False) for half, _ in inspection.halves]
    not_asked = {id(p) for parameters in stored for p in parameters.values()}
    return {n: p for n, p in inspection.pair.trainable().items() if id(p) not in not_asked}


def _gradients(surrogate: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor | None]:
    """Return the gradient for each parameter; ``None`` where the loss does not depend on it."""
    if not surrogate.requires_grad or not parameters:
        return dict.fromkeys(parameters)
    gradients = torch.autograd.grad(surrogate, list(parameters.values()), allow_unused=True)
    return dict(zip(parameters, gradients, strict=True))


def _gradient_findings(gradients: dict[str, Tensor | None]) -> Iterator[Finding]:
    """Find parameters whose gradient is not finite, or that have none."""
    bad = [name for name, g in gradients.items() if g is not None and not g.isfinite().all()]
    if bad:
        rest = f" (and in {len(bad) - 1} more parameters)" if len(bad) > 1 else ""
        problem = f"expected a finite gradient, got NaN or infinity{rest}"
        fix = "look for a division by 0, the square root of 0, or NaN under a mask"
        yield error(f'parameter "{bad[0]}"', problem, fix)
    for name, gradient in gradients.items():
        if gradient is None:
            problem = "expected a gradient, got none: the loss does not depend on the parameter"
            fix = "use the parameter, freeze it with requires_grad_(False), or look for a detach()"
            yield warning(f'parameter "{name}"', problem, fix)


def _nothing_reached(names: list[str]) -> Finding:
    """Return the finding for a loss that depends on none of the parameters, by their names."""
    shown = ", ".join(f'"{name}"' for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return error(
        "model and guide",
        "expected a loss that depends on a parameter, got one that depends on none of "
        f"{len(names)} ({shown}): there is nothing to train",
        "use the parameters in a distribution of a latent or observed site, without .detach(), "
        ".item(), .numpy() or torch.no_grad() on the way; or freeze them with "
        "requires_grad_(False) where the pair is not to be trained",
    )


# Unregistered parameters


def _trainable_leaves(surrogate: Tensor) -> list[Tensor]:
    """Return every trainable tensor that a loss depends on.

    torch records how a loss was computed as a graph of operations. The walk goes from the loss
    back to the operations without predecessors, which hold the tensors that gradients end in.
    """
    leaves, visited, nodes = [], set(), [surrogate.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        nodes += [before for before, _ in node.next_functions]
    return leaves


def _unregistered(inspection: Inspection, leaves: list[Tensor]) -> Iterator[Finding]:
    """Find trainable parameters in the loss that the pair does not have.

    They are layers of a plain function without ``pyro.module``, or modules in a list. An
    optimizer gets the pair's parameters only, so these would never train.
    """
    known = {id(p) for p in inspection.pair.parameters().values()}
    for half, _ in inspection.halves:  # an autoguide's set-up may have taken a name in the store
        known |= own_parameters(half)
    names = {**names_of_values(inspection.pair.guide), **names_of_values(inspection.pair.model)}
    layers: dict[nn.Module, str] = {}
    for leaf in leaves:
        # a tensor created in the call (inner steps of a semi-amortized guide) is not a parameter
        if id(leaf) in known or not (isinstance(leaf, nn.Parameter) or id(leaf) in names):
            continue
        layer = _outermost_layer(inspection, leaf)
        if layer is None:
            yield _unregistered_parameter(leaf, names.get(id(leaf)))
        else:
            layers.setdefault(layer, names.get(id(layer), inspection.layers.names[layer]))
    for name in layers.values():
        yield error(
            f'layer "{name}"',
            "expected a layer that the model or the guide registers, got one that neither "
            "registers: its parameters would never train",
            f'write pyro.module("{name}", ...) in the function that uses the layer, make the layer '
            "an attribute of the PyroModule, or freeze the layer with requires_grad_(False)",
        )


def _outermost_layer(inspection: Inspection, parameter: Tensor) -> nn.Module | None:
    """Return the outermost layer that ran and has the parameter, or ``None``."""
    ran = inspection.layers.ran  # outer layers run before those inside them
    return next((layer for layer in ran if any(parameter is p for p in layer.parameters())), None)


def _unregistered_parameter(parameter: Tensor, name: str | None) -> Finding:
    """Return the finding for a parameter outside any layer that neither half registers."""
    return error(
        f"parameter of shape {tuple(parameter.shape)}" if name is None else f'parameter "{name}"',
        "expected a parameter that the model or the guide registers, got one that neither "
        "registers: the parameter would never train",
        f'write pyro.param("{name or "name"}", ...) in the function that uses the parameter, make '
        "the parameter an attribute of the PyroModule, or freeze it with requires_grad_(False)",
    )
