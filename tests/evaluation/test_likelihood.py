"""``log_likelihood`` and ``elbo_terms``: against closed forms, and what they refuse."""

import math
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import elbo_terms, fit, log_likelihood
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.particles import PARTICLES
from ppl_vae.evaluation.particle_pass import GATHERED
from ppl_vae.evaluation.particle_terms import ParticleTerms
from ppl_vae.evaluation.psis import WeightSums
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel

FEATURES, LATENTS, ROWS = 5, 2, 40
W = torch.randn(FEATURES, LATENTS, generator=torch.Generator().manual_seed(1)).double()
S = 0.6


def linear(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(LATENTS), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W.T, S).to_event(1), obs=x)


def posterior(shift=0.0, spread=1.0):
    precision = torch.eye(LATENTS).double() + W.T @ W / S**2
    cholesky = torch.linalg.cholesky(torch.linalg.inv(precision))

    def guide(x):
        loc = torch.linalg.solve(precision, (x @ W / S**2).T).T
        with pyro.plate("data", len(x)):
            z = dist.MultivariateNormal(loc + shift, scale_tril=spread * cholesky)
            pyro.sample("z", z)

    return guide


def rows(count=ROWS):
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(count, LATENTS, generator=generator).double()
    return z @ W.T + S * torch.randn(count, FEATURES, generator=generator).double()


def exact(x):
    covariance = W @ W.T + S**2 * torch.eye(FEATURES).double()
    return dist.MultivariateNormal(torch.zeros(FEATURES).double(), covariance).log_prob(x).numpy()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("num_samples", [1, 7, 100, 1500])
def test_exact_posterior_gives_the_closed_form_at_any_number_of_samples(num_samples):
    found = log_likelihood(linear, posterior(), rows(), num_samples=num_samples)
    np.testing.assert_allclose(found["log_prob"], exact(rows()), atol=1e-10)
    np.testing.assert_allclose(found["elbo"], exact(rows()), atol=1e-10)
    np.testing.assert_allclose(found["ess"], num_samples, rtol=1e-8)
    shape = -math.inf if num_samples >= 25 else math.nan
    np.testing.assert_array_equal(found["k_hat"], shape)


@pytest.mark.usefixtures("double")
def test_a_guide_near_the_posterior_gives_a_reliable_estimate():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = log_likelihood(linear, posterior(0.05, 1.1), rows(), num_samples=4000)
    np.testing.assert_allclose(found["log_prob"], exact(rows()), atol=0.03)
    assert (found["k_hat"] < 0.5).all()
    assert (found["ess"] < 4000).all()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("shift", "spread"), [(0.0, 0.4), (0.5, 0.5)])
def test_k_hat_warns_of_a_guide_that_misses_the_posterior(shift, spread):
    with pytest.warns(UserWarning, match=r"k-hat is above 0.7 in \d+ of 40 rows"):
        found = log_likelihood(linear, posterior(shift, spread), rows(), num_samples=2000)
    assert (found["k_hat"] > 0.7).mean() > 0.8


@pytest.mark.usefixtures("double")
def test_latents_are_proposed_from_the_prior_without_a_guide():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = log_likelihood(linear, None, rows(), num_samples=5000)
    np.testing.assert_allclose(found["log_prob"], exact(rows()), atol=0.5)
    assert found["ess"].median() < 1000


def test_frame_has_the_datas_index_and_the_seed_decides_the_draws():
    model, guide = BernoulliModel(4, 2), NormalGuide(4, 2)
    table = pd.DataFrame(np.eye(4), index=list("abcd"), columns=list("wxyz"))
    first = log_likelihood(model, guide, table, num_samples=30)
    assert list(first.index) == list("abcd")
    assert list(first.columns) == ["log_prob", "elbo", "ess", "k_hat"]
    state = torch.get_rng_state()
    pd.testing.assert_frame_equal(first, log_likelihood(model, guide, table, num_samples=30))
    assert torch.equal(state, torch.get_rng_state())
    other = log_likelihood(model, guide, table, num_samples=30, seed=1)
    assert (other["log_prob"] != first["log_prob"]).all()


def test_results_of_a_row_do_not_depend_on_later_rows(monkeypatch):
    from ppl_vae.core import blocks

    monkeypatch.setattr(blocks, "ELEMENTS", 4 * 30 * 10)  # ten rows a block
    model, guide = BernoulliModel(4, 2), NormalGuide(4, 2)
    x = torch.rand(37, 4).bernoulli()
    whole = log_likelihood(model, guide, x, num_samples=30)
    part = log_likelihood(model, guide, x[:20], num_samples=30)
    pd.testing.assert_frame_equal(whole[:20], part)
    compiled = log_likelihood(model, guide, x, num_samples=30, compile=True)
    np.testing.assert_allclose(whole["log_prob"][:30], compiled["log_prob"][:30], rtol=1e-5)


class Normalized(nn.Module):
    """Batch normalization over dim 1: features without particles, rows with particles."""

    def __init__(self):
        super().__init__()
        self.inner, self.norm, self.outer = nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)

    def forward(self, z):
        return self.outer(self.norm(self.inner(z)).tanh())


class MixesParticles(nn.Module):
    """Subtracts the mean over dim 0, without an error: over rows, or over particles."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 4)

    def forward(self, z):
        z = self.inner(z)
        return z - 3 * z.mean(0) if z.ndim == 2 else 5 * z - 3 * z.mean(0)


@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
@pytest.mark.parametrize("network", [Normalized, MixesParticles])
def test_networks_that_cannot_take_a_particles_dimension_run_once_for_each_particle(network):
    model, guide = BernoulliModel(4, 2, network()), NormalGuide(4, 2)
    x = torch.rand(9, 4).bernoulli()
    weights = ParticleTerms(Pair.of(model, guide, "data"), as_rows(x), 8)
    assert not weights.runs.vectorized
    found = log_likelihood(model, guide, x, num_samples=30)
    assert found["log_prob"].between(-20, 0).all()
    vectorizing = Pair.of(BernoulliModel(4, 2), guide, "data")
    assert ParticleTerms(vectorizing, as_rows(x), 8).runs.vectorized


def gaussian_mean(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


@pytest.mark.usefixtures("double")
def test_a_latent_outside_the_row_plate_gives_the_predictive_density():
    def guide(x):
        pyro.sample("mu", dist.Normal(0.5, 0.4))

    x = torch.randn(20)
    found = log_likelihood(gaussian_mean, guide, x, num_samples=20_000)
    right = dist.Normal(0.5, math.sqrt(1.16)).log_prob(x)
    np.testing.assert_allclose(found["log_prob"], right, atol=0.03)
    terms = elbo_terms(gaussian_mean, guide, x, num_samples=1000)
    assert list(terms.columns) == ["x"]
    kl = 0.5 * ((0.4**2 + 0.5**2) / 9 - 1) + math.log(3 / 0.4)
    assert terms.attrs["global"]["mu"] == pytest.approx(-kl, abs=0.1)


@pytest.mark.usefixtures("double")
def test_an_autoguide_over_global_latents_is_evaluated():
    guide, x = AutoNormal(gaussian_mean), torch.randn(20) + 1
    fit(gaussian_mean, guide, x, epochs=50, progress=False)
    found = log_likelihood(gaussian_mean, guide, x, num_samples=200)
    assert found["log_prob"].between(-6, -0.9).all()


def test_the_auxiliary_draw_of_an_autoguide_counts_for_the_latent_that_it_becomes():
    """In the rows and outside: both terms are minus KL divergences, of log-normals."""

    def model(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0.0, scale * rate), obs=x)

    shared = AutoNormal(pyro.poutine.block(model, expose=["scale"]), init_scale=0.5)

    def guide(x):
        shared(x)
        with pyro.plate("data", len(x)):
            log_rate = pyro.sample("log", dist.Normal(0.3, 0.5), infer={"is_auxiliary": True})
            pyro.sample("rate", dist.Delta(log_rate.exp(), log_density=-log_rate))

    terms = elbo_terms(model, guide, torch.randn(6), num_samples=4000)
    assert list(terms.columns) == ["rate", "x"]
    locs = torch.tensor([0.3, shared.locs.scale.item()])
    divergences = torch.distributions.kl_divergence(dist.Normal(locs, 0.5), dist.Normal(0.0, 1.0))
    np.testing.assert_allclose(terms["rate"], -divergences[0], atol=0.06)
    assert terms.attrs["global"] == {"scale": pytest.approx(-float(divergences[1]), abs=0.06)}


def test_one_auxiliary_draw_for_several_latents_has_a_term_of_its_own():
    def model(x):
        loc, scale = (pyro.sample(name, dist.LogNormal(0.0, 1.0)) for name in ("loc", "scale"))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, scale), obs=x)

    terms = elbo_terms(model, AutoDiagonalNormal(model), torch.randn(6), num_samples=3)
    assert len(terms.attrs["global"]) == 3


@pytest.mark.usefixtures("double")
def test_terms_of_a_linear_pair_are_the_closed_forms():
    shift, x = 0.2, rows()
    with torch.no_grad():
        guide = posterior(shift)
        trace = pyro.poutine.trace(guide).get_trace(x)
    fn = trace.nodes["z"]["fn"]
    kl = torch.distributions.kl_divergence(
        fn, dist.MultivariateNormal(torch.zeros(LATENTS), torch.eye(LATENTS))
    )
    residual = (x - fn.loc @ W.T).square().sum(1) + torch.trace(W @ fn.covariance_matrix[0] @ W.T)
    fit_term = -0.5 * residual / S**2 - FEATURES * math.log(S * math.sqrt(2 * math.pi))
    terms = elbo_terms(linear, guide, x, num_samples=20_000)
    assert list(terms.columns) == ["z", "x"]
    np.testing.assert_allclose(terms["z"], -kl, atol=0.05)
    np.testing.assert_allclose(terms["x"], fit_term, atol=0.2)
    scores = log_likelihood(linear, guide, x, num_samples=20_000)
    np.testing.assert_allclose(terms.sum(axis=1), scores["elbo"], atol=0.2)


def test_terms_use_the_closed_form_where_there_is_one():
    model, guide = BernoulliModel(4, 2), NormalGuide(4, 2)
    x = torch.rand(9, 4).bernoulli()
    first = elbo_terms(model, guide, x, num_samples=3)
    second = elbo_terms(model, guide, x, num_samples=3, seed=1)
    np.testing.assert_allclose(first["z"], second["z"], rtol=1e-5)
    assert (first["x"] != second["x"]).all()


class Two(PyroModule):
    """Two observed sites, a factor, a deterministic, and a mask on one cell in four."""

    def forward(self, x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.deterministic("double", 2 * z)
            pyro.factor("extra", -0.1 * z**2)
            pyro.sample("x", dist.Normal(z, 1.0).mask(x > -1), obs=x)
            pyro.sample("y", dist.Bernoulli(logits=z), obs=y)


def test_several_sites_a_factor_and_a_mask_enter_the_weight():
    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.3 * x, 0.8))

    data = {"x": torch.randn(30), "y": torch.rand(30).bernoulli()}
    grid = torch.linspace(-8, 8, 4001)
    joint = dist.Normal(0.0, 1.0).log_prob(grid) - 0.1 * grid**2
    unmasked = (data["x"] > -1).float()[:, None]
    joint = joint + unmasked * dist.Normal(grid, 1.0).log_prob(data["x"][:, None])
    joint = joint + dist.Bernoulli(logits=grid).log_prob(data["y"][:, None])
    right = joint.logsumexp(1) + math.log(16 / 4000)
    found = log_likelihood(Two(), guide, data, num_samples=20_000)
    np.testing.assert_allclose(found["log_prob"], right, atol=0.05)
    terms = elbo_terms(Two(), guide, data)
    assert set(terms.columns) - {"double"} == {"z", "extra", "x", "y"}
    assert terms.loc[data["x"].numpy() <= -1, "x"].eq(0).all()


def test_zero_samples_and_rows_or_weights_with_nan_are_refused():
    model, guide = BernoulliModel(4, 2), NormalGuide(4, 2)
    x = torch.rand(9, 4).bernoulli()
    for function in (log_likelihood, elbo_terms):
        with pytest.raises(ValueError, match="num_samples: expected"):
            function(model, guide, x, num_samples=0)
    x[3, 1] = math.nan
    with pytest.raises(ValueError, match="row 3"):
        log_likelihood(model, guide, x)
    with torch.no_grad():
        model.decoder[0].weight.fill_(math.nan)
    with pytest.raises(ValueError, match=r"invalid values|expected rows"):
        log_likelihood(model, guide, x[:3], compile=True)


def test_memory_of_the_sums_does_not_grow_with_the_samples():
    few, many = WeightSums(1000, 10), WeightSums(1_000_000, 10)
    for _ in range(20):
        for sums in (few, many):
            sums.add(torch.randn(500, 10), torch.randn(500, 10))
    assert few.largest.shape == (96, 10)
    assert many.largest.shape[0] == 3001
    assert PARTICLES * 2 <= GATHERED


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("infer", [None, {"is_auxiliary": True}])
def test_a_draw_of_the_guide_that_the_model_does_not_have_is_refused(infer):
    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(x.mean(-1), 0.5), infer=infer)
            z = dist.Normal(u[..., None].expand(*u.shape, LATENTS), 0.5)
            pyro.sample("z", z.to_event(1))

    for function in (log_likelihood, elbo_terms):
        with pytest.raises(ValueError, match=r'site "u".*the model does not have'):
            function(linear, guide, rows())


def test_a_partly_observed_site_is_one_column():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("twice", 2 * z)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=x > 0)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    x = torch.randn(20)
    terms = elbo_terms(model, guide, x)
    assert list(terms.columns) == ["z", "x"]
    assert terms.loc[x.numpy() <= 0, "x"].eq(0).all()
    assert terms.loc[x.numpy() > 0, "x"].lt(0).all()


def test_an_error_names_a_row_plate_that_does_not_exist():
    for function in (log_likelihood, elbo_terms):
        with pytest.raises(ValueError, match=r'row plate "rows" of the model, got plate "data"'):
            function(BernoulliModel(4, 2), NormalGuide(4, 2), torch.ones(3, 4), plate="rows")


def test_latents_outside_the_row_plate_are_named_since_k_hat_does_not_cover_them():
    def model(x):
        shift = pyro.sample("shift", dist.HalfNormal(torch.tensor(5.0)))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(shift + z, 1.0), obs=x)

    def guide(x):
        pyro.sample("shift", dist.LogNormal(torch.tensor(1.0), 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    x = torch.randn(20) + 3
    assert log_likelihood(model, guide, x, num_samples=50).attrs["not_covered"] == ["shift"]
    assert log_likelihood(model, None, x, num_samples=50).attrs["not_covered"] == ["shift"]
