"""Draws of missing cells: pairs that take no particles, latents that rows share, heavy tails."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts import missing

from ppl_vae import impute
from ppl_vae.imputation.moments import Moments, RunningMoments, RunningRows
from ppl_vae.imputation.summaries import weighted_quantiles

X, SEEN = missing.drawn_rows(20)
FIELDS = {"x": torch.where(SEEN, X, 0.0), "seen": SEEN}


def test_a_network_that_takes_no_particles_runs_once_for_each_draw():
    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = missing.code(x)
            if z.ndim > 2:
                raise RuntimeError("expected codes of (rows, latents)")
            fn = dist.Normal(z @ missing.weight(x).T, missing.SD)
            pyro.sample("x", fn.mask(seen).to_event(1), obs=x)

    frame = impute(model, missing.guide, FIELDS, num_samples=300).frame
    together = impute(missing.masked, missing.guide, FIELDS, num_samples=4000).frame
    assert (frame["value"] - together["value"]).abs().max() < 5 * frame["sd"].max() / math.sqrt(100)
    assert np.abs(frame["sd"] / together["sd"] - 1).max() < 0.25


@pytest.mark.slow
def test_a_latent_that_all_rows_share_moves_with_the_observed_cell_of_a_new_row():
    """mu ~ Normal(0, 1), x ~ Normal(mu, 0.5): two cells, of which the second is missing."""

    def model(x, seen):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            fn = dist.Normal(mu[..., None, None].expand(*mu.shape, len(x), 2), 0.5)
            pyro.sample("x", fn.mask(seen).to_event(1), obs=x)

    def guide(x, seen):
        pyro.sample("mu", dist.Normal(pyro.param("m", torch.tensor(0.2)), 0.8))

    x = torch.tensor([[1.0, 0.0], [-0.5, 0.0], [0.3, 0.0]])
    seen = torch.tensor([True, False]).expand(3, 2)
    frame = impute(model, guide, {"x": x, "seen": seen}, num_samples=20_000).frame
    precision = 1 / 0.8**2 + 1 / 0.5**2
    exact = (0.2 / 0.8**2 + x[:, 0] / 0.5**2) / precision
    np.testing.assert_allclose(frame["value"], exact, atol=0.03)
    np.testing.assert_allclose(frame["sd"], math.sqrt(1 / precision + 0.25), rtol=0.03)


def test_a_cell_without_a_mean_has_its_median():
    def model(x, seen):
        with pyro.plate("data", len(x)):
            fn = dist.Cauchy(torch.full_like(x, 3.0), 0.1).mask(seen)
            pyro.sample("x", fn.to_event(1), obs=x)

    frame = impute(model, None, FIELDS, num_samples=2000).frame
    np.testing.assert_allclose(frame["value"], 3.0, atol=0.03)
    assert not np.isfinite(frame["sd"]).any()
    np.testing.assert_allclose(frame["upper"] - 3, 0.1 * math.tan(0.45 * math.pi), rtol=0.3)


def test_running_moments_are_those_of_all_weighted_draws_together():
    generator = torch.Generator().manual_seed(0)
    log_weights = 3 * torch.randn(60, 4, generator=generator).double()
    mean, variance = 1e4 + torch.randn(60, 4, generator=generator).double(), torch.rand(60, 4)
    rows, running = RunningRows(4), RunningMoments()
    for part in range(0, 60, 20):
        of_part = slice(part, part + 20)
        share, weights = rows.add(log_weights[of_part])
        running.add(Moments("real", mean[of_part], variance[of_part]), share, weights)
    weights = log_weights.softmax(0)
    together = (weights * mean).sum(0)
    spread = (weights * (variance + (mean - together) ** 2)).sum(0).sqrt()
    torch.testing.assert_close(running.mean, together)
    torch.testing.assert_close(running.sd, spread)
    torch.testing.assert_close(rows.total, log_weights.logsumexp(0))


@pytest.mark.parametrize("level", [0.3, 0.8, 0.9])
def test_weighted_quantiles_are_those_of_repeated_draws(level):
    generator = torch.Generator().manual_seed(1)
    draws = torch.randint(0, 9, (40, 3), generator=generator).double()
    times = torch.randint(1, 6, (40, 3), generator=generator)
    for cell in range(3):
        repeated = draws[:, cell].repeat_interleave(times[:, cell])
        weights = times[:, cell : cell + 1].double()
        found = weighted_quantiles(draws[:, cell : cell + 1], weights / weights.sum(), level)
        lower, middle, upper = (float(bound) for bound in found)
        assert (repeated < lower).double().mean() <= (1 - level) / 2 + 1e-9
        assert (repeated > upper).double().mean() <= (1 - level) / 2 + 1e-9
        assert (repeated <= lower).double().mean() >= (1 - level) / 2 - 1e-9
        assert (repeated >= upper).double().mean() >= (1 - level) / 2 - 1e-9
        assert (repeated < middle).double().mean() <= 0.5 <= (repeated <= middle).double().mean()
