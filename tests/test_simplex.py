"""The softmax of a normal variable: its density on the simplex, and draws far out."""

import pyro.distributions as dist
import pytest
import torch

from ppl_vae.distributions import SoftmaxNormal
from ppl_vae.distributions.simplex import LEAST

LOC, SCALE = torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([0.7, 1.5, 0.2, 1.0])


@pytest.mark.usefixtures("double")
def test_the_density_is_that_of_normal_log_ratios():
    """log(z_i / z_d) is normal with covariance diag(s^2) + s_d^2, and |dr/dz| = 1 / prod z."""
    loc, scale = LOC.double(), SCALE.double()
    z = dist.Dirichlet(torch.ones(4)).sample((50,))
    ratios = dist.MultivariateNormal(loc[:-1] - loc[-1], (scale[:-1] ** 2).diag() + scale[-1] ** 2)
    right = ratios.log_prob(z[:, :-1].log() - z[:, -1:].log()) - z.log().sum(-1)
    torch.testing.assert_close(SoftmaxNormal(loc, scale).log_prob(z), right)


def test_a_constant_added_to_the_location_changes_no_density():
    z = dist.Dirichlet(torch.ones(4)).sample((20,))
    first, moved = (SoftmaxNormal(LOC + shift, SCALE).log_prob(z) for shift in (0.0, 3.0))
    torch.testing.assert_close(first, moved)


def test_draws_are_scored_as_any_other_value():
    shares = SoftmaxNormal(LOC, SCALE).expand((30,))
    z = shares.rsample()
    assert ((z.sum(-1) - 1).abs() < 1e-5).all()
    torch.testing.assert_close(shares.log_prob(z), shares.log_prob(z.clone()), rtol=1e-4, atol=1e-3)


def test_draws_at_the_edge_of_the_simplex_have_the_density_of_the_variable_before_it():
    """A point at the bound has a tiny density, which would make the ELBO of a draw there huge."""
    leaf = torch.tensor([0.0, -300.0, -500.0], requires_grad=True)
    shares = SoftmaxNormal(leaf, torch.tensor(0.01))
    torch.manual_seed(0)
    z = shares.rsample((100,))
    assert z.min().item() == pytest.approx(LEAST)
    # The entropy of q(u) less the mean log-Jacobian, here about that of three normals and sum m.
    found = -torch.stack([shares.log_prob(shares.rsample()) for _ in range(100)])
    right = dist.Normal(0.0, 0.01).entropy() * 2 + 0.5 * torch.log(torch.tensor(3.0)) - 800
    assert found.mean().item() == pytest.approx(right.item(), abs=0.5)
    found.mean().backward()
    assert leaf.grad.isfinite().all()
    assert leaf.grad.abs().max() < 10


def test_a_narrow_density_keeps_its_digits():
    loc, scale = torch.tensor([30.0, 29.0, 10.0]), torch.tensor(1e-5)
    shares = SoftmaxNormal(loc, scale)
    torch.manual_seed(0)
    squares = torch.stack([shares.log_prob(shares.rsample()) for _ in range(200)])
    exact = SoftmaxNormal(loc.double(), scale.double())
    right = torch.stack([exact.log_prob(exact.rsample()) for _ in range(200)])
    assert squares.mean().item() == pytest.approx(right.mean().item(), abs=0.5)
