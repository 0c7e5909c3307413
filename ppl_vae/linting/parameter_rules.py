"""The linter's rules on parameters and layers: names that collide, layers that couple rows."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from ppl_vae.compat import BatchNorm
from ppl_vae.core.half import Half
from ppl_vae.core.store import plain_name
from ppl_vae.linting.inspection import Finding, Inspection, error, warning
from ppl_vae.linting.watching import own_parameters


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
    in_model, in_guide = (_registered(inspection, half) for half, _ in inspection.halves)
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


def _registered(inspection: Inspection, half: Half) -> dict[str, Tensor]:
    """Return the parameters that a half asks for by name and does not own as a module."""
    owned, asked = own_parameters(half), inspection.watches[half.role].names
    tables = half.store.tables.named_parameters()
    return {name: p for name, p in tables if name in asked and id(p) not in owned}


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


RULES = (twin_parameters, shared_names, coupling_layers)
