"""Which of several pairs explains the same rows best: the result of ``compare``.

The pair with the largest mean log-likelihood is compared with each other one (``leads``). It is
called the best only if all its leads are firm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ppl_vae.evaluation.leads import Lead, RowLikelihoods
from ppl_vae.evaluation.summary import MeanOverRows
from ppl_vae.safe_text import printable
from ppl_vae.verdicts import Block, Line, Table, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
@verdict
class Comparison:
    """Held-out log-likelihoods of several pairs on the same rows, and which pair is best.

    Its text, ``repr``, is the verdict in words. Print it, call ``plot``, or read ``frame``.

    Attributes:
        frame: A row for each pair, the best first, by name. All in nats a row but the shares:

            - ``log_prob``, ``se``: mean log-likelihood over the rows, and its standard error;
            - ``difference``: to the first pair, 0 or below; for the first pair NaN, and so are the
              next four;
            - ``difference_se``: its standard error, of rows and of draws together, from the
              differences row by row;
            - ``lower``, ``upper``: interval of the difference at ``level``; wider than the standard
              error says by what estimates from few draws are too low. NaN below 4 rows, and where
              a difference is infinite. Each interval holds by itself;
            - ``rows_better``: share of rows in which this pair is better than the first;
            - ``k_hat_above``: share of rows whose k-hat is above its threshold (see
              ``log_likelihood``); NaN where there is no k-hat, as under a particle filter;
            - ``unreliable``: share of rows whose log-likelihood is not reliable, most often too
              low: k-hat above its threshold, or not known, and the effective number of draws below
              half; under a particle filter, the limits of ``log_likelihood``.
        rows: Log-likelihood of every row, a column for each pair, with the data's index; NaN where
            the pair overflows.
        leads: The best pair's lead over each other one, in the order of ``frame``.
        num_samples: Draws of the latents for each row.
        level: Probability of each interval.
        left_out: Number of rows on which a pair overflows; ``frame`` leaves them out.
        without_k_hat: Pairs of which a row has no k-hat, with the number of such rows.

    Example:
        >>> import pyro, torch
        >>> from ppl_vae import compare
        >>> def coin(chance):
        ...     def model(x):
        ...         with pyro.plate("data", len(x)):
        ...             pyro.sample("x", pyro.distributions.Bernoulli(chance), obs=x)
        ...     return model
        >>> pairs = {"fair": (coin(0.5), None), "biased": (coin(0.8), None)}
        >>> found = compare(pairs, torch.tensor([1.0, 1, 1, 0, 1, 1, 1, 0] * 20))
        >>> found.best, len(found.sentences()), found.plot().get_yticklabels()[0].get_text()
        ('biased', 1, 'biased')
    """

    frame: pd.DataFrame
    rows: pd.DataFrame
    leads: tuple[Lead, ...]
    num_samples: int
    level: float
    left_out: int
    without_k_hat: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, scored: Sequence[RowLikelihoods], index: pd.Index, num_samples: int, level: float
    ) -> Comparison:
        """Compare pairs by their log-likelihoods of the same rows.

        Args:
            scored: The log-likelihoods, two or more.
            index: The data's index.
            num_samples: Draws of the latents for each row.
            level: Probability of the intervals.

        Raises:
            ValueError: If no row is left on which no pair overflows.
        """
        rows = pd.DataFrame({each.name: each.log_prob for each in scored}, index=index)
        lost = {each.name: np.isnan(each.log_prob) for each in scored}
        left_out = np.any(list(lost.values()), axis=0)
        if left_out.all():
            raise ValueError(
                "pairs: expected rows on which no pair overflows, got none; bound what the "
                "networks give (a clamp on log_scale)"
            )
        kept = sorted(
            (each.without(left_out) for each in scored), key=lambda each: -each.log_prob.mean()
        )
        best = kept[0]
        leads = tuple(
            Lead.of(best, each, int((lost[best.name] & ~lost[each.name]).sum()), level)
            for each in kept[1:]
        )
        unknown = {
            each.name: int(np.isnan(each.k_hat).sum())
            for each in kept
            if not each.exact and not math.isnan(each.threshold) and np.isnan(each.k_hat).any()
        }
        lines = zip(kept, (None, *leads), strict=True)
        table = pd.DataFrame([_line(each, lead) for each, lead in lines])
        table.index = pd.Index([each.name for each in kept], name="pair")
        return cls(table, rows, leads, num_samples, level, int(left_out.sum()), unknown)

    @property
    def best(self) -> str | None:
        """Name of the pair that explains the rows better than every other one.

        ``None`` where an interval does not exclude 0, or where the lead would be lost if rows in
        which the other pair is not reliable were equal; ``sentences`` says why.
        """
        return str(self.frame.index[0]) if all(lead.firm for lead in self.leads) else None

    def sentences(self, option: str = "num_samples") -> list[str]:
        """Return everything there is to say: the first pair against the second, and what to know.

        Of the other pairs only those are named that have unreliable rows, or over which the first
        has no firm lead.

        Args:
            option: The name under which the caller's user sets the number of draws.
        """
        first, *others = self.leads
        doubtful = [lead for lead in others if not lead.firm or lead.unreliable_other]
        told = [lead.sentence(option) for lead in (first, *doubtful)]
        if first.firm and first.unreliable_first:
            told.append(
                f"the log-likelihood of {first.first} is not reliable in {first.unreliable_first} "
                f"of {first.rows} rows and may be too low there: its lead may be larger"
            )
        told += [
            f"k-hat of {name} is not known in {count} of {first.rows} rows: too few draws, "
            "discrete latents that are drawn, or a probability of 0"
            for name, count in self.without_k_hat.items()
        ]
        if self.left_out:
            told.append(f"{self.left_out} of {len(self.rows)} rows are left out: a pair overflows")
        return told

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw each pair's difference from the best one with its interval; return the axes."""
        from ppl_vae.plots.differences import difference_intervals  # noqa: PLC0415  loads slowly

        table = self.frame
        return difference_intervals(
            [0.0, *table["difference"].iloc[1:]], table["lower"], table["upper"],
            names=list(table.index), doubtful=[False, *(not lead.firm for lead in self.leads)],
            level=self.level, ax=ax,
        )  # fmt: skip

    def __repr__(self) -> str:
        return printable("; ".join(self.sentences()))

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        rows = len(self.rows) - self.left_out
        title = (
            f"log-likelihood of {rows} row{'' if rows == 1 else 's'} in nats a row, "
            f"{self.num_samples} draws each"
        )
        first, *others = self.sentences()
        answer = Line(first, "warning" if self.best is None else "good")
        marked = [False, *(not lead.firm for lead in self.leads)]
        return [
            [Line(title, "title")],
            Table(self.frame, marked=marked, missing=""),
            [answer, *(Line(sentence, "warning") for sentence in others)],
        ]


def _line(each: RowLikelihoods, lead: Lead | None) -> dict[str, float]:
    """Return a pair's row of the frame; ``None`` for the first pair, which has no lead."""
    mean, none = MeanOverRows.of(each.log_prob), math.nan
    return {
        "log_prob": mean.mean, "se": mean.standard_error,
        "difference": lead.difference if lead else none,
        "difference_se": lead.error if lead else none,
        "lower": lead.lower if lead else none,
        "upper": lead.upper if lead else none,
        "rows_better": lead.rows_better if lead else none,
        "k_hat_above": each.k_hat_above,
        "unreliable": float(each.unreliable.mean()),
    }  # fmt: skip
