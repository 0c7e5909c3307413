"""The linter's rules on partners: halves that were swapped, or built around another half.

    Model(guide=A), fitted with guide B    the prior is made of A, and B is trained beside it
    Guide(model=A), fitted with model B    the guide reads networks of A, and B's are trained

A half that needs its partner takes it as a constructor argument and holds it as a submodule. Where
a submodule is of the other half's class, and is neither the other half nor a part of it, the half
was built for another one. A partner whose parameters are all frozen is meant to stay: a new guide
may be fitted to a frozen model that was trained with another guide.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ppl_vae.core.observed_values import swapped_cause
from ppl_vae.core.pair import Pair
from ppl_vae.linting.inspection import Finding, Inspection, error, warning


def swapped_halves(inspection: Inspection) -> Iterator[Finding]:
    """Find a model that was passed as the guide, and a guide that was passed as the model."""
    cause = swapped_cause(inspection.model_trace, inspection.guide_trace)
    if cause is not None:
        yield error(*cause)


def other_partners(pair: Pair) -> Iterator[Finding]:
    """Find a half that holds another instance of the other half's class than the one passed.

    In a guide it is an error: what only the model uses of that instance would have no gradient. In
    a model it is a warning: the pair can be fitted, but the model does not read its guide.

    Args:
        pair: The pair.
    """
    model, guide = pair.model.module, pair.guide.module
    if model is None or guide is None:
        return
    for holder, other, role, finding in (
        (model, guide, "guide", warning), (guide, model, "model", error),
    ):  # fmt: skip
        own = "guide" if role == "model" else "model"
        for name in _others_of_class(holder, other):
            yield finding(
                f'module "{own}.{name}"',
                f"expected the {role} that was passed, got another {type(other).__name__}: the "
                f"{own} was built around that one, and reads nothing of the {role} that was passed",
                f"build the {own} with this {role} ({role}={role}) or pass the {role} that it was "
                "built with; freeze that one (requires_grad_(False)) where it is meant to stay",
            )


def _others_of_class(holder: nn.Module, other: nn.Module) -> list[str]:
    """Return the names of a half's submodules that are of the other half's class, and not of it.

    Args:
        holder: The half whose submodules are looked at.
        other: The other half.
    """
    own = set(other.modules())
    return [
        name
        for name, module in holder.named_modules()
        if type(module) is type(other)
        and module is not holder
        and module not in own
        and any(parameter.requires_grad for parameter in module.parameters())
    ]
