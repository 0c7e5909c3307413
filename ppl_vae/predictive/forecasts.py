"""Forecasts of sequences: the steps that follow the last one of each.

    a state at each step    z_T^s ~ p(z_T given x_1 ... x_T)      by a particle filter
                            z_(T+h)^s ~ p(z_(T+h) given z_(T+h-1)^s)
                            x_(T+h)^s ~ p(x_(T+h) given z_(T+h)^s)
    a code of a sequence    z^s ~ q(z given x_1 ... x_T),  x_(T+h)^s ~ p(x_(T+h) given z^s)

s = 1 ... S draws, h = 1 ... H further steps. The mean of the draws is the forecast, and two of
their quantiles are the bounds of an interval that holds the observation with a given probability,
where the model is right.

Source: Durbin & Koopman (2012), Time series analysis by state space methods, section 4.11.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.arguments import check_arguments, check_number, shown
from ppl_vae.bars import Bar
from ppl_vae.core import sites
from ppl_vae.core.blocks import ELEMENTS, block_rows, collect, quiet_look
from ppl_vae.core.far_rows import FarRows
from ppl_vae.core.handlers import Substitute, Unobserve
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch, Data, Rows
from ppl_vae.data.steps import sequence_lengths, step_index
from ppl_vae.distributions import MarkovPath
from ppl_vae.elbo.particles import PARTICLES, ParticleRuns
from ppl_vae.elbo.path_filter import filtered, rows_of_filter, systematic
from ppl_vae.elbo.state_paths import PathsOfRows, StatePaths, one_step
from ppl_vae.predictive.latent_draws import LatentDraws, data_sites, drawn_latents, simulate
from ppl_vae.predictive.prolonged import VALUES, Future
from ppl_vae.predictive.replicates import samples_first

STATISTICS = ("mean", "lower", "upper")

FEWEST = 10
"""Effective draws of the last state below which single draws decide a forecast."""


def forecast(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    steps: int,
    num_samples: int = 1000,
    level: float = 0.9,
    inputs: Any = None,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> pd.DataFrame:
    """Return forecasts of the steps that follow each sequence, with an interval for every number.

    The sequences need not be those of the fit. Where the latent is a path of states
    (``MarkovPath``), a particle filter with the guide's steps finds the states at the last step,
    the model's own steps go on from there, and the model draws observations. Other latents are
    drawn from the guide, and the model runs over more steps. Networks run in evaluation mode.

    Args:
        model: The model.
        guide: The guide; ``None`` proposes a path's states from the model's own steps.
        data: N sequences, as ``ppl_vae.sequences`` makes them.
        steps: H, the steps to forecast after the last one of each sequence.
        num_samples: S, draws for each sequence.
        level: Probability of the intervals, between 0 and 1. They are central: below and above lie
            (1 - level) / 2 each.
        inputs: What the model is given at the further steps, (rows, H, columns), where it has
            inputs; a mapping of arrays by field, where it has several. The columns are in the
            order in which ``data`` has them.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        A frame in the data's units, with a line for each row and further step, and columns
        (feature, "mean"), (feature, "lower") and (feature, "upper"). Steps are counted from 0 in
        the sequence, so that the forecasts of a sequence of length 12 begin with step 12. NaN in
        rows on which the pair overflows.

    Raises:
        ValueError: If the data are no sequences; if inputs are missing; if the model observes more
            than one site, reads the values that it is to forecast, or has latents that neither are
            one path nor keep their shape at more steps.

    Warns:
        UserWarning: If the pair overflows on a row that is far from the data. If few of the states
            at the last step of a row count, because the guide proposes states that the data do not
            bear out.

    Example:
        >>> from ppl_vae import sequences
        >>> from ppl_vae.models.state_space import StateSpaceModel
        >>> walks = sequences([torch.zeros(5, 2), torch.zeros(3, 2)])
        >>> frame = forecast(StateSpaceModel(2), None, walks, steps=2, num_samples=50)
        >>> frame.index.tolist(), list(frame[0])
        ([(0, 5), (0, 6), (1, 3), (1, 4)], ['mean', 'lower', 'upper'])
    """
    check_arguments(steps=steps, num_samples=num_samples, seed=seed, progress=progress)
    check_number("level", level, positive=True)
    if level >= 1:
        raise ValueError(f"level: expected a probability between 0 and 1, got {shown(level)}")
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    future = Future.of(pair, rows, steps, inputs)
    kind = StateForecasts if _has_path(pair, rows) else CodeForecasts
    forecasts = kind(pair, rows, future, num_samples)
    forecasts.refuse_readers()

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        assert isinstance(batch, dict)
        effective, draws = forecasts.draws(batch, index)
        summary = torch.stack([_summary(each, level) for each in draws], 1)
        return {"summary": summary, "effective": effective}

    far_rows = FarRows(pair, rows)
    found = collect(
        pair,
        rows,
        far_rows.marked(work),
        seed=seed,
        bar=Bar("forecast", progress),
        size=forecasts.size,
        shared=far_rows.found,
    )
    far_rows.warn("forecast", stacklevel=2, value="forecasts are NaN")
    few = int((found["effective"] < min(FEWEST, num_samples)).sum())
    if few:
        warnings.warn(
            f"forecast: fewer than {FEWEST} draws count for the last state of {few} of {len(rows)} "
            "rows, so that their intervals are not reliable; raise num_samples, or train the guide "
            "further",
            stacklevel=2,
        )
    return _frame(rows, found["summary"].numpy())


class Forecasts:
    """Draws of the observations at the further steps of sequences.

    Args:
        pair: The pair.
        rows: The sequences.
        future: The further steps.
        num_samples: S, draws for each sequence.

    Attributes:
        size: Rows of a block.
    """

    size: int

    def __init__(self, pair: Pair, rows: Rows, future: Future, num_samples: int) -> None:
        self.pair, self.rows, self.future, self.num_samples = pair, rows, future, num_samples

    def draws(
        self, batch: Mapping[str, Tensor], index: Tensor, fill: Tensor | None = None
    ) -> tuple[Tensor, Iterator[Tensor]]:
        """Return draws of the observations at one further step after the other.

        Args:
            batch: The sequences.
            index: Their positions in the data, (rows,).
            fill: What stands in the places of the observations, (rows, features); the last
                observation by default.

        Returns:
            The effective number of draws that the forecasts of each row begin with, (rows,); and,
            for each further step, (samples, rows, features).
        """
        last = batch["lengths"] - 1
        given = batch[VALUES][torch.arange(len(last), device=last.device), last]
        return self._draws(batch, *self.future.after(batch, index, given if fill is None else fill))

    def _draws(
        self, batch: Mapping[str, Tensor], longer: dict[str, Tensor], places: Tensor
    ) -> tuple[Tensor, Iterator[Tensor]]:
        """Return what ``draws`` does, for sequences with the further steps at some places."""
        raise NotImplementedError

    def refuse_readers(self) -> None:
        """Raise ``ValueError`` if the model reads the values that it is to forecast.

        Forecasts of a few rows, with the same random numbers, differ in what stands in the places
        of the values to come: the model may not see the difference.
        """
        with quiet_look(self.pair, self.rows) as batch:
            assert isinstance(batch, dict)
            index = torch.arange(len(batch[VALUES]))
            other = batch[VALUES][:, 0].roll(1, 0)
            found = []
            for fill in (None, other, (1 - other).abs()):  # a single row may equal its own first
                with forked(0):
                    found.append(torch.stack(list(self.draws(batch, index, fill)[1])))
        first, *others = (each.nan_to_num(0.0) for each in found)
        if not all(torch.equal(first, each) for each in others):
            raise ValueError(
                "model: expected one whose observations depend on latents and inputs alone, got "
                "draws that change with the values at the steps to forecast; a model that reads "
                "earlier observations has to be run step by step, by its own code"
            )


class StateForecasts(Forecasts):
    """Forecasts where the latent is a path of states; arguments as ``Forecasts``."""

    def __init__(self, pair: Pair, rows: Rows, future: Future, num_samples: int) -> None:
        super().__init__(pair, rows, future, num_samples)
        self.paths = StatePaths.of(pair, rows, "forecast")
        self.size = rows_of_filter(rows, self.paths.steps, num_samples)

    def _draws(
        self, batch: Mapping[str, Tensor], longer: dict[str, Tensor], places: Tensor
    ) -> tuple[Tensor, Iterator[Tensor]]:
        """Return what ``draws`` does, from the states at the last steps."""
        paths = self.paths.on(dict(batch))
        found = filtered(paths, 1, self.num_samples)
        drawn = systematic(found.log_weights)
        drawn = drawn.reshape(*drawn.shape, *(1 for _ in found.states.shape[3:]))
        states = found.states.take_along_dim(drawn, 1)[0]
        return found.ess[-1, 0], self._after(paths, states, longer, places)

    def _after(
        self, paths: PathsOfRows, states: Tensor, longer: dict[str, Tensor], places: Tensor
    ) -> Iterator[Tensor]:
        """Yield draws of the observations at the further steps.

        Args:
            paths: The rows.
            states: At the last step of each, (samples, rows, *event).
            longer: The sequences with the further steps.
            places: Where these stand, (rows, steps).
        """
        path = paths.model
        if path.inputs is not None:  # the model makes the steps' inputs from the data's
            path = _path_of(simulate(self.pair, longer, Substitute({})), self.paths.site)
        total = longer[VALUES].shape[1]
        for place in places.T:
            fn = path.following(states, place)
            states = fn.expand(states.shape[:2]).sample()
            one = one_step(longer, total, place)
            trace, _ = paths.run_model(one, states, Unobserve())
            (site,) = data_sites(trace).values()
            values = samples_first(site["value"], site, self.paths.runs.dim)
            yield values.expand(self.num_samples, *values.shape[1:]).flatten(2)


class CodeForecasts(Forecasts):
    """Forecasts where latents keep their shape at more steps; arguments as ``Forecasts``."""

    def __init__(self, pair: Pair, rows: Rows, future: Future, num_samples: int) -> None:
        super().__init__(pair, rows, future, num_samples)
        self.latents = LatentDraws(pair, rows)
        for name in self.latents.from_prior:
            raise ValueError(
                f'site "{name}": expected a guide that draws it from the sequence, got none, so '
                "that the forecast would not depend on the data; fit a guide"
            )
        with quiet_look(pair, rows) as batch:
            assert isinstance(batch, dict)
            self._refuse_steps(batch)
            self.runs = ParticleRuns.probe(pair, batch)
        features = math.prod(rows.fields[rows.names.index(VALUES)].array.shape[2:])
        most = ELEMENTS // (num_samples * future.steps * features)
        copies = min(PARTICLES, num_samples)
        self.size = max(1, min(block_rows(rows, 2 * copies), most))

    def _draws(
        self, batch: Mapping[str, Tensor], longer: dict[str, Tensor], places: Tensor
    ) -> tuple[Tensor, Iterator[Tensor]]:
        """Return what ``draws`` does, from codes of the sequences."""
        row = torch.arange(len(places), device=places.device)[:, None]
        parts: list[Tensor] = []
        count = min(PARTICLES, self.num_samples) if self.runs.vectorized else 1
        for _ in range(math.ceil(self.num_samples / count)):
            (particles,) = self.runs.handlers(count)
            values = self.latents.draw(dict(batch), {}, particles)
            trace = simulate(self.pair, longer, Substitute(values), particles)
            (site,) = data_sites(trace).values()
            drawn = samples_first(site["value"], site, self.runs.dim)
            if drawn.shape[2] != longer[VALUES].shape[1]:
                raise ValueError(
                    f'site "{site["name"]}": expected observations of (rows, steps, ...), with '
                    f"{longer[VALUES].shape[1]} steps, got shape {tuple(drawn.shape[1:])}"
                )
            parts.append(drawn[:, row, places].expand(count, *places.shape, *drawn.shape[3:]))
        together = torch.cat(parts)[: self.num_samples].flatten(3)
        effective = torch.full((len(places),), float(self.num_samples))
        return effective, iter(together.unbind(2))

    def _refuse_steps(self, batch: Mapping[str, Tensor]) -> None:
        """Raise if a latent has another shape at more steps, or is new there: it belongs to steps.

        Args:
            batch: A few sequences.
        """
        rows = len(batch[VALUES])
        longer, _ = self.future.after(batch, torch.arange(rows), batch[VALUES][:, 0])
        shapes = []
        for each in (dict(batch), longer):
            latents = drawn_latents(simulate(self.pair, each, Substitute({})))
            shapes.append({name: site["value"].shape for name, site in latents.items()})
        for name, shape in shapes[1].items():
            if shapes[0].get(name) != shape:
                raise ValueError(
                    f'site "{name}": expected a latent that is the same at more steps, as a code '
                    "of the whole sequence is, got one with steps of its own; write the states as "
                    "one path, a MarkovPath, as models/deep_markov.py does"
                )


def _has_path(pair: Pair, rows: Rows) -> bool:
    """Return whether a latent of the model is a path; refuse other than one observed site."""
    with quiet_look(pair, rows) as batch:
        trace = simulate(pair, batch, Substitute({}))
    observed = [n for n, s in data_sites(trace).items() if sites.in_plate(s, pair.plate)]
    if len(observed) != 1 or len(data_sites(trace)) != 1:
        raise ValueError(
            f"model: expected one observed site to forecast, in the row plate, got {observed}"
        )
    return any(isinstance(site["fn"], MarkovPath) for site in drawn_latents(trace).values())


def _path_of(trace: Any, site: str) -> MarkovPath:
    """Return the path of a trace."""
    path: MarkovPath = trace.nodes[site]["fn"]
    return path


def _summary(draws: Tensor, level: float) -> Tensor:
    """Return mean and bounds of draws, (rows, statistics, features).

    The bounds are drawn values, the outer ones where the quantile lies between two, so that an
    interval of counts holds at least its probability.

    Args:
        draws: (samples, rows, features).
        level: Probability between the bounds.
    """
    draws = draws.to("cpu", torch.double)
    ordered, last = draws.sort(0).values, len(draws) - 1
    lower = math.floor((1 - level) / 2 * last)
    return torch.stack([draws.mean(0), ordered[lower], ordered[last - lower]], 1)


def _frame(rows: Rows, found: np.ndarray) -> pd.DataFrame:
    """Return forecasts, (rows, steps, statistics, features), as a frame."""
    count, steps, _, features = found.shape
    x = rows.fields[rows.names.index(VALUES)]
    names = list(x.labels) if isinstance(x.labels, pd.Index) and len(x.labels) == features else None
    columns = pd.MultiIndex.from_product(
        [names or range(features), STATISTICS], names=["feature", "statistic"]
    )
    lengths = sequence_lengths(rows, steps).numpy()
    index = step_index(rows.index, np.full(count, steps), lengths)
    flat = found.transpose(0, 1, 3, 2).reshape(count * steps, features * len(STATISTICS))
    return pd.DataFrame(flat, index=index, columns=columns)
