"""Pairs whose one latent is a path of states, taken apart into its steps.

    log p(x, z) = sum over t of log p(z_t given z_(t-1)) + log p(x_t given z_t)
    log q(z)    = sum over t of log q(z_t given z_(t-1))                          in nats

A model scores a whole path at once. A particle filter needs the terms of one step at a time, for
states that are known only when the filter has come to that step. The steps of the latent are those
of ``MarkovPath``. The observations at step t are scored by the model itself, on data cut to that
step, with a path of one state. That is right only where the observations at a step depend on the
state and on the data's given fields at that step alone: a decoder that reads earlier observations,
or that carries a state of its own along, gives other numbers on cut data. So the terms are
compared: the pair draws a path for every row, and the sum over its steps has to be what the pair
gives for the whole path (``check_sums``). A term that depended on other states, or on what was cut
off, would make a difference for almost every drawn path.

Source: Doucet & Johansen (2011), A tutorial on particle filtering and smoothing, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pyro import poutine
from pyro.distributions import TransformedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.handlers import Particles, Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows
from ppl_vae.distributions import MarkovPath
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.particles import ParticleRuns

RELATIVE, ABSOLUTE = 1e-4, 1e-3
"""How far the sum of a path's steps may lie from the whole: relative to the terms' sizes; nats."""

MEND = (
    "write the states of a sequence as one path, as models/deep_markov.py does, or score whole "
    'rows: log_likelihood(..., method="importance")'
)


@dataclass(frozen=True)
class StepTerms:
    """Sums of a path's terms over its steps, and the same for the whole path: (rows,), in nats.

    Attributes:
        observations: log p(x given z).
        prior: log p(z).
        proposal: log q(z).
    """

    observations: Tensor
    prior: Tensor
    proposal: Tensor


class StatePaths:
    """A pair with one latent, a ``MarkovPath`` in the row plate of the model and of the guide.

    Args:
        pair: The pair. Without a guide the model's own steps propose the states.
        batch: A few rows. Call the constructor inside ``Pair.quiet_run``.
        who: What needs such a pair, for messages.

    Attributes:
        pair: The pair.
        site: Name of the latent.
        steps: Steps of the padded data.
        runs: Where the particles' dimension stands.

    Raises:
        ValueError: If the pair has other latents, or a path that is no ``MarkovPath``, or networks
            that do not act on the last dimensions alone.
    """

    def __init__(self, pair: Pair, batch: Batch, who: str) -> None:
        self.pair, self.who = pair, who
        model_trace, guide_trace = sites.traces(pair, batch)
        self.site = self._only_path(model_trace, "model")
        site: sites.Site = model_trace.nodes[self.site]
        self.steps: int = site["fn"].steps
        if sites.sample_sites(guide_trace) and self._only_path(guide_trace, "guide") != self.site:
            raise ValueError(
                f'site "{self.site}": expected a path of this name in the guide, got '
                f'"{self._only_path(guide_trace, "guide")}"; give both the same name'
            )
        self.runs = ParticleRuns.probe(pair, batch)
        if not self.runs.vectorized:
            raise ValueError(
                f"{who}: expected networks that act on the last dimensions alone, so that many "
                "particles are scored in one run, got others (batch normalization, convolutions, "
                "a view); wrap them in ppl_vae.nn.AnyBatch"
            )

    @classmethod
    def of(cls, pair: Pair, rows: Rows, who: str) -> StatePaths:
        """Return the paths of a pair, from a look at a few rows."""
        with quiet_look(pair, rows) as few_rows:
            return cls(pair, few_rows, who)

    def on(self, batch: Batch) -> PathsOfRows:
        """Run the pair on rows and return their paths."""
        model_trace, guide_trace = sites.traces(self.pair, batch)
        return PathsOfRows(self, batch, model_trace, guide_trace)

    def _only_path(self, trace: Trace, half: str) -> str:
        """Return the name of the one latent of a half, a path of states.

        Raises:
            ValueError: If it is not alone, or not a ``MarkovPath`` in the row plate.
        """
        drawn = sites.with_role(trace, "latent", "auxiliary")
        listed = ", ".join(f'"{name}"' for name in drawn) or "none"
        if len(drawn) != 1:
            raise ValueError(
                f"{half}: expected one latent for {self.who}, a MarkovPath, got {listed}; {MEND}"
            )
        ((name, site),) = drawn.items()
        plates = [frame.name for frame in site["cond_indep_stack"]]
        if isinstance(site["fn"], TransformedDistribution):
            raise ValueError(
                f'site "{name}": expected a MarkovPath for {self.who}, drawn step by step, got one '
                f"that is bent as a whole in the {half}; fit the pair with a guide whose steps are "
                "distributions, as SmoothingGuide without flows= has them"
            )
        if not isinstance(site["fn"], MarkovPath) or site["mask"] is not None:
            raise ValueError(
                f'site "{name}": expected a MarkovPath without a mask in the {half} for '
                f"{self.who}, got {type(site['fn']).__name__}; {MEND}"
            )
        if plates != [self.pair.plate]:
            raise ValueError(
                f'site "{name}": expected a path in the row plate "{self.pair.plate}" alone, got '
                f"plates {plates} in the {half}"
            )
        return name


class PathsOfRows:
    """The paths of a batch of rows: where each step comes from, and what its observations say.

    Args:
        paths: The pair.
        batch: The rows.
        model_trace: Trace of the model on the guide's draws.
        guide_trace: Trace of the guide.

    Attributes:
        model: The model's path.
        guide: The guide's path; the model's, where there is no guide.
        whole: The run of the pair that drew a path for each row.
        drawn: A path that the guide drew for each row, (rows, steps, *event).
        steps: Steps of these padded rows.
        lengths: Steps of each row, (rows,).
        rows: Number of rows.
    """

    def __init__(
        self, paths: StatePaths, batch: Batch, model_trace: Trace, guide_trace: Trace
    ) -> None:
        self.paths, self.batch, self.rows = paths, batch, batch_rows(batch)
        self.whole = Draw(model_trace, guide_trace, paths.pair.plate, None, self.rows)
        model_site: sites.Site = model_trace.nodes[paths.site]
        both: dict[str, sites.Site] = {**model_trace.nodes, **guide_trace.nodes}
        self._guide_site = both[paths.site]
        self.model: MarkovPath = model_site["fn"]
        self.guide: MarkovPath = self._guide_site["fn"]
        self.drawn: Tensor = model_site["value"]
        self.steps: int = self.model.steps
        lengths = self.model.lengths
        if lengths is None:
            lengths = torch.full((self.rows,), self.steps, device=self.drawn.device)
        self.lengths: Tensor = lengths.expand(self.rows)

    def whole_terms(self) -> StepTerms:
        """Return the terms of the drawn paths as the pair itself gives them."""
        return StepTerms(
            self.whole.log_likelihoods()[0].expand(self.rows),
            self.whole.log_prob_of(self.whole.model_trace.nodes[self.paths.site])[0],
            self.whole.log_prob_of(self._guide_site)[0],
        )

    def at_step(self, t: int) -> Batch:
        """Return the rows cut to step t, from 0; those that have ended, to their last step."""
        place = torch.minimum(self.lengths - 1, torch.full_like(self.lengths, t))
        return one_step(self.batch, self.steps, place)

    def run_model(
        self, batch: Batch, states: Tensor, handler: Messenger | None = None
    ) -> tuple[Trace, Draw]:
        """Run the model on rows cut to one step, with states for it.

        Args:
            batch: The rows, of one step.
            states: (particles, rows, *event).
            handler: Acts on the model's sites.
        """
        pair, runs = self.paths.pair, self.paths.runs
        particles, inner = len(states), (1,) * (runs.nesting - 1)
        path = states.reshape(particles, *inner, self.rows, 1, *states.shape[2:])
        assert runs.dim is not None
        with handler or Messenger(), Substitute({self.paths.site: path}):
            model = Particles(particles, runs.dim)(pair.model)
            trace = poutine.trace(model).get_trace(batch)
        return trace, Draw(trace, Trace(), pair.plate, runs.dim, self.rows)

    def log_likelihoods(self, t: int, states: Tensor) -> Tensor:
        """Return log p(x_t given z_t), (particles, rows), in nats; of the last step after an end.

        Args:
            t: The step, from 0.
            states: z_t, (particles, rows, *event).
        """
        _, draw = self.run_model(self.at_step(t), states)
        return draw.log_likelihoods().expand(len(states), self.rows)


def one_step(batch: Batch, steps: int, place: Tensor) -> Batch:
    """Return rows cut to one of their steps: every field of as many steps, and lengths of 1.

    Args:
        batch: The rows.
        steps: Steps of the padded data.
        place: The step of each row, from 0, (rows,).

    Example:
        >>> batch = {"x": torch.arange(6.0).reshape(2, 3), "lengths": torch.tensor([3, 2])}
        >>> cut = one_step(batch, 3, torch.tensor([2, 0]))
        >>> cut["x"].tolist(), cut["lengths"].tolist()
        ([[2.0], [3.0]], [1, 1])
    """
    names = list(batch) if isinstance(batch, dict) else [""] * len(batch)
    row = torch.arange(len(place), device=place.device)
    cut = [
        field[row, place].unsqueeze(1)
        if field.ndim > 1 and field.shape[1] == steps
        else torch.ones_like(field)
        if name == "lengths"
        else field
        for name, field in zip(names, as_tuple(batch), strict=True)
    ]
    return dict(zip(names, cut, strict=True)) if isinstance(batch, dict) else tuple(cut)


def check_sums(steps: StepTerms, whole: StepTerms, sizes: Tensor, site: str) -> None:
    """Raise where the terms of paths, summed over their steps, are not those of whole paths.

    Args:
        steps: Sums over the steps.
        whole: The terms of whole paths.
        sizes: Sums of the terms' absolute values, (rows,), on whose scale sums are rounded.
        site: Name of the latent.

    Raises:
        ValueError: With the first row and the difference.
    """
    faults: Mapping[str, str] = {
        "observations": "observations at each step that depend on the state, and on the given "
        "fields, of that step alone, so that they can be scored one step at a time",
        "prior": f'a path "{site}" of the model that is the product of its steps',
        "proposal": f'a path "{site}" of the guide that is the product of its steps, over the '
        "same lengths as the model's",
    }
    for name, expected in faults.items():
        one, other = getattr(steps, name).double(), getattr(whole, name).double()
        close = (one - other).abs() <= ABSOLUTE + RELATIVE * sizes
        wrong = ~(close | (one == other) | (one.isnan() & other.isnan()))
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"model: expected {expected}, got {float(one[row]):.6g} nats from the steps of a "
                f"path and {float(other[row]):.6g} from the path as a whole; score whole rows: "
                'log_likelihood(..., method="importance")'
            )
