"""The guide with a full covariance closes the gap that a diagonal one leaves; its KL divergence."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from ppl_vae import build, elbo_terms, fit, log_likelihood
from ppl_vae.guides.multivariate_normal import MultivariateNormalGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.ppca import PPCAModel
from ppl_vae.nn import MLP

pytestmark = pytest.mark.usefixtures("double")
LATENTS, FEATURES, ROWS, EPOCHS = 3, 4, 2000, 100


@pytest.fixture
def model():
    """Probabilistic PCA whose features are sums of latents: the posterior is correlated."""
    model = PPCAModel(FEATURES, LATENTS)
    with torch.no_grad():
        weight = [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.5, 0.5, 0.5]]
        model.weight.copy_(torch.tensor(weight))
        model.log_sigma.fill_(-0.5)
    return model.requires_grad_(False)


def fitted_gap(model, guide, x):
    """Mean over rows of log p(x) - ELBO after a fit of the guide alone, in nats."""
    history = fit(
        model, guide, x, epochs=EPOCHS, batch_size=ROWS, compile=False, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.1),
        scheduler=lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, EPOCHS),
    )  # fmt: skip
    assert history.objective == "TraceMeanField_ELBO"
    scores = log_likelihood(model, guide, x, num_samples=100)
    return (model.log_prob(x).numpy() - scores["elbo"]).mean()


@pytest.mark.parametrize("positive", ["exp", pytest.param("softplus", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")  # of the diagonal guide
def test_a_full_covariance_closes_the_gap_that_a_diagonal_one_leaves(model, positive):
    """1/2 (sum of the logs of the precision's diagonal + log det of the covariance), and 0.

    Measured: 0.314 by the formula, 0.316 and 0.0004 from 4,000 rows.
    """
    x = model.density().sample((ROWS,))
    weight, variance = model.weight, model.log_sigma.exp() ** 2
    precision = torch.eye(LATENTS) + weight.T @ weight / variance
    right = (precision.diagonal().log().sum() - precision.logdet()).item() / 2
    assert right > 0.3  # the posterior is correlated
    gaps = [
        fitted_gap(model, build(cls, x, latents=LATENTS, positive=positive, encoder=MLP(
            FEATURES, outputs, hidden=())), x)
        for cls, outputs in ((NormalGuide, 2 * LATENTS), (MultivariateNormalGuide, 9))
    ]  # fmt: skip
    assert gaps[0] == pytest.approx(right, abs=0.01)
    assert -1e-9 < gaps[1] < 0.01


def test_the_kl_divergence_from_a_diagonal_normal_is_in_closed_form():
    scale_tril = torch.randn(7, 3, 3).tril(-1) + 0.7 * torch.eye(3)
    p = dist.MultivariateNormal(torch.randn(7, 3), scale_tril=scale_tril)
    loc, scale = torch.randn(7, 3), torch.rand(7, 3) + 0.1
    found = torch.distributions.kl_divergence(p, dist.Normal(loc, scale).to_event(1))
    full = dist.MultivariateNormal(loc, scale_tril=scale.diag_embed())
    torch.testing.assert_close(found, torch.distributions.kl_divergence(p, full))
    for other in (dist.Laplace(loc, scale).to_event(1), dist.Normal(loc, scale).to_event(2)):
        with pytest.raises(NotImplementedError):
            torch.distributions.kl_divergence(p, other)


def test_the_term_of_the_code_is_the_closed_form(model):
    """Minus 1/2 (tr S + m'm - log det S - d), whatever is drawn."""
    x = model.density().sample((20,))
    guide = build(MultivariateNormalGuide, x, latents=LATENTS)
    fn = poutine.trace(guide).get_trace(x).nodes["z"]["fn"]
    covariance = fn.covariance_matrix
    traces = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    right = (traces + fn.loc.square().sum(-1) - covariance.logdet() - LATENTS) / 2
    for seed in (0, 1):
        terms = elbo_terms(model, guide, x, num_samples=1, seed=seed)
        assert abs(terms["z"] + right.detach().numpy()).max() < 1e-10


def test_one_latent_has_a_variance_and_nothing_below_the_diagonal():
    guide = MultivariateNormalGuide(4, latents=1)
    fn = poutine.trace(guide).get_trace(torch.zeros(5, 4)).nodes["z"]["fn"]
    assert fn.covariance_matrix.shape == (5, 1, 1)


def test_the_covariance_differs_from_row_to_row_and_particles_may_lead():
    guide = MultivariateNormalGuide(4, latents=3)
    with pyro.plate("particles", 7, dim=-2):
        site = poutine.trace(guide).get_trace(torch.randn(5, 4)).nodes["z"]
    assert site["value"].shape == (7, 5, 3)
    assert site["fn"].covariance_matrix[0].std(0).min() > 0
