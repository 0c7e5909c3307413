"""Moved distributions are distributions, begin where they were, and reach every normal."""

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms
from pyro.nn import AutoRegressiveNN

from ppl_vae.distributions import SoftmaxNormal
from ppl_vae.elbo.moved import WIDEST, moved, offset_size

ONE = torch.ones(())
FAMILIES = {
    "normal": dist.Normal(2 * ONE, 0.5),
    "log-normal": dist.LogNormal(0.3 * ONE, 0.5),
    "Laplace": dist.Laplace(2 * ONE, 0.5),
    "Student": dist.StudentT(5 * ONE, 2.0, 0.5),
    "gamma": dist.Gamma(2 * ONE, 3.0),
    "beta": dist.Beta(2 * ONE, 3.0),
    "uniform": dist.Uniform(-1 * ONE, 2.0),
    "half-normal": dist.HalfNormal(2 * ONE),
    "Weibull": dist.Weibull(2 * ONE, 1.5),
    "tanh of a normal": dist.TransformedDistribution(
        dist.Normal(0.3 * ONE, 0.5), [transforms.TanhTransform()]
    ),
    "masked": dist.Normal(2 * ONE, 0.5).mask(torch.tensor(True)),
}
SEVERAL = {
    "normals": dist.Normal(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 2.0])).to_event(1),
    "covariance": dist.MultivariateNormal(torch.ones(2), torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
    "low rank": dist.LowRankMultivariateNormal(torch.ones(2), torch.ones(2, 1), torch.ones(2)),
    "log-normals": dist.LogNormal(torch.zeros(2), 0.5).to_event(1),
    "Dirichlet": dist.Dirichlet(torch.tensor([2.0, 1.0, 3.0])),
    "shares at the edge": dist.Dirichlet(torch.tensor([0.1, 0.1, 0.05])),
    "softmax of normals": SoftmaxNormal(torch.tensor([0.0, -15.0, -30.0]), torch.ones(3)),
    "several shares": dist.Dirichlet(torch.rand(2, 3) + 0.1).to_event(1),
    "gammas": dist.Gamma(torch.tensor([2.0, 3.0]), 1.0).to_event(1),
    "an image": dist.Normal(torch.zeros(2, 3), 1.0).to_event(2),
    "a flow": dist.TransformedDistribution(
        dist.Normal(torch.zeros(2), 1.0).to_event(1),
        [transforms.AffineAutoregressive(AutoRegressiveNN(2, [4]))],
    ),
    "wide": dist.Normal(torch.zeros(WIDEST + 1), 1.0).to_event(1),
}  # fmt: skip


@pytest.mark.parametrize("fn", [*FAMILIES.values(), *SEVERAL.values()], ids=[*FAMILIES, *SEVERAL])
def test_an_offset_of_zero_changes_nothing(fn):
    fn = fn.expand((4,))
    same = moved(fn, torch.zeros(4, offset_size(fn)))
    assert (same.batch_shape, same.event_shape) == (fn.batch_shape, fn.event_shape)
    value = fn.sample()
    torch.testing.assert_close(same.log_prob(value), fn.log_prob(value), rtol=1e-4, atol=1e-4)
    if isinstance(fn, dist.LowRankMultivariateNormal):  # drawn from other noise
        return
    torch.manual_seed(0)
    drawn = fn.rsample()
    torch.manual_seed(0)
    torch.testing.assert_close(same.rsample(), drawn, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_density_of_a_moved_distribution_integrates_to_one(name):
    fn = moved(FAMILIES[name], torch.tensor([0.4, -0.3]))
    values = fn.sample((2000,))
    grid = torch.linspace(float(values.min()), float(values.max()), 20_001)[1:-1]
    inside = torch.trapezoid(fn.log_prob(grid).exp(), grid)
    assert float(inside) == pytest.approx(1.0, abs=0.01)  # 1 in 1,000 lies beyond the draws


SHARES = ["Dirichlet", "shares at the edge", "softmax of normals", "several shares"]


@pytest.mark.parametrize("name", ["normals", "covariance", "low rank", "a flow", *SHARES])
def test_draws_and_density_of_several_numbers_agree(name):
    """E_q[p / q] = 1 over draws of q for any density p on the same support."""
    torch.manual_seed(0)
    fn = SEVERAL[name]
    change = moved(fn, 0.3 * torch.randn(offset_size(fn)))
    draws = change.sample((200_000,))
    ratio = (fn.log_prob(draws) - change.log_prob(draws)).exp()
    assert float(ratio.mean()) == pytest.approx(1.0, abs=5 * float(ratio.std()) / 200_000**0.5)


@pytest.mark.parametrize("name", SHARES)
def test_the_density_of_moved_shares_is_right_to_single_precision(name):
    """An error of the density at the edge of the simplex would raise a likelihood by nats."""
    torch.manual_seed(0)
    fn = SEVERAL[name]
    offset = 0.5 * torch.randn(offset_size(fn))
    draws = moved(fn, offset).sample((1000,))
    base = getattr(fn, "base_dist", fn)
    names = ["loc", "scale"] if hasattr(base, "loc") else ["concentration"]
    double = type(base)(*(getattr(base, name).double() for name in names))
    double = double.to_event(fn.event_dim - base.event_dim)
    found = moved(fn, offset).log_prob(draws)
    right = moved(double, offset.double()).log_prob(draws.double())
    torch.testing.assert_close(found.double(), right, rtol=1e-4, atol=1e-3)


def test_a_diagonal_normal_reaches_every_covariance():
    normal = dist.Normal(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.1, 1.0, 30.0])).to_event(1)
    factor = torch.randn(3, 3).tril(-1) + torch.diag(torch.tensor([0.5, 2.0, 1.0]))
    shift = torch.tensor([1.0, 2.0, -1.0])
    rest = factor[tuple(torch.tril_indices(3, 3, -1))] * 2**0.5
    change = moved(normal, torch.cat([shift, factor.diagonal().log(), rest]))
    scale = normal.stddev
    torch.testing.assert_close(change.mean, normal.mean + scale * shift)
    expected = scale[:, None] * factor
    torch.testing.assert_close(change.covariance_matrix, expected @ expected.T)


def test_the_offset_acts_inside_masks_and_plates():
    fn = dist.Normal(torch.zeros(3, 4), 1.0).mask(torch.arange(4) > 0)
    offset = torch.zeros(4, 2)
    offset[1, 0] = 2.0
    change = moved(fn, offset)
    assert change.log_prob(torch.zeros(3, 4))[:, 0].eq(0).all()
    assert change.base_dist.mean.tolist() == [[0.0, 2.0, 0.0, 0.0]] * 3


@pytest.mark.parametrize(
    "fn",
    [
        dist.Delta(ONE),
        dist.Bernoulli(0.5 * ONE),
        dist.Normal(torch.zeros(2), 1.0).mask(torch.tensor([True, False])).to_event(1),
    ],
    ids=["point", "discrete", "cells masked"],
)
def test_what_cannot_be_moved_is_refused(fn):
    with pytest.raises(NotImplementedError):
        offset_size(fn)
