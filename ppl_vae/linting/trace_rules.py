"""The linter's rules on a pair's traces: a function for each fault.

The rules are on sites and plates, on names of parameters that collide, and on layers that couple
rows; those on how the gradient is estimated are in ``estimator_rules``. Every rule takes an
``Inspection`` and yields a ``Finding`` for each fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn

from ppl_vae.compat.of_torch import BatchNorm
from ppl_vae.core import sites
from ppl_vae.core.private_store import plain_name
from ppl_vae.core.row_plate import row_plate_faults
from ppl_vae.linting.inspection import Finding, Inspection, error, site_error, warning

Rule = Callable[[Inspection], Iterator[Finding]]

# Which sites model and guide have


def missing_latents(inspection: Inspection) -> Iterator[Finding]:
    """Find latents of the model that the guide does not draw."""
    summed_out = inspection.objective.enumerates
    for name, site in sites.with_role(inspection.model_trace, "latent").items():
        if name in inspection.guide_sites() or (summed_out and sites.is_enumerated(site)):
            continue
        fix = f'add pyro.sample("{name}", ...) to the guide'
        if _site_with_obs_mask(inspection, name):
            fix += (
                ", inside poutine.mask(mask=~obs_mask), or leave cells out with poutine.mask "
                "instead of obs_mask="
            )
        elif getattr(site["fn"], "has_enumerate_support", False):
            fix += ', or sum the latent out with infer={"enumerate": "parallel"} in the model'
        problem = "expected a draw in the guide for this latent of the model, got none"
        yield site_error(name, problem, fix)


def extra_latents(inspection: Inspection) -> Iterator[Finding]:
    """Find draws of the guide that are not latents of the model."""
    latents = sites.with_role(inspection.model_trace, "latent")
    known = ", ".join(f'"{name}"' for name in latents) or "none"
    for name in sites.with_role(inspection.guide_trace, "latent"):
        if name in latents:
            continue
        in_model = inspection.model_sites().get(name)
        if in_model is not None and sites.role(in_model) == "data":
            yield site_error(
                name,
                "expected a site that is either observed or drawn, got obs= in the model and a "
                "draw in the guide",
                "remove the site from the guide, or obs= from the model",
            )
        else:
            yield site_error(
                name,
                f"expected the guide to draw the model's latents ({known}), got a latent that the "
                "model does not have",
                'rename or remove the site, or mark it with infer={"is_auxiliary": True}',
            )


def observed_in_guide(inspection: Inspection) -> Iterator[Finding]:
    """Find sites that the guide observes."""
    for name in sites.with_role(inspection.guide_trace, "data"):
        fix = "remove obs= from the guide's sample statement"
        yield site_error(name, "expected a draw in the guide, got an observed value", fix)


def nothing_observed(inspection: Inspection) -> Iterator[Finding]:
    """Find a model that observes no rows; constants outside the row plate are none."""
    trace, plate = inspection.model_trace, inspection.pair.plate
    data = sites.with_role(trace, "data")
    rows = [name for name, site in data.items() if sites.in_plate(site, plate)]
    faulty = row_plate_faults(plate, trace, inspection.guide_trace, inspection.row_count)
    if not rows and not sites.with_role(trace, "factor") and not any(faulty):
        where = f' in the row plate "{plate}"' if data else ""
        fix = "pass the data to a sample statement with obs="
        yield error("model", f"expected an observed site{where}, got none", fix)


def _site_with_obs_mask(inspection: Inspection, name: str) -> str:
    """Return the observed site whose missing cells Pyro draws at another site; "" for none.

    ``pyro.sample("x", ..., obs_mask=m)`` makes the sites "x_observed", masked by ``m``, and
    "x_unobserved", masked by ``~m``.
    """
    base = name.removesuffix("_unobserved")
    made_by_pyro = base != name and f"{base}_observed" in inspection.model_sites()
    return base if made_by_pyro else ""


# What model and guide must agree on


def unequal_shapes(inspection: Inspection) -> Iterator[Finding]:
    """Find latents whose draws have another shape in the guide than in the model."""
    for name, pair in inspection.shared_latents().items():
        for what in ("event_shape", "batch_shape"):
            expected, got = (tuple(getattr(site["fn"], what)) for site in pair)
            if expected != got:
                yield site_error(
                    name,
                    f"expected the model's {what} {expected}, got {got} in the guide",
                    "make the sizes of model and guide agree; .to_event(1) makes the last "
                    "dimension part of each row's event",
                )
                break


def unequal_masks(inspection: Inspection) -> Iterator[Finding]:
    """Find latents with another mask in the guide than in the model.

    The ELBO would then hold log p and log q of different cells, without an error.
    """
    for name, pair in inspection.shared_latents().items():
        in_model, in_guide = (sites.unmasked_cells(site) for site in pair)
        if in_model.shape == in_guide.shape and not torch.equal(in_model, in_guide):
            yield site_error(
                name,
                f"expected the same mask in model and guide, got {int((~in_model).sum())} of "
                f"{in_model.numel()} cells masked in the model and {int((~in_guide).sum())} in the "
                "guide: the ELBO would compare different cells",
                _same_mask(_site_with_obs_mask(inspection, name)),
            )


def _same_mask(with_obs_mask: str) -> str:
    """Return how to mask a site in the guide as in the model, for one that ``obs_mask=`` makes."""
    if not with_obs_mask:
        return "put the same poutine.mask around the site in model and guide"
    return (
        f'obs_mask= of site "{with_obs_mask}" masks the cells that are observed: put '
        "poutine.mask(mask=~obs_mask) around the site in the guide"
    )


def unequal_scales(inspection: Inspection) -> Iterator[Finding]:
    """Find latents with another scale in the guide than in the model.

    Where the KL divergence is sampled, log p(z) and log q(z) then have different weights, which a
    tempered prior may want. Where its closed form is used, only the guide's scale has an effect.
    """
    for name, pair in inspection.shared_latents().items():
        if pair[0]["fn"].batch_shape != pair[1]["fn"].batch_shape:
            continue  # unequal_shapes reports it
        in_model, in_guide = (scale_without_plates(site) for site in pair)
        if torch.allclose(*torch.broadcast_tensors(in_model, in_guide)):
            continue
        problem = (
            f"expected the same scale in model and guide, got {range_of_scale(in_model)} in the "
            f"model and {range_of_scale(in_guide)} in the guide"
        )
        fix = "put the same poutine.scale around the site in both, or pass kl_weight= to fit"
        if isinstance(inspection.objective.elbo, TraceMeanField_ELBO):
            problem += ": TraceMeanField_ELBO ignores the model's"
            yield site_error(name, problem, f"{fix}; elbo=Trace_ELBO() for a tempered prior")
        else:
            problem += ": the ELBO is then not a bound on the log-likelihood"
            yield warning(f'site "{name}"', problem, fix)


def scale_without_plates(site: sites.Site) -> Tensor:
    """Return a site's scale without the factor N/B of plates that subsample."""
    scale = torch.as_tensor(site["scale"], dtype=torch.double, device="cpu")
    for frame in site["cond_indep_stack"]:
        scale = scale * (frame.size / int(frame.full_size))
    return scale


def range_of_scale(scale: Tensor) -> str:
    """Return the smallest and largest scale as text, or the only one."""
    low, high = float(scale.min()), float(scale.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


# The row plate


def row_plates(inspection: Inspection) -> Iterator[Finding]:
    """Find faults of the row plate, which ``core.row_plate`` describes."""
    traces = inspection.model_trace, inspection.guide_trace
    for fault in row_plate_faults(inspection.pair.plate, *traces, inspection.row_count):
        yield error(*fault)


def odd_row_plates(inspection: Inspection) -> Iterator[Finding]:
    """Find row plates of another full size than the data's."""
    total, plate = len(inspection.rows), inspection.pair.plate
    full_sizes = {
        (half.role, int(frame.full_size))
        for half, trace in inspection.halves
        for site in sites.sample_sites(trace).values()
        for frame in site["cond_indep_stack"]
        if frame.name == plate
    }
    for role, full_size in sorted(full_sizes):
        if full_size not in (inspection.row_count, total):
            finding = error if full_size < total else warning  # fit corrects a larger size
            yield finding(
                f'plate "{plate}"',
                f"expected the row plate to stand for the {total} rows of the data, got "
                f"{full_size} in the {role}",
                f'write pyro.plate("{plate}", len(x)): fit scales it to the data',
            )


# Parameters and layers


def twin_parameters(inspection: Inspection) -> Iterator[Finding]:
    """Find unnamed modules in one half whose parameters have the same name."""
    for role, watch in inspection.watches.items():
        for name in watch.twins:
            yield error(
                f'parameter "{plain_name(name)}"',
                f"expected one parameter of this name in the {role}, got two: only one of them "
                "would train",
                "make both modules attributes of one PyroModule, or give each a name: "
                'PyroModule("a"), pyro.module("a", ...)',
            )


def shared_names(inspection: Inspection) -> Iterator[Finding]:
    """Find names that model and guide use for different parameters.

    For the parameters of modules it is a warning; for ``pyro.param`` it is an error, because the
    user may have meant one shared parameter.
    """
    in_model, in_guide = (inspection.stored_parameters(h, asked=True) for h, _ in inspection.halves)
    for name in sorted(in_model.keys() & in_guide.keys()):
        if in_model[name] is not in_guide[name]:
            of_modules = all(isinstance(half[name], nn.Parameter) for half in (in_model, in_guide))
            finding = warning if of_modules else error
            yield finding(
                f'parameter "{plain_name(name)}"',
                "expected a name that one half uses, got one that model and guide both use: in "
                "plain Pyro they would share one parameter, here each has its own",
                "rename one of them; to share a parameter, give model and guide the module that "
                "holds it",
            )


def coupling_layers(inspection: Inspection) -> Iterator[Finding]:
    """Find layers that compute with the statistics of a batch."""
    for module, name in inspection.layers.names.items():
        if isinstance(module, BatchNorm):
            yield warning(
                f'layer "{name}"',
                f"expected layers that compute each row by itself, got {type(module).__name__}, "
                "which makes a row's result depend on the other rows of its batch in training and "
                "fails under particles and enumeration",
                "use nn.LayerNorm",
            )


def lost_layers(inspection: Inspection) -> Iterator[Finding]:
    """Find layers with buffers that ran, and that no variable or attribute of the halves holds."""
    halves = (inspection.pair.model, inspection.pair.guide)
    held = {m for half in halves for top in half.layers().values() for m in top.modules()}
    for module in inspection.layers.ran:
        if module not in held and any(True for _ in module.buffers(recurse=False)):
            yield warning(
                f'layer "{type(module).__name__}"',
                "expected a layer that the model or the guide holds in a variable or an attribute, "
                "got one that neither holds: a run would not store its buffers, and evaluation "
                "would run it in training mode",
                "make it an attribute of the PyroModule, or a variable that the function uses",
            )


RULES: tuple[Rule, ...] = (
    missing_latents, extra_latents, observed_in_guide, unequal_shapes, unequal_masks,
    unequal_scales, nothing_observed, row_plates, odd_row_plates, twin_parameters, shared_names,
    coupling_layers, lost_layers,
)  # fmt: skip
