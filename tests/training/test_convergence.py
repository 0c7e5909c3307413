"""A fit that still rises says so, and one that does not rise is not accused of it."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule

from ppl_vae import build, fit
from ppl_vae.models.ppca import PPCAModel
from ppl_vae.training.convergence import Trend, has_converged

X = torch.tensor([1.17, 2.97, 3.26, 4.69, 5.83, 6.0, 6.41])
Y = torch.tensor([78.93, 58.2, 67.47, 37.47, 45.65, 32.92, 29.97])


class Regression(PyroModule):
    def forward(self, x, y):
        a = pyro.sample("intercept", dist.Normal(0.0, 100.0))
        b = pyro.sample("slope", dist.Normal(0.0, 100.0))
        sd = pyro.sample("sd", dist.HalfCauchy(5.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(a + b * x, sd), obs=y)


def autoregressive(rng, count, sd, r):
    noise = np.zeros(count)
    for i in range(1, count):
        noise[i] = r * noise[i - 1] + rng.normal()
    return sd * noise * (1 - r**2) ** 0.5


@pytest.mark.parametrize("r", [0.0, 0.6])
@pytest.mark.parametrize("epochs", [60, 900])
def test_flat_curves_are_rarely_called_rising(r, epochs):
    rng = np.random.default_rng(0)
    answers = [has_converged(autoregressive(rng, epochs, 0.2, r) - 9) for _ in range(400)]
    assert answers.count(False) <= 12  # 3 %


def test_the_error_of_a_rise_is_its_spread():
    rng = np.random.default_rng(1)
    trends = [Trend.of(0.002 * np.arange(300) + 0.3 * rng.normal(size=300)) for _ in range(500)]
    assert np.mean([trend.rise for trend in trends]) == pytest.approx(0.6, abs=0.02)
    spread = np.std([trend.rise for trend in trends])
    assert np.mean([trend.error for trend in trends]) == pytest.approx(spread, rel=0.15)


def test_a_rise_below_the_noise_of_an_epoch_is_seen():
    rng = np.random.default_rng(2)
    curve = -5 + 0.0003 * np.arange(3000) + 0.3 * rng.normal(size=3000)
    assert has_converged(curve) is False


def test_a_curve_that_falls_in_the_end_has_converged():
    curve = np.concatenate([np.linspace(-9, -5, 80), np.linspace(-5, -5.5, 40)])
    assert has_converged(curve) is True


@pytest.mark.parametrize("curve", [np.zeros(23), np.full(90, np.nan)])
def test_short_and_broken_curves_tell_nothing(curve):
    assert has_converged(curve) is None


def test_noise_that_could_hide_a_rise_tells_nothing():
    assert has_converged(np.random.default_rng(3).normal(size=60) * 5) is None


def test_an_unconverged_regression_says_so_and_what_to_do():
    """The slope is positive after 1,500 epochs, where least squares has -9.4."""
    model = Regression()
    guide = AutoNormal(model)
    history = fit(
        model, guide, (X, Y), epochs=1500, progress=False,
        optimizer=lambda p: torch.optim.Adam(p, 0.05),
    )  # fmt: skip
    assert guide.median()["slope"] > 0
    assert history.converged is False
    assert "still rises" in str(history)
    assert "more epochs" in str(history)


def test_a_fit_that_has_reached_its_closed_form_has_converged():
    x = torch.randn(200, 4) @ torch.randn(4, 4)
    model = build(PPCAModel, x, latents=2)
    optimizer = lambda p: torch.optim.Adam(p, 0.05)  # noqa: E731
    history = fit(model.marginal, None, x, epochs=300, progress=False, optimizer=optimizer)
    exact = build(PPCAModel, x, latents=2)
    exact.solve(x)
    with torch.no_grad():
        assert model.log_prob(x).mean() == pytest.approx(float(exact.log_prob(x).mean()), abs=0.01)
    assert history.converged is True
    assert "converged        yes: the training ELBO no longer rises" in str(history)


def test_held_out_rows_decide_where_there_are_any():
    x = torch.randn(40, 6)
    model = build(PPCAModel, x, latents=4)
    history = fit(model.marginal, None, x, validation=0.5, epochs=200, progress=False)
    assert history.converged is has_converged(history.frame["validation_elbo"])


def test_short_fits_cannot_tell():
    x = torch.randn(40, 6)
    history = fit(build(PPCAModel, x, latents=2).marginal, None, x, epochs=3, progress=False)
    assert history.converged is None
    assert "cannot be told" in str(history)
