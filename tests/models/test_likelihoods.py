"""Likelihoods of the zoo against closed forms: scikit-learn's and scipy's densities."""

import numpy as np
import pytest
import torch
from parts.extras import sklearn
from pyro import poutine
from scipy import stats

from ppl_vae import build, fit, log_likelihood
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.categorical import CategoricalModel
from ppl_vae.models.factor_analysis import FactorAnalysisModel
from ppl_vae.models.full_covariance import FullCovarianceModel
from ppl_vae.models.isotropic import IsotropicModel
from ppl_vae.models.negative_binomial import NegativeBinomialModel
from ppl_vae.models.poisson import PoissonModel
from ppl_vae.models.student import StudentModel
from ppl_vae.models.zero_inflated import ZeroInflatedModel

COUNTS = (PoissonModel, NegativeBinomialModel, ZeroInflatedModel)
pytestmark = pytest.mark.usefixtures("double")


def made(cls, *args, **settings):
    """A model with weights that are not special, three codes of two numbers, and their outputs."""
    torch.manual_seed(0)
    model = cls(*args, latents=2, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    z = torch.randn(3, 2)
    return model, z, model.decoder(z).detach()


def likelihood(model, z, x, **fields):
    """The log-probability of each row given its code, (rows,)."""
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x=x, **fields)
    trace.compute_log_prob()
    return trace.nodes["x"]["log_prob"].detach().numpy()


def close(found, right):
    np.testing.assert_allclose(found, right, rtol=1e-9)


def test_factor_analysis_is_scikit_learns():
    x = torch.randn(200, 3) @ torch.randn(3, 6) + torch.randn(200, 6) * torch.arange(1.0, 7.0)
    peer = sklearn("decomposition").FactorAnalysis(n_components=2).fit(x.numpy())
    model = FactorAnalysisModel(6, 2)
    with torch.no_grad():
        model.shift.copy_(torch.as_tensor(peer.mean_))
        model.weight.copy_(torch.as_tensor(peer.components_.T))
        model.log_sigma.copy_(torch.as_tensor(peer.noise_variance_).log() / 2)
    right = peer.score_samples(x.numpy())
    np.testing.assert_allclose(model.log_prob(x).detach().numpy(), right, rtol=1e-6)
    exact = log_likelihood(model.marginal, None, x, num_samples=1)["log_prob"]
    np.testing.assert_allclose(exact, right, rtol=1e-6)


@pytest.mark.parametrize("sigma", [1.0, 0.3])
def test_the_isotropic_likelihood_is_scipys(sigma):
    model, z, out = made(IsotropicModel, 4, sigma=sigma, loc=5.0, scale=2.0)
    with torch.no_grad():
        model.log_sigma.fill_(np.log(sigma))
    x = 5 + torch.randn(3, 4)
    right = [
        stats.multivariate_normal(5 + 2 * m.numpy(), sigma**2 * np.eye(4)).logpdf(row.numpy())
        for m, row in zip(out, x, strict=True)
    ]
    close(likelihood(model, z, x), right)


def test_sigma_is_trained_where_it_is_to_be_learned_and_only_there():
    x = torch.randn(50, 4) * 3
    for learned in (False, True):
        model = build(IsotropicModel, x, latents=1, learn_sigma=learned)
        fit(model, NormalGuide(4, 1), x, epochs=2, progress=False)
        assert (model.log_sigma.item() != 0) == learned
    with pytest.raises(ValueError, match="sigma: expected a positive number, got 0"):
        IsotropicModel(4, sigma=0)


def test_the_student_likelihood_is_scipys():
    model, z, out = made(StudentModel, 4, center=5.0, spread=2.0, floor=0.1)
    mean, log_variance = out.numpy()[:, :4], out.numpy()[:, 4:]
    spread = np.sqrt(4 * np.exp(log_variance) + 0.01)
    df = 1 + np.exp(model.log_df.detach().numpy())
    x = 5 + 3 * torch.randn(3, 4)
    right = stats.t(df, 5 + 2 * mean, spread).logpdf(x.numpy()).sum(1)
    close(likelihood(model, z, x), right)


def test_the_full_covariance_likelihood_is_scipys():
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0])
    model, z, out = made(FullCovarianceModel, 4, rank=3, loc=5.0, scale=scale, floor=0.2)
    x = 5 + torch.randn(3, 4)
    right = []
    for row, numbers in zip(x.numpy(), out.numpy().reshape(3, 5, 4), strict=True):
        mean, v, factor = numbers[0], numbers[1], numbers[2:].T  # (4,), (4,), (4, rank)
        covariance = factor @ factor.T + np.diag(np.exp(v) + 0.2**2)
        covariance = np.diag(scale) @ covariance @ np.diag(scale)
        right.append(stats.multivariate_normal(5 + scale.numpy() * mean, covariance).logpdf(row))
    close(likelihood(model, z, x), right)


COUNT_ROWS = torch.tensor([[0, 1, 7, 100_000], [0, 0, 0, 0], [3, 2, 50, 9]])
SIZE = torch.tensor([1.0, 0.25, 8.0])
RATE = torch.tensor([1e-6, 1.0, 10.0, 1e5], dtype=torch.float64)


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("cls", COUNTS)
def test_the_likelihoods_of_counts_are_scipys(cls, sized):
    model, z, out = made(cls, 4, rate=RATE)
    mean = RATE.numpy() * np.exp(out.numpy()[:, :4]) * (SIZE.numpy()[:, None] if sized else 1)
    counts = COUNT_ROWS.numpy()
    if cls is PoissonModel:
        right = stats.poisson(mean).logpmf(counts)
    else:
        theta = np.exp(model.log_theta.detach().numpy())
        base = stats.nbinom(theta, theta / (theta + mean))
        np.testing.assert_allclose(base.var(), mean + mean**2 / theta)
        right = base.logpmf(counts)
    if cls is ZeroInflatedModel:
        gate = 1 / (1 + np.exp(3 - out.numpy()[:, 4:]))
        right = np.log(gate * (counts == 0) + (1 - gate) * np.exp(right))
    found = likelihood(model, z, COUNT_ROWS, **({"size": SIZE} if sized else {}))
    np.testing.assert_allclose(found, right.sum(1), rtol=1e-8)


def test_a_categorical_with_unequal_columns_sums_to_one():
    model, z, _ = made(CategoricalModel, 3, categories=(2, 3, 1))
    rows = torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(1))
    log_probs = [likelihood(model, z[:1], row[None])[0] for row in rows]
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-12)
    with pytest.raises(ValueError, match="within the support"):
        likelihood(model, z[:1], torch.tensor([[2, 2, 0]]))


@pytest.mark.parametrize("cls", [NegativeBinomialModel, ZeroInflatedModel])
def test_a_dispersion_without_bound_leaves_single_precision_exact(cls):
    model, z, _ = made(cls, 30, rate=50.0)
    x = torch.randint(0, 200, (3, 30))
    with torch.no_grad():
        model.log_theta.fill_(30.0)
    exact = likelihood(model, z, x)
    torch.set_default_dtype(torch.float32)
    single = likelihood(model.float(), z.float(), x)
    assert np.abs(single - exact).max() < 0.01 * 30


def test_far_rows_do_not_move_a_student_fit():
    x = torch.randn(300, 3)
    x[0] = 1e6
    model, guide = build(StudentModel, x, latents=1), build(NormalGuide, x, latents=1)
    fit(model, guide, x, epochs=20, compile=False, progress=False)
    rows = log_likelihood(model, guide, x, num_samples=20)["log_prob"][1:]
    assert rows.mean() > stats.norm.logpdf(x[1:].numpy()).sum(1).mean() - 1
