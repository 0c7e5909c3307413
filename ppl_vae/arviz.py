"""A fitted pair, opened in ArviZ: latents, replicates, observations and log-likelihoods by name.

    posterior               z_s ~ q(z given x_n)              (chain, draw, row, ...)
    posterior_predictive    x_s ~ p(x given z_s)              (chain, draw, row, ...)
    log_likelihood          log p(x_n given z_s)              (chain, draw, row), in nats
    prior                   z_s ~ p(z)                        (chain, draw, row, ...)
    prior_predictive        x_s ~ p(x given z_s)              (chain, draw, row, ...)
    observed_data           x_n                               (row, ...)

Sources: Kumar et al. (2019), ArviZ, JOSS 4(33), 1143, and its InferenceData schema (the groups);
Gelman, Meng & Stern (1996), section 2 (the replicates); Merkle, Furr & Rabe-Hesketh (2019),
arXiv:1802.04452 (why leave-one-out needs the row's latents integrated out).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core.blocks import errors_naming_rows
from ppl_vae.core.handlers import Particles, ReplayReplicates
from ppl_vae.core.pair import Pair, pyro_lock
from ppl_vae.core.seeding import child, forked
from ppl_vae.data.rows import Data, as_rows
from ppl_vae.elbo.weights import Draw
from ppl_vae.predictive.replicates import Replicates, ReplicateSampler

Function = Callable[..., Any]
Array = np.ndarray[Any, Any]


def to_arviz(
    model: Function,
    guide: Function | None,
    data: Data,
    *,
    num_samples: int = 100,
    seed: int | None = 0,
    sites: Any = None,
    progress: bool = False,
    plate: str = "data",
) -> Any:
    """Draws of a fitted pair in the container of the ArviZ that is installed.

    Six groups: ``posterior`` (latents from the guide given each row), ``posterior_predictive``
    (new observations given those very draws), ``log_likelihood`` (of each row given those draws),
    ``prior`` and ``prior_predictive`` (one set of draws as well) and ``observed_data``. The
    replicates are those of ``posterior_predictive`` and ``prior_predictive`` at the same seed.
    Cells under a mask are NaN wherever observations stand, in the replicates too, so that plots
    compare the same cells (``posterior_predictive`` gives the draws there); they add 0 to the
    log-likelihood.

    Leave-one-out by Pareto-smoothed importance sampling (``az.loo``) is not valid on these
    log-likelihoods, and neither is WAIC: they are conditional on latents that were fitted to the
    very row that would be left out, so that importance weights cannot take the row back. ArviZ
    finds the group and computes a number; do not trust it. ``ppl_vae.log_likelihood`` integrates
    each row's latents out instead.

    Everything is held in memory: all draws of all rows, latents and replicates, prior and
    posterior. For large data pass some rows.

    Args:
        model: The model.
        guide: The guide; ``None`` for a model whose latents are all summed out, or has none. What
            is latent and not summed then comes from the prior.
        data: N rows, in any form that ``fit`` takes.
        num_samples: S, draws.
        seed: Seeds the draws; the generators are restored afterwards.
        sites: Name or names of the observed sites; all by default.
        progress: Whether to show bars.
        plate: Name of the row plate.

    Returns:
        An ``arviz.InferenceData`` (ArviZ 0.x) or an ``xarray.DataTree`` (1.x) with one chain of S
        draws. The coordinate ``row`` holds a frame's index as it is, or as text where it is no
        plain number, date or text; positions for a ``MultiIndex`` or other data. The dimension of
        a site's cells is ``x_dim`` (several: ``x_dim_0``, ``x_dim_1``, ...), labelled by a frame's
        columns. Latents outside the row plate have no ``row``. A group without sites is left out.

    Raises:
        ImportError: Where ArviZ is not installed.
        ValueError: Where the model observes nothing in the row plate, ``sites`` names something
            else, or a site is called like a dimension.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> draws = to_arviz(BernoulliModel(4), NormalGuide(4), torch.ones(3, 4), num_samples=10)
        >>> draws["posterior_predictive"]["x"].shape, draws["log_likelihood"]["x"].dims
        ((1, 10, 3, 4), ('chain', 'draw', 'row'))
    """
    arviz, xarray = _imported()
    rows, bar = as_rows(data), progress
    pair, alone = Pair.of(model, guide, plate), Pair.of(model, None, plate)
    posterior = ReplicateSampler(pair, rows, num_samples, seed=seed, prior=False, names=sites)
    prior = ReplicateSampler(alone, rows, num_samples, seed=seed, prior=True, names=sites)
    after = _drawn(posterior, "posterior" if bar else "", scored=True)
    before = _drawn(prior, "prior" if bar else "", scored=False)
    groups = {
        "posterior": after["latents"],
        "posterior_predictive": after["values"],
        "log_likelihood": after["scores"],
        "prior": before["latents"],
        "prior_predictive": before["values"],
        "observed_data": after["observed"],
    }
    labels = {"row": _row_labels(rows.index), **_cell_labels(posterior.feature_names())}
    sets = {
        group: xarray.Dataset(*_variables(group, arrays, posterior.row_latents, labels))
        for group, arrays in groups.items()
        if arrays
    }
    if "InferenceData" in vars(arviz):  # 0.x; to ask 1.x for the name would warn
        return arviz.InferenceData(**sets)
    return xarray.DataTree.from_dict(sets)


def _imported() -> tuple[Any, Any]:
    """ArviZ and xarray, which it stands on."""
    try:
        return importlib.import_module("arviz"), importlib.import_module("xarray")
    except ImportError as error:
        raise ImportError(
            f"to_arviz: expected ArviZ, got {error}; pip install 'ppl-vae[arviz]'"
        ) from error


def _drawn(simulator: ReplicateSampler, title: str, *, scored: bool) -> dict[str, dict[str, Array]]:
    """All parts of a simulation put together, masked cells NaN: ``{kind: {site: array}}``."""
    samples, rows = simulator.num_samples, len(simulator.rows)
    kinds = ("values", "latents", "scores", "observed", "kept")
    found: dict[str, dict[str, Tensor]] = {kind: {} for kind in kinds}
    for part in simulator.stream(title):
        draws, index = slice(part.samples.start, part.samples.stop), part.index
        every: dict[str, Tensor] = {
            name: torch.ones_like(value, dtype=torch.bool) for name, value in part.observed.items()
        }
        _put(found["kept"], {**every, **part.masks}, (rows,), (index,))
        _put(found["observed"], part.observed, (rows,), (index,))
        _put(found["values"], part.values, (samples, rows), (draws, index))
        within = {n: v for n, v in part.latents.items() if n in simulator.row_latents}
        shared = {n: v for n, v in part.latents.items() if n not in within}
        _put(found["latents"], within, (samples, rows), (draws, index))
        _put(found["latents"], shared, (samples,), (draws,))
        if scored:
            scores = _log_likelihoods(simulator, part)
            _put(found["scores"], scores, (samples, rows), (draws, index))
    arrays = {kind: {n: v.numpy() for n, v in each.items()} for kind, each in found.items()}
    kept = arrays.pop("kept")
    for kind in ("values", "observed"):
        arrays[kind] = {name: _seen(value, kept[name]) for name, value in arrays[kind].items()}
    return arrays


def _put(
    into: dict[str, Tensor], part: dict[str, Tensor], size: tuple[int, ...], place: tuple[Any, ...]
) -> None:
    """Write a part of each site's values to its place among all, (*size, ...)."""
    for name, value in part.items():
        if name not in into:
            into[name] = torch.empty((*size, *value.shape[len(size) :]), dtype=value.dtype)
        into[name][place] = value.cpu()


def _seen(values: Array, kept: Array) -> Array:
    """Values, (..., rows, cells), with NaN in the cells that a mask hides; floats, if there are."""
    return values if kept.all() else np.where(kept, values, np.nan)


def _log_likelihoods(simulator: ReplicateSampler, part: Replicates) -> dict[str, Tensor]:
    """Log-likelihood of each observed site given a part's latents: (samples, rows), in nats."""
    pair, nesting = simulator.pair, simulator.posterior.nesting
    batch, count = simulator.rows.take(part.index, pair.device()), len(part.samples)
    model: Any = pair.model
    dim, runs = None, [{n: v[i] for n, v in part.latents.items()} for i in range(count)]
    if simulator.vectorized:
        dim, runs = -1 - nesting, [part.latents]
        model = Particles(count, dim)(model)
    found = []
    seed = child(simulator.seed, part.samples.start, int(part.index[0]), 1)
    with pyro_lock(), forked(seed), pair.evaluating(), errors_naming_rows(batch, part.index):
        for latents in runs:
            trace = poutine.trace(ReplayReplicates(latents, dim)(model)).get_trace(batch)
            found.append(Draw(trace, Trace(), pair.plate, dim, len(part.index)).terms())
    each = count // len(runs)
    return {
        name: torch.cat([terms[name].expand(each, len(part.index)) for terms in found])
        for name in simulator.sites
    }


def _variables(
    group: str, arrays: dict[str, Array], row_latents: list[str], labels: dict[str, Array]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Variables with named dimensions, and the dimensions' coordinates, as xarray takes them."""
    variables, coords = {}, {}
    for name, array in arrays.items():
        whole = array if group == "observed_data" else array[None]
        lead = () if group == "observed_data" else ("chain", "draw")
        if group not in ("posterior", "prior") or name in row_latents:
            lead = (*lead, "row")
        cells = whole.ndim - len(lead)
        several = [f"{name}_dim_{i}" for i in range(cells)]
        dims = (*lead, *([f"{name}_dim"] if cells == 1 else several))
        variables[name] = dims, whole
        sizes = dict(zip(dims, whole.shape, strict=True))
        coords.update({d: labels[d] if d in labels else np.arange(n) for d, n in sizes.items()})
    for name in coords.keys() & variables.keys():
        raise ValueError(
            f'site "{name}": expected another name, got that of a dimension in ArviZ; rename it'
        )
    return variables, coords


def _row_labels(index: pd.Index) -> Array:
    """A frame's index as a coordinate: numbers and dates as they are, anything else as text."""
    if isinstance(index, pd.MultiIndex):
        return np.arange(len(index))
    labels: Array = index.to_numpy()
    plain = labels.dtype.kind in "biufmM"
    return labels if plain else np.array([str(label) for label in labels])


def _cell_labels(names: dict[str, list[str]]) -> dict[str, Array]:
    """Names of the cells of each site, by dimension; none where they are positions."""
    return {
        f"{site}_dim": np.array(cells)
        for site, cells in names.items()
        if cells != [str(i) for i in range(len(cells))]
    }
