"""p-values are what they claim: exact from the prior, no smaller than that with a guide."""

import pytest
import torch
from scipy.stats import kstest

import ppl_vae

SETS, ROWS, REPLICATES = 400, 60, 99
LOW, HIGH = 10, 32  # 99 % of the binomial counts of 400 at 0.05
WANTED = ["mean", "sd", "skewness", "kurtosis", "minimum", "maximum", "median", "correlation"]


@pytest.fixture(scope="module")
def p_values(linear_pair):
    """``p_values(guide)``: of 400 data sets that the fitted model made, by statistic."""
    model, guide = linear_pair
    made = ppl_vae.prior_predictive(model, torch.zeros(ROWS, 6), num_samples=SETS, seed=1)["x"]
    found = {}

    def of(with_guide):
        if with_guide not in found:
            frames = [
                ppl_vae.predictive_check(
                    model, guide if with_guide else None, x, statistics=WANTED,
                    num_samples=REPLICATES, seed=100 + i,
                ).frame.loc["x"]
                for i, x in enumerate(made)
            ]  # fmt: skip
            found[with_guide] = {
                name: [(f.loc[name, "p_value"], f.loc[name, "flagged"]) for f in frames]
                for name in WANTED
            }
        return found[with_guide]

    return of


@pytest.mark.parametrize("statistic", WANTED)
def test_p_values_of_the_prior_are_uniform(p_values, statistic):
    p = [p for p, _ in p_values(False)[statistic]]
    assert LOW <= sum(value <= 0.05 for value in p) <= HIGH
    assert kstest([value - 0.5 / (REPLICATES + 1) for value in p], "uniform").pvalue > 0.001


def test_any_flag_has_the_chance_that_it_claims(p_values):
    found = p_values(False).values()
    flags = [any(flag for _, flag in marks) for marks in zip(*found, strict=True)]
    assert LOW <= sum(flags) <= HIGH


@pytest.mark.parametrize("statistic", WANTED)
def test_p_values_with_the_guide_are_no_smaller(p_values, statistic):
    p = [p for p, _ in p_values(True)[statistic]]
    assert sum(value <= 0.05 for value in p) <= 0.05 * SETS
