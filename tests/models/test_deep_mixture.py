"""The deep mixture: its sum over clusters, where they are placed, and clusters that it finds."""

import numpy as np
import pytest
import torch
from parts.extras import sklearn

from ppl_vae import build, elbo_terms, encode, fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.deep_mixture import DeepMixtureModel

FEATURES, LATENTS, CLUSTERS = 6, 2, 3
WEIGHTS = [0.2, 0.3, 0.5]
CENTERS = [[-1.0, 0.0], [1.0, 0.5], [0.0, 2.0]]
COVARIANCES = [[[0.5, 0.2], [0.2, 0.3]], [[1.0, -0.6], [-0.6, 0.8]], [[0.2, 0.0], [0.0, 0.4]]]


def placed():
    torch.manual_seed(0)
    model = DeepMixtureModel(FEATURES, LATENTS, CLUSTERS)
    model.place(WEIGHTS, CENTERS, COVARIANCES)
    return model


def clusters_of(z):
    """log p(k, z) by numpy, (rows, clusters)."""
    each = []
    for weight, center, covariance in zip(WEIGHTS, CENTERS, COVARIANCES, strict=True):
        away = z - np.array(center)
        squares = (away @ np.linalg.inv(covariance) * away).sum(-1)
        size = np.linalg.slogdet(2 * np.pi * np.array(covariance))[1]
        each.append(np.log(weight) - (squares + size) / 2)
    return np.stack(each, -1)


def certain_guide():
    """A guide whose code is, to rounding, its mean."""
    guide = NormalGuide(FEATURES, LATENTS)
    with torch.no_grad():
        last = [layer for layer in guide.encoder.modules() if isinstance(layer, torch.nn.Linear)][
            -1
        ]
        last.weight[LATENTS:] = 0
        last.bias[LATENTS:] = -40
    return guide


@pytest.mark.usefixtures("double")
def test_the_cluster_is_summed_out_and_encode_has_its_probabilities():
    model, guide = placed().double(), certain_guide().double()
    x = torch.rand(7, FEATURES).round().double()
    codes = encode(model, guide, x)
    joint = clusters_of(codes["z"]["mean"].to_numpy())
    log_prior = np.log(np.exp(joint).sum(-1))
    assert np.allclose(codes["k"].to_numpy(), np.exp(joint - log_prior[:, None]), atol=1e-6)
    with torch.no_grad():
        z = guide.encoder(guide.standardize(x))[:, :LATENTS]
        entropy = torch.distributions.Normal(z, np.exp(-20.0)).entropy().sum(-1)
        likelihood = torch.distributions.Bernoulli(logits=model.decoder(z)).log_prob(x).sum(-1)
        expected = (likelihood + entropy).numpy() + log_prior
    found = elbo_terms(model, guide, x, num_samples=400).sum(axis=1)
    assert np.allclose(found, expected, atol=0.3)  # log q of 400 draws is a little random


def test_clusters_are_placed_where_a_mixture_has_them():
    model = placed()
    torch.testing.assert_close(model.logits.softmax(-1), torch.tensor(WEIGHTS))
    torch.testing.assert_close(model.code(torch.arange(3)).mean, torch.tensor(CENTERS))
    found = model.code(torch.arange(3)).covariance_matrix
    torch.testing.assert_close(found, torch.tensor(COVARIANCES))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": [0.5, 0.5]}, r"weights: expected the shape \(3,\), got \(2,\)"),
        ({"weights": [1.0, 0.0, 0.0]}, "weights: expected positive numbers, got 0"),
        ({"centers": [0.0, 1.0]}, r"centers: expected the shape \(3, 2\), got \(2,\)"),
        ({"covariances": np.ones((3, 2))}, r"covariances: expected the shape \(3, 2, 2\)"),
        ({"centers": np.full((3, 2), np.nan)}, "centers: expected finite numbers, got nan"),
        ({"covariances": -np.array(COVARIANCES)}, "covariances: expected positive definite matr"),
        ({"covariances": [[[1.0, 0.5], [0.0, 1.0]]] * 3}, "covariances: expected symmetric matr"),
        ({"centers": "here"}, "centers: expected numbers, got 'here'"),
    ],
)
def test_clusters_of_other_sizes_are_refused_and_leave_the_model_as_it_was(given, message):
    model = placed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    others = {"weights": WEIGHTS[::-1], "centers": CENTERS[::-1], "covariances": COVARIANCES[::-1]}
    with pytest.raises(ValueError, match=message):
        model.place(**{**others, **given})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_placed_clusters_are_the_planted_ones_after_the_fit():
    random = torch.Generator().manual_seed(0)
    label = torch.randint(3, (600,), generator=random)
    logits = 3 * torch.randn(3, 30, generator=random)[label]
    x = (torch.rand(600, 30, generator=random) < logits.sigmoid()).float()
    torch.manual_seed(0)
    first, guide = build(BernoulliModel, x, latents=2), build(NormalGuide, x, latents=2)
    how = {"batch_size": 100, "progress": False, "seed": 0}
    fit(first, guide, x, epochs=15, kl_weight=0.1, **how)
    codes = encode(first, guide, x)["z"]["mean"].to_numpy()
    start = sklearn("mixture").GaussianMixture(3, n_init=3, random_state=0).fit(codes)
    model = build(DeepMixtureModel, x, latents=2, clusters=3, decoder=first.decoder)
    model.place(start.weights_, start.means_, start.covariances_)
    elbo = fit(model, guide, x, epochs=15, **how).frame["elbo"]
    assert elbo.iloc[-1] > elbo.iloc[0]
    found = encode(model, guide, x)["k"].to_numpy().argmax(-1)
    assert sklearn("metrics").adjusted_rand_score(label, found) > 0.95
