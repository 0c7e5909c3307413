"""The linter's rule on columns with one value under a likelihood that learns its scale.

    log Normal(x; loc, scale) at x = loc  =  -log scale + const  ->  infinity  as  scale -> 0

The density of a column with one value has no upper limit where training may make the scale as
small as it likes: the ELBO grows without end, and other columns are neglected. A scale with a
floor, however it is computed, gives no finding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import TransformedDistribution

from ppl_vae.core import sites
from ppl_vae.core.failed_runs import first_cell
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.core.supports import basic_distribution
from ppl_vae.linting.inspection import CannotRunError, Finding, Inspection, run_pair, warning

WIDTH_PARAMETERS = (
    "scale", "coord_scale", "scale_tril", "covariance_matrix", "precision_matrix", "cov_diag",
    "concentration",
)  # fmt: skip
"""Names of the parameters of torch's and Pyro's distributions that set how narrow they are."""

MATRICES = ("scale_tril", "covariance_matrix", "precision_matrix")
"""Those of them that are matrices, of which the diagonal is looked at."""

GROWING = ("precision_matrix", "concentration")
"""Those of them that grow as the density narrows."""

MOST_NAMES = 8  # most columns that a message names


MOST_STEPS = 60  # steps of the parameters that show how narrow training can make a density

NARROWEST = 1e-8
"""A width that a step makes smaller by this factor has no floor; a variance neither."""


def constant_columns(
    inspection: Inspection, lows: Mapping[str, Tensor], highs: Mapping[str, Tensor]
) -> Iterator[Finding]:
    """Find columns with one value under a likelihood that training can make ever narrower.

    Args:
        inspection: The pair and its data.
        lows: Smallest value of each column, (columns,), by continuous data site.
        highs: Largest value of each column, likewise.
    """
    constant = {
        name: (low == highs[name]).nonzero().flatten()
        for name, low in lows.items()
        if len(inspection.rows) > 1 and bool((low == highs[name]).any())
    }
    for name, columns in constant.items():
        if not _narrows_without_limit(inspection, name, columns):
            continue
        shown = column_names(inspection, name, columns)
        yield warning(
            f'site "{name}"',
            "expected columns that vary where the likelihood learns its scale, got "
            f"{len(columns)} with one value ({shown}): their density grows without limit as the "
            "scale shrinks",
            "drop these columns, fix the scale, or give the scale a floor",
        )


def column_names(inspection: Inspection, name: str, columns: Tensor) -> str:
    """Return the names of columns of a data site in words, no more than a message may hold.

    Args:
        inspection: The pair and its data.
        name: The site.
        columns: Positions of the columns, (columns,).
    """
    names = [_column_name(inspection, name, int(column)) for column in columns[:MOST_NAMES]]
    shown = "; ".join(names) if any("," in each for each in names) else ", ".join(names)
    return shown + (", ..." if len(columns) > MOST_NAMES else "")


def _column_name(inspection: Inspection, name: str, column: int) -> str:
    """Return the name of a column of a data site: in a frame, in an image, or by its number."""
    site = inspection.model_sites()[name]
    row_dim = site["value"].ndim - site["fn"].event_dim - 1
    marked = torch.zeros_like(site["value"], dtype=torch.bool)
    by_row = marked.movedim(row_dim, 0)
    first = by_row[0].flatten()
    first[column] = True
    by_row[0] = first.reshape(by_row[0].shape)
    labels = [field.labels for field in inspection.rows.fields]
    return first_cell(site, marked, inspection.batch, labels).name or "the only column"


def _narrows_without_limit(inspection: Inspection, name: str, columns: Tensor) -> bool:
    """Return whether training can make a site's density at some columns as narrow as it likes.

    The pair is run with gradients on: a scale that requires a gradient depends on a parameter. A
    scale with a floor does as well, so the parameters of the model then take steps that make the
    scale smaller, each by 1 against the sign of its gradient: a bias before an exponential falls by
    60, and the scale by exp(60). A scale that does not fall so far has a floor. A scale that is
    shared with columns that vary cannot become small in training. The parameters are restored.

    Args:
        inspection: The pair and its data.
        name: The site.
        columns: The columns with one value, (some columns,).
    """

    def density() -> Any:
        with forked(0):  # the same latents each time
            trace, _ = run_pair(inspection.pair, inspection.batch)
        return sites.with_role(trace, "data")[name]["fn"]

    parameters = _model_parameters(inspection.pair)
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.enable_grad():
            fn = density()
            if not _learns_to_narrow(fn):
                return False
            first = now = _widths(fn)
            for _ in range(MOST_STEPS):
                if first is None or now is None:
                    return True
                shrunk = now / first
                if bool((shrunk[..., columns] < NARROWEST).any()):
                    return not _held_by_others(shrunk, columns)
                at_columns = now[..., columns].log().sum()
                gradients = torch.autograd.grad(at_columns, parameters, allow_unused=True)
                with torch.no_grad():
                    for parameter, gradient in zip(parameters, gradients, strict=True):
                        if gradient is not None:
                            parameter.sub_(gradient.sign())
                now = _widths(density())
    except (CannotRunError, KeyError):  # by chance of the draws, or a step too far
        return False
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
    return False


def _held_by_others(shrunk: Tensor, columns: Tensor) -> bool:
    """Return whether the widths of columns that vary shrank exactly as those of the constant ones.

    Args:
        shrunk: By what factor the width of each cell shrank, (..., cells).
        columns: Positions of the columns with one value, (some columns,).
    """
    varies = torch.ones(shrunk.shape[-1], dtype=torch.bool)
    varies[columns] = False
    low, high = shrunk.aminmax(dim=-1)
    return bool(varies.any()) and bool((high <= low * (1 + 1e-4)).all())


def _model_parameters(pair: Pair) -> list[Tensor]:
    """Return the trainable parameters of the model."""
    return [p for name, p in pair.trainable().items() if name.startswith("model.")]


def _widths(fn: Any) -> Tensor | None:
    """Return how wide a density is at each cell of a row, (..., cells).

    Args:
        fn: The distribution.

    Returns:
        The learned parameters that set the width, the inverse of those that grow as the density
        narrows; ``None`` where they do not say it cell by cell, as in a flow or a mixture.
    """
    basic = basic_distribution(fn)
    for name in WIDTH_PARAMETERS:
        width: Any = getattr(basic, name, None) if name in _argument_names(basic) else None
        if not _is_learned(width):
            continue
        if name in MATRICES:
            width = width.diagonal(dim1=-2, dim2=-1)
        cells = math.prod(fn.event_shape)
        if (
            len(fn.batch_shape) > 1
            or math.prod(width.shape[width.ndim - len(fn.event_shape) :]) != cells
        ):
            return None
        flat: Tensor = width.reshape(*width.shape[: width.ndim - len(fn.event_shape)], cells)
        return 1 / flat if name in GROWING else flat
    return None


def _argument_names(fn: Any) -> list[str]:
    """Return the names of a distribution's parameters."""
    arguments = type(fn).arg_constraints  # a property in a class that names no arguments
    return list(arguments) if isinstance(arguments, Mapping) else []


def _learns_to_narrow(fn: Any) -> bool:
    """Return whether a parameter that sets how narrow a density is depends on what is trained.

    Some densities cannot narrow at a value inside their support, and give ``False``: those with a
    scale but without a location (HalfNormal), and those whose one parameter sets both their mean
    and their spread (Exponential, ContinuousBernoulli).
    """
    arguments = _argument_names(fn)
    named = [name for name in arguments if name in WIDTH_PARAMETERS]
    if "loc" not in arguments and "scale" in named:
        named.remove("scale")
    if any(_is_learned(getattr(fn, name)) for name in named):
        return True
    if isinstance(fn, TransformedDistribution) and not arguments:
        return any(map(_stretches, fn.transforms)) or _learns_to_narrow(fn.base_dist)
    inner = [getattr(fn, name, None) for name in ("base_dist", "component_distribution")]
    wrapped = not isinstance(fn, TransformedDistribution)
    return wrapped and any(_learns_to_narrow(part) for part in inner if part is not None)


def _stretches(transform: Any) -> bool:
    """Return whether a transform stretches by what is trained: a flow, or a learned scale."""
    parameters = transform.parameters() if isinstance(transform, nn.Module) else ()
    learned_scale = _is_learned(getattr(transform, "scale", None))
    return any(p.requires_grad for p in parameters) or learned_scale


def _is_learned(value: Any) -> bool:
    """Return whether a distribution's parameter depends on a trainable tensor."""
    return isinstance(value, Tensor) and value.requires_grad
