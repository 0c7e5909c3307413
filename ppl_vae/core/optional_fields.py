"""Fields that a model reads and can silently do without, such as the size of counts.

A model fitted with such a field gives other numbers without it, and one fitted without gives others
with it. Nothing else would say so: the sites are the same. So the fields of a fit are stored, and
later data must have the same ones.
"""

from __future__ import annotations

from typing import Any

from pyro import poutine
from torch import Tensor

from ppl_vae.core.half import Half
from ppl_vae.data.rows import Batch


def optional_fields(model: Half, guide: Half, batch: Batch) -> list[str]:
    """Return the fields whose absence changes no site of the model.

    Such a field is optional and not observed, such as the size of counts, which is 1 by default. A
    label that is latent where it is not given is none of them: without it the sites are others.

    Args:
        model: The model.
        guide: The guide.
        batch: A few rows.

    Returns:
        The names of the model's arguments that get these fields; none where the pair does not run.
    """
    fields = batch
    if not isinstance(fields, dict):
        names = model.fields_given(None, len(fields))
        fields = dict(zip(names, fields, strict=False))
    try:
        draws = poutine.trace(guide).get_trace(batch)
        with_all = _roles(model, fields, draws)
    except Exception:  # whoever runs the pair next says why
        return []
    found = []
    for name in model.fields_read(fields):
        without = {key: values for key, values in fields.items() if key != name}
        try:
            same = bool(without) and _roles(model, without, draws) == with_all
        except Exception:  # the model needs the field, and says so by itself
            continue
        if same:
            found.append(name)
    return found


def field_fault(
    fitted: dict[str, bool], given: list[str], optional: list[str]
) -> tuple[str, str] | None:
    """Return how the fields of data differ from those of the fit, where the model would not notice.

    Args:
        fitted: Whether each field of the fit is an optional covariate, by name.
        given: The names of the fields of the data.
        optional: The optional covariates among them.

    Returns:
        What is expected, and what to do; ``None`` where there is no such difference.
    """
    others = "its numbers would be others"
    for name, is_optional in fitted.items():
        if is_optional and name not in given:
            expected = f'the field "{name}", with which the model was fitted: without it, {others}'
            return expected, "pass a mapping with it"
    for name in optional:
        if name not in fitted:
            expected = f'no field "{name}", without which the model was fitted: with it, {others}'
            return expected, "leave it out, or fit a new pair to data with it"
    return None


def _roles(model: Half, fields: dict[str, Tensor], draws: poutine.Trace) -> dict[str, Any]:
    """Return whether each of the model's sites is observed, run with given latents."""
    trace = poutine.trace(poutine.replay(model, trace=draws)).get_trace(fields)
    sites = trace.nodes.items()
    return {name: site["is_observed"] for name, site in sites if site["type"] == "sample"}
