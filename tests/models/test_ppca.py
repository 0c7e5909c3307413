"""Probabilistic PCA: estimates of the library against the values that are known exactly."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.extras import load_wine, sklearn
from pyro.nn import PyroModule

from ppl_vae import build, fit, generate, lint, log_likelihood
from ppl_vae.guides.linear import LinearGuide
from ppl_vae.models.ppca import PPCAModel

pytestmark = pytest.mark.usefixtures("double")
EPOCHS = 800
FIT = {
    "epochs": EPOCHS,
    "batch_size": 178,
    "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=0.03),
    "scheduler": lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, EPOCHS),
    "progress": False,
}


@pytest.fixture
def wine():
    """(178, 13) measurements, standardized."""
    x = torch.as_tensor(load_wine().data)
    return (x - x.mean(0)) / x.std(0, correction=0)


def posterior(model, x):
    """Mean, (rows, latents), and covariance, (latents, latents), of p(z given x)."""
    p = model.density()
    weight, variance = p.cov_factor, p.cov_diag[0]
    covariance = (torch.eye(model.latents) + weight.T @ weight / variance).inverse()
    return (x - p.loc) @ weight @ covariance / variance, covariance


class Posterior(PyroModule):
    """The exact posterior, as a guide."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        mean, covariance = posterior(self.model, x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(mean, covariance))


def solved(x, latents=2):
    model = build(PPCAModel, x, latents=latents)
    model.solve(x)
    return model


def angle(model, other):
    """Largest angle between the spaces that two weights span, in degrees."""
    a, b = (torch.linalg.qr(m.weight.detach())[0] for m in (model, other))
    return math.degrees(math.asin(min(1.0, torch.linalg.matrix_norm(b - a @ (a.T @ b), 2).item())))


def moved(model):
    """Move a model's parameters away from their initial values, some of which are zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def test_log_prob_is_the_gaussian_with_the_whole_covariance():
    x = 100 + 30 * torch.randn(40, 6)
    model = moved(build(PPCAModel, x, latents=3))
    weight, sigma = model.scale * model.weight, model.scale * model.log_sigma.exp()
    covariance = weight @ weight.T + sigma**2 * torch.eye(6)
    exact = dist.MultivariateNormal(model.loc + model.scale * model.shift, covariance)
    torch.testing.assert_close(model.log_prob(x), exact.log_prob(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_samples", [1, 7, 100])
def test_log_likelihood_is_exact_where_the_guide_is_the_posterior(wine, num_samples):
    x = 7 + 3 * wine
    model = moved(build(PPCAModel, x, latents=3))
    found = log_likelihood(model, Posterior(model), x, num_samples=num_samples)
    exact = model.log_prob(x).detach().numpy()
    assert abs(found["log_prob"] - exact).max() < 1e-8
    assert abs(found["elbo"] - exact).max() < 1e-8
    if num_samples == 100:
        assert (found["k_hat"] == -math.inf).all()


def test_the_linear_guide_can_be_the_posterior(wine):
    model = moved(build(PPCAModel, wine, latents=3))
    guide = build(LinearGuide, wine, latents=3)
    with torch.no_grad():
        guide.encoder.bias.copy_(posterior(model, guide.standardize.loc)[0])
        steps = guide.standardize.loc + guide.standardize.scale.diag()  # one feature at a time
        guide.encoder.weight.copy_((posterior(model, steps)[0] - guide.encoder.bias).T)
        guide.scale_tril = torch.linalg.cholesky(posterior(model, wine)[1])
    found = log_likelihood(model, guide, wine, num_samples=100)
    assert abs(found["log_prob"] - model.log_prob(wine).detach().numpy()).max() < 1e-8
    assert (found["k_hat"] == -math.inf).all()


@pytest.mark.parametrize("latents", [1, 2, 5, 12])
def test_solve_agrees_with_scikit_learn(latents):
    x = torch.as_tensor(load_wine().data)  # in its own units
    reference = sklearn("decomposition").PCA(latents).fit(x.numpy())
    # scikit-learn divides the covariance by rows - 1, maximum likelihood divides by rows
    reference.explained_variance_ *= (len(x) - 1) / len(x)
    reference.noise_variance_ *= (len(x) - 1) / len(x)
    exact = torch.as_tensor(reference.score_samples(x.numpy()))
    torch.testing.assert_close(solved(x, latents).log_prob(x), exact, rtol=1e-8, atol=0)
    elsewhere = PPCAModel(x.shape[1], latents, loc=10.0, scale=2.0)  # not made from the data
    elsewhere.solve(x)
    torch.testing.assert_close(elsewhere.log_prob(x), exact, rtol=1e-8, atol=0)


def test_solve_is_the_maximum_of_the_likelihood(wine):
    model = solved(wine)
    best = model.log_prob(wine).mean()
    gradients = torch.autograd.grad(best, list(model.parameters()))
    assert max(g.abs().max() for g in gradients) < 1e-12
    for size in (0.01, 0.1, 1.0):
        for _ in range(20):
            other = solved(wine)
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter.add_(size * torch.randn_like(parameter))
            assert other.log_prob(wine).mean() < best
    assert (model.weight.norm(dim=0).diff() < 0).all()  # the largest first
    assert angle(model, model) < 1e-5


def test_svi_reaches_the_solution_by_eigenvectors(wine):
    exact = solved(wine)
    model, guide = (build(cls, wine, latents=2) for cls in (PPCAModel, LinearGuide))
    history = fit(model, guide, wine, **FIT)
    assert history.objective == "TraceMeanField_ELBO"
    elbo = log_likelihood(model, guide, wine, num_samples=20)["elbo"].mean()
    best = exact.log_prob(wine).mean().item()
    assert best - 0.01 < elbo < best + 1e-3
    assert angle(model, exact) < 1


def test_gradient_descent_on_the_marginal_reaches_the_solution_by_eigenvectors(wine):
    exact, model = solved(wine), build(PPCAModel, wine, latents=2)
    fit(model.marginal, None, wine, **FIT)
    best, found = exact.log_prob(wine).mean().item(), model.log_prob(wine).mean().item()
    assert best - 1e-6 < found < best + 1e-9
    assert angle(model, exact) < 0.01


def test_the_marginal_is_a_model_whose_log_likelihood_is_log_prob(wine):
    model = moved(build(PPCAModel, wine, latents=3))
    assert lint(model.marginal, None, wine).findings == ()
    found = log_likelihood(model.marginal, None, wine, num_samples=1)["log_prob"]
    assert abs(found - model.log_prob(wine).detach().numpy()).max() < 1e-10


@pytest.mark.parametrize("way", ["solve", "marginal", "svi"])
def test_a_fit_is_the_same_in_other_units(wine, way):
    def fitted(x):
        pyro.set_rng_seed(0)
        model, guide = (build(cls, x, latents=2) for cls in (PPCAModel, LinearGuide))
        if way == "solve":
            model.solve(x)
        else:
            pair = (model, guide) if way == "svi" else (model.marginal, None)
            fit(*pair, x, epochs=5, progress=False)
        return model.log_prob(x)

    metres, millimetres = 7 + 3 * wine, 1000 * (7 + 3 * wine)
    shift = wine.shape[1] * math.log(1000)
    torch.testing.assert_close(fitted(metres), fitted(millimetres) + shift, rtol=0, atol=1e-8)


def test_integers_are_data(wine):
    x = (10 * wine).round()
    model, guide = solved(x), build(LinearGuide, x, latents=2)
    torch.testing.assert_close(solved(x.long()).log_prob(x.long()), model.log_prob(x))
    for pair in ((model, guide), (model.marginal, None)):
        fit(*pair, x.long(), epochs=1, progress=False)
    assert generate(model, None, x.long(), num_samples=3).shape == (3, 13)


@pytest.mark.parametrize("latents", [0, 4, 5])
def test_as_many_latents_as_features_are_refused(latents):
    with pytest.raises(ValueError, match=f"latents: .* below features=4, got {latents}"):
        PPCAModel(4, latents)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_solve_refuses_too_few_rows(wine, rows):
    with pytest.raises(ValueError, match=f"x: expected 4 rows or more, .* got {rows} rows"):
        build(PPCAModel, wine, latents=2).solve(wine[:rows])
    solved(wine[:4])


def test_solve_refuses_rows_on_a_plane_of_as_many_dimensions_as_latents():
    x = torch.randn(50, 2) @ torch.randn(2, 6) + 3
    with pytest.raises(ValueError, match="not on one 2-dimensional plane"):
        build(PPCAModel, x, latents=2).solve(x)
    assert solved(x, latents=1).log_prob(x).isfinite().all()
