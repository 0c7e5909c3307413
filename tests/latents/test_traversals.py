"""``interpolate`` and ``traverse``: lines between codes, and one coordinate at a time."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.latents import W, X, linear_guide, linear_model

from ppl_vae import interpolate, traverse


def test_lines_start_and_end_at_the_codes_of_the_rows():
    lines = interpolate(linear_model, linear_guide, X[:3], steps=5).reshape(2, 5, 3)
    ends = X[:3, :2] @ W
    assert torch.allclose(lines[:, 0], ends[:2], atol=1e-5)
    assert torch.allclose(lines[:, -1], ends[1:], atol=1e-5)
    assert torch.allclose(lines[:, 2], (ends[:2] + ends[1:]) / 2, atol=1e-5)


def test_a_traversal_moves_one_latent_over_its_prior():
    moved = traverse(linear_model, linear_guide, X, steps=7, width=3.0).reshape(2, 7, 3)
    center = X[0, :2] @ W
    for latent in range(2):
        slope = (moved[latent, -1] - moved[latent, 0]) / 6
        assert torch.allclose(slope, W[latent], atol=0.15)
        other = X[0, 1 - latent] * W[1 - latent]
        assert torch.allclose(moved[latent, 3] - other, torch.zeros(3), atol=0.35)
    assert center.shape == (3,)


def test_discrete_latents_change_half_way_and_cannot_be_traversed():
    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=torch.zeros(2)))
            pyro.sample(
                "x", dist.Normal(y[..., None].float() * torch.ones(3), 1.0).to_event(1), obs=x
            )

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=torch.stack([-9 * x[:, 0], 9 * x[:, 0]], -1)))

    ends = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]])
    assert interpolate(model, guide, ends, steps=4)[:, 0].tolist() == [0.0, 0.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="expected a continuous latent to traverse, got y"):
        traverse(model, guide, ends)


def one_hot_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.OneHotCategorical(logits=torch.zeros(3)))
        w = pyro.sample("w", dist.Gamma(2.0, 1.0))
        loc = torch.cat([10 * z, w[..., None]], -1)
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def one_hot_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.OneHotCategorical(logits=x[:, :3]))
        pyro.sample("w", dist.Gamma(100 * x[:, 3], 100.0))


def test_latents_stay_in_their_support_on_a_line():
    x = torch.cat([10 * torch.eye(3), torch.tensor([[0.5], [2.0], [4.0]])], 1)
    line = interpolate(one_hot_model, one_hot_guide, x[:2], steps=5)
    assert set(line[:, :3].flatten().tolist()) == {0.0, 10.0}
    assert line[:, 3].tolist() == pytest.approx([0.5, 0.5**0.5, 1.0, 2.0**0.5, 2.0], rel=1e-5)
    # the one-hot latent comes first and is discrete, so that "w" moves
    moved = traverse(one_hot_model, one_hot_guide, x, steps=5)
    assert (moved[:, :3] == 10 * torch.eye(3)[0]).all()
    assert (moved[:, 3] > 0).all()
    assert moved[:, 3].diff().min() > 0


def test_a_traversal_uses_the_priors_own_width():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(5.0, 2.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    moved = traverse(model, guide, torch.zeros(3), steps=3, width=1.5)
    assert moved.tolist() == pytest.approx([2.0, 5.0, 8.0])


def test_a_traversal_is_finite_for_a_prior_with_heavy_tails():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Cauchy(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Cauchy(x, 0.1))

    assert interpolate(model, guide, torch.tensor([0.0, 4.0]), steps=3)[1] == pytest.approx(
        2, abs=0.1
    )
    assert traverse(model, guide, torch.zeros(2)).isfinite().all()


def test_layers_below_the_latent_that_moves_follow_it_and_others_are_held():
    def model(x):
        with pyro.plate("data", len(x)):
            z3 = pyro.sample("z3", dist.Normal(torch.zeros(len(x)), 1.0))
            z2 = pyro.sample("z2", dist.Normal(2 * z3, 0.1))
            z1 = pyro.sample("z1", dist.Normal(z2 + 1, 0.1))
            w = pyro.sample("w", dist.Normal(torch.zeros(len(x)), 1.0))
            loc = torch.stack([z1, z2, w], -1)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            for name in ("z3", "z2", "z1", "w"):
                pyro.sample(name, dist.Normal(x[:, 0], 0.1))

    x = torch.tensor([[0.5, 0.0, 0.0]])
    moved = {
        site: traverse(model, guide, x, site=site, steps=3, width=1.0) for site in ["z3", "z2", "w"]
    }
    assert moved["z3"].flatten().tolist() == pytest.approx([-1, -2, 0.5, 1, 0, 0.5, 3, 2, 0.5])
    assert moved["z2"][:, 0].tolist() == pytest.approx((moved["z2"][:, 1] + 1).tolist())
    assert moved["w"].flatten().tolist() == pytest.approx([0.5, 0.5, -1, 0.5, 0.5, 0, 0.5, 0.5, 1])
