"""p-values are calibrated: uniform with draws from the prior, never too small with a guide.

Data sets are made by the fitted model itself, so that every flag is a false alarm. The small study
runs by default; the large one has the same properties with narrower bounds.
"""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
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

    def has_nominal_share_or_less(self, count):
        """Whether the number of p-values of at most 0.05 is below its upper 0.5 %."""
        return binom.cdf(count - 1, self.data_sets, 0.05) <= 0.995


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


# Sites of several kinds, whose columns depend on one another through a class that is summed out

RARE = torch.tensor([[0.5, 0.3, 0.1, 0.05, 0.03, 0.02], [0.2, 0.5, 0.15, 0.1, 0.04, 0.01]])
ACROSS = ["correlation", "group mean", "co-occurrence"]


def classes(real, positive, count, code, bit, seen):
    with pyro.plate("data", len(real)):
        k = pyro.sample("k", dist.Bernoulli(0.4), infer={"enumerate": "parallel"}).long()
        high = k[..., None].float()
        real_fn = dist.Normal(high * torch.tensor([1.0, -0.5, 0.0]), 1.0)
        pyro.sample("real", real_fn.mask(seen).to_event(1), obs=real)
        pyro.sample("positive", dist.LogNormal(high, 1.0).to_event(1), obs=positive)
        pyro.sample("count", dist.Poisson(1 + 2 * high).to_event(1), obs=count)
        code_fn = dist.Categorical(torch.stack([RARE, RARE.flip(1)])[k]).mask(seen[:, :2])
        pyro.sample("code", code_fn.to_event(1), obs=code)
        pyro.sample("bit", dist.Bernoulli(0.3 + 0.4 * high).to_event(1), obs=bit)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(None, id="prior"),
        # by the same code, and with fewer false alarms
        pytest.param(lambda *data: None, id="posterior", marks=pytest.mark.slow),
    ],
)
def checks_of_classes(study, request):
    """Return the frame of each data set's check: latents from the prior, or given the rows."""
    rows = 100
    maker = torch.Generator().manual_seed(0)
    seen = torch.rand(rows, 3, generator=maker) < 0.9
    sizes = {"real": 3, "positive": 1, "count": 1, "code": 2, "bit": 1}
    empty = {site: torch.zeros(rows, size) for site, size in sizes.items()}
    empty = {**empty, "positive": torch.ones(rows, 1), "code": torch.zeros(rows, 2).long()}
    made = ppl_vae.prior_predictive(
        classes, {**empty, "seen": seen}, num_samples=study.data_sets, seed=1
    )
    return request.param, [
        ppl_vae.predictive_check(
            classes, request.param, {**{site: made[site][i] for site in sizes}, "seen": seen},
            num_samples=study.replicates, seed=100 + i,
        ).frame
        for i in range(study.data_sets)
    ]  # fmt: skip


def test_a_perfect_model_of_several_sites_has_any_flag_in_5_percent_of_data_sets_or_less(
    study, checks_of_classes
):
    guide, frames = checks_of_classes
    assert all(set(frame.loc["(across sites)"].index) == set(ACROSS) for frame in frames)
    flags = sum(frame["flagged"].any() for frame in frames)
    share = study.has_nominal_share if guide is None else study.has_nominal_share_or_less
    assert share(flags)


@pytest.mark.parametrize("statistic", ACROSS)
def test_p_values_of_pairs_across_sites_are_uniform_or_conservative(
    study, checks_of_classes, statistic
):
    guide, frames = checks_of_classes
    p = [frame.loc[("(across sites)", statistic), "p_value"] for frame in frames]
    small = sum(value <= 0.05 for value in p)
    if guide is None:
        assert study.has_nominal_share(small)
        half_step = 0.5 / (study.replicates + 1)
        assert kstest([value - half_step for value in p], "uniform").pvalue > 0.001
    else:  # the columns say little of the class, so that p-values are hardly conservative
        assert study.has_nominal_share_or_less(small)
