"""Distributions of columns of a table: they sum to one, and draws have their probabilities."""

import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats

from ppl_vae.distributions import PaddedCategorical, WholeLogistic, WithAtoms

pytestmark = pytest.mark.usefixtures("double")
LOCS, SCALES = [-30.0, 0.0, 3.3, 5000.0], [0.05, 0.7, 40.0]
NAN = torch.nan


def whole(loc, scale):
    return WholeLogistic(torch.tensor(loc), torch.tensor(scale))


@pytest.mark.parametrize("loc", LOCS)
@pytest.mark.parametrize("scale", SCALES)
def test_whole_logistic_is_the_difference_of_two_cdfs_and_sums_to_one(loc, scale):
    x = torch.arange(float(max(0, loc - 60 * scale) // 1), max(0, loc + 60 * scale) + 10)
    found = whole(loc, scale).log_prob(x)
    upper = stats.logistic.cdf(x + 0.5, loc, scale)
    lower = torch.where(x > 0, torch.as_tensor(stats.logistic.cdf(x - 0.5, loc, scale)), 0.0)
    torch.testing.assert_close(found.exp(), torch.as_tensor(upper) - lower, rtol=1e-6, atol=1e-14)
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_whole_logistic_keeps_its_digits_in_the_tails_and_for_large_counts():
    single = WholeLogistic(torch.tensor(3.0).float(), torch.tensor(0.5).float())
    exact = whole(3.0, 0.5)
    for x in (0.0, 40.0, 1e4, 1e8):
        found = single.log_prob(torch.tensor(x).float()).item()
        assert found == pytest.approx(exact.log_prob(torch.tensor(x)).item(), rel=1e-5)
    large = WholeLogistic(torch.tensor(1e9).float(), torch.tensor(1e6).float())
    wanted = stats.logistic.logpdf(1e9 + 64, 1e9, 1e6)
    assert large.log_prob(torch.tensor(1e9 + 64).float()).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("loc", [-1e6, 0.0, 1e6])
@pytest.mark.parametrize("scale", [0.05, 1.0, 1e8])
@pytest.mark.parametrize("x", [0.0, 1.0, 1e15])
def test_gradients_of_whole_logistic_are_finite_everywhere(loc, scale, x):
    for dtype in (torch.float32, torch.float64):
        leaves = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (loc, scale)]
        value = WholeLogistic(*leaves).log_prob(torch.tensor(x, dtype=dtype))
        assert value.isfinite()
        assert all(g.isfinite() for g in torch.autograd.grad(value, leaves))


def fits(drawn, probabilities):
    """Whether draws have the probabilities of 0, 1, 2, ..., by chi-squared."""
    expected = probabilities * len(drawn)
    counts = torch.stack([(drawn == v).sum() for v in range(len(expected))])
    often = expected > 20
    observed, wanted = counts[often].double(), expected[often]
    rest = len(drawn) - torch.stack([observed.sum(), wanted.sum()])
    if rest[1] > 5:
        observed, wanted = torch.cat([observed, rest[:1]]), torch.cat([wanted, rest[1:]])
    chi = ((observed - wanted) ** 2 / wanted).sum().item()
    return stats.chi2.sf(chi, len(wanted) - 1) > 1e-3


@pytest.mark.parametrize(("loc", "scale"), [(-1.0, 2.0), (7.5, 1.5), (3.0, 0.1)])
def test_draws_of_whole_logistic_have_its_probabilities(loc, scale):
    wanted = whole(loc, scale).log_prob(torch.arange(40.0)).exp()
    assert fits(whole(loc, scale).sample((20_000,)), wanted)
    assert not fits(whole(loc + 0.3, scale * 1.2).sample((20_000,)), wanted)


def atoms(base, values=((0.0, 3.0), (1.0, NAN)), logits=((0.5, -1.0), (2.0, 7.0))):
    return WithAtoms(base, torch.tensor(values), torch.tensor(logits))


def test_atoms_and_the_rest_of_a_whole_base_sum_to_one():
    base = WholeLogistic(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0]))
    fn = atoms(base)
    x = torch.arange(100.0)[:, None].expand(-1, 2)
    torch.testing.assert_close(fn.log_prob(x).exp().sum(0), torch.ones(2))
    weights = torch.tensor([0.0, 0.5, -1.0]).softmax(0)
    wanted = weights[2] + weights[0] * base.log_prob(torch.tensor([3.0, 3.0])).exp()[0]
    assert fn.log_prob(torch.tensor([3.0, 3.0]))[0].exp().item() == pytest.approx(wanted.item())
    drawn = fn.sample((20_000,))
    assert all(fits(drawn[:, column], fn.log_prob(x).exp()[:, column]) for column in (0, 1))


def test_atoms_and_the_density_of_a_continuous_base_sum_to_one():
    fn = atoms(dist.LogNormal(torch.zeros(2), torch.ones(2)))
    weights = torch.tensor([0.0, 0.5, -1.0]).softmax(0)
    at = fn.log_prob(torch.tensor([0.0, 1.0])).exp()
    assert at[0].item() == pytest.approx(weights[1].item())

    def density(x):
        return fn.log_prob(torch.tensor([x, x])).exp()[0].item()

    area = integrate.quad(density, 1e-9, 3 - 1e-9)[0] + integrate.quad(density, 3 + 1e-9, 200)[0]
    assert area == pytest.approx(weights[0].item(), abs=1e-4)
    assert area + weights[1:].sum().item() == pytest.approx(1, abs=1e-4)
    second = torch.tensor([0.0, 2.0]).softmax(0)  # the column has one atom: NaN is none
    assert at[1].item() == pytest.approx(second[1].item())


def test_mean_and_variance_are_those_of_the_draws():
    fn = atoms(dist.Normal(torch.tensor([5.0, -2.0]), torch.tensor([2.0, 0.5])))
    torch.manual_seed(0)
    drawn = fn.sample((200_000,))
    torch.testing.assert_close(drawn.mean(0), fn.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.var(0), fn.variance, atol=0.06, rtol=0)
    share = (drawn[:, 0] == 0).double().mean().item()
    assert share == pytest.approx(torch.tensor([0.0, 0.5, -1.0]).softmax(0)[1].item(), abs=0.005)


@pytest.mark.parametrize("shape", [(4, 2), (3, 4, 2)])
def test_an_expanded_distribution_gives_the_same_numbers(shape):
    for fn, value in [
        (
            WholeLogistic(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0])),
            torch.tensor([0.0, 5.0]),
        ),
        (atoms(dist.Normal(torch.zeros(2), torch.ones(2))), torch.tensor([3.0, 0.3])),
    ]:
        wide = fn.expand(torch.Size(shape))
        assert wide.batch_shape == shape
        assert wide.sample((5,)).shape == (5, *shape)
        torch.testing.assert_close(wide.log_prob(value), fn.log_prob(value).expand(shape))
        torch.testing.assert_close(fn.log_prob(value.expand(shape)), wide.log_prob(value))


@pytest.mark.parametrize("logit", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("value", [0.0, 3.0, 0.7, 1e6])
def test_gradients_with_atoms_are_finite_everywhere(logit, value):
    for base in (dist.Normal, dist.LogNormal, WholeLogistic):
        x = torch.tensor([round(value) if base is WholeLogistic else value] * 2)
        x = torch.where(x > 0, x, 0.0 if base is not dist.LogNormal else 3.0)
        loc = torch.zeros(2, requires_grad=True)
        logits = torch.full((2, 2), logit, requires_grad=True)
        fn = WithAtoms(base(loc, torch.ones(2)), torch.tensor([[0.0, 3.0], [3.0, NAN]]), logits)
        found = fn.log_prob(x).sum()
        assert found.isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(found, [loc, logits]))


def test_the_support_is_that_of_the_base_and_the_atoms():
    base = dist.LogNormal(torch.zeros(2), torch.ones(2))
    support = atoms(base, ((0.0, -1.0), (0.0, NAN))).support
    values = torch.tensor([[0.0, 0.0], [-1.0, -1.0], [2.0, 2.0], [-2.0, NAN]])
    wanted = [[True, True], [True, False], [True, True], [False, False]]
    assert support.check(values).tolist() == wanted
    assert not support.is_discrete
    assert atoms(WholeLogistic(torch.zeros(2), torch.ones(2))).support.is_discrete


def test_a_padded_categorical_never_draws_what_it_does_not_have():
    fn = PaddedCategorical(logits=torch.tensor([[0.0, 1.0, -torch.inf], [0.0, 0.0, 0.0]]))
    assert fn.sample((1000,))[:, 0].max() == 1
    assert fn.log_prob(torch.tensor([0.0, 2.0])).exp().tolist() == pytest.approx(
        [0.26894, 1 / 3], abs=1e-5
    )
