"""The linter's rules on a pair: one function a fault, each yields findings with their mend."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from ppl_vae import scan, sites
from ppl_vae.handlers import Scale
from ppl_vae.inspection import CannotRunError, Finding, Inspection
from ppl_vae.rows import as_tuple, map_batch

Rule = Callable[[Inspection], Iterator[Finding]]


def check(look: Inspection) -> list[Finding]:
    """All findings: the pair's structure first, what needs a sound structure after it."""
    found = [finding for rule in STRUCTURE for finding in rule(look)]
    if any(finding.severity == "error" for finding in found):
        return found
    if look.misfit is not None:
        return [*found, look.misfit]
    found += [finding for rule in BEHAVIOUR for finding in rule(look)]
    found += scan.data_findings(look)
    if not any(finding.severity == "error" for finding in found):
        found += list(objective_runs(look))
    return found


def _error(where: str, problem: str, fix: str) -> Finding:
    return Finding("error", where, problem, fix)


def _warning(where: str, problem: str, fix: str) -> Finding:
    return Finding("warning", where, problem, fix)


def _site(name: str) -> str:
    return f'site "{name}"'


# Structure: do model and guide speak of the same sites?


def unmatched_sites(look: Inspection) -> Iterator[Finding]:
    """A latent without its partner, or one observed in one half only."""
    model_sites, guide_sites = look.model_sites(), look.guide_sites()
    summed_out = isinstance(look.objective.elbo, TraceEnum_ELBO)
    for name, site in sites.with_role(look.model_trace, "latent").items():
        if name in guide_sites or (summed_out and sites.enumerated(site)):
            continue
        yield _error(
            _site(name),
            "the model draws it and the guide does not",
            f'add pyro.sample("{name}", ...) to the guide',
        )
    for name, site in guide_sites.items():
        role = sites.role(site)
        if role == "data":
            yield _error(_site(name), "observed in the guide", "draw it there: remove obs=")
        elif role == "latent" and name not in model_sites:
            known = ", ".join(f'"{n}"' for n in sites.with_role(look.model_trace, "latent"))
            yield _error(
                _site(name),
                f"the guide draws it and the model, whose latents are {known or 'none'}, does not",
                "rename one of the two, or remove it from the guide",
            )
        elif role == "latent" and sites.role(model_sites[name]) == "data":
            yield _error(
                _site(name),
                "the model observes it and the guide draws it",
                "remove it from the guide, or obs= from the model",
            )


def unequal_shapes(look: Inspection) -> Iterator[Finding]:
    """A latent whose draws have another shape in the guide than in the model."""
    model_sites = look.model_sites()
    for name, site in sites.with_role(look.guide_trace, "latent").items():
        if name not in model_sites:
            continue
        theirs, ours = model_sites[name]["fn"], site["fn"]
        for what in ("event_shape", "batch_shape"):
            expected, got = tuple(getattr(theirs, what)), tuple(getattr(ours, what))
            if expected != got:
                yield _error(
                    _site(name),
                    f"expected the model's {what} {expected}, got {got} in the guide",
                    "make the sizes agree; .to_event(1) declares a row's last dimension",
                )
                break


def unequal_masks(look: Inspection) -> Iterator[Finding]:
    """A latent that is masked in one half only: that changes the loss in silence."""
    model_sites = look.model_sites()
    for name, site in sites.with_role(look.guide_trace, "latent").items():
        if name in model_sites and not _same_mask(model_sites[name]["mask"], site["mask"]):
            yield _error(
                _site(name),
                "the model's mask and the guide's differ",
                "put the same poutine.mask around it in both",
            )


def wrong_row_plate(look: Inspection) -> Iterator[Finding]:
    """A missing, misplaced or wrongly sized row plate."""
    plate, count = look.pair.plate, look.row_count
    data = sites.with_role(look.model_trace, "data")
    if not data and not sites.with_role(look.model_trace, "factor"):
        yield _error("model", "nothing is observed", "give a sample statement obs=")
    for half, found in (("model", look.model_sites()), ("guide", look.guide_sites())):
        for name, site in found.items():
            if sites.role(site) not in ("data", "latent"):
                continue
            frames = [frame for frame in site["cond_indep_stack"] if frame.name == plate]
            shape = tuple(site["fn"].batch_shape)
            looks_like_rows = bool(shape) and shape[-1] == count and count > 1
            if not frames:
                inside = [frame for frame in site["cond_indep_stack"] if frame.dim == -1]
                if sites.role(site) == "data" or (looks_like_rows and not inside):
                    yield _error(
                        _site(name),
                        f'not in the row plate "{plate}" of the {half}',
                        f'put it in "with pyro.plate("{plate}", len(x)):", or give the name of '
                        "your row plate as plate=",
                    )
                continue
            yield from _misplaced(_site(name), half, frames[0], look)
    yield from _disagreeing_plates(look)


def _misplaced(where: str, half: str, frame: object, look: Inspection) -> Iterator[Finding]:
    plate, count, total = look.pair.plate, look.row_count, len(look.rows)
    dim, size, full = (getattr(frame, key) for key in ("dim", "size", "full_size"))
    if dim != -1:
        yield _error(
            where,
            f'the row plate "{plate}" of the {half} stands at dim {dim}, expected -1',
            "open it outermost and vectorized, with pyro.plate(..., dim=-1)",
        )
    if size != count:
        yield _error(
            where,
            f'the row plate "{plate}" of the {half} is {size} long on a batch of {count} rows',
            f'write pyro.plate("{plate}", len(x))',
        )
    elif full not in (count, total):
        yield _error(
            where,
            f'the row plate "{plate}" of the {half} stands for {full} rows, the data have {total}',
            f'write pyro.plate("{plate}", len(x)): fit scales it to the data',
        )


def _disagreeing_plates(look: Inspection) -> Iterator[Finding]:
    model_sites = look.model_sites()
    for name, site in sites.with_role(look.guide_trace, "latent").items():
        if name not in model_sites:
            continue
        halves = [
            {frame.name for frame in half["cond_indep_stack"]} for half in (model_sites[name], site)
        ]
        if halves[0] != halves[1]:
            yield _error(
                _site(name),
                f"in plates {sorted(halves[0])} of the model and {sorted(halves[1])} of the guide",
                "open the same plates around it in both",
            )


def wrong_estimator(look: Inspection) -> Iterator[Finding]:
    """Sites whose gradient the given ELBO drops or estimates badly."""
    elbo = look.objective.elbo
    for name, site in sites.with_role(look.guide_trace, "latent", "auxiliary").items():
        if sites.reparameterized(site):
            continue
        if isinstance(elbo, TraceMeanField_ELBO):
            yield _error(
                _site(name),
                "not reparameterized: TraceMeanField_ELBO drops its gradient",
                "leave elbo=None, or pass TraceGraph_ELBO()",
            )
        elif isinstance(elbo, Trace_ELBO):
            yield _warning(
                _site(name),
                "not reparameterized: Trace_ELBO gives its gradient without a baseline, at a high "
                "variance",
                "leave elbo=None, pass TraceGraph_ELBO(), or enumerate the site",
            )
    if not isinstance(elbo, TraceEnum_ELBO):
        for name, site in {**look.model_sites(), **look.guide_sites()}.items():
            if sites.enumerated(site):
                yield _error(
                    _site(name),
                    f"asks for enumeration, which {look.objective.name} does not do",
                    "leave elbo=None, or pass TraceEnum_ELBO()",
                )


def out_of_order(look: Inspection) -> Iterator[Finding]:
    """A mean-field ELBO on a guide that draws the latents in another order than the model."""
    if not isinstance(look.objective.elbo, TraceMeanField_ELBO):
        return
    order = [list(sites.with_role(t, "latent")) for t in (look.model_trace, look.guide_trace)]
    if order[0] != order[1]:
        yield _error(
            "guide",
            f"draws {order[1]}, the model {order[0]}: TraceMeanField_ELBO is wrong in silence "
            "where a latent's parent in the model descends from it in the guide",
            "leave elbo=None, pass Trace_ELBO(), or draw them in the model's order",
        )


def unread_fields(look: Inspection) -> Iterator[Finding]:
    """A field of a mapping that neither half names."""
    if isinstance(look.batch, dict):
        read = {*look.pair.model.reads(look.batch), *look.pair.guide.reads(look.batch)}
        for name in look.batch:
            if name not in read:
                yield _error(
                    f'field "{name}"',
                    "neither the model nor the guide has an argument of this name",
                    "rename it, or leave it out of the data",
                )


def colliding_parameters(look: Inspection) -> Iterator[Finding]:
    """Unnamed twins in one half, and names that both halves use for different parameters."""
    for role, twins in look.twins.items():
        for name in twins:
            yield _error(
                f'parameter "{name}"',
                f"two modules of the {role} have a parameter of this name: only one trains",
                'hold both modules as attributes of one PyroModule, or name them: PyroModule("a")',
            )
    halves = [
        {n: p for n, p in half.store.tables.named_parameters() if not _owned(half.function, p)}
        for half in (look.pair.model, look.pair.guide)
    ]
    for name in halves[0].keys() & halves[1].keys():
        if halves[0][name] is not halves[1][name]:
            yield _error(
                f'parameter "{name}"',
                "model and guide both have one of this name; plain Pyro would make them one, here "
                "they are two",
                "rename one; to share it, give both halves the module that holds it",
            )


# Behaviour: does the pair treat rows as rows and data as data?


def batch_coupled(look: Inspection) -> Iterator[Finding]:
    """Layers, or code, that let a row's distribution depend on the other rows of its batch."""
    for top in look.pair.modules():
        for name, module in top.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                yield _warning(
                    f'layer "{name}"',
                    f"{type(module).__name__} couples the rows of a batch in training, and breaks "
                    "under particles and enumeration",
                    "use nn.LayerNorm",
                )
    if look.row_count < 2:
        return
    try:
        smaller = look.smaller()
    except CannotRunError as error:
        yield error.finding
        return
    for half, large, small in zip(
        ("model", "guide"), (look.model_trace, look.guide_trace), smaller, strict=True
    ):
        for name, site in sites.with_role(large, "latent", "data").items():
            other = sites.sites(small).get(name)
            if other is None or not sites.in_plate(site, look.pair.plate):
                continue
            whole = sites.row_log_prob(site)[: look.small_count]
            alone = sites.row_log_prob(other)
            if whole.shape != alone.shape or not _close(whole, alone):
                yield _error(
                    _site(name),
                    f"a row's distribution in the {half} depends on the other rows of its batch",
                    "compute each row from that row alone (a mean over dim 0, or a reshape that "
                    "mixes rows, is the usual cause)",
                )


def leaks(look: Inspection) -> Iterator[Finding]:
    """A site that reads the argument where it should read what ``pyro.sample`` returned."""
    data = sites.with_role(look.model_trace, "data")
    fields = [field.clone() for field in as_tuple(look.batch)]
    for site in data.values():
        where = sites.observed_cells(look.batch, site["value"])
        if where is not None:
            position, cells = where
            flat = fields[position].view(-1)
            flat[cells] = site["value"].roll(1, 0).to(flat.dtype)
    perturbed = iter(fields)
    shifted = map_batch(look.batch, lambda field: next(perturbed))
    try:
        with_data, without = look.replicated(look.batch), look.replicated(shifted)
    except Exception:  # a model that cannot be simulated is found by objective_runs
        return
    first = next(iter(data), None)
    after = False
    for name, site in sites.with_role(with_data, "latent", "data", "factor").items():
        if after and name in without.nodes:
            before_change = site["fn"].log_prob(site["value"])
            after_change = without.nodes[name]["fn"].log_prob(site["value"])
            if not _close(before_change, after_change):
                yield _error(
                    _site(name),
                    f'depends on the argument that site "{first}" observes, so replicates would '
                    "leak the data",
                    f'use the value that pyro.sample("{first}", ...) returned',
                )
        after = after or name == first


def objective_runs(look: Inspection) -> Iterator[Finding]:
    """The objective raises, cannot take the KL weight, or leaves a parameter without gradient."""
    scale = Scale(len(look.rows), look.pair.plate)
    model, guide = scale(look.pair.model), scale(look.pair.guide)
    objective = type(look.objective).of(look.objective.elbo, "tried")
    parameters = look.pair.trainable()
    if look.kl_weighted:
        scale.kl_weight = 0.5
    try:
        with torch.enable_grad(), pyro.validation_enabled(True):
            _, surrogate = objective.loss_and_surrogate(model, guide, look.batch)
            if not parameters:
                return
            values = list(parameters.values())
            gradients = torch.autograd.grad(surrogate, values, allow_unused=True)
    except Exception as error:
        yield _unrunnable(look, error)
        return
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            yield _warning(
                f'parameter "{name}"',
                "gets no gradient: the loss does not depend on it",
                "use it, freeze it with requires_grad_(False), or look for a detach()",
            )


def _unrunnable(look: Inspection, error: Exception) -> Finding:
    if look.kl_weighted and "share a common poutine.scale" in str(error):
        summed = [n for n, s in look.model_sites().items() if sites.enumerated(s)]
        return _error(
            _site(summed[0] if summed else "?"),
            "a KL weight other than 1 cannot reach a site that the model sums out",
            "leave kl_weight at 1, or enumerate the site in the guide",
        )
    return _error(
        "model and guide",
        f"{look.objective.name} failed: {type(error).__name__}: {error}",
        "see the message above; lint's table of sites shows shapes and plates",
    )


STRUCTURE: tuple[Rule, ...] = (
    unmatched_sites,
    unequal_shapes,
    unequal_masks,
    wrong_row_plate,
    wrong_estimator,
    out_of_order,
    unread_fields,
    colliding_parameters,
)
BEHAVIOUR: tuple[Rule, ...] = (batch_coupled, leaks)


def _same_mask(ours: Tensor | bool | None, theirs: Tensor | bool | None) -> bool:
    masks = [torch.as_tensor(True if mask is None else mask) for mask in (ours, theirs)]
    try:
        return torch.equal(*torch.broadcast_tensors(*masks))
    except RuntimeError:
        return False


def _owned(function: object, parameter: Tensor) -> bool:
    held = function.parameters() if isinstance(function, nn.Module) else ()
    return any(parameter is p for p in held)


def _close(left: Tensor, right: Tensor) -> bool:
    """Equal to rounding: batches of two sizes are multiplied in another order."""
    size = float(left.nan_to_num(0.0, 0.0, 0.0).abs().max()) if left.numel() else 0.0
    return left.shape == right.shape and torch.allclose(
        left, right, rtol=1e-3, atol=1e-4 * max(size, 1e-3), equal_nan=True
    )
