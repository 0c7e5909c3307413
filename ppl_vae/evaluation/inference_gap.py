"""How far the guide is from the posterior, row by row, and why: its family, or its network.

    gap            = log p(x) - ELBO            = KL(q(z given x), p(z given x)), in nats
    approximation  = log p(x) - ELBO*           ELBO*: the highest that the guide's family reaches
    amortization   = ELBO* - ELBO               what the network misses of it

ELBO* is found row by row: other arguments of the same distributions, by gradient steps that begin
at the network's answer (``refine(widen=False)``). log p(x) is estimated by importance sampling from
there; rows of which not nearly all draws count are estimated again, from a guide that may leave its
family (``refine``), as the weights of a narrow guide miss a part of p(x) before k-hat is high.
Annealing does without a guide.

Sources: Cremer, Li & Duvenaud (2018), arXiv:1801.03558 (the two parts); Wu et al. (2017),
arXiv:1611.04273 (annealing); Grosse et al. (2015), arXiv:1511.02543 (bounds from both sides).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.arguments import check_arguments, shown
from ppl_vae.bars import Bar
from ppl_vae.core.blocks import block_rows, collect
from ppl_vae.core.far_rows import FarRows
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.row_plate import check_row_plate
from ppl_vae.core.seeding import child
from ppl_vae.data.rows import Batch, Data, Rows
from ppl_vae.elbo.refinement import Refinable
from ppl_vae.evaluation.annealing import CHAINS, AnnealedLikelihood
from ppl_vae.evaluation.best_in_family import (
    BestInFamily,
    best_in_family,
    refined_pair,
    scores_of,
)
from ppl_vae.evaluation.psis import FEWEST, standard_error
from ppl_vae.evaluation.simulated_rows import SimulatedRows, rows_for_a_guide
from ppl_vae.evaluation.summary import (
    MeanOverRows,
    UnreliableWarning,
    unreliable_rows,
)
from ppl_vae.verdicts import Block, Line, Table, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = ("importance", "annealed")
"""How ``inference_gap`` estimates log p(x)."""

SMALL = 0.05
"""Mean gap, in nats a row, that is not worth a change: 5 % of the likelihood."""

CLEAR = 3.0
"""Standard errors from which a mean is not 0."""

SHARE = 2 / 3
"""Share of the gap from which one part of it is called its cause."""

KNOWN = 0.5
"""Least share of rows with a reliable log p(x) for a cause to be named."""

NEARLY_ALL = 0.9
"""Share of the draws that has to count for log p(x) to be estimated within the guide's family."""

DOUBTFUL = 0.3
"""Standard error of an annealed log p(x), in nats, from which the row is not reliable."""

COLUMNS = (
    "log_prob", "log_prob_upper", "elbo", "elbo_refined", "gap", "approximation", "amortization",
    "k_hat",
)  # fmt: skip


@dataclass(frozen=True)
@verdict
class InferenceGap:
    """How far a guide is from the posterior, and why.

    Attributes:
        frame: A line for each row, with the data's index, in nats: ``log_prob``, ``log_prob_upper``
            (an estimate from above, by annealing rows made by the model; else NaN), ``elbo``,
            ``elbo_refined`` (the highest in the guide's family), ``gap``, the sum of the next
            two, ``approximation``, ``amortization``; ``k_hat`` of ``log_prob``, NaN for annealing.
        summary: ``mean`` and ``error``, the standard error of the mean, of each column in nats.
            Rows that are not finite are left out.
        unreliable: Which rows' ``log_prob`` is not to be trusted, (rows,) of bool.
        not_refined: Why a latent was left as the network gave it, or is not at the best of its
            family yet, ``{site: reason}``: what the network misses there is ``approximation``, too.
        method: How log p(x) was estimated.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> pair = BernoulliModel(4), NormalGuide(4)
        >>> gap = inference_gap(*pair, torch.ones(3, 4), steps=20, num_samples=50)
        >>> gap.cause, gap.advice().endswith("."), gap.plot().get_ylabel()
        ('encoder', True, 'nats')
    """

    frame: pd.DataFrame
    summary: pd.DataFrame
    unreliable: np.ndarray = field(repr=False)
    not_refined: Mapping[str, str] = field(repr=False)
    method: str = METHODS[0]

    @property
    def cause(self) -> str:
        """What the gap is due to: ``"family"``, ``"encoder"``, ``"both"``, ``"neither"``.

        ``"neither"``: the mean gap is below 0.05 nats. A part is the cause if it makes two thirds
        of the gap, both are if none does. ``"unknown"``: log p(x) is not reliable in most rows, the
        mean is larger, but within three standard errors of 0, or a latent was not refined.
        """
        (gap, error), (approximation, _) = self._mean("gap"), self._mean("approximation")
        if not np.isfinite(gap) or self.unreliable.mean() > KNOWN:
            return "unknown"
        if gap < SMALL:
            return "neither"
        if gap < CLEAR * error or self.not_refined or not np.isfinite(approximation):
            return "unknown"
        share = approximation / gap
        return "family" if share >= SHARE else "encoder" if share <= 1 - SHARE else "both"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw each row's gap as a bar of its two parts, rows in order; return the axes."""
        from ppl_vae.plots.gaps import gap_bars  # noqa: PLC0415  matplotlib loads slowly

        return gap_bars(self.frame["approximation"], self.frame["amortization"], ax=ax)

    def advice(self) -> str:
        """Return what to do, one sentence for each cause."""
        return {
            "family": (
                "The guide's family is too narrow: give it correlations or a flow "
                "(guides/multivariate_normal.py, guides/flow.py); a larger encoder does not help."
            ),
            "encoder": (
                "The network misses the best answer of its family: enlarge the encoder, train it "
                "longer, or refine the rows that matter with refine(model, guide, data)."
            ),
            "both": (
                "Family and network both lose: give the guide a flow or a full covariance, and "
                "enlarge the encoder; refine(model, guide, data) mends given rows at once."
            ),
            "neither": (
                "The guide is as good as the posterior here: what disappoints is the model; "
                "ask predictive_check(model, guide, data)."
            ),
            "unknown": self._why_unknown(),
        }[self.cause]

    def _mean(self, name: str) -> tuple[float, float]:
        """Return the mean of a column and its standard error, NaN for one row."""
        line = self.summary.loc[name].to_numpy()
        return float(line[0]), float(line[1])

    def _why_unknown(self) -> str:
        """Return why there is no cause, and what to do."""
        gap, error = self._mean("gap")
        if self.unreliable.mean() > KNOWN or not np.isfinite(gap):
            return (
                "The cause is unknown: log p(x) is not reliable in "
                f"{int(self.unreliable.sum())} of {len(self.frame)} rows; take "
                + ('method="annealed", or ' if self.method == METHODS[0] else "")
                + "more num_samples."
            )
        if gap < CLEAR * error:
            return (
                f"The cause is unknown: rows differ so much that their mean gap, {gap:.3g} +- "
                f"{error:.2g} nats, is not clearly above 0; take more rows, or more num_samples."
            )
        if not self.not_refined:
            return "The cause is unknown: the guide draws no latent of the rows to be refined."
        site, reason = next(iter(self.not_refined.items()))
        named = reason if reason.startswith("site") else f'site "{site}": {reason}'
        return f"The cause is unknown: {named}."

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        count = len(self.frame)
        shown_rows = ["log_prob", "elbo", "gap", "approximation", "amortization"]
        if self.frame["log_prob_upper"].notna().any():
            shown_rows.insert(1, "log_prob_upper")
        table = self.summary.loc[shown_rows]
        lines = [Line(self.advice(), "good" if self.cause == "neither" else "warning")]
        if self.cause != "unknown" and self.unreliable.any():
            lines.insert(
                0,
                Line(
                    f"log p(x) is not reliable in {int(self.unreliable.sum())} of {count} rows.",
                    "note",
                ),
            )
        title = f"Inference gap of {count:,} rows, nats a row; cause: {self.cause}"
        return [[Line(title, "title")], Table(table, formats=".4g"), lines]


def inference_gap(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    steps: int = 500,
    num_samples: int = 1000,
    method: str = "importance",
    simulated: bool = False,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> InferenceGap:
    """Return how far the guide is from the posterior in every row, and what that is due to.

    The gap is the divergence of the guide's distribution from the posterior. It has two parts: what
    the best distribution of the guide's family loses (approximation), and what the network loses
    to that best one (amortization). They ask for different mends: a richer family, or a larger
    encoder. The best of the family is found row by row, so that some hundred rows are enough.

    The family is that of the distributions in the guide's sample statements, with all their
    arguments free: the mean and the scale of a normal, the concentration of a Dirichlet, and of a
    flow the normal that it begins at, while its network stays. So does a latent that is summed.

    Args:
        model: The model.
        guide: The guide.
        data: N rows, in any form that ``fit`` takes.
        steps: Steps of Adam for each row towards the best of the family, in two rounds. Where the
            ELBO still rises then, six more rounds follow.
        num_samples: Draws of the latents for each row; for ``"annealed"``, temperatures between
            prior and posterior, at each of which 16 chains make one Hamiltonian move.
        method: ``"importance"``, or ``"annealed"``: slower, and independent of the guide.
        simulated: Whether the rows are first drawn from the model, in the form of ``data`` and with
            its covariates and gaps. Annealing then bounds log p(x) from above, too: how far the
            bounds are apart says how exact ``log_prob`` is.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        The gap of every row, its parts, and a verdict.

    Raises:
        ValueError: If there is no guide, the guide gives a latent of the rows as a point, or a
            latent cannot be annealed (a discrete one that is drawn, one outside the row plate).

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> pair, x = (BernoulliModel(4), NormalGuide(4)), torch.ones(3, 4)
        >>> result = inference_gap(*pair, x, steps=20, num_samples=50)
        >>> len(result.frame), result.cause in ("family", "encoder", "both", "neither", "unknown")
        (3, True)
    """
    check_arguments(
        steps=steps, num_samples=num_samples, simulated=simulated, seed=seed, progress=progress
    )
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method: expected {' or '.join(METHODS)}, got {shown(method)}")
    if guide is None:
        raise ValueError(
            "guide: expected a guide, whose distance from the posterior is asked for, got None"
        )
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    check_row_plate(pair, rows)
    told = Bar("inference gap", progress)
    made = None
    if simulated:
        made = rows_for_a_guide(pair, rows, block_rows(rows, CHAINS), seed=child(seed, 1))
        rows = made.rows
    refinable = Refinable.of(pair, rows, widen=False)
    options: dict[str, Any] = {"compile": "auto", "seed": seed, "progress": progress}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableWarning)  # told of all rows in the end
        scores = scores_of(pair, rows, num_samples, **options)
        best, refined, not_refined = scores, pair, dict(refinable.reasons)
        if refinable.shapes:
            found_best = best_in_family(
                pair, rows, refinable, steps, scores, told, num_samples, options
            )
            best, refined = found_best.scores, found_best.pair
            if found_best.rise:
                not_refined |= {n: _still_rising(n, found_best) for n in refinable.shapes}
        found = pd.DataFrame({"elbo": scores["elbo"]}, index=scores.index)
        found["elbo_refined"] = best["elbo"] if refinable.shapes else np.nan
        if method == METHODS[0]:
            likelihood, unreliable = _importance(
                refined, rows, best, steps, num_samples, told, options
            )
        else:
            likelihood, unreliable = _annealed(pair, rows, num_samples, seed, told, made)
    for name, values in likelihood.items():
        found[name] = values
    found["gap"] = found["log_prob"] - found["elbo"]
    found["approximation"] = found["log_prob"] - found["elbo_refined"]
    found["amortization"] = found["elbo_refined"] - found["elbo"]
    unreliable = unreliable | found["gap"].isna().to_numpy()  # the guide may overflow by itself
    found = found[list(COLUMNS)]
    return InferenceGap(found, _summary(found), unreliable, not_refined, method)


def _still_rising(site: str, best: BestInFamily) -> str:
    """Return why the best of the family is not known at a site."""
    return (
        f'site "{site}": after {best.steps:,} steps the ELBO still rose, by {best.rise:.2g} nats '
        "in the last round, so that the best of the family is not known; take more steps"
    )


def _importance(
    pair: Pair, rows: Rows, scores: pd.DataFrame, steps: int, num_samples: int, bar: Bar,
    options: Mapping[str, Any],
) -> tuple[dict[str, np.ndarray], np.ndarray]:  # fmt: skip
    """Return log p(x) and k-hat of every row, and which rows are not reliable.

    Rows of which not nearly all draws count are estimated once more, from a guide that covers
    their posterior; the estimate of which more draws count is taken.

    Args:
        pair: The model and the best guide of the family.
        rows: The data.
        scores: What ``log_likelihood`` gives with it.
        steps: Steps of Adam towards the covering guide.
        num_samples: Draws for each row.
        bar: The progress bar.
        options: Of ``likelihoods_of_rows``.
    """
    columns = {name: scores[name].to_numpy().copy() for name in ("log_prob", "k_hat")}
    unreliable = unreliable_rows(scores, num_samples)
    doubtful = unreliable | (scores["ess"].to_numpy() < NEARLY_ALL * num_samples)
    places = np.flatnonzero(doubtful & ~np.isnan(columns["log_prob"]))  # NaN: an overflow
    few = rows.subset(torch.as_tensor(places))
    refinable = Refinable.of(pair, few, widen=True) if len(places) else None
    if refinable is not None and refinable.shapes:
        covering = refined_pair(pair, few, refinable, max(1, steps // 2), options["seed"], bar)
        again = scores_of(covering, few, num_samples, **options)
        better = again["ess"].to_numpy() > scores["ess"].to_numpy()[places]
        for name, values in columns.items():
            values[places[better]] = again[name].to_numpy()[better]
        unreliable[places[better]] = unreliable_rows(again, num_samples)[better]
    if num_samples < FEWEST and not scores.attrs["exact"]:
        unreliable[:] = True  # one draw is all there is of its weight: it always counts in full
    upper = np.full(len(scores), np.nan)
    return {**columns, "log_prob_upper": upper}, unreliable


def _annealed(
    pair: Pair, rows: Rows, num_samples: int, seed: int | None, bar: Bar,
    made: SimulatedRows | None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:  # fmt: skip
    """Return log p(x) of every row from below, and from above for rows of the model.

    Args:
        pair: The pair.
        rows: The data.
        num_samples: Temperatures.
        seed: Seeds the draws.
        bar: The progress bar, without a total.
        made: The rows with their latents, where the model has made them.
    """
    annealing = AnnealedLikelihood(pair, rows, num_samples)
    size = min(block_rows(rows, CHAINS), len(rows)) if made is None else made.size
    blocks = -(-len(rows) // size)
    far_rows = FarRows(pair, rows)
    with bar.over(total=blocks * annealing.moves(both=made is not None), unit="move") as told:

        def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
            if made is None:
                return annealing.below(batch, told)
            latents = {n: v[index].to(pair.device()) for n, v in made.latents.items()}
            return annealing.both(batch, latents, told)

        results = collect(pair, rows, far_rows.marked(work), seed=seed, size=size, judge=False)
    far_rows.warn("inference_gap", stacklevel=3)
    ess = results.pop("ess").numpy()
    columns = {name: value.double().numpy() for name, value in results.items()}
    columns.setdefault("log_prob_upper", np.full(len(ess), np.nan))
    columns["k_hat"] = np.full(len(ess), np.nan)
    return columns, ~(standard_error(ess, CHAINS) <= DOUBTFUL)


def _summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each column, and its standard error, over its finite rows."""
    lines = {}
    for name in COLUMNS[:-1]:
        values = frame[name].to_numpy()
        values = values[np.isfinite(values)]
        mean = MeanOverRows.of(values) if len(values) else MeanOverRows(np.nan, np.nan)
        lines[name] = {"mean": mean.mean, "error": mean.standard_error}
    return pd.DataFrame.from_dict(lines, orient="index")
