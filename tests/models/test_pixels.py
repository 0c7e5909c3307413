"""Likelihoods of pixels: closed forms, far in the tails, and bad pixels named by their cell."""

import math

import pandas as pd
import pyro
import pytest
import torch
from pyro import poutine

from ppl_vae import build, fit, generate, lint, log_likelihood
from ppl_vae.distributions import ContinuousBernoulli, RoundedLogistic
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.continuous_bernoulli import ContinuousBernoulliModel
from ppl_vae.models.discretized_logistic import DiscretizedLogisticModel

LEVELS = torch.arange(256.0)


class Constant(torch.nn.Module):
    """A decoder that gives the same numbers for each code."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = [numbers]

    def forward(self, z):
        return self.numbers[0].expand(len(z), -1)


def given(model, x, numbers):
    """The distribution of rows x, where the decoder gives these numbers."""
    model.decoder = Constant(numbers)
    return poutine.trace(model).get_trace(x).nodes["x"]["fn"].base_dist


def logistic(loc, scale):
    """The distribution of one pixel for each pair of a location and a scale, (1, pairs)."""
    loc, scale = torch.meshgrid(torch.tensor(loc), torch.tensor(scale), indexing="ij")
    model = DiscretizedLogisticModel(loc.numel(), 2, loc=0.0, scale=1.0)
    network = torch.cat([loc.flatten(), scale.flatten().log()])
    return given(model, torch.zeros(1, loc.numel()), network)


LOCS = [-1e4, -3.0, 0.0, 0.5, 100.0, 100.5, 127.3, 254.7, 255.0, 1e5]
SCALES = [1e-6, 1e-3, 0.1, 1.0, 20.0, 1e3]


def test_the_probabilities_of_the_levels_sum_to_one():
    log_prob = logistic(LOCS, SCALES).log_prob(LEVELS[:, None, None])
    assert bool(log_prob.isfinite().all())  # far in the tails too
    total = log_prob.double().exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-5)


def test_a_level_has_the_probability_of_the_logistic_density_over_its_cell():
    fn = logistic([-40.0, 3.2, 127.0, 300.0], [0.7, 5.0, 60.0])
    loc, scale = fn.loc.double(), fn.scale.double()
    edges = torch.cat([torch.tensor([-math.inf]), LEVELS[:-1] + 0.5, torch.tensor([math.inf])])
    z = (edges.double()[:, None, None] - loc) / scale
    exact = torch.where(z[1:] < 0, z.sigmoid().diff(dim=0), -(-z).sigmoid().diff(dim=0))
    found = fn.log_prob(LEVELS[:, None, None]).double()
    likely = exact > 1e-100
    torch.testing.assert_close(found[likely], exact[likely].log(), rtol=1e-4, atol=1e-4)


def test_draws_and_moments_are_those_of_the_probabilities():
    pyro.set_rng_seed(0)
    fn = logistic([-5.0, 3.2, 127.0, 260.0], [0.05, 2.0, 30.0])
    draws = fn.expand((1, *fn.batch_shape[1:])).sample((20_000,))
    assert bool(fn.support.check(draws).all())
    p = fn.log_prob(LEVELS[:, None, None]).double().exp()
    levels = LEVELS.double()[:, None, None]
    mean = (levels * p).sum(0)
    variance = ((levels - mean) ** 2 * p).sum(0)
    torch.testing.assert_close(fn.mean.double(), mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fn.variance.double(), variance, rtol=1e-3, atol=2e-2)
    error = (variance / len(draws)).sqrt()
    assert bool(((draws.double().mean(0) - mean).abs() <= 5 * error + 1e-6).all())


def test_gradients_are_finite_wherever_a_pixel_lies():
    loc = torch.tensor(LOCS).repeat_interleave(len(SCALES)).requires_grad_()
    log_scale = torch.tensor(SCALES).log().repeat(len(LOCS)).requires_grad_()
    model = DiscretizedLogisticModel(len(loc), 2, loc=0.0, scale=1.0)
    fn = given(model, torch.zeros(1, len(loc)), torch.cat([loc, log_scale]))
    fn.log_prob(torch.tensor([0.0, 7.0, 255.0])[:, None, None]).sum().backward()
    assert bool(loc.grad.isfinite().all())
    assert bool(log_scale.grad.isfinite().all())


LOGITS = torch.tensor([-300.0, -40, -16, -5, -0.3, -0.011, -0.009, 0, 1e-6, 0.02, 2, 17, 90, 1e3])


def test_the_constant_of_the_continuous_bernoulli_agrees_with_quadrature():
    fn = given(ContinuousBernoulliModel(len(LOGITS), 2), torch.zeros(1, len(LOGITS)), LOGITS)
    grid = torch.linspace(-18, 0, 20_001, dtype=torch.float64).exp()  # dense at 0
    grid = torch.cat([torch.zeros(1).double(), grid / 2, 1 - grid.flip(0)[1:] / 2])
    logits = LOGITS.double()
    unnormalized = logits * grid[:, None] - logits.clamp_min(0)
    constant = -torch.trapezoid(unnormalized.exp(), grid, dim=0).log()
    for x in (0.0, 0.3, 1.0):
        found = fn.log_prob(torch.full_like(LOGITS, x)).double()[0]
        exact = logits * x - logits.clamp_min(0) + constant
        torch.testing.assert_close(found, exact, rtol=2e-6, atol=1e-5)


def test_gradients_of_the_continuous_bernoulli_are_those_of_the_formula():
    logits = LOGITS.clone().requires_grad_()
    fn = given(ContinuousBernoulliModel(len(LOGITS), 2), torch.zeros(1, len(LOGITS)), logits)
    fn.log_prob(torch.full_like(LOGITS, 0.25)).sum().backward()
    safe = LOGITS.double().masked_fill(LOGITS.abs() < 1e-3, 1e-3)
    mean = 1 / -torch.expm1(-safe) - 1 / safe
    torch.testing.assert_close(logits.grad.double(), 0.25 - mean, rtol=1e-3, atol=2e-4)


# Bad pixels


def bad_cell(x, value):
    """A copy of images with one bad pixel."""
    x = x.clone()
    x[7, 0, 3, 5] = value
    return x


PIXELS = torch.randint(0, 256, (20, 1, 4, 6), generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize(
    ("cls", "x", "bad", "mend"),
    [
        (ContinuousBernoulliModel, PIXELS / 255, 1.5, "8-bit pixels: x / 255"),
        (DiscretizedLogisticModel, PIXELS, 3.5, "round the values"),
        (DiscretizedLogisticModel, PIXELS, 256.0, "change the likelihood or the data"),
        (DiscretizedLogisticModel, PIXELS, -1.0, "change the likelihood or the data"),
        (BernoulliModel, (PIXELS > 99).float(), 0.5, "threshold the values"),
    ],
)
def test_a_bad_pixel_is_named_by_its_cell_with_its_mend(cls, x, bad, mend):
    pair = build(cls, x, latents=2), build(NormalGuide, x, latents=2)
    assert lint(*pair, x).findings == ()
    x = bad_cell(x, bad)
    for call in (
        lambda: fit(*pair, x, epochs=1, progress=False),
        lambda: log_likelihood(*pair, x, num_samples=2),
    ):
        with pytest.raises(ValueError, match='site "x"') as raised:
            call()
        for piece in (f"{bad:g}", "row 7", "channel 0, row 3, column 5 of the image", mend):
            assert piece in str(raised.value)


def test_a_bad_pixel_of_a_frame_is_named_by_its_column():
    x = pd.DataFrame((PIXELS / 255).numpy()[:, 0, 0], columns=list("abcdef"))
    pair = build(ContinuousBernoulliModel, x), build(NormalGuide, x)
    x.loc[4, "e"] = -2.0
    for call in (lint(*pair, x).raise_if_failed, lambda: log_likelihood(*pair, x)):
        with pytest.raises(ValueError, match=r'row 4.*-2.*column "e"|-2.*row 4, column "e"'):
            call()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_pixels_of_any_dtype_score_alike_and_are_generated_in_it(dtype):
    x = PIXELS.to(dtype)
    model = build(DiscretizedLogisticModel, PIXELS, latents=2)
    pyro.set_rng_seed(0)
    found = poutine.trace(model).get_trace(x).log_prob_sum()
    pyro.set_rng_seed(0)
    torch.testing.assert_close(found, poutine.trace(model).get_trace(PIXELS).log_prob_sum())
    made = generate(model, None, x, num_samples=3)
    assert made.dtype == dtype
    assert made.shape == (3, 1, 4, 6)


@pytest.mark.parametrize("logit", [-300.0, -50.0, -17.0, -0.6, -0.4, -0.02, 0.0, 0.3, 14.0, 100.0])
def test_moments_and_draws_of_the_continuous_bernoulli_follow_its_density(logit):
    fn = ContinuousBernoulli(logits=torch.tensor(logit))
    exact = ContinuousBernoulli(logits=torch.tensor(logit, dtype=torch.float64))
    x = torch.linspace(0, 1, 300001, dtype=torch.float64)
    density = exact.log_prob(x).exp()
    mean, square = (torch.trapezoid(x**power * density, x).item() for power in (1, 2))
    below = x <= 0.03
    assert fn.mean.item() == pytest.approx(mean, rel=1e-5)
    assert fn.variance.item() == pytest.approx(square - mean**2, rel=1e-4)
    share = torch.trapezoid(density[below], x[below]).item()
    assert fn.cdf(torch.tensor(0.03)).item() == pytest.approx(share, abs=1e-5)
    draws = fn.sample((20000,))
    assert abs(draws.mean() - fn.mean) < 5 * (fn.variance / 20000).sqrt()
    assert torch.allclose(fn.icdf(fn.cdf(draws)), draws, atol=2e-3)


def test_the_cdf_of_the_rounded_logistic_adds_up_its_probabilities():
    fn, levels = RoundedLogistic(torch.tensor(40.0), torch.tensor(30.0)), torch.arange(256.0)
    torch.testing.assert_close(fn.cdf(levels), fn.log_prob(levels).exp().cumsum(0))
