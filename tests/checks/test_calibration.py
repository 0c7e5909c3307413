"""p-values are calibrated: uniform with draws from the prior, never too small with a guide.

Data sets are made by the fitted model itself, so that every flag is a false alarm. The small study
runs by default; the large one has the same properties with narrower bounds.
"""

from dataclasses import dataclass

import pytest
import torch
from scipy.stats import binom, kstest

import ppl_vae

ROWS = 60
STATISTICS = ["mean", "sd", "skewness", "kurtosis", "minimum", "maximum", "median", "correlation"]


@dataclass(frozen=True)
class Study:
    data_sets: int
    replicates: int
    most_with_guide: int  # data sets whose p-value may be at most 0.05, with the guide

    def has_nominal_share(self, count):
        """Whether the number of p-values of at most 0.05 lies in its central 99 %."""
        return abs(binom.cdf(count, self.data_sets, 0.05) - 0.5) <= 0.495


SMALL, LARGE = Study(60, 19, 7), Study(400, 99, 20)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(SMALL, id="small"),
        pytest.param(LARGE, id="large", marks=pytest.mark.slow),
    ],
)
def study(request):
    return request.param


@pytest.fixture(scope="module")
def checked(study, linear_pair):
    """``checked(guide)``: (p-value, flagged) of each data set, by statistic."""
    model, guide = linear_pair
    data_sets = ppl_vae.prior_predictive(
        model, torch.zeros(ROWS, 6), num_samples=study.data_sets, seed=1
    )["x"]
    found = {}

    def of(with_guide):
        if with_guide not in found:
            frames = [
                ppl_vae.predictive_check(
                    model, guide if with_guide else None, x, statistics=STATISTICS,
                    num_samples=study.replicates, seed=100 + i,
                ).frame.loc["x"]
                for i, x in enumerate(data_sets)
            ]  # fmt: skip
            found[with_guide] = {
                name: [(f.loc[name, "p_value"], f.loc[name, "flagged"]) for f in frames]
                for name in STATISTICS
            }
        return found[with_guide]

    return of


@pytest.mark.parametrize("statistic", STATISTICS)
def test_p_values_of_the_prior_are_uniform(study, checked, statistic):
    p = [p for p, _ in checked(False)[statistic]]
    assert study.has_nominal_share(sum(value <= 0.05 for value in p))
    half_step = 0.5 / (study.replicates + 1)  # p is a multiple of 1 / (S + 1)
    assert kstest([value - half_step for value in p], "uniform").pvalue > 0.001


def test_a_perfect_model_has_any_flag_in_5_percent_of_data_sets(study, checked):
    lines = checked(False).values()
    flags = [any(flag for _, flag in line) for line in zip(*lines, strict=True)]
    assert study.has_nominal_share(sum(flags))


@pytest.mark.parametrize("statistic", STATISTICS)
def test_p_values_with_the_guide_are_not_too_small(study, checked, statistic):
    p = [p for p, _ in checked(True)[statistic]]
    assert sum(value <= 0.05 for value in p) <= study.most_with_guide
