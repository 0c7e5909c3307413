"""The tables of a predictive check: each statistic of the data beside that of its replicates.

frame      one line for each statistic, of its worst feature; flagged ones first
features   one line for each feature, category or pair of each statistic
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.checks import covariates
from ppl_vae.checks.observed_and_replicated import ACROSS, OWN, ReplicateComparison
from ppl_vae.checks.p_values import Verdict, paired_discrepancy, verdicts
from ppl_vae.checks.statistics import SHARE_STATISTICS
from ppl_vae.core.chains import steps_of

LEVEL = 0.05  # probability that a perfect model has any statistic flagged
INTERVAL = (0.05, 0.95)


@dataclass(frozen=True)
class CheckTables:
    """The tables of one check; ``PredictiveCheck`` describes their columns.

    Attributes:
        frame: A line for each site and statistic.
        features: A line for each value of each statistic.
        replicated: The worst feature's statistic of each replicate, ``{(site, statistic): array}``
            of shape (num_samples,).
    """

    frame: pd.DataFrame
    features: pd.DataFrame
    replicated: dict[tuple[str, str], Any]

    @classmethod
    def of(cls, comparison: ReplicateComparison) -> Self:
        """Make the tables, once all replicates were added to the comparison."""
        compared = _compared(comparison)
        steps = [_smallest_step(comparison, *key) for key in compared]
        scaled = [covariates.on_normal_scale(key[1], *values) for key, values in compared.items()]
        judged = dict(zip(compared, verdicts(scaled, steps), strict=True))
        tables = {key: _table(comparison, key, judged[key], *compared[key]) for key in compared}
        lines = [_line(key, verdict, tables[key]) for key, verdict in judged.items()]
        frame = pd.DataFrame(lines).set_index(["site", "statistic"])
        order = ["p_adjusted", "distance"]
        frame = frame.sort_values(order, ascending=[True, False], kind="stable")
        return cls(
            frame.drop(columns="distance"),
            pd.concat(tables.values()).sort_index(level=[0, 1], sort_remaining=False),
            {key: compared[key][1][:, judged[key].worst].numpy() for key in compared},
        )


def of_worst_steps(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the lines of a check's frame, one for each statistic of a chain: of its worst step.

    Args:
        frame: A line for each site and statistic, the worst ones first.

    Returns:
        Lines of the frame, and the number of steps of each chain (``core.chains``) that has more
        than one.

    Example:
        >>> index = pd.MultiIndex.from_tuples([("x_1", "mean"), ("y", "mean"), ("x_0", "mean")])
        >>> lines, chains = of_worst_steps(pd.DataFrame({"p": [0.1, 0.2, 0.3]}, index=index))
        >>> list(lines["p"]), chains
        ([0.1, 0.2], {'x': 2})
    """
    step_of = steps_of(dict.fromkeys(site for site, _ in frame.index))
    lengths = Counter(chain for chain, _ in step_of.values())
    keys = pd.Series([(step_of[site][0], statistic) for site, statistic in frame.index])
    chains = {chain: steps for chain, steps in lengths.items() if steps > 1}
    return frame[~keys.duplicated().to_numpy()], chains


def features_in(title: str, names: list[str]) -> list[str]:
    """Return the features that a line of a check is about.

    Args:
        title: ``"length"`` for one feature, ``"label = 0"`` for a category of the feature
            ``"label"``, ``"a & b"`` for a pair of features or of categories, ``"length ~ age"`` for
            a feature and a covariate.
        names: Names of the site's features.

    Example:
        >>> features_in("a = 1 & b & c", ["a", "b & c"]), features_in("value 2", ["a"])
        (['a', 'b & c'], [])
        >>> features_in("length ~ age", ["length"])
        ['length']
    """
    title = next((name for name in names if title.startswith(f"{name} ~ ")), title)
    whole = [name for name in names if title == name or title.startswith(f"{name} = ")]
    if whole and " & " not in title.removeprefix(max(whole, key=len)):
        return [max(whole, key=len)]
    parts = title.split(" & ")
    for split in range(1, len(parts)):
        left = features_in(" & ".join(parts[:split]), names)
        right = features_in(" & ".join(parts[split:]), names)
        if left and right:
            return [*left, *(name for name in right if name not in left)]
    return []


def _compared(comparison: ReplicateComparison) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Return the observed values, (1, values), and the replicated ones, (S, values).

    A discrepancy has as many observed values as replicates, which are paired. A statistic that is
    NaN for the data is left out.
    """
    compared = {}
    for key, (parts, replicated) in comparison.statistics.items():
        observed = torch.cat(parts)
        if len(observed) > 1:
            observed, replicated = paired_discrepancy(observed, replicated)  # noqa: PLW2901
        if not bool(observed.isnan().all()):
            compared[key] = observed, replicated
    return compared


def _smallest_step(comparison: ReplicateComparison, site: str, statistic: str) -> float:
    """Return the smallest amount by which a statistic can change; 0 for a user's statistic."""
    if site == OWN:
        return 0.0
    if site == ACROSS:
        return 1 / comparison.rows if statistic in SHARE_STATISTICS else 0.0
    kind = comparison.kinds[site]
    return kind.smallest_step(statistic, len(comparison.layouts[site].lines(comparison.rows)))


def _table(
    comparison: ReplicateComparison,
    key: tuple[str, str],
    verdict: Verdict,
    observed: Tensor,
    replicated: Tensor,
) -> pd.DataFrame:
    """Return one statistic, a line for each of its values.

    Args:
        comparison: Has the names of the values.
        key: Site and statistic.
        verdict: p-values of the statistic.
        observed: (1, values).
        replicated: (S, values).
    """
    site, statistic = key
    if site == OWN:
        labels = _labels_of_own(replicated.shape[1], list(comparison.features.values()))
    else:
        labels = comparison.labels(site, statistic)
    # Numpy warns of values that are infinite, or NaN in every replicate.
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        mean = np.nanmean(replicated.numpy(), axis=0)
        low, high = np.nanquantile(replicated.numpy(), INTERVAL, axis=0)
    names = ["site", "statistic", "feature"]
    index = pd.MultiIndex.from_product([[site], [statistic], labels], names=names)
    columns = {
        "observed": observed[0].numpy(), "mean": mean, "lower": low,
        "upper": high, "p_value": verdict.each.numpy(),
    }  # fmt: skip
    return pd.DataFrame(columns, index=index)


def _labels_of_own(count: int, features: list[list[str]]) -> list[str]:
    """Return names of the values of a user's statistic.

    Args:
        count: Number of values.
        features: Names of each site's features.

    Returns:
        The names of the features where the only site has as many, else numbers; no name for a
        single value.
    """
    if count == 1:
        return [""]
    if len(features) == 1 and len(features[0]) == count:
        return features[0]
    return [str(i) for i in range(count)]


def _line(key: tuple[str, str], verdict: Verdict, table: pd.DataFrame) -> dict[str, Any]:
    """Return the line of the check's frame, and the distance by which lines are sorted."""
    worst = table.iloc[verdict.worst]
    return {
        "site": key[0], "statistic": key[1], "feature": table.index[verdict.worst][2],
        **{name: worst[name] for name in ("observed", "mean", "lower", "upper")},
        "p_value": verdict.p_value, "p_error": verdict.p_error, "p_adjusted": verdict.p_adjusted,
        "flagged": verdict.p_adjusted <= LEVEL, "distance": _distance(worst),
    }  # fmt: skip


def _distance(line: pd.Series) -> float:
    """Return the distance of the data from the middle of the interval, in half widths of it."""
    away = abs(line["observed"] - (line["lower"] + line["upper"]) / 2)
    half_width = (line["upper"] - line["lower"]) / 2
    if half_width > 0:
        return float(away / half_width)
    return np.inf if away > 0 else 0.0
