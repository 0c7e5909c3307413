"""Calibration of guides: exact posteriors pass, faults are named, and nothing is silently wrong.

Seeds are fixed. The full study of 100 runs is ``benchmarks/guide_calibration.py``.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts import posteriors as known
from parts.extras import scipy_stats
from torch import nn

import ppl_vae
from ppl_vae import guide_calibration
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows
from ppl_vae.evaluation.guide_ranks import _compared
from ppl_vae.evaluation.rank_tests import LIKELIHOOD
from ppl_vae.evaluation.simulated_rows import SimulatedRows
from ppl_vae.guides.delta import DeltaGuide
from ppl_vae.guides.local import LocalGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.ppca import PPCAModel
from ppl_vae.models.state_space import StateSpaceModel

X = torch.zeros(10, 6)


def ppca(seed=0, **fault):
    torch.manual_seed(seed)
    model = PPCAModel(6, 3)
    return model, known.Posterior(model, **fault), X


def directions(found):
    return set(found.frame["direction"]) - {""}


def passes(*pair, runs=12, **options):
    """How many of some runs pass; under a correct guide fewer than 8 of 12 in one of 30,000."""
    return sum(guide_calibration(*pair, seed=seed, **options).passed for seed in range(runs))


def test_an_exact_guide_passes():
    assert sum(guide_calibration(*ppca(seed), seed=seed).passed for seed in range(12)) >= 8


@pytest.mark.parametrize(
    ("fault", "direction"),
    [
        ({"factor": 0.8}, "narrow"), ({"factor": 1.2}, "wide"),
        ({"shift": 0.5}, "high"), ({"shift": -0.5}, "low"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_its_direction_and_no_other(fault, direction):
    for seed in range(3):
        found = guide_calibration(*ppca(seed, **fault), seed=seed)
        assert not found.passed
        assert directions(found) == {direction}
        assert (found.frame["direction"] == direction).sum() == 3
        assert found.frame["site"].iloc[-1] == LIKELIHOOD
        assert found.frame["direction"].iloc[-1] == ""


def test_ranks_of_an_exact_guide_are_uniform():
    found = guide_calibration(*ppca(), num_rows=4000, num_draws=9, seed=3)
    for name in found.ranks:
        counts = np.bincount(found.ranks[name], minlength=10)
        assert len(counts) == 10
        assert scipy_stats().chisquare(counts).pvalue > 1e-4


def test_a_guide_that_ignores_the_row_is_found_by_the_likelihood_alone():
    def prior(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    found = guide_calibration(ppca()[0], prior, X, seed=1)
    assert found.frame["flagged"].tolist() == [False, False, False, True]
    assert found.ranks[LIKELIHOOD].mean() > 60  # the true latents explain the row better


def test_categories_are_ranked_one_by_one():
    x = torch.zeros(10)
    assert passes(known.three_classes, known.class_given_row(1.0), x, num_rows=500) >= 8
    found = guide_calibration(known.three_classes, known.class_given_row(2.0), x)
    assert found.frame["dimension"].tolist() == ["=0", "=1", "=2", ""]
    assert directions(found) == {"narrow"}


def test_steps_after_the_end_have_no_ranks_and_do_not_hide_a_fault():
    data = {"x": torch.zeros(20, 3), "lengths": torch.arange(20) % 3 + 1}
    assert passes(known.steps, known.steps_given_row(1.0), data, num_rows=300) >= 8
    found = guide_calibration(known.steps, known.steps_given_row(0.7), data, num_rows=1000)
    missing = found.ranks.isna().mean()
    np.testing.assert_allclose(missing, [0, 0.35, 0.7, 0])  # 7 rows of 20 have 1 step
    assert found.frame["direction"].tolist()[:3] == ["narrow"] * 3


def test_paths_have_no_ranks_after_their_end():
    model = StateSpaceModel(4, 2)
    guide = SmoothingGuide(4, 2, 2)
    data = {"x": torch.zeros(6, 5, 4), "lengths": torch.tensor([1, 2, 3, 4, 5, 5])}
    found = guide_calibration(model, guide, data, num_rows=60, num_draws=9)
    missing = found.ranks.isna().sum().to_numpy()[:-1].reshape(5, 2)
    assert missing.T.tolist() == [[0, 10, 20, 30, 40]] * 2


def test_missing_cells_stay_missing_in_the_rows_that_are_drawn():
    data = {"x": torch.zeros(30), "seen": torch.arange(30) % 3 > 0}
    exact, blind = (known.given_seen(reads_masked=each) for each in (False, True))
    assert passes(known.some_seen, exact, data, num_rows=500) >= 8
    assert not guide_calibration(known.some_seen, blind, data).passed
    assert list(guide_calibration(known.some_seen, exact, data).ranks) == ["z", LIKELIHOOD]


def test_latents_outside_the_row_plate_are_given_and_named():
    assert passes(known.shared_mean, known.given_mean, torch.zeros(10), num_rows=500) >= 8
    found = guide_calibration(known.shared_mean, known.given_mean, torch.zeros(10))
    assert found.outside == ["mean"]
    assert list(found.ranks) == ["z", LIKELIHOOD]
    assert "given draws of mean" in str(found)


def test_summed_latents_are_drawn_from_their_posterior():
    def summed(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(known.SHARES), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(known.MEANS[k], 1.0), obs=x)

    assert passes(summed, None, torch.zeros(10), num_rows=500, recalibrate=True) >= 8


def test_a_latent_that_the_guide_leaves_out_is_named():
    found = guide_calibration(ppca()[0], None, X, num_rows=500)
    assert found.from_prior == ["z"]
    assert found.frame["flagged"].tolist() == [False, False, False, True]


def test_importance_weights_mend_a_wide_guide_and_not_a_displaced_one():
    one = PPCAModel(6, 1)
    wide = guide_calibration(one, known.Posterior(one, 1.5), X, recalibrate=True, num_draws=200)
    assert not wide.passed
    assert not wide.recalibrated["flagged"].any()
    assert "importance weights mend z[0], log p(x | z)" in str(wide)
    far = guide_calibration(one, known.Posterior(one, 1.0, 3.0), X, recalibrate=True)
    assert far.recalibrated["flagged"].any()
    assert "do not mend" in str(far)


def test_weights_that_are_all_equal_leave_the_ranks_as_they_are():
    found = guide_calibration(*ppca(), recalibrate=True, num_rows=300)
    assert found.recalibrated is not None
    assert (found.ranks - found.weighted_ranks).iloc[:, :-1].abs().max().max() <= 1
    assert guide_calibration(*ppca(), num_rows=300).recalibrated is None


def test_effective_draws_count_where_weights_are_uneven():
    """Uneven weights are as few draws: taken for all of them, ranks pile up at the ends."""
    torch.manual_seed(0)
    model = PPCAModel(6, 2)
    shifted = known.Posterior(model, shift=0.5)
    p = [
        guide_calibration(model, shifted, X, recalibrate=True, seed=seed).recalibrated["p_value"]
        for seed in range(4)
    ]
    assert min(each.min() for each in p) > 1e-9  # with all of them, below 1e-9 in each run


def test_of_two_categories_one_is_ranked():
    def coin(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

    found = guide_calibration(coin, None, torch.zeros(5), num_rows=50)
    assert list(found.ranks) == ["k[=1]", LIKELIHOOD]


def test_numbers_that_are_constant_have_no_ranks():
    def half_constant(x):
        spread = torch.tensor([1.0, 1e-20])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.full((2,), 5.0), spread).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    found = guide_calibration(half_constant, None, torch.zeros(5), num_rows=50)
    assert found.ranks.isna().sum().tolist() == [0, 50, 0]
    assert found.frame["p_value"].isna().tolist() == [False, True, False]
    assert "not tested, as they are constant or masked: 1" in str(found)


def test_rounding_of_the_likelihood_is_a_tie_and_that_of_a_latent_is_none():
    truth = torch.tensor([[[1.0, -500.0]]])
    draws = torch.tensor([[[1.0000002, -500.0001]], [[0.9999998, -500.01]], [[1.0, -499.9]]])
    less, equal = _compared(draws, truth)
    assert less[:, 0].tolist() == [[False, False], [True, True], [False, False]]
    assert equal[:, 0].tolist() == [[False, True], [False, False], [True, False]]


def test_groups_of_rows_have_their_own_draws_of_the_latents_outside_the_plate():
    pair = Pair.of(known.shared_mean, known.given_mean, "data")
    rows = SimulatedRows(pair, Rows(torch.zeros(10)), 200, 1000, seed=0)
    means = [float(rows.shared(torch.tensor([start]))["mean"]) for start in range(0, 200, 10)]
    assert len(set(means)) == 20
    assert 0.2 < np.std(means) < 1.0  # of the guide, whose is 0.5, and not of the prior, 3


def test_the_same_seed_gives_the_same_ranks_and_generators_are_left_alone():
    pair, before = ppca(), torch.get_rng_state()
    first, again, other = (
        guide_calibration(*pair, num_rows=50, seed=seed).ranks for seed in (1, 1, 2)
    )
    assert first.equals(again)
    assert not first.equals(other)
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_on_which_the_pair_overflows_are_counted():
    class Overflowing(NormalGuide):
        def forward(self, x):
            mean, log_variance = self.encoder(self.standardize(x)).chunk(2, -1)
            spread = (log_variance / 2 + 1e4 * (x[:, :1] > 150)).exp()
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(mean, spread).to_event(1))

    model = GaussianModel(4, 2, loc=100.0, scale=30.0)
    found = guide_calibration(model, Overflowing(4, 2), torch.full((5, 4), 100.0), num_rows=200)
    assert 0 < found.left_out < 100
    assert found.ranks.isna().all(axis=1).sum() == found.left_out
    assert f"{found.left_out} drawn rows are left out" in str(found)


class ByIndex(nn.Module):
    """A guide that finds numbers by the index of a row, and reads nothing else."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(10, 3))

    def forward(self, index):
        with pyro.plate("data", len(index)):
            pyro.sample("z", dist.Normal(self.mean[index], 1.0).to_event(1))


def test_guides_of_some_rows_are_refused():
    model, data = ppca()[0], {"x": torch.randn(10, 6), "index": torch.arange(10)}
    with pytest.raises(ValueError, match=r'guide: expected an amortized guide.*"index" alone'):
        guide_calibration(model, ByIndex(), data)
    local = LocalGuide(rows=10, latents=3)
    ppl_vae.fit(model, local, data, epochs=1, compile=False, progress=False)
    with pytest.raises(ValueError, match=r"guide: expected an amortized guide.*other rows"):
        guide_calibration(model, local, data)
    refined = ppl_vae.refine(model, NormalGuide(6, 3), data["x"], steps=2, progress=False)
    with pytest.raises(ValueError, match=r"guide: expected an amortized guide.*refined for"):
        guide_calibration(model, refined, data["x"])


def test_points_and_models_without_latents_or_observations_are_refused():
    x = torch.ones(5, 4)
    with pytest.raises(ValueError, match=r'site "z": .*got a point'):
        guide_calibration(BernoulliModel(4, 2), DeltaGuide(4, 2), x)

    def no_latent(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([4]).to_event(1), obs=x)

    with pytest.raises(ValueError, match='guide: expected a latent in the row plate "data"'):
        guide_calibration(no_latent, None, x)

    def no_data(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(1), 1.0))

    with pytest.raises(ValueError, match="model: expected an observed site in the row plate"):
        guide_calibration(no_data, None, x)


def test_models_that_cannot_be_simulated_are_refused():
    def with_factor(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.factor("penalty", -z)

    def guide(x, seen=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(ValueError, match='got the factor "penalty"'):
        guide_calibration(with_factor, guide, torch.zeros(5))

    def observes_its_mask(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.1).mask(seen > 0), obs=x)
            pyro.sample("seen", dist.Bernoulli(logits=z), obs=seen)

    data = {"x": torch.zeros(20), "seen": (torch.arange(20) % 2).float()}
    with pytest.raises(ValueError, match='site "x": expected a distribution that the observed'):
        guide_calibration(observes_its_mask, guide, data)
