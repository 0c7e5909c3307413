"""Does the model make data like the observed ones? Statistics of the data beside replicates.

    T(x)      beside      T(x_s),      x_s ~ p(x given z_s),   z_s ~ q(z given x) or p(z)

x: the data, (rows, ...); x_s: replicate s of S, a data set of the same size that the model made.

A statistic T of the data that lies outside the values of the replicates is a fault of the model
(or, with draws from the guide, of the guide). A statistic inside proves nothing: with the guide,
the latents z_s were drawn from the very rows that are checked.

Sources: Rubin (1984), section 5; Gelman, Meng & Stern (1996), sections 2 and 3; Bayarri & Berger
(2000), P values for composite null models (why posterior predictive p-values are conservative).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from ppl_vae.arguments import check_arguments, check_memory
from ppl_vae.bars import Bar
from ppl_vae.checks import covariates
from ppl_vae.checks.layouts import layouts_of
from ppl_vae.checks.observed_and_replicated import ReplicateComparison
from ppl_vae.checks.pit import coverage
from ppl_vae.checks.site_pairs import GROUP_MEAN, names_across
from ppl_vae.checks.statistics import ValueKind
from ppl_vae.checks.step_statistics import names_of
from ppl_vae.checks.tables import LEVEL, CheckTables, features_in, of_worst_steps
from ppl_vae.checks.user_statistics import requested_statistics
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.world import world
from ppl_vae.data.rows import Data
from ppl_vae.elbo.points import points_given
from ppl_vae.predictive.factors import sites_masked_by_draws
from ppl_vae.predictive.replicates import ReplicateSampler
from ppl_vae.verdicts import Block, Line, Table, Tone, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_REPLICATES = 19  # with fewer, no p-value is as small as LEVEL: the least is 1 / (S + 1)
WORST_FEATURE_NOTE = (
    "Each line is of the worst feature of its statistic; lower and upper are of that feature "
    "alone: the worst of many features may lie outside by chance."
)
GROUP_NOTE = (
    "A group mean is the mean of a number in the rows of a category, in standard deviations from "
    "its mean in all rows."
)
GUIDE_NOTE = (
    "Latents were drawn given these very rows, also where the pair was not fitted to them: a "
    "statistic that is not flagged may still be wrong."
)


@dataclass(frozen=True)
@verdict
class PredictiveCheck:
    """Statistics of the data beside statistics of replicates, and which of them are flagged.

    Print the check, call ``plot``, or read the frames.

    Attributes:
        frame: One row for each site and statistic; flagged rows first, and the farthest out ahead.
            Index ``site, statistic``; the site is ``"(own)"`` for a user's statistic, and
            ``"(across sites)"`` for pairs of columns of different sites. A statistic that is NaN
            for the data (the sd of one row) is left out. Columns:

            - ``feature``: the worst feature, whose observed value is farthest from the median of
              its replicates (in root mean square distances on that side of the median);
            - ``observed``, ``mean``, ``lower``, ``upper``: the worst feature's value in the data,
              and the mean and the central 90 % of its replicates, in units of the statistic;
            - ``p_value``: share of replicates whose own worst value lies as far out, the data
              counted as one of them; never below 1 / (num_samples + 1);
            - ``p_error``: Monte Carlo standard error of ``p_value``;
            - ``p_adjusted``: share of replicates of which any statistic lies as far out;
            - ``flagged``: whether ``p_adjusted`` is at most 0.05.
        features: Every feature, category or pair by itself. Index ``site, statistic, feature``;
            columns ``observed, mean, lower, upper, p_value``.
        coverage: How often observed cells lie in central intervals of their own replicates. Index
            ``site, feature``; columns ``cells``, ``50 %``, ``90 %`` (shares of cells).
        pit: PIT of each observed cell among its own replicates, from 0 to 1, random within ties:
            ``{site: (rows, features)}``, NaN in masked cells; of sequences, here and below, the
            rows are the steps of the first one, padded, then those of the next. PITs of steps that
            depend on one another scatter more than independent ones. With the guide, PITs of a
            perfect model are closer to 0.5 than uniform ones, because the latents were drawn from
            the row itself. Sites of categories, which have no order, are in neither ``pit`` nor
            ``coverage``.
        replicated: Each statistic of the replicates, of its worst feature:
            ``{(site, statistic): (num_samples,)}``, arrays.
        sample: Some rows of the data and of at most 20 replicates, evenly spaced: ``{site:
            (observed, replicated)}``, (some rows, features) and (replicates, some rows,
            features); NaN in masked cells, 0, 1, ... for categories. ``values`` has all rows of
            the features that are flagged.
        flagged_values: The features of flagged statistics in all rows, ``{(site, feature):
            (observed, replicated)}``, (rows,) and (replicates, rows), for ``values``.
        features_of: Names of each site's features, in the order of ``sample`` and ``pit``.
        discrete: Sites whose values are counts or categories.
        rows: Number of rows of the data.
        num_samples: Number of replicates.
        prior: Whether latents were drawn from the prior.
        factors: Sites whose replicates do not follow a ``pyro.factor`` of the model, so that even a
            perfect model may be flagged: ``{site: names of the factors}``; empty without factors.
        masked_by_draws: Sites whose mask depends on what replicates draw; likewise.
        left_out: Number of rows that the check leaves out, because the networks overflow on them.
        points: Latents that the guide gives as a point: replicates lack their spread, so that even
            a perfect model may be flagged.
        steps: Sites of sequences, with the number of steps inside all of them.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.plots import density_overlay
        >>> x = (torch.rand(50, 4) > 0.5).float()
        >>> check = predictive_check(BernoulliModel(4), None, x, num_samples=20)
        >>> print(check.headline[0])
        prior predictive check: 50 rows, 20 replicates
        >>> len(check.lines), len(check.notes), check.features_of["x"], check.pit["x"].shape
        (2, 1, ['0', '1', '2', '3'], (50, 4))
        >>> observed, replicated = check.values("x", "3")  # for a figure of one feature
        >>> ax = density_overlay(observed, replicated, discrete="x" in check.discrete)
        >>> print(check.plot().get_xlabel()[:45])  # the figure of all statistics
        distance from the middle of the 90 % interval
    """

    frame: pd.DataFrame
    features: pd.DataFrame
    coverage: pd.DataFrame
    pit: dict[str, Any] = field(repr=False)
    replicated: dict[tuple[str, str], Any] = field(repr=False)
    sample: dict[str, tuple[Any, Any]] = field(repr=False)
    flagged_values: dict[tuple[str, str], tuple[Any, Any]] = field(repr=False)
    features_of: dict[str, list[str]] = field(repr=False)
    discrete: list[str]
    rows: int
    num_samples: int
    prior: bool
    factors: dict[str, list[str]] = field(default_factory=dict)
    masked_by_draws: list[str] = field(default_factory=list)
    left_out: int = 0
    points: list[str] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw where every observed statistic lies among its replicates; return the axes."""
        from ppl_vae.plots.verdict import check_summary  # noqa: PLC0415  matplotlib loads slowly

        return check_summary(self.frame, ax=ax)

    def values(self, site: str, feature: str) -> tuple[Any, Any]:
        """Return the values of one feature in the data and in at most 20 replicates, for a figure.

        Args:
            site: The observed site.
            feature: Name of the feature, one of ``features_of[site]``.

        Returns:
            Arrays (rows,) and (replicates, rows), NaN in masked cells: all rows for a feature of a
            flagged statistic, else the rows of ``sample``.

        Raises:
            ValueError: If the check has no such site or feature.
        """
        names = self.features_of.get(site, [])
        if feature not in names:
            raise ValueError(f"feature: expected one of {names} of site {site!r}, got {feature!r}")
        if (site, feature) in self.flagged_values:
            return self.flagged_values[site, feature]
        observed, replicated = self.sample[site]
        position = names.index(feature)
        return observed[:, position], replicated[:, :, position]

    @property
    def headline(self) -> list[str]:
        """Lines of text: what was checked, how many statistics are flagged, what flags mean."""
        latents = "prior predictive" if self.prior else "posterior predictive"
        counted = f"{self.rows} rows"
        if self.steps:
            counted = f"{self.rows} sequences of {max(self.steps.values())} steps together"
        title = f"{latents} check: {counted}, {self.num_samples} replicates"
        if self.left_out:
            rows = "1 row" if self.left_out == 1 else f"{self.left_out} rows"
            title += f"; {rows} left out, on which the networks overflow"
        if self.num_samples < MIN_REPLICATES:
            return [title, f"nothing can be flagged with fewer than {MIN_REPLICATES} replicates"]
        verdict = f"{int(self.frame['flagged'].sum())} of {len(self.frame)} statistics flagged"
        if not self.points:
            chance = f"{LEVEL:.0%}{'' if self.prior else ' or less'}"
            verdict += (
                f" (a model that made these data would have any flagged with a chance of {chance})"
            )
        return [title, verdict, *self.caveats]

    @property
    def notes(self) -> list[str]:
        """Lines of text that a reader of the frame should know."""
        chains = [
            f"{chain}_0 to {chain}_{steps - 1} are the steps of a chain: a line here is of the "
            "worst step; the frame has them all."
            for chain, steps in of_worst_steps(self.frame)[1].items()
        ]
        groups = [GROUP_NOTE] if GROUP_MEAN in self.frame.index.unique("statistic") else []
        return [WORST_FEATURE_NOTE, *groups, *chains, *([] if self.prior else [GUIDE_NOTE])]

    @property
    def lines(self) -> pd.DataFrame:
        """Lines of the frame to read: a chain has one for each statistic, of its worst step."""
        return of_worst_steps(self.frame)[0]

    @property
    def caveats(self) -> list[str]:
        """Lines of text that say why a flag may be no fault of the model."""
        return [*self.factor_notes, *self.point_notes]

    @property
    def point_notes(self) -> list[str]:
        """A line of text for each latent that the guide gives as a point."""
        return [
            f'site "{site}" is a point of the guide: a flag may be the fault of the guide, because '
            "replicates lack the spread of the latent; fit a guide that draws it, or check the "
            "model alone, with guide=None"
            for site in self.points
        ]

    @property
    def factor_notes(self) -> list[str]:
        """A line of text for each site whose flags are no findings, and why."""
        return [
            f'site "{site}": a flag is no finding, because replicates do not follow the factor '
            f"{', '.join(names)} of the model (a censored value is drawn as if it were observed)"
            for site, names in self.factors.items()
        ] + [
            f'site "{site}": a flag is no finding, because its mask depends on values that each '
            "replicate draws anew; put both parts into one distribution, such as "
            "dist.ZeroInflatedDistribution"
            for site in self.masked_by_draws
        ]

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        title, found, *caveats = self.headline
        nothing_to_find = self.num_samples < MIN_REPLICATES
        tone: Tone = "warning" if self.frame["flagged"].any() or nothing_to_find else "good"
        head = [Line(title, "title"), Line(found, tone), *(Line(c, "warning") for c in caveats)]
        return [head, _table(self.lines), [Line(note, "note") for note in self.notes]]


def predictive_check(
    model: Model,
    guide: Guide | None,
    data: Data,
    *,
    statistics: Any = None,
    num_samples: int = 200,
    seed: int | None = 0,
    sites: Any = None,
    progress: bool | None = None,
    plate: str = "data",
) -> PredictiveCheck:
    """Compare statistics of the data with statistics of replicated data sets.

    With a guide, replicates are made from latents that the guide draws for the rows themselves
    (posterior predictive). On rows that the pair was fitted to, this asks whether the model can
    describe them; on held-out rows, also whether the model does so for new rows, because the guide
    is amortized and nothing is fitted again. In both cases the guide is given the row that is
    compared. Therefore p-values are conservative even for a perfect model: they gather around 0.5
    and are rarely small (for a mean, below 0.05 in 0.5 % of perfect cases). So a flag is a
    finding, and no flag is no proof.

    Without a guide, replicates are whole data sets from the model alone (prior predictive). Their
    p-values are exact, and they also show faults in how latents are distributed.

    A ``pyro.factor`` of the model (as for censored values: a mask, and the log-probability of the
    censoring as a factor) cannot be drawn from. Replicates of a site whose data the factor reads
    do not follow it; with latents from the prior, no site's replicates do. The verdict names these
    sites, and ``PredictiveCheck.factors`` has them.

    A guide that gives latents as points, as an autoencoder's does, leaves their spread out of the
    replicates: even a perfect model may be flagged. ``PredictiveCheck.points`` has these latents.

    The built-in statistics of a site depend on the kind of its values
    (``ppl_vae.checks.statistics``). Those of sequences (``ppl_vae.sequences``) are taken over all
    steps inside them, and what a step says of a later one is compared as well: autocorrelations,
    transitions between 0 and 1, the length of runs (``ppl_vae.checks.step_statistics``). Where the
    model reads columns that it does not observe, such as the inputs of a regression, a site's
    correlation with each of them is a statistic as well (``ppl_vae.checks.covariates``). Where a
    model observes several sites, such as one for each kind of columns of a table, columns of
    different sites are compared pair by pair: correlations of numbers, means of a number in the
    rows of a category, co-occurrence of categories (``ppl_vae.checks.site_pairs``). A statistic has
    a value for each feature or pair of features. A row of the frame is of the worst feature, which
    is chosen anew in every replicate. Flags hold for all rows of the frame together. Memory does
    not grow with ``num_samples``, apart from the statistics themselves; one replicate takes as much
    memory as the data, sparse data as dense ones: pass a part of the rows where they are many.

    Args:
        model: The model.
        guide: The guide; ``None`` draws latents from the prior.
        data: N rows, in any form that ``fit`` takes.
        statistics: A name, a function, or a list or mapping of names and functions. ``"built-in"``
            stands for all built-in statistics, the default. A function ``T(x)`` returns a number
            or (values,) of a whole data set; ``x`` is (rows, ...) where the model observes one
            site, else ``{site: (rows, ...)}``; masked cells are NaN. A function ``T(x, latents)``
            of two arguments is a discrepancy; ``latents`` is ``{site: (rows, ...)}`` of one draw.
            It reads latents drawn given the rows, so that it needs a guide that draws them.
            T of the data is compared with T of the replicate draw by draw: ``observed`` is the
            mean of the former over draws, and the replicates are that mean plus the differences.
        num_samples: S, the number of replicates; with fewer than 19 nothing can be flagged.
        seed: Seeds the draws; the generators are restored afterwards. ``None`` uses the global
            generators.
        sites: Name or names of the observed sites to check; all by default.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        The statistics and the flags; print them, plot them, or read the frames.

    Raises:
        ValueError: If nothing is observed in the row plate, an unmasked cell is NaN or
            infinite, a statistic or a site is unknown, a function raises or does not always
            return the same number of values, or a discrepancy reads latents from the prior.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = (torch.rand(50, 4) > 0.5).float()
        >>> check = predictive_check(BernoulliModel(4), NormalGuide(4), x, num_samples=20)
        >>> sorted(check.frame.loc["x"].index)
        ['co-occurrence', 'rate']
    """
    check_arguments(num_samples=num_samples, seed=seed, progress=progress)
    seed = world().seed(seed, "predictive_check")
    mend = "draw fewer replicates"
    check_memory("num_samples", num_samples, 8 * num_samples, mend)  # one statistic at least
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    sampler = ReplicateSampler(pair, rows, num_samples, seed=seed, prior=guide is None, names=sites)
    layouts = layouts_of(sampler)
    kinds = {name: ValueKind.of(fn) for name, fn in sampler.distributions.items()}
    known = {covariates.NAME}
    known |= names_across(kind for name, kind in kinds.items() if layouts[name].inside is None)
    for name, layout in layouts.items():
        kind = kinds[name]
        known |= {*kind.names, *(names_of(kind.name) if layout.inside is not None else ())}
    comparison = ReplicateComparison(sampler, *requested_statistics(statistics, known))
    comparison.add_all(Bar("predictive check", progress), world())
    sampler.far_rows.warn("predictive_check", stacklevel=2)
    return _check_of(comparison, [] if guide is None else points_given(pair, rows))


def _check_of(comparison: ReplicateComparison, points: list[str]) -> PredictiveCheck:
    """Return the check, once all replicates were added to the comparison.

    Args:
        comparison: The comparison of the data with the replicates.
        points: Latents that the guide gives as a point.
    """
    sampler, features, pit = comparison.sampler, comparison.features, comparison.pit.values()
    covered = {name: coverage(u, features[name]) for name, u in pit.items()}
    tables = CheckTables.of(comparison)
    return PredictiveCheck(
        frame=tables.frame, features=tables.features,
        coverage=pd.concat(covered, names=["site"]) if covered else pd.DataFrame(),
        pit=pit, replicated=tables.replicated, sample=comparison.sample(),
        flagged_values=_flagged_values(comparison, tables.frame),
        features_of=features,
        discrete=[name for name, kind in comparison.kinds.items() if kind.name != "real"],
        rows=len(sampler.rows), num_samples=sampler.num_samples, prior=sampler.prior,
        factors={name: sampler.factors[name] for name in features if name in sampler.factors},
        masked_by_draws=sites_masked_by_draws(sampler.pair, sampler.rows, list(features)),
        left_out=int(sampler.far_rows.found.sum()), points=points,
        steps={
            name: int(layout.inside.sum())
            for name, layout in comparison.layouts.items() if layout.inside is not None
        },
    )  # fmt: skip


def _flagged_values(
    comparison: ReplicateComparison, frame: pd.DataFrame
) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Return the features of flagged statistics in all rows, ``{(site, feature): (data, ...)}``."""
    values = {}
    flagged = frame[frame["flagged"]].reset_index()
    for site, title in zip(flagged["site"], flagged["feature"], strict=True):
        names = comparison.features.get(site, [])
        for feature in features_in(title, names):
            observed, replicated = comparison.values_of(site, [names.index(feature)])
            values[site, feature] = observed[:, 0], replicated[:, :, 0]
    return values


def _table(frame: pd.DataFrame) -> Table:
    """Return the table to read: numbers with four digits, flags as words."""
    shown = frame.reset_index().drop(columns="p_error")
    shown["flagged"] = shown["flagged"].map({True: "FLAGGED", False: ""})
    formats = {"p_value": ".3f", "p_adjusted": ".3f"}
    return Table(shown, formats, marked=frame["flagged"].tolist(), index=False)
