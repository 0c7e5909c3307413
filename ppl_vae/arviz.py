"""Draws of a fitted pair for ArviZ: latents, replicates, observed data and log-likelihoods.

    posterior               z_s ~ q(z given x_n)              (chain, draw, row, ...)
    posterior_predictive    x_s ~ p(x given z_s)              (chain, draw, row, ...)
    log_likelihood_given_latents   log p(x_n given z_s)       (chain, draw, row), in nats
    prior                   z_s ~ p(z)                        (chain, draw, row, ...)
    prior_predictive        x_s ~ p(x given z_s)              (chain, draw, row, ...)
    observed_data           x_n                               (row, ...)

Sources: Kumar et al. (2019), ArviZ, JOSS 4(33), 1143, and its InferenceData schema (the groups);
Gelman, Meng & Stern (1996), section 2 (the replicates); Merkle, Furr & Rabe-Hesketh (2019),
arXiv:1802.04452 (why leave-one-out needs the row's latents integrated out).
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.arguments import check_arguments
from ppl_vae.bars import Bar
from ppl_vae.core.far_rows import nan_in_rows
from ppl_vae.core.handlers import ReplayReplicates
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.seeding import child
from ppl_vae.data.rows import Data
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.particles import with_particles
from ppl_vae.elbo.points import points_given
from ppl_vae.predictive.latent_draws import seeded_run
from ppl_vae.predictive.replicates import Replicates, ReplicateSampler, write_part

GIVEN_LATENTS = "log_likelihood_given_latents"
"""The group of conditional log-likelihoods, by a name that ArviZ does not compare models by."""

Array = np.ndarray[Any, Any]


def to_arviz(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    num_samples: int = 100,
    seed: int | None = 0,
    sites: Any = None,
    progress: bool | None = None,
    plate: str = "data",
) -> Any:
    """Return draws of a fitted pair in the container of the installed ArviZ.

    There are six groups. ``posterior`` holds latents drawn from the guide given each row,
    ``posterior_predictive`` new observations drawn given the same latents, and
    ``log_likelihood_given_latents`` the log-likelihood of each row given the same latents.
    ``prior`` and ``prior_predictive`` hold latents and observations of the model alone, and
    ``observed_data`` the data. The replicates are those of ``posterior_predictive`` and
    ``prior_predictive`` at the same seed. Masked cells are NaN in the data and in the replicates,
    so that plots compare the same cells (``posterior_predictive`` gives the draws there); they add
    0 to the log-likelihood.

    There is no group ``log_likelihood``, from which ``az.loo``, ``az.waic`` and ``az.compare``
    would compute numbers that are wrong. The guide has inferred the latents from the very row that
    leave-one-out leaves out, and importance weights cannot undo that. ``ppl_vae.log_likelihood``
    integrates each row's latents out instead, and ``ppl_vae.compare`` compares pairs by it.

    All draws of all rows are held in memory: latents and replicates, prior and posterior. For large
    data, pass some rows.

    Args:
        model: The model.
        guide: The guide; ``None`` for a model without latents, or whose latents are all enumerated.
            With ``None``, other latents come from the prior.
        data: N rows, in any form that ``fit`` takes.
        num_samples: S, draws.
        seed: Seeds the draws; the generators are restored afterwards.
        sites: Name or names of the observed sites; all by default.
        progress: Whether to show bars: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        An ``arviz.InferenceData`` (ArviZ 0.x) or an ``xarray.DataTree`` (1.x) with one chain of S
        draws. The coordinate ``row`` holds a frame's index: numbers and dates as they are, other
        labels as text. For a ``MultiIndex``, and for data that are no frame, it holds positions.
        The dimension of a site's cells is ``x_dim`` (several: ``x_dim_0``, ``x_dim_1``, ...),
        labelled by a frame's columns. Latents outside the row plate have no dimension ``row``. A
        group without sites is left out.

    Raises:
        ImportError: If ArviZ is not installed.
        ValueError: If the model observes nothing in the row plate, ``sites`` holds anything but
            observed sites, or a site has the name of a dimension.

    Warns:
        UserWarning: If the guide gives a latent of the rows as a point.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> draws = to_arviz(BernoulliModel(4), NormalGuide(4), torch.ones(3, 4), num_samples=10)
        >>> draws["posterior_predictive"]["x"].shape
        (1, 10, 3, 4)
        >>> draws["log_likelihood_given_latents"]["x"].dims
        ('chain', 'draw', 'row')
    """
    check_arguments(num_samples=num_samples, seed=seed, progress=progress)
    arviz, xarray = _imported()
    pair, prior_pair = Pair.of(model, guide, plate), Pair.of(model, None, plate)
    rows = pair.rows(data)
    posterior = ReplicateSampler(pair, rows, num_samples, seed=seed, prior=False, names=sites)
    prior = ReplicateSampler(prior_pair, rows, num_samples, seed=seed, prior=True, names=sites)
    from_posterior = _draws(posterior, Bar("posterior", progress), scored=True)
    from_prior = _draws(prior, Bar("prior", progress), scored=False)
    posterior.far_rows.warn("to_arviz", stacklevel=2)
    for name in points_given(pair, rows):
        warnings.warn(
            f'to_arviz: site "{name}" is a point of the guide: all its draws are equal, and '
            "replicates lack its spread; fit a guide that draws it",
            stacklevel=2,
        )
    groups = {
        "posterior": from_posterior["latents"],
        "posterior_predictive": from_posterior["values"],
        GIVEN_LATENTS: from_posterior["log_likelihood"],
        "prior": from_prior["latents"],
        "prior_predictive": from_prior["values"],
        "observed_data": from_posterior["observed"],
    }
    coordinates = {"row": _row_labels(rows.index), **_cell_labels(posterior.feature_names())}
    sets = {
        group: xarray.Dataset(*_variables(group, arrays, posterior.row_latents, coordinates))
        for group, arrays in groups.items()
        if arrays
    }
    if "InferenceData" in vars(arviz):  # ArviZ 0.x; hasattr would warn in 1.x
        return arviz.InferenceData(**sets)
    return xarray.DataTree.from_dict(sets)


def _imported() -> tuple[Any, Any]:
    """Return the modules ``arviz`` and ``xarray``, which ArviZ requires."""
    try:
        return importlib.import_module("arviz"), importlib.import_module("xarray")
    except ImportError as error:
        raise ImportError(
            f"to_arviz: expected ArviZ, got {error}; pip install 'ppl-vae[arviz]'"
        ) from error


def _draws(sampler: ReplicateSampler, bar: Bar, *, scored: bool) -> dict[str, dict[str, Array]]:
    """Return all draws of a sampler in whole arrays: ``{kind: {site: array}}``.

    The kinds are ``values`` (samples, rows, ...) and ``observed`` (rows, ...), with NaN in masked
    cells; ``latents`` (samples, rows, ...), or (samples, ...) outside the row plate; and
    ``log_likelihood`` (samples, rows), in nats. All are NaN in rows on which the networks overflow.

    Args:
        sampler: Draws the replicates.
        bar: The progress bar.
        scored: Whether log-likelihoods are wanted.
    """
    samples, rows = sampler.num_samples, len(sampler.rows)
    kinds = ("values", "latents", "log_likelihood", "observed", "unmasked")
    tensors: dict[str, dict[str, Tensor]] = {kind: {} for kind in kinds}
    for part in sampler.stream(bar):
        draws, index = part.places
        no_mask = {n: torch.ones_like(v, dtype=torch.bool) for n, v in part.observed.items()}
        write_part(tensors["unmasked"], {**no_mask, **part.masks}, (rows,), (index,))
        write_part(tensors["observed"], part.observed, (rows,), (index,))
        write_part(tensors["values"], part.values, (samples, rows), (draws, index))
        in_rows = {n: v for n, v in part.latents.items() if n in sampler.row_latents}
        outside = {n: v for n, v in part.latents.items() if n not in in_rows}
        write_part(tensors["latents"], in_rows, (samples, rows), (draws, index))
        write_part(tensors["latents"], outside, (samples,), (draws,))
        if scored:
            scores = _log_likelihoods(sampler, part)
            write_part(tensors["log_likelihood"], scores, (samples, rows), (draws, index))
    arrays = {kind: {n: v.numpy() for n, v in each.items()} for kind, each in tensors.items()}
    masks = arrays.pop("unmasked")
    for kind in ("values", "observed"):
        for name, values in arrays[kind].items():
            if not masks[name].all():
                arrays[kind][name] = np.where(masks[name], values, np.nan)
    far = sampler.far_rows.found
    for name in sampler.row_latents if bool(far.any()) else ():
        latents = torch.from_numpy(arrays["latents"][name])
        arrays["latents"][name] = nan_in_rows(latents, far, dim=1).numpy()
    for name, scored_rows in arrays["log_likelihood"].items():
        marked = nan_in_rows(torch.from_numpy(scored_rows), far, dim=1)
        arrays["log_likelihood"][name] = marked.numpy()
    return arrays


def _log_likelihoods(sampler: ReplicateSampler, part: Replicates) -> dict[str, Tensor]:
    """Return the log-likelihood of each row given a part's latents: ``{site: (samples, rows)}``.

    In nats, for each observed site. The latents of the part are put back into the model, in the
    layout that the model's plates ask for, and the model runs as the sampler ran it: once with all
    replicates, or once for each.
    """
    pair, count, rows = sampler.pair, len(part.samples), len(part.index)
    runs = [part.latents]
    if not sampler.runs.vectorized:
        runs = [{name: value[i] for name, value in part.latents.items()} for i in range(count)]
    dim, terms = sampler.runs.dim, []
    seed = child(sampler.seed, part.samples.start, int(part.index[0]), 1)
    checked = not bool(sampler.far_rows.found[part.index].any())  # their latents are NaN
    with (
        seeded_run(pair, sampler.rows, part.index, seed) as batch,
        contextlib.nullcontext() if checked else pyro.validation_enabled(False),
    ):
        for latents, particles in zip(runs, sampler.runs.handlers(count), strict=True):
            model = ReplayReplicates(latents, dim)(with_particles(pair.model, particles))
            trace = poutine.trace(model).get_trace(batch)
            terms.append(Draw(trace, Trace(), pair.plate, dim, rows).terms())
    each = count // len(runs)
    return {
        name: torch.cat([run_terms[(name,)].expand(each, rows) for run_terms in terms])
        for name in sampler.sites
    }


def _variables(
    group: str, arrays: dict[str, Array], row_latents: list[str], labels: dict[str, Array]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return variables with named dimensions, and the coordinates of the dimensions, for xarray.

    Args:
        group: Name of the group, which decides the leading dimensions.
        arrays: ``{site: array}``.
        row_latents: Names of the latents in the row plate.
        labels: ``{dimension: coordinate}`` where a dimension has labels; else positions are used.

    Raises:
        ValueError: If a site has the name of a dimension.
    """
    variables, coords = {}, {}
    for name, array in arrays.items():
        with_chain = array if group == "observed_data" else array[None]
        lead = () if group == "observed_data" else ("chain", "draw")
        if group not in ("posterior", "prior") or name in row_latents:
            lead = (*lead, "row")
        cells = with_chain.ndim - len(lead)
        several = [f"{name}_dim_{i}" for i in range(cells)]
        dims = (*lead, *([f"{name}_dim"] if cells == 1 else several))
        variables[name] = dims, with_chain
        sizes = dict(zip(dims, with_chain.shape, strict=True))
        coords.update({d: labels[d] if d in labels else np.arange(n) for d, n in sizes.items()})
    for name in coords.keys() & variables.keys():
        raise ValueError(
            f'site "{name}": expected a name that no dimension in ArviZ has, got "{name}"; rename '
            "the site"
        )
    return variables, coords


def _row_labels(index: pd.Index) -> Array:
    """Return an index as a coordinate: numbers and dates as they are, other labels as text.

    A ``MultiIndex`` gives positions.
    """
    if isinstance(index, pd.MultiIndex):
        return np.arange(len(index))
    labels: Array = index.to_numpy()
    plain = labels.dtype.kind in "biufmM"
    return labels if plain else np.array([str(label) for label in labels])


def _cell_labels(names: dict[str, list[str]]) -> dict[str, Array]:
    """Return the names of each site's cells, ``{dimension: names}``, where they have names.

    Args:
        names: ``{site: names of its cells}``; cells named "0", "1", ... have positions only.
    """
    return {
        f"{site}_dim": np.array(cells)
        for site, cells in names.items()
        if cells != [str(i) for i in range(len(cells))]
    }
