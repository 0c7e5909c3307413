"""A point guide makes an autoencoder, with the regularizer of the prior or without it."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ppl_vae import build, elbo_terms, encode, fit, lint, log_likelihood, reconstruct
from ppl_vae.guides.delta import DeltaGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.continuous_bernoulli import ContinuousBernoulliModel
from ppl_vae.models.isotropic import IsotropicModel

pytestmark = pytest.mark.usefixtures("double")
SIGMA, FEATURES, LATENTS = 0.7, 6, 2
STILL = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0), "progress": False}
"""A fit that computes the objective and moves nothing."""


def rows(count=200):
    """(count, 6) correlated numbers, with spreads from 3 to 0.1 in six directions."""
    random = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=random))[0]
    spread = torch.tensor([3.0, 2.0, 0.8, 0.5, 0.3, 0.1])
    return (torch.randn(count, FEATURES, generator=random) * spread) @ axes.T + 5


def linear_pair(x):
    sizes = {"latents": LATENTS, "sigma": SIGMA, "decoder": nn.Linear(LATENTS, FEATURES)}
    model = build(IsotropicModel, x, **sizes)
    return model, build(DeltaGuide, x, latents=LATENTS, encoder=nn.Linear(FEATURES, LATENTS))


def by_hand(model, guide, x):
    """Log-likelihood given the code, and the code's log-density under the prior, (rows,) each."""
    code = guide.encoder((x - model.loc) / model.scale)
    error = (x - model.loc - model.scale * model.decoder(code)).square().sum(1)
    likelihood = -error / (2 * SIGMA**2) - FEATURES * math.log(SIGMA * math.sqrt(2 * math.pi))
    prior = -code.square().sum(1) / 2 - LATENTS * math.log(math.sqrt(2 * math.pi))
    return likelihood.detach().numpy(), prior.detach().numpy()


def test_the_terms_are_minus_squared_error_and_regularizer():
    x = rows()
    pair = linear_pair(x)
    terms, (likelihood, prior) = elbo_terms(*pair, x), by_hand(*pair, x)
    np.testing.assert_allclose(terms["x"], likelihood)
    np.testing.assert_allclose(terms["z"], prior)
    assert terms.attrs["measure"] == "log joint density"


@pytest.mark.parametrize("kl_weight", [1.0, 0.0])
def test_the_kl_weight_is_the_weight_of_the_regularizer(kl_weight):
    x = rows()
    pair = linear_pair(x)
    likelihood, prior = (values.mean() for values in by_hand(*pair, x))
    history = fit(*pair, x, epochs=1, kl_weight=kl_weight, compile=False, **STILL)
    last = history.frame.iloc[-1]
    assert last["elbo"] == pytest.approx(likelihood + prior)
    assert last["objective"] == pytest.approx(likelihood + kl_weight * prior)
    assert "log joint density" in str(history)
    assert history.frame.attrs["measure"] == "log joint density"


def degrees(a, b):
    """The largest angle between the planes that the columns of two matrices span."""
    a, b = (torch.linalg.qr(matrix.detach())[0] for matrix in (a, b))
    sine = torch.linalg.matrix_norm(b - a @ (a.T @ b), 2)
    return math.degrees(math.asin(min(1.0, float(sine))))


def test_the_linear_autoencoder_spans_the_plane_of_the_principal_components():
    """Measured: 0.07 degrees after 300 steps, 79 before; cells 0.08 apart, of a spread of 2."""
    x = rows()
    model, guide = linear_pair(x)
    model.scale.fill_(float(x.std()))  # components of the data's own units, as PCA's
    components = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2][:LATENTS].T
    before = degrees(model.decoder.weight, components)
    fit(
        model, guide, x, epochs=300, batch_size=len(x), kl_weight=0, compile=False, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05),
        scheduler=lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, 300),
    )  # fmt: skip
    assert before > 10
    assert degrees(model.decoder.weight, components) < 1
    centered = x - x.mean(0)
    projected = x.mean(0) + centered @ components @ components.T
    torch.testing.assert_close(reconstruct(model, guide, x), projected, atol=0.2, rtol=0)


def test_codes_are_points_and_a_likelihood_needs_another_guide_on_the_same_model():
    x = rows()
    model, guide = linear_pair(x)
    codes = encode(model, guide, x)
    assert codes.attrs["points"] == ["z"]
    assert (codes["z"]["sd"] == 0).all(axis=None)
    code = guide.encoder(guide.standardize(x)).detach()
    np.testing.assert_allclose(codes["z"]["mean"], code)
    with pytest.raises(ValueError, match=r'site "z": .* got a point .* fit another guide'):
        log_likelihood(model, guide, x)
    model.requires_grad_(False)
    normal = build(NormalGuide, x, latents=LATENTS)
    before = model.decoder.weight.clone()
    fit(model, normal, x, epochs=1, compile=False, progress=False)
    assert torch.equal(before, model.decoder.weight)
    scores = log_likelihood(model, normal, x, num_samples=20)
    assert (scores["log_prob"] > scores["elbo"]).all()
    assert encode(model, normal, x).attrs["points"] == []


def test_images_have_codes():
    images = torch.rand(20, 1, 8, 8)
    pair = build(ContinuousBernoulliModel, images), build(DeltaGuide, images)
    assert not lint(*pair, images).findings
    assert reconstruct(*pair, images).shape == images.shape
