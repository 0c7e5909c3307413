"""Does each latent stand for one known factor: scores of disentanglement, with their errors.

    codes      E_q[z given x], the guide's means          (rows, latents)
    factors    what the rows were made from, as known     (rows, factors)

The formulas and sources of the scores are in ``ppl_vae.latents.factor_scores``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ppl_vae.arguments import check_arguments, check_count
from ppl_vae.bars import Bar
from ppl_vae.core.pair import Guide, Model
from ppl_vae.core.seeding import child
from ppl_vae.data.rows import Data
from ppl_vae.latents.additive_regression import Halves
from ppl_vae.latents.codes import encode
from ppl_vae.latents.factor_scores import SCORES
from ppl_vae.latents.factor_tables import FactorTables, entropy, information_by_chance
from ppl_vae.latents.variables import Variable, as_variable, codes_of, factors_of
from ppl_vae.verdicts import Block, Line, Table, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHUFFLES = 100  # of the rows, which measure the mutual information by chance
NOISE = 0.2  # share of the importances by chance, from which on scores made of them say little
FEWEST = 20  # data sets of a bootstrap, so that an interval of 95 % is one


@dataclass(frozen=True)
@verdict
class Disentanglement:
    """How far latents stand for known factors. Print the result, call ``plot``, or read the frames.

    Attributes:
        frame: The six scores, each from 0 to 1, higher is better. Index ``mig,
            dci_disentanglement, dci_completeness, dci_informativeness, sap, modularity``; columns
            ``value``, and ``lower`` and ``upper`` of the central 95 % of a bootstrap over rows. A
            score that needs two factors, or two latents, is NaN where there is one.
        importance: How much each latent adds to a regression of each factor on all latents, latents
            x factors, as a share of the factor's variance, given the other latents.
        information: Mutual information of each latent and each factor, adjusted for chance, latents
            x factors, as a share of the factor's entropy.
        collapsed: Names of latents whose means hardly vary from row to row: they count as constant.
        rows: Number of rows that were scored.
        left_out: Number of rows without a finite code, which are not scored.
        noise: Share of the sum of all importances that codes have by chance: the sum for codes of
            other rows, by that for the rows' own. Near 0 where latents tell the factors, near 1
            where they know nothing: then the importances, and ``dci_disentanglement``,
            ``dci_completeness`` and ``modularity``, are those of noise. Printing says so from 0.2.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x, factors = torch.rand(300, 4).bernoulli(), {"size": torch.rand(300)}
        >>> pair = BernoulliModel(4, latents=2), NormalGuide(4, latents=2)
        >>> found = disentanglement(*pair, x, factors, num_bootstrap=0)
        >>> found.rows, list(found.frame.index[:2]), found.plot().get_xticklabels()[0].get_text()
        (300, ['mig', 'dci_disentanglement'], 'size')
    """

    frame: pd.DataFrame
    importance: pd.DataFrame
    information: pd.DataFrame = field(repr=False)
    collapsed: list[str]
    rows: int
    left_out: int = 0
    noise: float = 0.0

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the importance of every latent for every factor; return the axes."""
        from ppl_vae.plots.importance import importance_map  # noqa: PLC0415  loads slowly

        mig = self.frame["value"]["mig"]
        title = f"Which latent stands for which factor:\nmutual-information gap {mig:.2f}"
        return importance_map(self.importance, title=title, ax=ax)

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        latents, factors = self.importance.shape
        title = f"disentanglement: {latents} latents, {factors} factors, {self.rows} rows"
        if self.left_out:
            title += f"; {self.left_out} left out, which have no finite code"
        caption = "importance: the share of a factor's variance that a latent adds"
        marked = [latent in self.collapsed for latent in self.importance.index]
        cautions = []
        if self.noise >= NOISE:
            cautions.append(
                f"the latents tell little of the factors: codes of other rows have "
                f"{self.noise:.0%} of these importances, by chance. dci_disentanglement, "
                "dci_completeness and modularity say little here"
            )
        if self.collapsed:
            cautions.append(f"collapsed, counted as constant: {', '.join(self.collapsed)}")
        return [
            [Line(title, "title")],
            Table(self.frame, ".3f"),
            Table(self.importance, ".3f", caption, marked),
            *([Line(caution, "warning")] for caution in cautions),
        ]


def disentanglement(
    model: Model,
    guide: Guide,
    data: Data,
    factors: pd.DataFrame | Mapping[Any, Any],
    *,
    num_bins: int = 20,
    num_bootstrap: int = 200,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> Disentanglement:
    """Score how far each latent stands for one known factor, and each factor in one latent.

    The codes are the guide's means. A latent whose means have less than 1 % of its variance over
    all rows is collapsed, and counts as constant: its means may follow a factor, but not so that a
    draw of the latent, which is what the model reads, would tell. Of a categorical latent, the code
    is the most probable category.

    - ``mig``: how much more one latent says of a factor than any other latent: mutual information
      as a share of the factor's entropy, with codes and factors in bins of equally many rows.
    - ``dci_disentanglement`` (a latent matters for one factor), ``dci_completeness`` (a factor
      needs one latent) and ``dci_informativeness`` (R^2 on held-out rows): of a regression of each
      factor on all codes. It is a sum of one step function of each code, on the same bins, so that
      it finds any curve of a single code. What only several codes together tell, as an angle is
      told by its sine and cosine, does not count as informative. As the regression is fitted to
      half of the rows, R^2 is below that of more rows where they are few.
    - ``sap``: how much better one latent alone predicts a factor, on a straight line, than any
      other; of categories, by the code's bin.
    - ``modularity``: whether each latent has information on one factor only. Collapsed latents, and
      others that have no information on any, are left out.

    Where an increasing function of a code takes its place, only ``sap`` changes.
    None changes with the order of the latents. None says anything of factors that are not passed,
    and factors that depend on each other lower the scores even of latents that copy them.

    The interval of a score is the spread of the score over rows drawn with replacement, for the
    fitted pair; another fit, from another seed, has other scores, often by more than this interval.

    Args:
        model: The model; it has no influence on the codes.
        guide: The guide.
        data: N rows, in any form that ``fit`` takes.
        factors: A frame, or a mapping from names to N values each, in the order of the rows.
            Numbers are scales; truth values, strings and pandas' categories have no order, so turn
            labels that are numbers into strings.
        num_bins: Most bins of a code or factor; a factor with at most so many different values has
            a bin for each.
        num_bootstrap: Times that rows are drawn with replacement, 20 or more; 0 leaves ``lower``
            and ``upper`` NaN.
        seed: Seeds all draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Raises:
        ValueError: If a factor is constant, has missing values or not N of them, if rows are too
            few for the bins, or if the guide draws no latent in the row plate.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = (torch.rand(300, 4) > 0.5).float()
        >>> factors = {"first": x[:, 0], "second": x[:, 1]}
        >>> result = disentanglement(BernoulliModel(4, 2), NormalGuide(4, 2), x, factors)
        >>> result.importance.shape, list(result.frame.columns)
        ((2, 2), ['value', 'lower', 'upper'])
    """
    check_count("num_bins", num_bins, least=2)
    check_count("num_bootstrap", num_bootstrap, least=0)
    if num_bootstrap:
        check_count("num_bootstrap", num_bootstrap, least=FEWEST)
    check_arguments(seed=seed, progress=progress)
    means = encode(model, guide, data, seed=seed, progress=progress, plate=plate)
    known = factors_of(factors, means.index)
    finite = np.isfinite(means.to_numpy(dtype=float)).all(1)
    if not finite.any():
        raise ValueError(
            "guide: expected finite means of the latents, got none in any row; a family without "
            "moments, such as Cauchy, has no means to score"
        )
    codes = codes_of(means[finite], num_bins)
    targets = [as_variable(name, values[finite], num_bins) for name, values in known.items()]
    for target in targets:
        if target.count < 2:
            raise ValueError(
                f'factors["{target.name}"]: expected at least two different values, got the same '
                f"in all {finite.sum()} rows; leave the factor out, or score other rows"
            )
    _refuse_too_few(codes.variables, targets)
    scores, found = _scored(
        codes.variables, targets, num_bootstrap, seed, Bar("bootstrap", progress)
    )
    latents, names = [code.name for code in codes.variables], [target.name for target in targets]
    return Disentanglement(
        frame=scores,
        importance=pd.DataFrame(found.importance, latents, names),
        information=pd.DataFrame(found.share, latents, names),
        collapsed=codes.collapsed,
        rows=int(finite.sum()),
        left_out=int((~finite).sum()),
        noise=found.noise,
    )


def _refuse_too_few(codes: list[Variable], factors: list[Variable]) -> None:
    """Raise ``ValueError`` where a factor has so many bins that any code tells them by chance.

    The look is quick, at the code with the most entropy and one shuffle of each factor. It spares
    the time and the memory of tables with a column for each bin.
    """
    random = np.random.default_rng(0)
    bins = max((code.bins for code in codes), key=entropy)
    for factor in factors:
        by_chance, most = information_by_chance(bins, factor.bins, random)
        if by_chance > most / 2:
            raise _too_few(len(bins), factor.name, _by_chance(by_chance, most))


@dataclass(frozen=True)
class _Found:
    """What the scores are made of: A and R of ``factor_scores``, and the share of R by chance."""

    share: np.ndarray
    importance: np.ndarray
    noise: float


def _scored(
    codes: list[Variable], factors: list[Variable], num_bootstrap: int, seed: int | None, bar: Bar
) -> tuple[pd.DataFrame, _Found]:
    """Return the scores, and what they are made of.

    A bootstrap draws the rows of each half from that half, so that no row which the regression is
    fitted to is also held out. Rows that are drawn several times seem to follow each other, which
    raises mutual information: in the bootstrap, chance is measured with such rows, too. What
    remains of that shift, the mean of the bootstrap minus the value, is taken off the interval.
    """
    random = np.random.default_rng(child(seed, 1) if seed is not None else _any_seed())
    rows = random.permutation(len(codes[0].bins))
    halves: Halves = (rows[: len(rows) // 2], rows[len(rows) // 2 :])
    if len(halves[0]) < 2:
        raise _too_few(len(rows), factors[0].name, "1 row in half of them")
    tables = FactorTables(codes, factors, halves)
    found = tables.measure(halves)
    chance = np.stack([tables.shuffled_information(rows, random) for _ in range(SHUFFLES)])
    worst = (chance.mean(0).max(0) / found.entropy).argmax()
    by_chance, most = chance.mean(0).max(0)[worst], found.entropy[worst]
    if by_chance > most / 2:
        raise _too_few(len(rows), factors[worst].name, _by_chance(by_chance, most))
    value = found.scores(chance)
    lower = upper = np.full(len(SCORES), np.nan)
    if num_bootstrap:
        drawn = [
            (random.choice(halves[0], len(halves[0])), random.choice(halves[1], len(halves[1])))
            for _ in range(num_bootstrap)
        ]
        chance_drawn = np.stack(
            [tables.shuffled_information(np.concatenate(pair), random) for pair in drawn]
        )
        pairs = bar.over(drawn, unit="draw")
        spread = np.stack([tables.measure(pair).scores(chance_drawn) for pair in pairs])
        centered = value + spread - spread.mean(0)
        lower, upper = np.quantile(centered, [0.025, 0.975], axis=0).clip(0.0, 1.0)
    columns = {"value": value, "lower": lower, "upper": upper}
    frame = pd.DataFrame(columns, index=pd.Index(SCORES, name="score"))
    noise = np.mean([tables.importance_by_chance(halves, random) for _ in range(FEWEST)])
    total = found.importance.sum()
    share = min(1.0, float(noise / total)) if total > 0 else 1.0
    return frame, _Found(found.adjusted(chance), found.importance, share)


def _any_seed() -> int:
    """Return a seed from torch's global generator."""
    return int(torch.randint(2**31, ()))


def _by_chance(information: float, most: float) -> str:
    """Return how much a code tells of a factor by chance, of the most that it can, in words."""
    return f"{information:.2f} of {most:.2f} nats by chance alone"


def _too_few(rows: int, factor: str, what: str) -> ValueError:
    """Return the error that there are too few rows to score a factor."""
    return ValueError(
        f'data: expected more rows for the bins of the codes and of factor "{factor}", got {rows} '
        f"rows, with {what}; pass more rows, a smaller num_bins, or a factor of fewer categories"
    )
