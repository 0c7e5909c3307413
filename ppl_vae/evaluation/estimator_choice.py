"""Which of several gradient estimators to train with, from their bias, variance and time.

    share    bias / |g|                          g the exact gradient, of one group of parameters
    noise    (variance + batch variance) x milliseconds

In a time T, stochastic gradients average over T / milliseconds steps, each with a batch of its own:
the noise of one estimator in a fit is its variance at equal time. The batch variance, which all
estimators share, is what makes an exact gradient that takes long worse than a cheap noisy one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

SEEN = 3.0
"""Standard errors from which on a bias counts as found."""

NEGLIGIBLE = 0.02
"""Share of the gradient's norm up to which a bias counts as none."""


BIASED = 2
"""The tier of estimators with a bias."""


@dataclass(frozen=True)
class Judged:
    """One estimator, judged by the gradient of one group of parameters.

    Attributes:
        name: The estimator's name.
        share: Bias as a share of the gradient's norm; NaN where it is not known.
        visible: Share from which on a bias would have been found.
        variance: V.
        noise: Variance at equal time, with that from batch to batch, times milliseconds.
        target: What is estimated: ``"ELBO"``, ``"relaxed"``, or the name of another objective.
    """

    name: str
    share: float
    visible: float
    variance: float
    noise: float
    target: str

    @property
    def tier(self) -> int:
        """0 for an estimator of the ELBO's gradient, 1 for one of another bound, 2 for a biased."""
        if self.target not in ("ELBO", "relaxed"):
            return 1
        if math.isnan(self.share):
            return 0 if self.target == "ELBO" else BIASED
        found = self.share > max(self.visible, NEGLIGIBLE)
        # a relaxed draw has a bias; it counts as none only where the draws show that it is small
        unsure = self.target == "relaxed" and self.share + self.visible > NEGLIGIBLE
        return BIASED if found or unsure else 0

    @property
    def shown(self) -> float:
        """The bias for a figure: the share where it was found, 0 for none, NaN if not known."""
        if self.tier == 0:
            return 0.0
        return self.share if self.share > self.visible else math.nan

    def sentence(self) -> str:
        """Return in words what is known of the bias."""
        if self.tier == 1:
            return f"estimates the gradient of another objective, {self.target}"
        if math.isnan(self.share):
            why = "the exact gradient cannot be summed here"
            if self.target == "relaxed":
                return f"biased by its relaxation, nobody knows how much: {why}"
            return f"unbiased by construction, which is not checked: {why}"
        if self.visible < 1e-6 and self.tier == 0:
            return "no bias: its gradient is the exact one"
        if self.share > self.visible:
            little = "" if self.tier == BIASED else ", too little to count"
            return f"bias {_percent(self.share)} of the gradient{little}"
        words = f"no bias found: from {_percent(self.visible)} of the gradient on it would be"
        return words if self.tier == 0 else f"{words}; biased by its relaxation"


def judge(
    frame: pd.DataFrame, norms: pd.Series, batch_variance: float, targets: Mapping[str, str]
) -> list[Judged]:
    """Return the verdict on each estimator, by the gradient of one group of parameters.

    Args:
        frame: Index ``estimator``; columns ``bias, bias_se, variance, milliseconds``.
        norms: Norm of the exact gradient, by estimator.
        batch_variance: How much the exact gradient varies from batch to batch; NaN counts as 0.
        targets: What each estimator estimates (``Judged.target``).
    """
    between = 0.0 if math.isnan(batch_variance) else batch_variance
    return [
        Judged(
            str(name),
            row["bias"] / norm if norm > 0 else math.nan,
            SEEN * row["bias_se"] / norm if norm > 0 else math.nan,
            row["variance"],
            (row["variance"] + between) * row["milliseconds"],
            targets[str(name)],
        )
        for (name, row), norm in zip(frame.iterrows(), norms.loc[frame.index], strict=True)
    ]


def best_of(judged: Sequence[Judged]) -> tuple[str, str]:
    """Return the name of the estimator to train with, and the sentence that says why.

    The estimators of the ELBO's gradient without a bias go before those of other bounds, and these
    before biased ones. Among equals the least noise decides; among biased ones the least bias.
    """
    tier = min(each.tier for each in judged)
    equals = [each for each in judged if each.tier == tier]
    if tier == BIASED:
        known = sorted(equals, key=lambda e: (math.isnan(e.share), e.share, e.noise))
        best = known[0]
        if math.isnan(best.share):
            equals.sort(key=lambda e: e.noise)
            best = equals[0]
            return best.name, "all estimators are biased; of these its variance x time is least"
        return best.name, (
            "all estimators are biased; of these its bias is least, "
            f"{_percent(best.share)} of the gradient"
        )
    equals.sort(key=lambda e: (e.noise, e.variance))
    best, *others = equals
    group = "without a bias" if tier == 0 else "of another bound"
    if not others:
        return best.name, f"it is the only estimator {group}"
    exact = ", with no variance but that of the batches" if best.variance == 0 else ""
    ratio = others[0].noise / best.noise if best.noise > 0 else math.inf
    times = f"{ratio:.2g} times less" if ratio < math.inf else "less"
    return best.name, (
        f"of the {len(equals)} estimators {group} it has the least variance at equal time{exact}: "
        f'{times} than "{others[0].name}"'
    )


def _percent(share: float) -> str:
    """Return a share as text, in percent with two digits."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
