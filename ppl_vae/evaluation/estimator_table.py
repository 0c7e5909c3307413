"""Bias, variance and time of several gradient estimators: the result of ``gradient_estimators``.

    g     exact gradient of minus the ELBO per row, all discrete latents summed
    g_s   its estimates, s = 1 ... n;  m their mean;  V the trace of their covariance

    bias      sqrt(max(0, |m - g|^2 - V/n))        the noise of the mean is taken off
    bias_se   sqrt(V/n)                            so far m is from E[g_s], root mean square
    variance  V                                    expected square of the distance from E[g_s]

Norms run over all parameters of a group, the model's or the guide's.

Sources: Mohamed, Rosca, Figurnov & Mnih (2020), arXiv:1906.10652 (bias, variance and cost);
Glynn & Whitt (1992), doi:10.1287/opre.40.3.505 (variance times time).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from ppl_vae.data.rows import batch_rows
from ppl_vae.evaluation.estimator_choice import BIASED, Judged, best_of, judge
from ppl_vae.evaluation.exact_gradients import ExactGradient
from ppl_vae.evaluation.gradient_draws import Estimator, Moments
from ppl_vae.verdicts import Block, Line, Table, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
@verdict
class GradientEstimators:
    """Bias, variance and time of gradient estimators. Print it, call ``plot``, or read ``frame``.

    Attributes:
        frame: Index ``estimator, group``, the group of parameters being ``model`` or ``guide``.
            Gradients are of the loss per row, in nats by unit of a parameter. Columns:

            - ``bias``: distance of the mean gradient from the exact one, less what the noise of the
              mean explains; NaN where the exact gradient cannot be summed, and for another
              objective than the ELBO;
            - ``bias_se``: standard error of the mean, a norm as well;
            - ``variance``: trace of the covariance of one gradient, the square of such a norm;
            - ``milliseconds``: median time of one gradient, by the pair's own Python;
            - ``variance_times_cost``: variance x milliseconds, the variance at equal time. Of a
              biased estimator it is no verdict.
        gradient_norm: Norm of the exact gradient, or of the mean where there is none; index as
            ``frame``.
        batch_variance: How much the exact gradient varies from batch to batch, which no estimator
            removes: the trace of the covariance, by group; NaN where it is not known.
        group: The group of parameters whose gradient decides: ``guide``, or ``model`` where no
            parameter of a guide is trained.
        judged: The verdict on each estimator, by that gradient.
        rows: Rows of the batch.
        num_draws: Times that each gradient was drawn.
        same_guides: Whether all guides give the rows' latents the same distribution. Where not, the
            numbers compare guides as well as estimators.

    Example:
        >>> from ppl_vae import RowELBO, gradient_estimators
        >>> from ppl_vae.guides.bernoulli import BernoulliGuide
        >>> from ppl_vae.models.discrete import DiscreteModel
        >>> x, guide = (torch.rand(50, 4) > 0.5).float(), BernoulliGuide(4, 2)
        >>> objectives = {"plain": RowELBO(2), "RLOO": RowELBO(2, baseline="leave_one_out")}
        >>> pairs = {name: (guide, elbo) for name, elbo in objectives.items()}
        >>> found = gradient_estimators(DiscreteModel(4, 2, 2), pairs, x, num_draws=5)
        >>> found.recommended in pairs, list(found.frame.index.names)
        (True, ['estimator', 'group'])
        >>> print(found.plot().get_xlabel()[:29])
        milliseconds for one gradient
    """

    frame: pd.DataFrame
    gradient_norm: pd.Series = field(repr=False)
    batch_variance: dict[str, float] = field(repr=False)
    group: str
    judged: tuple[Judged, ...] = field(repr=False)
    rows: int
    num_draws: int
    same_guides: bool

    @classmethod
    def of(
        cls,
        measured: Mapping[str, Estimator],
        exact: Mapping[str, ExactGradient | None],
        num_draws: int,
        *,
        same_guides: bool,
    ) -> GradientEstimators:
        """Return the result of estimators after their draws.

        Args:
            measured: The estimators, by name.
            exact: The exact gradient for each; ``None`` where it cannot be computed.
            num_draws: Times that each gradient was drawn.
            same_guides: Whether all guides give the latents the same distribution.
        """
        records, norms, targets = {}, {}, {}
        for name, each in measured.items():
            plain, summed = replace(each.objective, relaxes=False), exact[name]
            of_elbo = "relaxed" if each.objective.relaxes else "ELBO"
            targets[name] = of_elbo if plain.estimates_elbo else plain.name
            for group in each.parameters:
                reference = None if summed is None else summed.moments[group]
                known = reference if plain.estimates_elbo else None
                records[name, group] = _row(each, group, known)
                norms[name, group] = _norm(reference or each.moments[group])
        frame = pd.DataFrame(list(records.values()))
        frame.index = pd.MultiIndex.from_tuples(records, names=["estimator", "group"])
        norm = pd.Series(norms.values(), index=frame.index, name="gradient_norm")
        group = (
            "guide" if all("guide" in each.parameters for each in measured.values()) else "model"
        )
        between = _batch_variance(exact)
        table: Any = frame.xs(group, level="group")
        of_group: Any = norm.xs(group, level="group")
        judged = judge(table, of_group, between.get(group, math.nan), targets)
        rows = batch_rows(next(iter(measured.values())).batch)
        return cls(frame, norm, between, group, tuple(judged), rows, num_draws, same_guides)

    @property
    def recommended(self) -> str:
        """Name of the estimator to train with, of which ``str`` says why.

        It is the one without a bias that has the least variance at equal time, the variance from
        batch to batch included; the least biased one where all are biased.
        """
        return best_of(self.judged)[0]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the variance of each estimator against its time, and its bias; return the axes."""
        from ppl_vae.plots.estimators import estimator_plane  # noqa: PLC0415  loads slowly

        table = self.frame.xs(self.group, level="group")
        bias = [each.shown for each in self.judged]
        title = f"Noise, time and bias of the gradient of the {self.group}"
        numbers = table["milliseconds"], table["variance"], bias
        return estimator_plane(*numbers, names=list(table.index), title=title, ax=ax)

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        name, reason = best_of(self.judged)
        title = (
            f"gradient estimators: {len(self.judged)} on {self.rows} rows, {self.num_draws} draws "
            "each"
        )
        biased = {each.name for each in self.judged if each.tier == BIASED}
        differ = (
            "the guides differ, so that these numbers compare guides as well as estimators; give "
            "all guides the same networks"
        )
        answer = Line(f'recommended: "{name}": {reason}', "warning" if name in biased else "good")
        return [
            [Line(title, "title")],
            Table(self.frame, marked=[str(each) in biased for each, _ in self.frame.index]),
            [
                Line(f"bias of the gradient of the {self.group}:"),
                *(Line(f"  {each.name}: {each.sentence()}") for each in self.judged),
            ],
            *([] if self.same_guides else [[Line(differ, "warning")]]),
            [answer],
        ]


def _row(estimator: Estimator, group: str, exact: Moments | None) -> dict[str, float]:
    """Return the numbers of an estimator in one group of parameters, by their columns.

    Args:
        estimator: After its draws.
        group: The group.
        exact: Of the exact gradient that the estimator aims at; ``None`` where it is not known.
    """
    drawn, time = estimator.moments[group], estimator.milliseconds
    bias, error = _bias(drawn, exact)
    return {
        "bias": bias, "bias_se": error, "variance": drawn.variance, "milliseconds": time,
        "variance_times_cost": drawn.variance * time,
    }  # fmt: skip


def _bias(drawn: Moments, exact: Moments | None) -> tuple[float, float]:
    """Return the bias, with the noise taken off, and its standard error.

    Args:
        drawn: Of an estimator's gradient.
        exact: Of the exact gradient; ``None`` where it is not known: the bias is then NaN.
    """
    noise = drawn.variance_of_mean + (0.0 if exact is None else exact.variance_of_mean)
    if exact is None:
        return math.nan, math.sqrt(noise)
    distance = float((drawn.mean - exact.mean).square().sum())
    return math.sqrt(max(0.0, distance - noise)), math.sqrt(noise)


def _norm(moments: Moments) -> float:
    """Return the norm of the expected gradient, with the noise of the mean taken off."""
    square = float(moments.mean.square().sum()) - moments.variance_of_mean
    return math.sqrt(max(0.0, square))


def _batch_variance(exact: Mapping[str, ExactGradient | None]) -> dict[str, float]:
    """Return the variance from batch to batch by group, of the first guide where it is known."""
    for each in exact.values():
        if each is not None and not any(map(math.isnan, each.batch_variance.values())):
            return each.batch_variance
    return {}
