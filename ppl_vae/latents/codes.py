"""From rows to their latents and back: codes, reconstructions and new rows.

    encode        E[z given x], sd[z given x]  under the guide          z: (rows, latents)
                  p(k given x)                 of latents k summed out  k: (rows, categories)
    reconstruct   E[x' given x] = E_q(z given x) E[x' given z]          x': (rows, features)
    generate      z ~ p(z), x ~ p(x given z)                            x: (num_samples, features)

Source: Kingma & Welling (2014), section 5 and appendix A, arXiv:1312.6114.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.arguments import check_arguments, check_memory
from ppl_vae.bars import Bar
from ppl_vae.core.blocks import block_rows, collect, quiet_look
from ppl_vae.core.far_rows import FarRows
from ppl_vae.core.handlers import Substitute
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.row_plate import check_row_plate, raise_plate_fault
from ppl_vae.core.seeding import child
from ppl_vae.core.sites import Site
from ppl_vae.core.world import world
from ppl_vae.data.rows import Batch, Data, Rows, generator
from ppl_vae.data.steps import nan_after_ends, step_fields, without_padding
from ppl_vae.distributions import MarkovPath
from ppl_vae.elbo.points import points_given
from ppl_vae.elbo.sum_memory import rows_that_fit
from ppl_vae.latents.summed_codes import SummedLatents, by_chain
from ppl_vae.predictive import latent_draws
from ppl_vae.predictive.global_draws import GlobalDraws
from ppl_vae.predictive.latent_draws import data_sites, simulate
from ppl_vae.predictive.moments import averaged_moments, exact_moments
from ppl_vae.predictive.row_form import CellPlaces, in_data_form, with_given


def encode(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    joint: bool = False,
    num_samples: int = 32,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> pd.DataFrame:
    """Return the codes of every row: moments of its latents, or probabilities of their categories.

    The mean and the standard deviation of a latent are those under the guide. They are exact where
    its distribution knows them and does not depend on anything drawn. Otherwise they are averaged
    over draws of the guide, by the law of total variance, with the number of draws minus 1 below
    the spread.

    A discrete latent that the model sums out, and the guide does not draw, has its posterior
    probabilities under the model: exact where no other latent is drawn, else averaged over draws
    of the others from the guide. Under ``joint`` the most probable joint values of all summed
    latents are searched instead: in a chain, the path that Viterbi's algorithm finds.

    Args:
        model: The model; it has no influence on the codes of latents that the guide draws.
        guide: The guide; ``None`` where the model sums out all of its latents.
        data: N rows, in any form that ``fit`` takes.
        joint: Whether to return the most probable joint values of all latents that are summed.
            Those that the guide sums are the most probable under the guide; those that the model
            sums are so given the former and the centers of the guide's other latents.
        num_samples: Draws of the guide where the moments are not exact; a single one leaves their
            standard deviation unknown (NaN).
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        N rows with the data's index and columns ``(site, "mean", i)`` and ``(site, "sd", i)``,
        in the latent's units; a categorical site has ``(site, "probability", category)``, a vector
        of discrete variables the mean and sd of each of its numbers.
        ``encode(...)["z"]["mean"]`` is a frame of N rows and one column for each dimension of z.
        Under ``joint`` the columns are ``(site, "mode", step)``, numbers of categories: the sites
        ``z_0``, ``z_1``, ... of a chain are the steps of ``z``; any other site has step 0. The
        variables of a vector follow each other, and so do the places of plates inside the rows.
        ``encode(...).attrs["exact"]`` says which sites have exact codes, ``{site: bool}``.
        ``encode(...).attrs["points"]`` lists the latents that the guide gives as a point: their
        standard deviation is 0 and says nothing about the posterior.
        A row on which the networks overflow is NaN, and a warning counts such rows. So are the
        codes of a summed latent in a row that none of its values allows, and the states of a path
        (``MarkovPath``) at the steps after the end of a sequence.

    Raises:
        ValueError: If no latent in the row plate is drawn by the guide or summed out (under
            ``joint``: summed out), if the posterior of a summed latent depends on one that is left
            to its prior, or if the joint values of summed latents do not fit in memory.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> codes = encode(BernoulliModel(4, 2), NormalGuide(4, 2), torch.ones(3, 4))
        >>> codes["z"]["mean"].shape, codes.attrs["exact"]
        ((3, 2), {'z': True})
    """
    check_arguments(joint=joint, num_samples=num_samples, seed=seed, progress=progress)
    seed = world().seed(seed, "encode")
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    summed = SummedLatents(pair, rows, joint=joint)
    exact: dict[str, bool] = {}
    if joint and not (summed.in_model or summed.in_guide):
        raise ValueError(
            f'joint: expected a latent in the row plate "{plate}" that is summed out, found none; '
            'ask for the sum, infer={"enumerate": "parallel"}, or take joint=False'
        )
    work = (_joint_values if joint else _moments)(pair, rows, summed, num_samples, seed, exact)
    far_rows = FarRows(pair, rows)
    size = rows_that_fit(block_rows(rows), summed.numbers)
    parts = collect(
        pair, rows, far_rows.marked(work), seed=seed, bar=Bar("encode", progress),
        size=size, shared=far_rows.found,
    )  # fmt: skip
    if len(rows) > size:  # the blocks may have been shared
        answers = [json.loads(text) for text in world().texts(json.dumps(exact), "encode")]
        exact = {name: all(answer[name] for answer in answers) for name in exact}
    far_rows.warn("encode", stacklevel=2)
    if not parts:
        raise no_code("encode", plate)
    for site, steps in _steps_of_paths(pair, rows).items():
        for key in [key for key in parts if key[0] == site]:
            parts[key] = nan_after_ends(rows, parts[key], steps)
    frames = {key: pd.DataFrame(value.numpy(), index=rows.index) for key, value in parts.items()}
    names = ["site", "moment", "step" if joint else "index"]
    codes = pd.concat(frames, axis=1, names=names)
    codes.attrs["exact"] = exact
    spreads = [value for (_, moment), value in parts.items() if moment == "sd"]
    points = any((spread == 0).any() for spread in spreads)  # the look costs a run of the guide
    codes.attrs["points"] = points_given(pair, rows) if points else []
    return codes


def _steps_of_paths(pair: Pair, rows: Rows) -> dict[str, int]:
    """Return the steps of each latent of the guide that is a path with ends, a ``MarkovPath``."""
    if not step_fields(rows):
        return {}
    with quiet_look(pair, rows) as batch:
        trace = poutine.trace(pair.guide).get_trace(batch)
    found = {}
    for name, site in latent_draws.row_latents(trace, pair).items():
        fn = site["fn"]
        while not isinstance(fn, MarkovPath) and hasattr(fn, "base_dist"):
            fn = fn.base_dist  # a path may be bent by a flow
        if isinstance(fn, MarkovPath) and fn.lengths is not None:
            found[name] = fn.steps
    return found


Work = Callable[[Batch, Tensor], dict[tuple[str, str], Tensor]]


def _moments(
    pair: Pair,
    rows: Rows,
    summed: SummedLatents,
    num_samples: int,
    seed: int | None,
    exact: dict[str, bool],
) -> Work:
    """Return the work of ``encode`` on a block: moments and probabilities, (rows, ...) each.

    Args:
        pair: The pair.
        rows: The data.
        summed: The latents that are summed out.
        num_samples: Most draws of the guide.
        seed: Seed of the whole computation.
        exact: Which sites have exact codes; the work adds to it.
    """
    shared = _SharedLatents(GlobalDraws(pair, rows, model=False), seed)

    def work(batch: Batch, index: Tensor) -> dict[tuple[str, str], Tensor]:
        def run(number: int) -> dict[str, Site]:
            guide = Substitute(shared[number])(pair.guide)
            trace = poutine.trace(guide).get_trace(batch)
            raise_plate_fault(pair, Trace(), trace, batch)
            return {**latent_draws.row_latents(trace, pair), **summed.posteriors(batch, trace)}

        if summed.are_all:
            drawn: Mapping[str, Site] = run(0)
            averages = exact_moments(drawn)
        else:
            averages, drawn = averaged_moments(run, num_samples, shared.random)
        codes = {}
        for name, moments in averages.items():
            exact[name] = moments.exact and exact.get(name, True)
            for moment, value in moments.result().items():
                event_dim = drawn[name]["fn"].event_dim + (moment == "probability")
                by_row = value.movedim(-1 - event_dim, 0)  # plates inside the rows are on the left
                codes[name, moment] = by_row.reshape(len(index), -1)
        return codes

    return work


def _joint_values(
    pair: Pair,
    rows: Rows,
    summed: SummedLatents,
    num_samples: int,
    seed: int | None,
    exact: dict[str, bool],
) -> Work:
    """Return the work of ``encode`` on a block under ``joint``; see ``_moments``."""
    draws = GlobalDraws(pair, rows, model=False)
    given = draws.centers(child(seed, 2))

    def work(batch: Batch, index: Tensor) -> dict[tuple[str, str], Tensor]:
        found = by_chain(summed.most_probable(batch, given))
        exact.update(dict.fromkeys(found, not summed.given_others))
        return {(name, "mode"): values for name, values in found.items()}

    return work


def reconstruct(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    num_samples: int = 32,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> Any:
    """Return the rows that the pair expects: each observed cell is averaged over the guide.

    The value of a cell is its expectation given the row's latents, averaged over draws of the
    latents from the guide.

    Args:
        model: The model.
        guide: The guide.
        data: N rows, in any form that ``fit`` takes.
        num_samples: Draws of the guide. Fewer are made where no expectation depends on anything
            drawn, so that the result is exact; else its Monte Carlo error is that of an average
            of ``num_samples`` draws.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        N rows in the data's own form and units. A categorical cell is its most probable category;
        cells that the model does not observe are returned as they are. A row on which the networks
        overflow is NaN, and a warning counts such rows.

    Raises:
        ValueError: If an observed site holds values that are no cells of the data, or if nothing is
            latent and all cells are observed: no expected row would depend on the row that it
            stands for.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> reconstruct(BernoulliModel(4), NormalGuide(4), torch.ones(3, 4)).shape
        torch.Size([3, 4])
    """
    check_arguments(num_samples=num_samples, seed=seed, progress=progress)
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    places, posterior = CellPlaces(pair, rows), latent_draws.LatentDraws(pair, rows)
    if posterior.draws_nothing and places.observes_all:
        raise ValueError(
            "model: expected a latent to reconstruct rows from, found none: without one, the "
            "expected row is the same for all rows; call generate for new rows"
        )
    seed = world().seed(seed, "reconstruct")
    shared = _SharedLatents(GlobalDraws(pair, rows), seed)

    def work(batch: Batch, index: Tensor) -> dict[int, Tensor]:
        def run(number: int) -> dict[str, Site]:
            latents = posterior.draw(batch, shared[number], None)
            return data_sites(simulate(pair, batch, Substitute(latents)))

        averages, observing = averaged_moments(run, num_samples, shared.random)
        expected = {name: moments.expected() for name, moments in averages.items()}
        return places.fields_with_values(batch, observing, expected, expected=True)

    far_rows = FarRows(pair, rows)
    bar = Bar("reconstruct", progress)
    parts = collect(pair, rows, far_rows.marked(work), seed=seed, bar=bar, shared=far_rows.found)
    far_rows.warn("reconstruct", stacklevel=2)
    if pair.reads_lengths(rows):
        parts = without_padding(rows, parts)
    return in_data_form(rows, parts, rows.index)


def generate(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    num_samples: int = 100,
    given: Mapping[Any, Any] | None = None,
    expected: bool = False,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> Any:
    """Return new rows from the model: latents from the prior, then observations.

    Args:
        model: The model.
        guide: Gives the latents outside the row plate, drawn once from their posterior. The latents
            of a row always come from the prior. ``None`` draws all latents from the prior.
        data: Rows whose form the new rows take. Fields and cells that the model reads but does not
            observe (covariates) are copied from rows of the data, chosen at random.
        num_samples: Number of new rows.
        given: ``{field name or position: values}`` for covariates, one value for all rows or
            ``num_samples`` of them. What the model observes is drawn, and cannot be given.
        expected: Whether to return expected values given the latents (the most probable
            category) instead of draws. A likelihood that does not know its mean gives a draw, with
            a warning.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        ``num_samples`` rows in the data's own form and units.

    Raises:
        ValueError: If ``given`` names no field or an observed one, or does not fit it, or an
            observed site holds values that are no cells of the data.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> generate(BernoulliModel(4), None, torch.zeros(2, 4), num_samples=3).shape
        torch.Size([3, 4])
    """
    check_arguments(num_samples=num_samples, expected=expected, seed=seed, progress=progress)
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    size = num_samples * rows.bytes_per_row
    check_memory("num_samples", num_samples, size, "generate fewer rows at a time")
    check_row_plate(pair, rows)
    places = CellPlaces(pair, rows)
    chosen = torch.randint(len(rows), (num_samples,), generator=generator(seed))
    given = {} if given is None else given
    template = with_given(rows, rows.take(chosen), given, num_samples, places.observed_fields)
    shared = Substitute(GlobalDraws(pair, rows, guide=guide is not None).draw(child(seed, 2)))

    def work(batch: Batch, index: Tensor) -> dict[int, Tensor]:
        trace = simulate(pair, batch, shared)
        values = latent_draws.site_values(trace, expected=expected)
        return places.fields_with_values(batch, data_sites(trace), values, expected=expected)

    parts = collect(pair, template, work, seed=seed, bar=Bar("generate", progress), judge=False)
    return in_data_form(rows, without_padding(rows, parts) if pair.reads_lengths(rows) else parts)


def no_code(verb: str, plate: str) -> ValueError:
    """Return the error that rows have no codes, as none of their latents is drawn or summed out.

    Args:
        verb: What the rows' codes are needed for.
        plate: Name of the row plate.
    """
    return ValueError(
        f'guide: expected a latent in the row plate "{plate}" to {verb}, found none: without one, '
        "rows have no codes. Draw the latents of the rows in a guide; only encode takes one that "
        "the model alone enumerates. Where nothing is latent, call generate for new rows"
    )


class _SharedLatents:
    """Numbered draws of the latents outside the row plate, the same in every block of rows.

    Args:
        draws: Draws the latents.
        seed: Seed of the whole computation.

    Attributes:
        random: Names of the latents that depend on random numbers.
    """

    def __init__(self, draws: GlobalDraws, seed: int | None) -> None:
        self.random = draws.random
        self._draws, self._seed = draws, seed
        self._drawn: dict[int, dict[str, Tensor]] = {}

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return draw number ``number``, ``{site: value}``, made when it is first asked for."""
        if number not in self._drawn:
            self._drawn[number] = self._draws.draw(child(self._seed, 2, number))
        return self._drawn[number]
