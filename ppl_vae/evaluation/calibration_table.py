"""The result of ``guide_calibration``: which latents the guide is wrong about, and which way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ppl_vae.evaluation.rank_tests import LIKELIHOOD, Quantity
from ppl_vae.verdicts import Block, Line, Table, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 12
"""Most flagged quantities that are printed; the frame has all."""

FEW_WORDS = {
    "narrow": "too narrow",
    "wide": "too wide",
    "low": "too low",
    "high": "too high",
    "": "of another shape",
}
"""What the guide's draws are, by direction."""


@dataclass(frozen=True)
@verdict
class GuideCalibration:
    """Whether the guide's draws are those of the posterior. Print the result, or call ``plot``.

    Attributes:
        frame: A line for each quantity, that of log p(x given z) last. Columns: ``site``;
            ``dimension``, its position in a row's value as text (``"3"``, ``"0,3"``, ``"=2"`` for
            category 2); ``p_value`` of uniform ranks; ``p_adjusted`` for the number of quantities
            (Holm); ``flagged``, whether it is 0.05 or less; ``direction``. ``"narrow"`` and
            ``"wide"``: the guide's draws spread too little, or too much. ``"low"`` and ``"high"``:
            they lie too low, or too high. ``""`` where nothing is flagged, or neither explains the
            ranks, and always for log p(x given z), where a leaning is no fault of one latent's
            location or spread. A quantity that has a rank in fewer than two rows has NaN.
        ranks: Rows x quantities, whole numbers from 0 to ``num_draws``: how many draws are below
            the true latent. <NA> where a row has none: masked cells, steps after the end of a
            sequence, numbers that are constant, and rows on which the pair overflows.
        num_draws: Draws of the guide for each row.
        recalibrated: ``frame`` for draws weighted by importance; ``None`` unless asked for.
        weighted_ranks: ``ranks`` for draws weighted by importance; ``None`` unless asked for.
        outside: Names of the latents outside the row plate, which have no ranks.
        from_prior: Names of the latents that the guide does not draw, and that are drawn from
            their prior.
        left_out: Drawn rows without ranks, because the pair overflows on them.

    Example:
        >>> from ppl_vae import guide_calibration
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> pair = BernoulliModel(4, latents=1), NormalGuide(4, latents=1)
        >>> found = guide_calibration(*pair, torch.ones(3, 4), num_rows=20)
        >>> found.passed, list(found.frame["direction"])
        (True, ['', ''])
        >>> print(found.plot().get_xlabel().partition(",")[0])
        rank k of the true latent
    """

    frame: pd.DataFrame
    ranks: pd.DataFrame = field(repr=False)
    num_draws: int
    recalibrated: pd.DataFrame | None = None
    weighted_ranks: pd.DataFrame | None = field(repr=False, default=None)
    outside: list[str] = field(default_factory=list)
    from_prior: list[str] = field(default_factory=list)
    left_out: int = 0

    @property
    def passed(self) -> bool:
        """Whether nothing is flagged; a correct guide passes with probability 0.95 or more."""
        return not self.frame["flagged"].any()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw how far the ranks of each quantity are from uniform; return the axes."""
        from ppl_vae.plots.ranks import rank_differences  # noqa: PLC0415  loads slowly

        flagged = self.frame["flagged"].to_numpy()
        names = [
            f"{name}: {FEW_WORDS[direction]}" if marked and site != LIKELIHOOD else str(name)
            for name, direction, marked, site in zip(
                self.ranks.columns, self.frame["direction"], flagged, self.frame["site"],
                strict=True,
            )
        ]  # fmt: skip
        others = (self.frame["site"] != LIKELIHOOD).to_numpy()
        order = np.lexsort([others, self.frame["p_value"].to_numpy(), ~flagged])
        return rank_differences(
            self.ranks.iloc[:, order].set_axis([names[place] for place in order], axis=1),
            self.num_draws,
            flagged=flagged[order],
            ax=ax,
        )

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        count, marked = len(self.frame), int(self.frame["flagged"].sum())
        title = (
            f"calibration of the guide: {len(self.ranks)} rows drawn from the model, "
            f"{self.num_draws} draws each; {marked} of {count} quantities flagged"
        )
        notes = []
        if self.outside:
            names = ", ".join(self.outside)
            notes.append(f"given draws of {names}, outside the row plate, which have no ranks")
        if self.from_prior:
            names = ", ".join(self.from_prior)
            notes.append(f"the guide does not draw {names}: ranked among draws of the prior")
        if untested := int(self.frame["p_value"].isna().sum()):
            notes.append(f"not tested, as they are constant or masked: {untested} quantities")
        head = [Line(title, "title"), *(Line(note, "note") for note in notes)]
        if self.left_out:
            words = "the pair overflows on them; the others may be calibrated where these are not"
            head.append(Line(f"{self.left_out} drawn rows are left out: {words}", "warning"))
        blocks: list[Block] = [head]
        if marked:
            blocks.append(self._table())
        if self.recalibrated is not None:
            blocks.append([self._weighted(self.recalibrated)])
        return [*blocks, [self._advice()]]

    def _table(self) -> Table:
        """Return the most flagged quantities as a table."""
        worst = self.frame[self.frame["flagged"]].sort_values("p_value", kind="stable")
        lines = worst.head(SHOWN)
        shown = pd.DataFrame(
            {
                "quantity": [
                    Quantity(site, dimension).name
                    for site, dimension in zip(lines["site"], lines["dimension"], strict=True)
                ],
                "draws are": [
                    self._likelihood_words() if site == LIKELIHOOD else FEW_WORDS[direction]
                    for site, direction in zip(lines["site"], lines["direction"], strict=True)
                ],
                "p (adjusted)": lines["p_adjusted"].to_numpy(),
            }
        )
        caption = f"the {SHOWN} clearest of {len(worst)}; frame has all"
        return Table(
            shown, ".2g", caption if len(worst) > SHOWN else "", [True] * len(shown), index=False
        )

    def _likelihood_words(self) -> str:
        """Return how well the draws explain the rows, beside the true latents."""
        above = float(self.ranks[LIKELIHOOD].mean()) > self.num_draws / 2
        return "worse at explaining the rows" if above else "better at explaining the rows"

    def _weighted(self, weighted: pd.DataFrame) -> Line:
        """Return what importance weights mend, in one line."""
        names = pd.Series(self.ranks.columns)
        before, after = (f["flagged"].to_numpy() for f in (self.frame, weighted))
        mended, left, new = (
            list(names[marked]) for marked in (before & ~after, before & after, after & ~before)
        )
        if not (mended or left or new):
            return Line("with importance weights, nothing is flagged either", "note")
        said = [
            f"{word} {_some(each)}"
            for word, each in (
                ("mend", mended), ("do not mend", left), ("flag, in addition,", new)
            )
            if each
        ]  # fmt: skip
        return Line(
            f"importance weights {'; they '.join(said)}", "warning" if left or new else "good"
        )

    def _advice(self) -> Line:
        """Return what to do, in one sentence."""
        flagged = self.frame[self.frame["flagged"]]
        latent = flagged[flagged["site"] != LIKELIHOOD]
        if self.frame["p_value"].isna().all():
            return Line("nothing could be tested: draw more rows, num_rows=", "warning")
        if flagged.empty:
            return Line(
                "the guide passes: on rows of the model, its draws are as those of the posterior, "
                f"as far as {len(self.ranks)} rows can tell",
                "good",
            )
        if latent.empty:
            return Line(
                "the latents by themselves pass, but the draws do not explain the rows as the true "
                "latents do: the guide misses what a row says of its latents, or how these hang "
                "together; train it longer, or give it a richer family or network",
                "warning",
            )
        counts = latent["direction"].value_counts()
        words = [f"{FEW_WORDS[each]} in {counts[each]}" for each in FEW_WORDS if each in counts]
        mended = self.recalibrated is not None and not self.recalibrated["flagged"].any()
        what = (
            "weigh its draws by importance, as log_likelihood does"
            if mended
            else "train it longer, give it a richer family or network, or refine it for given rows"
        )
        return Line(
            "do not take the guide's draws at face value: of "
            f"{len(self.frame) - 1} dimensions of latents they are {', '.join(words)}; {what}",
            "warning",
        )


def _some(names: list[str]) -> str:
    """Return names in a sentence, the first of many."""
    few = ", ".join(names[:5])
    return few if len(names) <= 5 else f"{few} and {len(names) - 5} more"
