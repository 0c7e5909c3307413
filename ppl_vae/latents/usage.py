"""Which latents a fitted pair uses: active units, mutual information, KL divergence from the prior.

    activity_i = Var_n[E[z_i given x_n]] / Var[z_i under the prior]       active above 0.01
    KL_i       = mutual information_i + marginal KL_i                     in nats per row

Sources: Burda, Grosse & Salakhutdinov (2016), appendix C, arXiv:1509.00519; Hoffman & Johnson
(2016), ELBO surgery, NIPS workshop on advances in approximate Bayesian inference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import check_arguments
from ppl_vae.bars import Bar
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.seeding import child
from ppl_vae.core.world import world
from ppl_vae.data.rows import Data
from ppl_vae.latents.activity import DRAWS, Activity, active
from ppl_vae.latents.information import Information, RunsOfLatent
from ppl_vae.latents.latent_runs import ChosenRows
from ppl_vae.verdicts import Block, Line, Table, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 2000
"""Most rows that are looked at, as the density of each draw is needed under each of them."""

NEAR_LIMIT = math.log(10)
"""Nats below log(rows) from which a mutual information is at its limit: a tenth or more of the
aggregate posterior at a draw is then the draw's own row, and more rows would give more."""


@dataclass(frozen=True)
@verdict
class LatentUsage:
    """Which latents a pair uses. Print the result, call ``plot``, or read ``frame``.

    Attributes:
        frame: A line for each dimension of each latent of the rows, and, where the dimensions of a
            site are not independent, a line for the site as a whole, whose ``dimension`` is
            missing. Columns: ``site``; ``dimension``, from 0; ``active``, whether ``activity`` is
            above 0.01; ``activity``, the variance of the posterior mean over the rows, as a share
            of the prior's variance (of a site as a whole, the largest of its dimensions); ``kl``,
            ``mutual_information`` and ``marginal_kl``, in nats per row, NaN where not known
            (``notes`` says why); ``error``, the standard error of the mutual information over the
            rows, and of the marginal KL where the KL divergence is in closed form.
        rows: Number of rows that were looked at.
        total: Number of rows of the data.
        outside: Latents that all rows share, which are left out: one draw of them is held.
        notes: What is not known of which site, and why.
        with_gradients: Sites whose draws have gradients, which free bits need.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x, pair = torch.eye(4).repeat(9, 1), (BernoulliModel(4, 2), NormalGuide(4, 2))
        >>> usage = latent_usage(*pair, x)
        >>> len(usage.active) <= 2, usage.collapsed in ([], ["z"]), usage.at_limit.tolist()
        (True, True, [False, False])
        >>> print(usage.plot().get_xlabel().partition(",")[0])
        latents
    """

    frame: pd.DataFrame
    rows: int
    total: int
    outside: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    with_gradients: list[str] = field(default_factory=list)

    @property
    def active(self) -> list[str]:
        """Names of the active dimensions, such as ``z[3]``; ``len`` gives their number."""
        lines = self._dimensions[self._dimensions["active"]]
        return [
            _named(site, dimension)
            for site, dimension in zip(lines["site"], lines["dimension"], strict=True)
        ]

    @property
    def collapsed(self) -> list[str]:
        """Names of the sites of which no dimension is active: their posterior has collapsed."""
        any_active = self._dimensions.groupby("site", sort=False)["active"].any()
        return [str(site) for site in any_active.index[~any_active]]

    @property
    def at_limit(self) -> pd.Series:
        """Whether the mutual information of each line is at its limit, ``log(rows)``."""
        return self.frame["mutual_information"] > math.log(self.rows) - NEAR_LIMIT

    @property
    def _dimensions(self) -> pd.DataFrame:
        """The lines of single dimensions."""
        return self.frame[self.frame["dimension"].notna()]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the KL divergence of each latent and its two parts as bars; return the axes."""
        from ppl_vae.plots.usage import usage_bars  # noqa: PLC0415  loads slowly

        names = [
            _named(site, dimension)
            for site, dimension in zip(self.frame["site"], self.frame["dimension"], strict=True)
        ]
        title = f"What {len(self.active)} active latents tell of the rows"
        return usage_bars(self.frame.set_axis(names), title=title, ax=ax)

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        rows = f"{self.rows} rows"
        if self.rows < self.total:
            rows += f" of {self.total}"
        title = (
            f"latent usage: {len(self.active)} of {len(self._dimensions)} latents active, {rows}"
        )
        shown = self.frame.assign(
            dimension=["all" if d is pd.NA else str(d) for d in self.frame["dimension"]],
            active=np.where(self.frame["active"], "yes", "no"),
        )
        cautions = []
        if self.at_limit.any():
            cautions.append(
                f"mutual information at its limit in {int(self.at_limit.sum())} lines: near "
                f"log({self.rows}) = {math.log(self.rows):.2f}, more rows would give more of it, "
                "and less marginal KL"
            )
        if self.outside:
            cautions.append(f"left out, as all rows share them: {', '.join(self.outside)}")
        marked = [not each for each in self.frame["active"]]
        return [
            [Line(title, "title")],
            Table(shown, ".3f", "nats per row", marked, index=False, missing="-"),
            *([Line(caution, "note")] for caution in [*cautions, *self.notes]),
            [self._advice()],
        ]

    def _advice(self) -> Line:
        """Return the sentence that says what to do."""
        idle = len(self._dimensions) - len(self.active)
        warm_up = "fit(..., kl_weight=ppl_vae.schedules.linear(steps)), steps half of all updates"
        if self.collapsed:
            sites = " and ".join(f'site "{name}"' for name in self.collapsed)
            bits = ""
            if set(self.collapsed) <= set(self.with_gradients):
                bits = "then with free bits, fit(..., elbo=ppl_vae.RowELBO(free_bits=0.1)), "
            return Line(
                f"posterior collapse at {sites}, which tells nothing of the rows: fit a new pair "
                f"with a KL warm-up, {warm_up}, {bits}then with a weaker decoder",
                "bad",
            )
        if idle:
            return Line(
                f"{idle} of {len(self._dimensions)} latents tell nothing of the rows: as many "
                f"fewer would do, or, where that is too few, fit a new pair with a KL warm-up, "
                f"{warm_up}",
                "warning",
            )
        return Line("all latents tell of the rows: there is nothing to mend", "good")


def latent_usage(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    num_samples: int = 10,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> LatentUsage:
    """Measure which latents of the rows a pair uses, and how much each tells of the rows.

    - ``activity``: how much the posterior mean varies from row to row. The source counts a latent
      as active where this variance is above 0.01, under a prior of variance 1; here the variance is
      divided by that of the prior (or by the latent's own over all rows, where the prior has no
      finite one). Of a categorical latent it is the variance of its probabilities, summed over the
      categories, for prior and posterior alike. Where the prior differs from row to row, the
      prior's mean is subtracted first, where it is known.
    - ``kl``: the mean KL divergence of the guide from the prior of the row, as in the ELBO. It is
      the sum of the next two.
    - ``mutual_information``: how much a draw of the latent tells of which row it belongs to. It is
      log(rows) at most, and is marked from a tenth of the rows on: ``at_limit``.
    - ``marginal_kl``: the KL divergence of the aggregate posterior, the guide averaged over the
      rows, from the prior. A large one says that draws from the prior are unlike codes of rows, so
      that ``generate`` makes unlikely rows; a prior with more freedom mends it.

    The three numbers of a site with independent dimensions are those of each dimension by itself:
    what two dimensions tell alike is counted twice. Other sites (full covariances, flows, shares,
    paths) have them as a whole, in a line of their own. Categories and binary numbers have exact
    sums; other latents, draws.

    Latents that the model sums have the posterior that ``encode`` has. Latents that all rows share
    are drawn once and held; they have no line.

    At most 2,000 rows are looked at, chosen by the seed, fewer where rows are very wide: all
    numbers are of these rows.

    Args:
        model: The model.
        guide: The guide; ``None`` where the model sums out all of its latents.
        data: N rows, in any form that ``fit`` takes.
        num_samples: Draws of each row in the averages over draws. Posterior means that depend on
            draws are averaged over 64 at least.
        seed: Chooses rows and seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Raises:
        ValueError: If there are fewer than two rows, no latent of the rows is drawn by the guide or
            summed out by the model, or the guide computes one from a draw for all rows.

    Example:
        >>> import torch
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = (torch.rand(50, 4) > 0.5).float()
        >>> usage = latent_usage(BernoulliModel(4, 2), NormalGuide(4, 2), x)
        >>> usage.frame["site"].tolist(), usage.rows
        (['z', 'z'], 50)
    """
    check_arguments(num_samples=num_samples, seed=seed, progress=progress)
    seed = world().seed(seed, "latent_usage")
    pair = Pair.of(model, guide, plate)
    chosen = ChosenRows(pair, pair.rows(data), MOST_ROWS, seed)
    activities: dict[str, Activity] = {}
    runs: dict[str, RunsOfLatent] = {}
    gradients: set[str] = set()
    bar = Bar("latent usage", progress).only(world().first)
    size, most = len(chosen.rows), max(2, num_samples)
    with (
        bar.over(total=2 * size * most, unit="draw", unit_scale=True) as told,
        chosen.runs(child(seed, 4)) as run,
    ):
        number = 0
        while number < most:
            for name, latent in run().items():
                point = name in chosen.points
                activities.setdefault(name, Activity(sums=chosen.sums)).add(latent)
                runs.setdefault(name, RunsOfLatent(name, point=point, sums=chosen.sums)).add(
                    latent, keep=number < num_samples
                )
                if latent.draw is not None and latent.fn.has_rsample:
                    gradients.add(name)
            number += 1
            if number == 2 and not all(each.exact for each in activities.values()):
                most = max(DRAWS, num_samples)
            told.total = size * (most + num_samples * len(runs))
            told.update(size)
        found = {
            name: each.result(varies=activities[name].varies, told=told.update)
            for name, each in runs.items()
        }
    lines = [_lines(name, activities[name].result(), each) for name, each in found.items()]
    frame = pd.concat(lines, ignore_index=True)
    return LatentUsage(
        frame=frame,
        rows=len(chosen.rows),
        total=chosen.total,
        outside=chosen.outside,
        notes=_notes(chosen, found),
        with_gradients=sorted(gradients),
    )


def _lines(name: str, activity: np.ndarray, found: Information) -> pd.DataFrame:
    """Return the lines of one latent in the frame of ``LatentUsage``."""
    numbers = [found.kl, found.mutual_information, found.marginal_kl, found.error]
    dimensions: list[Any] = list(range(len(activity)))
    if len(found.kl) != len(activity):
        whole = not np.isnan(numbers).all()
        unknown = np.full(len(activity), math.nan)
        numbers = [np.append(unknown, each) if whole else unknown for each in numbers]
        if whole:
            dimensions.append(pd.NA)
            largest = math.nan if np.isnan(activity).all() else np.nanmax(activity)
            activity = np.append(activity, largest)
    kl, information, marginal, error = numbers
    return pd.DataFrame(
        {
            "site": name,
            "dimension": pd.array(dimensions, dtype="Int64"),
            "active": active(activity),
            "activity": activity,
            "kl": kl,
            "mutual_information": information,
            "marginal_kl": marginal,
            "error": error,
        }
    )


def _notes(chosen: ChosenRows, found: dict[str, Information]) -> list[str]:
    """Return what is not known of which site, and why."""
    notes = [f'site "{name}": {note}' for name, each in found.items() for note in each.notes]
    notes += [f'site "{name}": holds missing cells and is left out' for name in chosen.holding]
    notes += [
        f'site "{name}": the guide does not draw it, so that it tells nothing, and is left out'
        for name in chosen.from_prior
    ]
    if chosen.far:
        notes.append(f"{chosen.far} rows left out, on which the networks overflow")
    return notes


def _named(site: Any, dimension: Any) -> str:
    """Return the name of a line of the frame, such as ``z[3]``, or ``z`` for all dimensions."""
    return str(site) if dimension is pd.NA else f"{site}[{dimension}]"
