"""Distributions that are moved by other arguments stay in their family, and reach all of it."""

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms
from torch.distributions import kl_divergence

from ppl_vae.distributions import SoftmaxNormal
from ppl_vae.elbo.within_family import family_offset_size, moved_within_family

ROWS = 4


def vectors(*shape, low=0.5):
    return low + torch.rand(*shape, generator=torch.Generator().manual_seed(3))


FAMILIES = {
    "normal": lambda: dist.Normal(vectors(ROWS, 3), vectors(ROWS, 3)).to_event(1),
    "one normal": lambda: dist.Normal(vectors(ROWS), vectors(ROWS)),
    "normal of one scale": lambda: dist.Normal(vectors(ROWS, 3), 2.0).to_event(1),
    "gamma": lambda: dist.Gamma(vectors(ROWS, 3), vectors(ROWS, 3)).to_event(1),
    "beta": lambda: dist.Beta(vectors(ROWS, 3), vectors(ROWS, 3)).to_event(1),
    "dirichlet": lambda: dist.Dirichlet(vectors(ROWS, 3)),
    "log-normal": lambda: dist.LogNormal(vectors(ROWS, 2), vectors(ROWS, 2)).to_event(1),
    "full normal": lambda: dist.MultivariateNormal(
        vectors(ROWS, 2), torch.tensor([[1.0, 0.5], [0.5, 2.0]]).expand(ROWS, 2, 2)
    ),
    "low rank": lambda: dist.LowRankMultivariateNormal(
        vectors(ROWS, 3), vectors(ROWS, 3, 1), vectors(ROWS, 3)
    ),
    "softmax": lambda: SoftmaxNormal(vectors(ROWS, 3), vectors(ROWS, 3)),
    "student": lambda: dist.StudentT(3 + vectors(ROWS), vectors(ROWS), vectors(ROWS)),
    "flow": lambda: dist.TransformedDistribution(
        dist.Normal(vectors(ROWS, 2), vectors(ROWS, 2)).to_event(1),
        [transforms.AffineTransform(1.0, 2.0), transforms.ExpTransform()],
    ),
    "masked": lambda: dist.Normal(vectors(ROWS, 3), 1.0).to_event(1).mask(torch.arange(ROWS) > 1),
    "plate inside": lambda: dist.Normal(vectors(2, ROWS, 3), 1.0).to_event(1),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_an_offset_of_0_changes_nothing_and_any_other_stays_in_the_family(name):
    fn = FAMILIES[name]()
    size = family_offset_size(fn)
    same = moved_within_family(fn, torch.zeros(ROWS, size))
    assert same.batch_shape == fn.batch_shape
    assert same.event_shape == fn.event_shape
    torch.manual_seed(0)
    value = fn.sample()
    torch.testing.assert_close(same.log_prob(value), fn.log_prob(value), rtol=1e-4, atol=1e-4)
    other = moved_within_family(fn, 0.3 * torch.randn(ROWS, size))
    assert type(other) is type(fn)
    assert bool(other.log_prob(other.sample()).isfinite().all())
    assert not torch.allclose(other.log_prob(value), fn.log_prob(value)) or name == "masked"


@pytest.mark.parametrize("name", ["normal", "gamma", "dirichlet", "full normal"])
def test_offsets_reach_any_other_member_of_the_family(name):
    fn, torch_seed = FAMILIES[name](), torch.Generator().manual_seed(5)
    offset = torch.randn(ROWS, family_offset_size(fn), generator=torch_seed)
    target = moved_within_family(fn, offset)
    found = torch.zeros_like(offset).requires_grad_()
    optimizer = torch.optim.LBFGS([found], max_iter=400, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = kl_divergence(moved_within_family(fn, found), target).sum()
        value.backward()
        return value

    optimizer.step(loss)
    assert loss().item() < 1e-3


def test_a_normal_of_independent_numbers_gets_no_correlations():
    fn = FAMILIES["normal"]()
    assert family_offset_size(fn) == 6  # a mean and a scale for each number
    moved = moved_within_family(fn, torch.ones(ROWS, 6))
    torch.testing.assert_close(moved.mean, fn.mean + fn.stddev)
    torch.testing.assert_close(moved.stddev, fn.stddev * torch.e)


@pytest.mark.parametrize(
    "fn",
    [
        dist.Delta(torch.zeros(ROWS)),
        dist.Poisson(torch.ones(ROWS)),
        dist.Uniform(torch.zeros(ROWS), 1.0),
        dist.MultivariateNormal(torch.zeros(ROWS, 65), torch.eye(65)),
        dist.Normal(torch.zeros(ROWS, 2), 1.0).mask(torch.tensor([True, False])).to_event(1),
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_what_has_no_arguments_to_move_is_refused(fn):
    with pytest.raises(NotImplementedError):
        family_offset_size(fn)
