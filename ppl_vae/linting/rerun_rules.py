"""The linter's rules that run the pair again: on fewer rows, on other data, under its ELBO."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from ppl_vae.core import sites
from ppl_vae.data.cells import cells_in
from ppl_vae.data.rows import Batch, as_tuple, map_batch
from ppl_vae.elbo.loss import BatchLoss
from ppl_vae.linting.data_rules import row_score
from ppl_vae.linting.inspection import (
    CannotRunError,
    Finding,
    Inspection,
    error,
    site_error,
    variables,
    warning,
)

Trial = Callable[[Inspection], Iterator[Finding]]


def coupled_rows(look: Inspection) -> Iterator[Finding]:
    """Code that lets a row's distribution depend on the other rows, or runs on one size only."""
    if look.row_count < 2:
        return
    try:
        smaller = look.smaller()
    except CannotRunError as raised:
        yield raised.finding
        return
    for (half, trace), fewer in zip(look.halves, smaller, strict=True):
        alone = sites.sample_sites(fewer)
        for name, site in sites.with_role(trace, "latent", "data").items():
            if name not in alone or not sites.in_plate(site, look.pair.plate):
                continue
            among, by_itself = row_score(site), row_score(alone[name])
            if among is None or by_itself is None:
                continue
            if not _close(among[: look.small_count], by_itself):
                yield site_error(
                    name,
                    f"expected each row's distribution in the {half.role} to depend on that row "
                    "alone, got one that changes with the other rows of its batch",
                    "compute each row by itself (a mean over dim 0, or a reshape that mixes rows, "
                    "is the usual cause), and draw random numbers in pyro.sample alone: those of "
                    "np.random or torch.randn differ at every call",
                )


def leaks(look: Inspection) -> Iterator[Finding]:
    """A site that reads the argument where it should read what ``pyro.sample`` returned.

    The observed cells of the data change and every site's value stays: a later site whose
    distribution changes has read the data past the site that observes them.
    """
    data = sites.with_role(look.model_trace, "data")
    try:
        kept = look.replicated(look.batch)
        suspects = _changed(kept, look.replicated(_shifted(look, data)), after=next(iter(data), ""))
        for name in suspects:
            for source in data:
                shifted = look.replicated(_shifted(look, {source: data[source]}))
                if name in _changed(kept, shifted, after=source):
                    yield _leak(name, source)
                    break
    except CannotRunError:  # cannot be simulated, for example where a network rejects the draws
        return


def _leak(name: str, source: str) -> Finding:
    return site_error(
        name,
        f'expected it to depend on what pyro.sample("{source}", ...) returned, got one that reads '
        f'the argument that "{source}" observes: replicates would leak the data',
        f'write {source} = pyro.sample("{source}", ..., obs=...) and use that value',
    )


def _shifted(look: Inspection, data: dict[str, sites.Site]) -> Batch:
    """The batch with the cells that these sites observe moved on by one row."""
    fields = [field.clone() for field in as_tuple(look.batch)]
    for site in data.values():
        found = cells_in(look.batch, site["value"])
        if found is not None:
            position, cells = found
            moved = site["value"].roll(1, -1 - site["fn"].event_dim)
            fields[position].view(-1)[cells] = moved.to(fields[position].dtype)
    replaced = iter(fields)
    return map_batch(look.batch, lambda field: next(replaced))


def _changed(kept: Trace, shifted: Trace, after: str) -> list[str]:
    """Sites after one, with another distribution of the same value in the second trace."""
    names = list(sites.with_role(kept, "latent", "data"))
    changed = []
    for name in names[names.index(after) + 1 :] if after in names else []:
        site: sites.Site = kept.nodes[name]
        other: sites.Site = shifted.nodes.get(name)
        if other is not None:
            before, now = (_log_prob(half["fn"], site["value"]) for half in (site, other))
            if before is not None and now is not None and not _close(before, now):
                changed.append(name)
    return changed


def under_elbo(look: Inspection, batch: Batch) -> Iterator[Finding]:
    """The ELBO raises, is not finite, or a parameter has no finite gradient or no owner."""
    weight = torch.tensor(0.5) if look.kl_weighted else None
    objective = type(look.objective).of(look.objective.elbo, "tried")
    bound = BatchLoss(look.pair, objective, len(look.rows))
    parameters = _asked_for(look)
    try:
        with torch.enable_grad(), pyro.validation_enabled(True):
            try:
                loss, surrogate = bound(batch, weight)
            except ValueError:  # TraceEnum_ELBO says so where nothing can be trained
                if parameters:
                    raise
                loss = surrogate = torch.as_tensor(bound.loss(batch))
            surrogate = torch.as_tensor(surrogate)
            leaves = _leaves(surrogate)
            gradients = _gradients(surrogate, parameters)
    except Exception as failure:
        yield _unrunnable(look, failure)
        return
    if bool(torch.isfinite(torch.as_tensor(loss))):
        yield from _gradient_findings(gradients)
        yield from _unregistered(look, leaves)
        return
    yield error(
        "model and guide",
        f"expected a finite ELBO, got {-float(loss)}",
        "bound the scales of the model and of the guide away from 0",
    )


def _leaves(surrogate: Tensor) -> list[Tensor]:
    """Every trainable tensor that a loss depends on."""
    found, seen, nodes = [], set(), [surrogate.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        nodes += [before for before, _ in node.next_functions]
    return found


def _unregistered(look: Inspection, leaves: list[Tensor]) -> Iterator[Finding]:
    """Trainable parameters in the loss that are not the pair's: an optimizer never meets them."""
    held = _held(look)
    names = {**variables(look.pair.guide), **variables(look.pair.model)}
    layers: dict[nn.Module, str] = {}
    for leaf in leaves:
        # a tensor made in the call (the inner steps of a semi-amortized guide) is no parameter
        if id(leaf) in held or not (isinstance(leaf, nn.Parameter) or id(leaf) in names):
            continue
        layer = _outermost(look, leaf)
        if layer is None:
            yield _bare(leaf, names.get(id(leaf)))
        else:
            layers.setdefault(layer, names.get(id(layer), look.layers.names[layer]))
    for name in layers.values():
        yield error(
            f'layer "{name}"',
            "expected the pair to own its parameters, got a layer that nobody registered: it "
            "would never train",
            f'write pyro.module("{name}", ...) in the function that uses it, make it an attribute '
            "of the PyroModule, or freeze it with requires_grad_(False)",
        )


def _held(look: Inspection) -> set[int]:
    """Every parameter of the pair, by ``id``."""
    held = {id(p) for p in look.pair.parameters().values()}
    for half, _ in look.halves:  # an autoguide's set-up may have taken a name in the store
        owned = half.base.parameters() if isinstance(half.base, nn.Module) else ()
        held |= {id(p) for p in owned}
    return held


def _outermost(look: Inspection, leaf: Tensor) -> nn.Module | None:
    """The first layer that ran and holds a parameter: outer layers run before inner ones."""
    for layer in look.layers.ran:
        if any(leaf is parameter for parameter in layer.parameters()):
            return layer
    return None


def _bare(leaf: Tensor, name: str | None) -> Finding:
    return error(
        f"parameter of shape {tuple(leaf.shape)}" if name is None else f'parameter "{name}"',
        "expected the pair to own it, got one that nobody registered: it would never train",
        f'write pyro.param("{name or "name"}", ...) in the function that uses it, make it an '
        "nn.Parameter attribute of the PyroModule, or freeze it with requires_grad_(False)",
    )


def _gradients(surrogate: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor | None]:
    if not surrogate.requires_grad or not parameters:
        return dict.fromkeys(parameters)
    gradients = torch.autograd.grad(surrogate, list(parameters.values()), allow_unused=True)
    return dict(zip(parameters, gradients, strict=True))


def _gradient_findings(gradients: dict[str, Tensor | None]) -> Iterator[Finding]:
    bad = [name for name, g in gradients.items() if g is not None and not g.isfinite().all()]
    if bad:
        rest = f" (and those of {len(bad) - 1} more)" if len(bad) > 1 else ""
        yield error(
            f'parameter "{bad[0]}"',
            f"expected a finite gradient, got NaN or infinity{rest}",
            "look for a division by 0, the root of 0, or NaN under a mask",
        )
    for name, gradient in gradients.items():
        if gradient is None:
            yield warning(
                f'parameter "{name}"',
                "expected a gradient, got none: the loss does not depend on it",
                "use it, freeze it with requires_grad_(False), or look for a detach()",
            )


def _asked_for(look: Inspection) -> dict[str, Tensor]:
    """Trainable parameters, without those that an autoguide's model left in the guide's store."""
    left = set()
    for half, _ in look.halves:
        owned = half.base.parameters() if isinstance(half.base, nn.Module) else ()
        held, asked = {id(p) for p in owned}, look.watches[half.role].names
        tables = half.store.tables.named_parameters()
        left |= {id(p) for name, p in tables if name not in asked and id(p) not in held}
    return {name: p for name, p in look.pair.trainable().items() if id(p) not in left}


def _unrunnable(look: Inspection, failure: Exception) -> Finding:
    guided = look.guide_sites()
    summed = [
        n for n, s in look.model_sites().items() if sites.is_enumerated(s) and n not in guided
    ]
    if summed and look.kl_weighted and "share a common poutine.scale" in str(failure):
        return site_error(
            summed[0],
            "expected a KL weight of 1 on a site that the model sums out, got another",
            "leave kl_weight at 1, or enumerate the site in the guide",
        )
    return error(
        "model and guide",
        f"expected {look.objective.name} to run, got {type(failure).__name__}: "
        + " ".join(str(failure).split()),
        "print(lint(...)) shows each site's shapes and plates",
    )


def _log_prob(fn: Any, value: Tensor) -> Tensor | None:
    try:
        log_prob: Tensor = fn.log_prob(value)
    except Exception:
        return None
    return log_prob


def _close(left: Tensor, right: Tensor) -> bool:
    """Equal to rounding: batches of two sizes are multiplied in another order."""
    size = float(left.nan_to_num(0.0, 0.0, 0.0).abs().max()) if left.numel() else 0.0
    return left.shape == right.shape and torch.allclose(
        left, right, rtol=1e-3, atol=1e-4 * max(size, 1e-3), equal_nan=True
    )


TRIALS: tuple[Trial, ...] = (coupled_rows, leaks)
