"""The linter's rules on a pair's traces: one function a fault, each yields findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from ppl_vae.compat import BatchNorm
from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows
from ppl_vae.elbo.objectives import RowBound
from ppl_vae.linting.inspection import Finding, Inspection, error, site_error, warning

Rule = Callable[[Inspection], Iterator[Finding]]


def missing_latents(look: Inspection) -> Iterator[Finding]:
    """A latent of the model that the guide does not draw."""
    summed_out = look.objective.enumerates
    for name, site in sites.with_role(look.model_trace, "latent").items():
        if name in look.guide_sites() or (summed_out and sites.is_enumerated(site)):
            continue
        fix = f'add pyro.sample("{name}", ...) to the guide'
        if name.endswith("_unobserved"):
            fix += ", or leave cells out with poutine.mask instead of obs_mask="
        elif getattr(site["fn"], "has_enumerate_support", False):
            fix += ', or sum it out with infer={"enumerate": "parallel"} in the model'
        yield site_error(name, "expected a draw in the guide as in the model, got none", fix)


def extra_latents(look: Inspection) -> Iterator[Finding]:
    """A draw of the guide that is no latent of the model."""
    latents = sites.with_role(look.model_trace, "latent")
    known = ", ".join(f'"{name}"' for name in latents) or "none"
    for name in sites.with_role(look.guide_trace, "latent"):
        if name in latents:
            continue
        other = look.model_sites().get(name)
        if other is not None and sites.role(other) == "data":
            problem = "expected it observed or drawn in both, got obs= in the model and a draw"
            yield site_error(
                name, f"{problem} in the guide", "remove it from the guide, or obs= from the model"
            )
        else:
            yield site_error(
                name,
                f"expected the guide to draw the model's latents ({known}), got one of its own",
                'rename it, remove it, or mark it infer={"is_auxiliary": True}',
            )


def observed_in_guide(look: Inspection) -> Iterator[Finding]:
    """A site that the guide observes."""
    for name in sites.with_role(look.guide_trace, "data"):
        yield site_error(
            name, "expected a draw in the guide, got an observed value", "remove obs= there"
        )


def unequal_shapes(look: Inspection) -> Iterator[Finding]:
    """A latent whose draws have another shape in the guide than in the model."""
    for name, pair in look.shared_latents().items():
        for what in ("event_shape", "batch_shape"):
            expected, got = (tuple(getattr(site["fn"], what)) for site in pair)
            if expected != got:
                yield site_error(
                    name,
                    f"expected the model's {what} {expected}, got {got} in the guide",
                    "make the sizes agree; .to_event(1) declares a row's last dimension",
                )
                break


def unequal_masks(look: Inspection) -> Iterator[Finding]:
    """A latent that is masked in one half only: that changes the loss in silence."""
    for name, (ours, theirs) in look.shared_latents().items():
        kept = sites.unmasked_cells(ours), sites.unmasked_cells(theirs)
        if kept[0].shape == kept[1].shape and not torch.equal(*kept):
            masked = [int((~cells).sum()) for cells in kept]
            yield site_error(
                name,
                f"expected one mask in both halves, got {masked[0]} of {kept[0].numel()} numbers "
                f"masked in the model and {masked[1]} in the guide",
                "put the same poutine.mask around it in both",
            )


def unequal_scales(look: Inspection) -> Iterator[Finding]:
    """A latent that is weighed in one half only.

    Sampled KL then weighs log p(z) and log q(z) differently, which a tempered prior may want;
    closed-form KL reads the guide's weight alone and drops the model's in silence.
    """
    for name, pair in look.shared_latents().items():
        if pair[0]["fn"].batch_shape != pair[1]["fn"].batch_shape:
            continue  # a finding of its own
        ours, theirs = (_own_scale(site) for site in pair)
        if torch.allclose(*torch.broadcast_tensors(ours, theirs)):
            continue
        problem = (
            f"expected one scale in both halves, got {_range(ours)} in the model and "
            f"{_range(theirs)} in the guide"
        )
        fix = "put the same poutine.scale around it in both, or pass kl_weight="
        if isinstance(look.objective.elbo, TraceMeanField_ELBO):
            problem += ": TraceMeanField_ELBO drops the model's"
            yield site_error(name, problem, f"{fix}; elbo=Trace_ELBO() for a tempered prior")
        else:
            yield warning(f'site "{name}"', f"{problem}: the ELBO is then no bound", fix)


def _own_scale(site: sites.Site) -> Tensor:
    """A site's scale without what subsampling plates contribute."""
    scale = torch.as_tensor(site["scale"], dtype=torch.double, device="cpu")
    for frame in site["cond_indep_stack"]:
        scale = scale * (frame.size / int(frame.full_size))
    return scale


def _range(scale: Tensor) -> str:
    low, high = float(scale.min()), float(scale.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def nothing_observed(look: Inspection) -> Iterator[Finding]:
    """A model without data."""
    if not sites.with_role(look.model_trace, "data", "factor"):
        yield error("model", "expected an observed site, got none", "give a sample statement obs=")


def row_plates(look: Inspection) -> Iterator[Finding]:
    """A site outside the row plate, or in other plates in the guide than in the model."""
    reported = set()
    for half, trace in look.halves:
        for name, site in sites.with_role(trace, "data", "latent").items():
            if not sites.in_plate(site, look.pair.plate) and _needs_rows(look, site):
                reported.add(name)
                yield _outside(look, name, site, half.role)
    for name, pair in look.shared_latents().items():
        ours, theirs = (sorted(f.name for f in site["cond_indep_stack"]) for site in pair)
        if ours != theirs and name not in reported:
            yield site_error(
                name,
                f"expected the model's plates {ours}, got {theirs} in the guide",
                "open the same plates around it in both",
            )


def _needs_rows(look: Inspection, site: sites.Site) -> bool:
    """Whether a site is the rows': observed, or as long as the batch and in no plate for that."""
    if sites.role(site) == "data":
        return True
    shape, count = tuple(site["fn"].batch_shape), look.row_count
    as_long = bool(shape) and shape[-1] == count and count > 1
    return as_long and _innermost(site) in ("", *_other_names(look))


def _other_names(look: Inspection) -> set[str]:
    """Plates of the data sites: the row plate, should it have another name."""
    return {_innermost(site) for site in sites.with_role(look.model_trace, "data").values()}


def _innermost(site: sites.Site) -> str:
    """Name of the plate at dim -1, empty where there is none."""
    return next((f.name for f in site["cond_indep_stack"] if f.dim == -1), "")


def _outside(look: Inspection, name: str, site: sites.Site, role: str) -> Finding:
    plate, other = look.pair.plate, _innermost(site)
    problem = f'expected it in the row plate "{plate}" of the {role}, got '
    fix = f'put it in "with pyro.plate("{plate}", len(x)):"'
    if not other:
        return site_error(name, f"{problem}no plate at dim -1", fix)
    fix = f'pass plate="{other}" if those are the rows, or {fix}'
    return site_error(name, f'{problem}plate "{other}"', fix)


def odd_row_plates(look: Inspection) -> Iterator[Finding]:
    """A row plate at another dimension than -1, or of another full size than the data's."""
    total, where = len(look.rows), f'plate "{look.pair.plate}"'
    frames = {
        (half.role, frame.dim, int(frame.full_size))
        for half, trace in look.halves
        for site in sites.sample_sites(trace).values()
        for frame in site["cond_indep_stack"]
        if frame.name == look.pair.plate
    }
    for role, dim, full in sorted(frames, key=str):
        if dim != -1:
            yield error(
                where,
                f"expected it at dim -1, got {dim} in the {role}",
                "open it outermost and vectorized: with pyro.plate(..., dim=-1)",
            )
        if full not in (look.row_count, total):
            problem = f"expected it to stand for the {total} rows of the data, got {full} in the "
            fix = f'write pyro.plate("{look.pair.plate}", len(x)): fit scales it to the data'
            found = error if full < total else warning  # fit puts a larger one right
            yield found(where, problem + role, fix)


def wrong_estimator(look: Inspection) -> Iterator[Finding]:
    """Sites whose gradient the given ELBO drops or estimates badly."""
    elbo = look.objective.elbo
    for name, site in sites.with_role(look.guide_trace, "latent", "auxiliary").items():
        if sites.is_reparameterized(site):
            continue
        if isinstance(elbo, TraceMeanField_ELBO):
            yield site_error(
                name,
                "expected a reparameterized draw, got one whose gradient TraceMeanField_ELBO drops",
                "leave elbo=None, or pass TraceGraph_ELBO()",
            )
        elif isinstance(elbo, RowBound):
            if not sites.is_enumerated(site):
                yield site_error(
                    name,
                    f"expected a reparameterized draw under {look.objective.name}, got one whose "
                    "gradient it drops",
                    'sum it with infer={"enumerate": "parallel"}, or leave elbo=None',
                )
        elif isinstance(elbo, Trace_ELBO):
            yield warning(
                f'site "{name}"',
                "expected a reparameterized draw, got one whose gradient Trace_ELBO estimates "
                "without a baseline, at a high variance",
                "leave elbo=None, pass TraceGraph_ELBO(), or enumerate the site",
            )


def unwanted_enumeration(look: Inspection) -> Iterator[Finding]:
    """A site that asks to be summed out by an ELBO that draws it."""
    if look.objective.enumerates:
        return
    for name, site in {**look.model_sites(), **look.guide_sites()}.items():
        if sites.is_enumerated(site):
            yield site_error(
                name,
                f"expected an ELBO that enumerates, got {look.objective.name}",
                'leave elbo=None, pass TraceEnum_ELBO(), or drop infer={"enumerate": ...}',
            )


def out_of_order(look: Inspection) -> Iterator[Finding]:
    """A mean-field ELBO on a guide that draws the latents in another order than the model."""
    if not isinstance(look.objective.elbo, TraceMeanField_ELBO):
        return
    drawn = list(look.shared_latents())
    expected = [name for name in look.model_sites() if name in drawn]
    if drawn != expected:
        yield error(
            "guide",
            f"expected the model's order {expected} under TraceMeanField_ELBO, got {drawn}: its KL "
            "is wrong in silence where a latent's parent in the model is its child in the guide",
            "leave elbo=None, pass Trace_ELBO(), or draw them in the model's order",
        )


def unread_fields(pair: Pair, rows: Rows) -> Iterator[Finding]:
    """A field of a mapping that neither half names."""
    if rows.keys is None:
        return
    empty = dict.fromkeys(rows.keys, torch.empty(0))
    read = {*pair.model.fields_read(empty), *pair.guide.fields_read(empty)}
    for name in rows.keys:
        if name not in read:
            yield error(
                f'field "{name}"',
                "expected an argument of this name in the model or the guide, got none",
                "rename the field or the argument, or leave the field out of the data",
            )


def twin_parameters(look: Inspection) -> Iterator[Finding]:
    """Two unnamed modules in one half whose parameters share a name."""
    for role, watch in look.watches.items():
        for name in watch.twins:
            yield error(
                f'parameter "{_shown(name)}"',
                f"expected one of this name in the {role}, got two: only one of them would train",
                "hold both modules as attributes of one PyroModule, or name each: "
                'PyroModule("a"), pyro.module("a", ...)',
            )


def shared_names(look: Inspection) -> Iterator[Finding]:
    """A name that both halves use for different parameters."""
    ours, theirs = (_registered(look, half) for half, _ in look.halves)
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name] is not theirs[name]:
            held = all(isinstance(half[name], nn.Parameter) for half in (ours, theirs))
            found = warning if held else error  # one of pyro.param may have been meant to be shared
            yield found(
                f'parameter "{_shown(name)}"',
                "expected a name of one half, got one that model and guide both use: plain Pyro "
                "makes them one parameter, here they are two",
                "rename one; to share it, give both halves the module that holds it",
            )


def _registered(look: Inspection, half: Any) -> dict[str, Tensor]:
    """Parameters that a half asks for by name and does not own as a module."""
    owned = half.base.parameters() if isinstance(half.base, nn.Module) else ()
    held, asked = {id(p) for p in owned}, look.watches[half.role].names
    tables = half.store.tables.named_parameters()
    return {name: p for name, p in tables if name in asked and id(p) not in held}


def _shown(name: str) -> str:
    return name.replace("$$$", ".")


def coupling_layers(look: Inspection) -> Iterator[Finding]:
    """Layers that compute with the statistics of a batch."""
    for module, name in look.layers.names.items():
        if isinstance(module, BatchNorm):
            kind = type(module).__name__
            yield warning(
                f'layer "{name}"',
                f"expected layers that treat each row alone, got {kind}, which couples the rows of "
                "a batch in training and breaks under particles and enumeration",
                "use nn.LayerNorm",
            )


RULES: tuple[Rule, ...] = (
    missing_latents,
    extra_latents,
    observed_in_guide,
    unequal_shapes,
    unequal_masks,
    unequal_scales,
    nothing_observed,
    row_plates,
    odd_row_plates,
    wrong_estimator,
    unwanted_enumeration,
    out_of_order,
    twin_parameters,
    shared_names,
    coupling_layers,
)
