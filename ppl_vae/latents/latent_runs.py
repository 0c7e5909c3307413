"""Runs of a pair on chosen rows: what the guide and the prior say of each latent of the rows.

    q(z_i given x_n), p(z_i)       n: a chosen row;  i: a latent of the rows, or one of its numbers

Latents that all rows share are drawn once and held, so that all runs have the same ones.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.far_rows import overflowing_rows
from ppl_vae.core.handlers import Substitute
from ppl_vae.core.held_cells import holders
from ppl_vae.core.observed_values import refuse_outside
from ppl_vae.core.pair import Pair
from ppl_vae.core.row_plate import raise_plate_fault
from ppl_vae.core.seeding import child
from ppl_vae.data.rows import Rows, generator
from ppl_vae.distributions import BernoulliVector, CategoricalVector, MarkovPath
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.points import points_given
from ppl_vae.elbo.sum_memory import rows_that_fit
from ppl_vae.latents.summed_codes import SummedLatents
from ppl_vae.predictive.global_draws import NUMBERS, GlobalDraws
from ppl_vae.predictive.latent_draws import row_latents, seeded_run


@dataclass(frozen=True)
class LatentRun:
    """A latent of the rows in one run of a pair.

    Attributes:
        fn: The guide's distribution of the latent, or the exact posterior of a summed one.
        prior: The model's distribution of it, given what the run drew before.
        value: The latent's draw, (..., rows, event).
        cells: Which numbers of the draw count, shaped like it: no mask hides them, and they are no
            steps after the end of a sequence.
        source: The guide's distribution and draw that the value is computed from, where an
            autoguide draws another number first; else ``fn`` and ``value``.
        draw: The two traces of the run; ``None`` for a latent that the model sums.
    """

    fn: Any
    prior: Any
    value: Tensor
    cells: Tensor
    source: tuple[Any, Tensor] | None
    draw: Draw | None


class ChosenRows:
    """Some rows of the data, on which a pair is run again and again.

    Args:
        pair: The pair.
        rows: The data, N rows.
        most: The most rows to choose; fewer are chosen where the rows are wide.
        seed: Chooses rows, and draws the latents that all rows share.

    Attributes:
        rows: The chosen rows.
        total: N.
        far: Number of chosen rows that were left out, as the networks overflow on them.
        outside: Names of the latents that all rows share.
        points: Names of the latents that the guide gives as a point.
        holding: Names of the latents that hold missing cells of the data.
        from_prior: Names of the rows' latents that neither the guide draws nor the model sums.
        sums: Whether the model sums a latent that the guide does not draw.

    Raises:
        ValueError: If there are fewer than two rows, or no latent to look at.
    """

    def __init__(self, pair: Pair, rows: Rows, most: int, seed: int | None) -> None:
        self.pair, self.total = pair, len(rows)
        self._summed = SummedLatents(pair, rows, joint=False)
        width = sum(max(1, math.prod(field.array.shape[1:])) for field in rows.fields)
        size = rows_that_fit(max(2, min(most, NUMBERS // width)), self._summed.numbers)
        order = torch.randperm(len(rows), generator=generator(child(seed, 1)))
        index = order[:size].sort().values
        batch = rows.take(index, pair.device())
        refuse_outside(pair, batch, index, rows)
        with pair.quiet_run():
            far = overflowing_rows(pair, batch).cpu()
        self.far, self.rows = int(far.sum()), rows.subset(index[~far])
        if len(self.rows) < 2:
            raise ValueError(
                f"data: expected two rows or more, got {len(self.rows)}: the usage of latents is "
                "how they differ from row to row; pass more rows"
            )
        shared = GlobalDraws(pair, rows)
        self._given = shared.draw(child(seed, 2))
        self.points, self.sums = points_given(pair, rows), bool(self._summed.in_model)
        with self.runs(child(seed, 3)) as run:
            traces = self._traces(run.batch)
            self._refuse_shared_draws(run.batch)
        in_rows = row_latents(traces[0], pair)
        drawn = {*row_latents(traces[1], pair), *self._summed.in_model}
        self.holding = sorted(name for names in holders(traces[0]).values() for name in names)
        self.from_prior = sorted(in_rows.keys() - drawn - set(self.holding))
        self.outside = sorted(sites.with_role(traces[0], "latent").keys() - in_rows.keys())
        if not drawn - set(self.holding):
            raise ValueError(
                f'guide: expected a latent in the row plate "{pair.plate}" that the guide draws or '
                "the model sums out, found none: without one, no latent can be used; draw the "
                "latents of the rows in a guide"
            )

    @contextlib.contextmanager
    def runs(self, seed: int | None) -> Iterator[Runs]:
        """Make a context for runs of the pair, without gradients and in evaluation mode.

        Args:
            seed: Seeds the draws; the generators are restored afterwards.

        Yields:
            A function without arguments that runs the pair: ``{site: LatentRun}``.
        """
        index = torch.arange(len(self.rows))
        with seeded_run(self.pair, self.rows, index, seed) as batch:
            yield Runs(lambda: self._run(batch), batch)

    def _refuse_shared_draws(self, batch: Any) -> None:
        """Raise where a latent of the rows is computed from a draw outside the row plate."""
        runs = (poutine.trace(self.pair.guide).get_trace(batch) for _ in range(2))
        first, second = map(sites.sample_sites, runs)
        auxiliary = {name: site for name, site in first.items() if sites.role(site) == "auxiliary"}
        outside = [n for n, site in auxiliary.items() if not sites.in_plate(site, self.pair.plate)]
        for name in self.points if outside else []:
            if not torch.equal(first[name]["value"], second[name]["value"]):
                raise ValueError(
                    f'site "{name}": expected the guide to draw it in the row plate '
                    f'"{self.pair.plate}", got a latent computed from site "{outside[0]}", one '
                    "draw for all rows, which has no posterior of a row; use a guide that draws "
                    "the latents of each row, such as AutoNormal or NormalGuide"
                )

    def _traces(self, batch: Any) -> tuple[Any, Any]:
        """Return the traces of one run, as (model, guide)."""
        given = Substitute(self._given)
        guide_trace = poutine.trace(given(self.pair.guide)).get_trace(batch)
        replayed = given(poutine.replay(self.pair.model, trace=guide_trace))
        model_trace = poutine.trace(replayed).get_trace(batch)
        raise_plate_fault(self.pair, model_trace, guide_trace, batch)
        return model_trace, guide_trace

    def _run(self, batch: Any) -> dict[str, LatentRun]:
        """Return the latents of the rows in one run."""
        model_trace, guide_trace = self._traces(batch)
        draw = Draw(model_trace, guide_trace, self.pair.plate, None, len(self.rows))
        auxiliary = {latent: aux for aux, latent in draw.latents_of_auxiliaries().items()}
        found = {}
        for name, site in row_latents(guide_trace, self.pair).items():
            if name in self.holding or name not in model_trace:
                continue
            prior = model_trace.nodes[name]
            source: tuple[Any, Tensor] | None = site["fn"], site["value"]
            if sites.point_of(site["fn"]) is not None and name not in self.points:
                other = guide_trace.nodes.get(auxiliary.get(name))
                source = (other["fn"], other["value"]) if other else None
            cells = _cells(site) & _cells({**prior, "value": site["value"]})
            found[name] = LatentRun(site["fn"], prior["fn"], site["value"], cells, source, draw)
        for name, site in self._summed.posteriors(batch, guide_trace).items():
            value, prior = site["value"], model_trace.nodes[name]["fn"]
            cells = torch.ones_like(value, dtype=torch.bool)
            found[name] = LatentRun(site["fn"], prior, value, cells, None, None)
        return found


@dataclass(frozen=True)
class Runs:
    """Runs of a pair on chosen rows, one at each call.

    Attributes:
        run: Runs the pair.
        batch: The rows.
    """

    run: Callable[[], dict[str, LatentRun]]
    batch: Any

    def __call__(self) -> dict[str, LatentRun]:
        """Run the pair once, and return the latents of the rows by name."""
        return self.run()


def path_of(fn: Any) -> MarkovPath | None:
    """Return the path of states that a distribution is, or is bent from; else ``None``."""
    while not isinstance(fn, MarkovPath) and hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn if isinstance(fn, MarkovPath) else None


def _cells(site: sites.Site) -> Tensor:
    """Return which numbers of a site's value count, shaped like the value."""
    cells = sites.unmasked_cells(site)
    path = path_of(site["fn"])
    if path is not None and path.lengths is not None:
        steps = torch.arange(path.steps, device=path.lengths.device) < path.lengths[:, None]
        cells = cells & steps.reshape(*steps.shape, *[1] * (site["fn"].event_dim - 1))
    return cells


def by_row(values: Tensor, event_dim: int) -> Tensor:
    """Return values of a site with the rows first, (rows, numbers), in double precision.

    Args:
        values: (plates inside the rows, rows, event).
        event_dim: Dimensions of an event.
    """
    return values.movedim(-1 - event_dim, 0).reshape(values.shape[-1 - event_dim], -1).double()


def probabilities_of(fn: Any, value: Tensor | None = None) -> Tensor | None:
    """Return the probabilities of each discrete variable, (rows, variables, categories).

    Args:
        fn: The distribution of a latent of the rows.
        value: Its draw. Where the distribution is a point, the number of a category, the
            probabilities are 0 and 1.

    Returns:
        ``None`` where the latent is not made of categorical and binary variables.

    Example:
        >>> probabilities_of(dist.Bernoulli(torch.tensor([[0.5], [1.0]])).to_event(1))
        tensor([[[0.5000, 0.5000]],
        <BLANKLINE>
                [[0.0000, 1.0000]]], dtype=torch.float64)
    """
    base, inside = fn, fn.event_dim
    while isinstance(base, dist.Independent | dist.MaskedDistribution):
        base = base.base_dist
    if isinstance(base, torch.distributions.Categorical):
        probs = base.probs
    elif isinstance(base, CategoricalVector):
        probs = base.mean
    elif isinstance(base, torch.distributions.OneHotCategorical):
        probs, inside = base.probs, inside - 1
    elif isinstance(base, torch.distributions.Bernoulli | BernoulliVector):
        probs = torch.stack([1 - base.mean, base.mean], -1)
    elif isinstance(base, dist.Delta) and value is not None and not value.is_floating_point():
        probs = torch.nn.functional.one_hot(value)
    else:
        return None
    if isinstance(base, CategoricalVector):
        inside -= 1
    rows_first = probs.movedim(-2 - inside, 0)
    return rows_first.reshape(len(rows_first), -1, probs.shape[-1]).double()
