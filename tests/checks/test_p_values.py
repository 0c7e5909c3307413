"""p-values: exact where data and replicates are alike, small where the data lie outside."""

import math

import pytest
import torch

from ppl_vae.checks.p_values import RobustScale, verdicts

S = 99


def from_one_distribution(seed, shapes, draw=torch.randn):
    """Return observed, (1, values), and replicated values, (S, values), of several statistics."""
    torch.manual_seed(seed)
    found = []
    for values in shapes:
        drawn = draw(S + 1, values).double()
        found.append((drawn[:1], drawn[1:]))
    return found


def skewed(*shape):
    return torch.randn(*shape).mul(1.5).exp()


@pytest.mark.parametrize("draw", [torch.randn, skewed], ids=["normal", "skewed"])
def test_p_is_uniform_and_5_percent_of_perfect_models_have_any_flag(draw):
    p, flags, rounds = [], 0, 600
    for seed in range(rounds):
        found = verdicts(from_one_distribution(seed, (1, 8, 60), draw))
        p += [v.p_value for v in found]
        flags += any(v.p_adjusted <= 0.05 for v in found)
    for level in (0.05, 0.2, 0.5, 0.9):
        share = sum(value <= level for value in p) / len(p)
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / len(p))
    assert abs(flags / rounds - 0.05) < 4 * math.sqrt(0.05 * 0.95 / rounds)


def test_an_outlier_is_flagged_and_other_statistics_are_not():
    found = from_one_distribution(0, (60, 60, 60))
    found[1][0][0, 17] = 40.0
    first, second, third = verdicts(found)
    assert (second.worst, second.p_value, second.p_adjusted) == (17, 1 / (S + 1), 1 / (S + 1))
    assert float(second.each[17]) == 1 / (S + 1)
    assert min(first.p_adjusted, third.p_adjusted) > 0.05


def test_a_value_on_the_short_side_of_a_skewed_statistic_is_far_out():
    replicated = (
        torch.linspace(0.01, 0.99, S).pow(-2.0).sqrt()[:, None].double()
    )  # none below 1.005
    (verdict,) = verdicts([(torch.tensor([[0.5]]).double(), replicated)])
    assert verdict.p_value < 0.05


def test_ties_and_constants_have_large_p_values():
    one = torch.ones(1, 3).double()
    (verdict,) = verdicts([(one, one.expand(S, 3))])
    assert (verdict.p_value, verdict.p_adjusted) == (1.0, 1.0)
    (verdict,) = verdicts([(one, (torch.arange(S) % 2).double()[:, None].expand(S, 3))])
    assert verdict.p_value > 0.4


def test_data_that_differ_from_constant_replicates_have_the_smallest_p_value():
    observed = torch.tensor([[0.2, 1.0]]).double()
    (verdict,) = verdicts([(observed, torch.ones(S, 2).double())])
    assert (verdict.worst, verdict.p_value) == (0, 1 / (S + 1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_or_infinity_in_one_column_does_not_hide_other_columns(value):
    found = from_one_distribution(1, (5,))
    found[0][1][::2, 0] = value
    found[0][0][0, 3] = 50.0
    (verdict,) = verdicts(found)
    assert (verdict.worst, verdict.p_value) == (3, 1 / (S + 1)) or value == math.inf
    assert 0 < verdict.p_value <= 1


def test_discrepancies_are_compared_draw_by_draw():
    torch.manual_seed(0)
    shared = 10 * torch.randn(S, 1).double()  # what a draw's latents add to both
    near = shared + torch.randn(S, 1).double()
    (fair,) = verdicts([(near, shared + torch.randn(S, 1).double())])
    assert 0.2 < fair.p_value < 0.8


def test_each_side_of_the_median_has_a_spread_of_its_own():
    scale = RobustScale.of(torch.tensor([-1.0, 0.0, 0.0, 0.0, 4.0])[:, None].double())
    assert float(scale.above / scale.below) == pytest.approx(4.0)
    assert scale.signed_distance(torch.tensor([[0.0], [math.nan]]).double()).flatten().tolist() == [
        0.0,
        0.0,
    ]
