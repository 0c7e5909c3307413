"""Does the model make data like these? Statistics of the data beside those of replicates.

    T(x)      beside      T(x_s),      x_s ~ p(x given z_s),   z_s ~ q(z given x) or p(z)

A statistic of the data that lies outside what the replicates have is a fault of the model (or,
under the posterior, of the guide). One that lies inside proves nothing: the posterior has seen the
data.

Sources: Rubin (1984), section 5; Gelman, Meng & Stern (1996), sections 2 and 3; Bayarri & Berger
(2000), P values for composite null models (why posterior p-values are conservative).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.checks.comparison import OWN, ReplicateComparison
from ppl_vae.checks.p_values import Verdict, paired_discrepancy, verdicts
from ppl_vae.checks.pit import RunningPIT
from ppl_vae.checks.statistics import ValueKind
from ppl_vae.checks.user_statistics import requested_statistics
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Data, as_rows
from ppl_vae.predictive.replicates import ReplicateSampler

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Function = Callable[..., Any]
LEVEL = 0.05  # chance that a perfect model has any statistic flagged
FEWEST = 19  # replicates below which no p-value is as small
INTERVAL = (0.05, 0.95)
OWN_INTERVALS = (
    "Each line is of its worst feature, lower and upper are that feature's own: the worst of many "
    "may lie outside by chance."
)


@dataclass(frozen=True)
class PredictiveCheck:
    """Observed statistics beside replicated ones.

    Attributes:
        frame: One row a site and statistic, flagged ones first, the farthest out ahead. Index
            ``site, statistic``, the site ``"(own)"`` for statistics of one's own; columns
            ``feature`` (the one farthest from its replicates' median, in their root mean square
            distance on that side), ``observed``, ``mean``, ``lower``, ``upper`` (its value in the
            data; mean and central 90 % of its replicates, in the statistic's units), ``p_value``
            (share of replicates whose own worst value lies as far out, the data counted in: never
            below 1 / (num_samples + 1)), ``p_error`` (its Monte Carlo standard error),
            ``p_adjusted`` (share of replicates any of whose statistics lies as far out) and
            ``flagged`` (``p_adjusted`` of at most 0.05). A statistic that is no number of the data
            (the sd of one row) is left out.
        features: The same for every feature, category or pair by itself: index ``site, statistic,
            feature``; columns ``observed, mean, lower, upper, p_value``.
        coverage: How often observed cells lie in central intervals of their own replicates: index
            ``site, feature``; columns ``cells``, ``50 %``, ``90 %``, shares of cells.
        pit: Where each observed cell lies among its own replicates, as a share, 0 to 1, at random
            within ties: ``{site: (rows, features)}``; NaN under a mask. The guide has seen the
            row, so that even a perfect model's are closer to 0.5 than uniform ones. Sites of
            categories, which have no order, are in neither ``pit`` nor ``coverage``.
        replicated: Each statistic of the replicates, of its worst feature:
            ``{(site, statistic): (num_samples,)}``, arrays.
        sample: Some rows and at most 20 replicates for pictures: ``{site: (observed,
            replicated)}``, (rows, features) and (replicates, rows, features); NaN under a mask,
            codes 0, 1, ... of categories.
        features_of: Names of a site's features, in the order of ``sample`` and ``pit``.
        discrete: Sites whose values are counts or categories.
        rows: Rows of the data.
        num_samples: Replicates.
        prior: Whether latents came from the prior.

    Example:
        Feature ``j`` of site ``"x"`` in the figures of ``ppl_vae.plots``::

            j, pit = check.features_of["x"].index("magnesium"), check.pit["x"]
            seen, made = check.sample["x"]
            density_overlay(seen[:, j], made[:, :, j], discrete="x" in check.discrete)
            pit_histogram(pit[:, j], features=pit.shape[1])
            interval_coverage(pit, names=check.features_of["x"])
            line = check.frame.loc[("x", "skewness")]
            statistic_histogram(line["observed"], check.replicated["x", "skewness"])
    """

    frame: pd.DataFrame
    features: pd.DataFrame
    coverage: pd.DataFrame
    pit: dict[str, Any] = field(repr=False)
    replicated: dict[tuple[str, str], Any] = field(repr=False)
    sample: dict[str, tuple[Any, Any]] = field(repr=False)
    features_of: dict[str, list[str]] = field(repr=False)
    discrete: list[str]
    rows: int
    num_samples: int
    prior: bool

    def plot(self, ax: Axes | None = None) -> Axes:
        """Where every observed statistic lies among its replicates."""
        from ppl_vae.plots.verdict import check_summary  # noqa: PLC0415  matplotlib loads slowly

        return check_summary(self.frame, ax=ax)

    def __str__(self) -> str:
        whose = "prior predictive" if self.prior else "posterior predictive"
        flagged = int(self.frame["flagged"].sum())
        chance = f"a chance of {LEVEL:.0%}{'' if self.prior else ' or less'}"
        told = f"{flagged} of {len(self.frame)} statistics flagged (a model that made these data "
        told += f"would have any flagged with {chance})"
        if self.num_samples < FEWEST:
            told = f"nothing can be flagged with fewer than {FEWEST} replicates"
        title = f"{whose} check: {self.rows} rows, {self.num_samples} replicates"
        lines = [title, told, "", _as_text(self.frame), "", OWN_INTERVALS]
        if not self.prior:
            lines.append("The guide has seen these rows: what is not flagged may still be wrong.")
        return "\n".join(lines)


def predictive_check(
    model: Function,
    guide: Function | None,
    data: Data,
    *,
    statistics: Any = None,
    num_samples: int = 200,
    seed: int | None = 0,
    sites: Any = None,
    progress: bool = False,
    plate: str = "data",
) -> PredictiveCheck:
    """Compare statistics of the data with those of replicated data sets.

    With a guide, replicates are made from the latents of the rows themselves (posterior
    predictive). On rows that the pair was fitted to, this asks whether the model can describe
    them; on rows held out, also whether it does so for new ones: the guide is amortized, nothing is
    fitted again. Either way the guide has seen the row that is compared, and p-values are
    conservative even for a perfect model: they gather around 0.5 and are rarely small (for a mean,
    below 0.05 in 0.5 % of perfect cases). So a flag is a finding; no flag is no proof. Without a
    guide, replicates are whole data sets from the model alone (prior predictive): their p-values
    are exact, and faults of how latents are distributed are seen too.

    Statistics are chosen by what a site's values are (``ppl_vae.statistics``). Each has a value a
    feature or pair of features; the row of the frame is of the worst, which is chosen anew in every
    replicate. Flags hold for all rows of the frame together. Memory does not grow with
    ``num_samples``, apart from the statistics themselves; one replicate is as large as the data.

    Args:
        model: The model.
        guide: The guide; ``None`` draws latents from the prior.
        data: N rows, in any form that ``fit`` takes.
        statistics: Names of built-in ones, functions of one's own, or a list or mapping of both;
            ``"built-in"`` in a list stands for all that are built in, the default. A function
            ``T(x)`` gives a number or (values,) of a whole data set: ``x`` is (rows, ...) where
            the model observes one site, else ``{site: (rows, ...)}``; masked cells are NaN. With
            two arguments, ``T(x, latents)`` is a discrepancy: ``latents`` is ``{site: (rows,
            ...)}`` of the draw, and T of the data is compared with T of the replicate draw by draw:
            ``observed`` is its mean over draws, the replicates are that plus the differences.
        num_samples: S, replicates; below 19 nothing can be flagged.
        seed: Seeds the draws; the generators are restored afterwards.
        sites: Name or names of the observed sites to look at; all by default.
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        The verdict: print it, plot it, or read its frames.

    Raises:
        ValueError: Where nothing is observed in the row plate, a cell that counts is no number, a
            statistic or site is unknown, or a function raises or gives something else than the
            same number of values each time.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = (torch.rand(50, 4) > 0.5).float()
        >>> check = predictive_check(BernoulliModel(4), NormalGuide(4), x, num_samples=20)
        >>> sorted(check.frame.loc["x"].index)
        ['co-occurrence', 'rate']
    """
    pair, rows = Pair.of(model, guide, plate), as_rows(data)
    simulator = ReplicateSampler(
        pair, rows, num_samples, seed=seed, prior=guide is None, names=sites
    )
    kinds = [ValueKind.of(fn) for fn in simulator.distributions.values()]
    built_in, own = requested_statistics(
        statistics, {name for kind in kinds for name in kind.names}
    )
    comparison = ReplicateComparison(simulator, built_in, own)
    for part in simulator.stream("predictive check" if progress else ""):
        comparison.add(part)
    return _verdict(comparison)


def _verdict(comparison: ReplicateComparison) -> PredictiveCheck:
    """The frames, once all replicates are there."""
    found = {key: (torch.cat(a), b) for key, (a, b) in comparison.found.items()}
    found = {
        key: paired_discrepancy(a, b) if len(a) == len(b) > 1 else (a, b)
        for key, (a, b) in found.items()
    }
    found = {key: pair for key, pair in found.items() if not bool(pair[0].isnan().all())}
    grains = [_grain(comparison, *key) for key in found]
    judged = dict(zip(found, verdicts(list(found.values()), grains), strict=True))
    tables = {key: _table(comparison, key, judged[key], *found[key]) for key in found}
    lines = [_line(key, verdict, tables[key]) for key, verdict in judged.items()]
    frame = pd.DataFrame(lines).set_index(["site", "statistic"])
    frame = frame.sort_values(["p_adjusted", "place"], ascending=[True, False], kind="stable")
    pit, features = comparison.transforms.values(), comparison.features
    coverage = {name: RunningPIT.coverage(u, features[name]) for name, u in pit.items()}
    simulator = comparison.simulator
    return PredictiveCheck(
        frame=frame.drop(columns="place"),
        features=pd.concat(tables.values()).sort_index(level=[0, 1], sort_remaining=False),
        coverage=pd.concat(coverage, names=["site"]) if coverage else pd.DataFrame(),
        pit=pit,
        replicated={key: found[key][1][:, judged[key].worst].numpy() for key in found},
        sample=comparison.sample(),
        features_of=features,
        discrete=[name for name, kind in comparison.kinds.items() if kind.name != "real"],
        rows=len(simulator.rows),
        num_samples=simulator.num_samples,
        prior=simulator.prior,
    )


def _grain(comparison: ReplicateComparison, site: str, statistic: str) -> float:
    kind = comparison.kinds.get(site)
    return 0.0 if kind is None else kind.smallest_step(statistic, len(comparison.simulator.rows))


def _table(
    comparison: ReplicateComparison,
    key: tuple[str, str],
    verdict: Verdict,
    seen: Tensor,
    made: Tensor,
) -> pd.DataFrame:
    """One statistic, value by value."""
    site, statistic = key
    if site == OWN:
        count, features = made.shape[1], list(comparison.features.values())
        one_each = len(features) == 1 and len(features[0]) == count > 1
        numbers = [str(i) for i in range(count)] if count > 1 else [""]
        labels = features[0] if one_each else numbers
    else:
        labels = comparison.kinds[site].labels(comparison.features[site])[statistic]
    with warnings.catch_warnings():  # of values that are infinite, or no numbers in any replicate
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = np.nanmean(made.numpy(), axis=0)
        low, high = np.nanquantile(made.numpy(), INTERVAL, axis=0)
    names = ["site", "statistic", "feature"]
    index = pd.MultiIndex.from_product([[site], [statistic], labels], names=names)
    columns = {
        "observed": seen.mean(0).numpy(), "mean": mean, "lower": low,
        "upper": high, "p_value": verdict.each.numpy(),
    }  # fmt: skip
    return pd.DataFrame(columns, index=index)


def _line(key: tuple[str, str], verdict: Verdict, table: pd.DataFrame) -> dict[str, Any]:
    worst = table.iloc[verdict.worst]
    return {
        "site": key[0],
        "statistic": key[1],
        "feature": table.index[verdict.worst][2],
        **{name: worst[name] for name in ("observed", "mean", "lower", "upper")},
        "p_value": verdict.p_value,
        "p_error": verdict.p_error,
        "p_adjusted": verdict.p_adjusted,
        "flagged": verdict.p_adjusted <= LEVEL,
        "place": _place(worst),
    }


def _place(line: pd.Series) -> float:
    """Distance from the middle of the replicates' interval, in half widths of it."""
    away = abs(line["observed"] - (line["lower"] + line["upper"]) / 2)
    half = (line["upper"] - line["lower"]) / 2
    return float(away / half) if half > 0 else math.inf * away if away > 0 else 0.0


def _as_text(frame: pd.DataFrame) -> str:
    """The table as people read it: four digits, flags as words."""
    shown = frame.reset_index()
    shown["flagged"] = shown["flagged"].map({True: "FLAGGED", False: ""})
    numbers = dict.fromkeys(("observed", "mean", "lower", "upper"), "{:.4g}".format)
    shares = dict.fromkeys(("p_value", "p_adjusted"), "{:.3f}".format)
    return shown.drop(columns="p_error").to_string(index=False, formatters={**numbers, **shares})
