"""Models that sum their latents out: the numbers of plain algorithms, written here in numpy."""

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.datasets import load_wine
from sklearn.mixture import GaussianMixture

from ppl_vae import build, encode, fit, generate, lint, log_likelihood, predictive_check
from ppl_vae.core.pair import Pair
from ppl_vae.elbo.loss import LossAndGradient
from ppl_vae.elbo.objectives import Objective
from ppl_vae.models.hmm import HMMModel
from ppl_vae.models.mixture import MixtureModel

STEPS, FEATURES, STATES = 6, 2, 3


@pytest.fixture
def chain():
    """A hidden Markov model of random parameters, in float64, and ten sequences."""
    torch.manual_seed(0)
    model = HMMModel(STEPS, FEATURES, STATES).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.8 * torch.randn_like(parameter))
    return model, torch.randn(10, STEPS, FEATURES, dtype=torch.float64)


def factors(model, x):
    """Log-probabilities: initial (K,), transition (K, K), of the data (rows, steps, K)."""
    initial = model.initial.log_softmax(-1).detach().numpy()
    transition = model.transition.log_softmax(-1).detach().numpy()
    mean = model.centers.detach().numpy()  # loc is 0 and scale is 1
    sd = ((2 * model.log_spreads).exp() + 0.01**2).sqrt().detach().numpy()
    emission = norm.logpdf(x.numpy()[:, :, None], mean, sd).sum(-1)
    return initial, transition, emission


def forward(initial, transition, emission):
    alpha = [initial + emission[:, 0]]
    for t in range(1, emission.shape[1]):
        alpha.append(logsumexp(alpha[-1][:, :, None] + transition, 1) + emission[:, t])
    return np.stack(alpha, 1)


def backward(transition, emission):
    beta = [np.zeros(emission[:, 0].shape)]
    for t in range(emission.shape[1] - 1, 0, -1):
        beta.insert(0, logsumexp(transition + (emission[:, t] + beta[0])[:, None], 2))
    return np.stack(beta, 1)


def viterbi(initial, transition, emission):
    best, pointers = initial + emission[:, 0], []
    for t in range(1, emission.shape[1]):
        scores = best[:, :, None] + transition
        pointers.append(scores.argmax(1))
        best = scores.max(1) + emission[:, t]
    path = [best.argmax(-1)]
    for pointer in reversed(pointers):
        path.insert(0, pointer[np.arange(len(pointer)), path[0]])
    return np.stack(path, 1)


def test_the_likelihood_of_a_hidden_markov_model_is_that_of_the_forward_algorithm(chain):
    model, x = chain
    exact = logsumexp(forward(*factors(model, x))[:, -1], -1)
    scores = log_likelihood(model, None, x)
    np.testing.assert_allclose(scores["log_prob"], exact, atol=1e-6)


def test_the_marginal_of_a_hidden_markov_model_is_its_likelihood(chain):
    """One distribution in the place of the sum: faster, and with the same weights."""
    model, x = chain
    summed, marginal = (log_likelihood(half, None, x) for half in (model, model.marginal))
    np.testing.assert_allclose(marginal["log_prob"], summed["log_prob"], atol=1e-6)
    torch.manual_seed(0)
    before = marginal["log_prob"].mean()
    fit(model.marginal, None, x, epochs=5, batch_size=5, progress=False, compile=False)
    assert log_likelihood(model, None, x)["log_prob"].mean() > before


def test_a_fit_sees_the_likelihood_where_factors_are_far_apart():
    """In single precision, exp(-200) is 0: a state that the first step denies is not lost."""
    model = HMMModel(6, 1, 2)
    with torch.no_grad():
        model.centers.copy_(torch.tensor([[0.0], [20.0]]))
        model.transition.copy_(torch.tensor([[300.0, 0.0], [0.0, 300.0]]))
    x = torch.tensor([0.0, *[20.0] * 5]).reshape(1, 6, 1)
    exact = log_likelihood(model, None, x)["log_prob"].item()
    pair = Pair.of(model, None, "data")
    trained = list(pair.trainable().values())
    run = LossAndGradient(pair, Objective.of(TraceEnum_ELBO(), "test"), 1, trained)
    losses, gradients = run({"x": x}, None)
    assert -losses[0].item() == pytest.approx(exact, rel=1e-5)
    assert gradients[0].isfinite().all()
    assert gradients[0].norm() > 0


def test_posterior_probabilities_are_those_of_forward_and_backward(chain):
    model, x = chain
    initial, transition, emission = factors(model, x)
    joint = forward(initial, transition, emission) + backward(transition, emission)
    exact = np.exp(joint - logsumexp(joint, -1, keepdims=True))
    codes = encode(model, None, x)
    for t in range(STEPS):
        np.testing.assert_allclose(codes[f"z_{t}"]["probability"], exact[:, t], atol=1e-6)
    assert codes.attrs["exact"] == {f"z_{t}": True for t in range(STEPS)}


def test_the_decoded_path_is_the_one_of_viterbi(chain):
    model, x = chain
    path = encode(model, None, x, joint=True)["z"]["mode"]
    np.testing.assert_array_equal(path, viterbi(*factors(model, x)))
    assert list(path.columns) == list(range(STEPS))


def test_joint_needs_a_latent_that_is_summed():
    from ppl_vae.guides.normal import NormalGuide
    from ppl_vae.models.gaussian import GaussianModel

    with pytest.raises(ValueError, match=r"joint: expected a latent .* that is summed out"):
        encode(GaussianModel(3), NormalGuide(3), torch.randn(4, 3), joint=True)


def wine():
    x = torch.as_tensor(load_wine().data, dtype=torch.float32)
    return (x - x.mean(0)) / x.std(0)


def test_component_probabilities_are_those_of_scikit_learn():
    x = wine()
    theirs = GaussianMixture(3, covariance_type="diag", random_state=0).fit(x.numpy())
    model = MixtureModel(13, 3, floor=0.0)
    with torch.no_grad():
        model.centers.copy_(torch.as_tensor(theirs.means_))
        model.log_spreads.copy_(torch.as_tensor(theirs.covariances_).log() / 2)
        model.logits.copy_(torch.as_tensor(theirs.weights_).log())
    codes = encode(model, None, x)["k"]["probability"]
    np.testing.assert_allclose(codes, theirs.predict_proba(x.numpy()), atol=1e-4)
    modes = encode(model, None, x, joint=True)["k"]["mode"][0]
    np.testing.assert_array_equal(modes, theirs.predict(x.numpy()))
    log_prob = log_likelihood(model, None, x)["log_prob"]
    np.testing.assert_allclose(log_prob, theirs.score_samples(x.numpy()), atol=1e-3)


def test_a_fitted_mixture_has_the_likelihood_of_scikit_learns():
    """The best of three starts each: the likelihood of a mixture has several maxima."""
    x = wine()
    theirs = GaussianMixture(3, covariance_type="diag", random_state=0, n_init=3).fit(x.numpy())
    best = -np.inf
    for seed in range(3):
        torch.manual_seed(seed)
        model = MixtureModel(13, 3)
        fit(
            model, None, x, epochs=400, batch_size=len(x), progress=False, compile=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, 0.05),
        )  # fmt: skip
        best = max(best, log_likelihood(model, None, x)["log_prob"].mean())
    assert best == pytest.approx(theirs.score(x.numpy()), abs=0.01)


@pytest.mark.parametrize("name", ["mixture", "hmm"])
def test_models_without_a_guide_answer_every_question(name):
    torch.manual_seed(0)
    x = wine()[:40, :4] * 5 + 3
    x = x.reshape(20, 4, 2) if name == "hmm" else x
    model = build(HMMModel if name == "hmm" else MixtureModel, x)
    assert lint(model, None, x).findings == ()
    history = fit(
        model, None, x, epochs=40, batch_size=10, progress=False, compile=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.05),
    )  # fmt: skip
    assert history.frame["elbo"].iloc[-1] > history.frame["elbo"].iloc[0]
    assert generate(model, None, x, num_samples=7).shape == (7, *x.shape[1:])
    checked = predictive_check(model, None, x, num_samples=20)
    assert checked.frame["p_value"].dropna().between(0, 1).all()


def test_an_index_out_of_range_is_named():
    class Worn(MixtureModel):
        """A table of centers that is one component short."""

        def forward(self, x):
            with pyro.plate("data", len(x)):
                fn = pyro.distributions.Categorical(logits=torch.zeros(4))
                k = pyro.sample("k", fn, infer={"enumerate": "parallel"})
                each = pyro.distributions.Normal(self.centers[k], 1.0).to_event(1)
                pyro.sample("x", each, obs=x)

    with pytest.raises(ValueError, match="expected categories from 0 to 2 in the model, got 3"):
        fit(Worn(2, 3), None, torch.randn(10, 2), progress=False)


def test_too_many_joint_values_are_named():
    """Without ``pyro.markov``, a chain has as many joint values as paths."""

    class Unchained(HMMModel):
        def forward(self, x):
            total = 0
            with pyro.plate("data", len(x)):
                for t in range(x.shape[1]):
                    fn = pyro.distributions.Categorical(logits=self.initial)
                    total = total + pyro.sample(f"z_{t}", fn, infer={"enumerate": "parallel"})
                fn = pyro.distributions.Normal(total.to(x.dtype), 1.0)
                pyro.sample("x", fn, obs=x.sum((1, 2)))

    with pytest.raises(ValueError, match=r"joint values of z_0, z_1, \.\.\., z_"):
        log_likelihood(Unchained(20, 1, 4), None, torch.randn(3, 20, 1))
