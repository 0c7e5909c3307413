"""The gap of a guide has the parts that linear-Gaussian pairs know in closed form."""

import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.zoo import refusal, zoo_names, zoo_pair
from torch import nn

from ppl_vae import InferenceGap, fit, inference_gap, log_likelihood
from ppl_vae.cli.pairs import NO_GUIDE
from ppl_vae.guides.multivariate_normal import MultivariateNormalGuide
from ppl_vae.models.ppca import PPCAModel
from ppl_vae.nn import MLP

WEIGHT = [[1.0, 0.9, 0.5], [0.8, 1.0, 0.4], [0.5, 0.7, 1.0], [1.0, 1.0, 0.2], [0.1, 0.4, 0.9]]
LATENTS, LOG_SIGMA = 3, -0.7


def linear(rows=150):
    """A linear-Gaussian model, rows of it, and their exact log-likelihood."""
    torch.manual_seed(0)
    model = PPCAModel(len(WEIGHT), latents=LATENTS)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(WEIGHT))
        model.log_sigma.fill_(LOG_SIGMA)
    x = model.density().sample((rows,))
    return model, x, model.log_prob(x).detach().numpy()


class Guide(nn.Module):
    """The exact posterior of ``linear``, or the best diagonal normal; moved, or another width."""

    def __init__(self, *, full, shift=0.0, width=1.0):
        super().__init__()
        weight = torch.tensor(WEIGHT)
        self.precision = torch.eye(LATENTS) + weight.T @ weight * math.exp(-2 * LOG_SIGMA)
        self.covariance = torch.linalg.inv(self.precision)
        self.map = self.covariance @ weight.T * math.exp(-2 * LOG_SIGMA)
        self.full, self.shift, self.width = full, shift, width

    def forward(self, x):
        with pyro.plate("data", len(x)):
            mean = x @ self.map.T + self.shift
            scale = self.width * self.precision.diagonal().rsqrt()
            fn = dist.Normal(mean, scale).to_event(1)
            if self.full:
                fn = dist.MultivariateNormal(mean, self.width**2 * self.covariance)
            pyro.sample("z", fn)

    def lost_by_the_family(self):
        """KL divergence of the best diagonal normal from the posterior, in nats."""
        log_precisions = self.precision.diagonal().log().sum()
        return float(log_precisions + torch.logdet(self.covariance)) / 2


@pytest.fixture(scope="module")
def of_diagonal():
    model, x, exact = linear()
    return inference_gap(model, Guide(full=False), x), exact


def test_a_diagonal_guide_on_a_correlated_posterior_has_the_gap_of_the_formula(of_diagonal):
    result, exact = of_diagonal
    means, lost = result.summary["mean"], Guide(full=False).lost_by_the_family()
    assert lost > 0.5  # there is something to find
    assert means["approximation"] == pytest.approx(lost, abs=0.01)
    assert means["amortization"] == pytest.approx(0.0, abs=0.01)
    assert np.abs(result.frame["log_prob"] - exact).max() < 0.02
    assert result.cause == "family"
    assert "family is too narrow" in str(result)


def test_a_network_that_is_off_has_an_amortization_gap_alone():
    model, x, exact = linear()
    guide = Guide(full=True, shift=0.4)
    result = inference_gap(model, guide, x)
    shift = torch.full((LATENTS,), 0.4)
    lost = float(shift @ guide.precision @ shift) / 2
    means, errors = result.summary["mean"], result.summary["error"]
    assert means["amortization"] == pytest.approx(lost, abs=max(0.01, 4 * errors["amortization"]))
    assert means["approximation"] == pytest.approx(0.0, abs=0.01)
    assert result.cause == "encoder"
    assert np.abs(result.frame["log_prob"] - exact).max() < 0.02


def test_an_encoder_of_one_hidden_unit_loses_what_its_family_does_not():
    model, x, _ = linear()
    model.requires_grad_(False)
    torch.manual_seed(1)
    encoder = MLP(len(WEIGHT), LATENTS * (LATENTS + 3) // 2, (1,))
    guide = MultivariateNormalGuide(len(WEIGHT), LATENTS, encoder)
    fit(model, guide, x, epochs=60, progress=False, seed=0)
    result = inference_gap(model, guide, x)
    assert result.summary["mean"]["approximation"] == pytest.approx(0.0, abs=0.01)
    assert result.summary["mean"]["amortization"] > 0.5
    assert result.cause == "encoder"


def test_both_parts_are_found_together():
    model, x, _ = linear()
    result = inference_gap(model, Guide(full=False, width=0.45), x)
    means, lost = result.summary["mean"], Guide(full=False).lost_by_the_family()
    narrow = LATENTS * ((0.45**2 - 1) / 2 - math.log(0.45))
    assert means["approximation"] == pytest.approx(lost, abs=0.02)
    assert means["amortization"] == pytest.approx(narrow, abs=0.03)
    assert result.cause == "both"


def test_the_exact_guide_has_no_gap():
    model, x, exact = linear(40)
    result = inference_gap(model, Guide(full=True), x, steps=50)
    assert result.cause == "neither"
    assert result.summary["mean"][["gap", "approximation", "amortization"]].abs().max() < 1e-3
    assert np.abs(result.frame["log_prob"] - exact).max() < 1e-3
    assert not result.unreliable.any()


def test_the_parts_add_up_and_the_frame_has_the_index_of_the_data(of_diagonal):
    frame = of_diagonal[0].frame
    parts = frame["approximation"] + frame["amortization"]
    np.testing.assert_allclose(parts, frame["gap"], atol=1e-9)
    np.testing.assert_allclose(frame["log_prob"] - frame["elbo"], frame["gap"], atol=1e-9)
    assert frame["log_prob_upper"].isna().all()
    model, x, _ = linear(5)
    table = pd.DataFrame(x.numpy(), index=list("abcde"))
    named = inference_gap(model, Guide(full=True), table, steps=2, num_samples=30).frame
    assert list(named.index) == list("abcde")
    assert list(named.columns) == [
        "log_prob", "log_prob_upper", "elbo", "elbo_refined", "gap", "approximation",
        "amortization", "k_hat",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
def test_elbos_are_those_of_log_likelihood(of_diagonal):
    model, x, _ = linear()
    scores = log_likelihood(model, Guide(full=False), x)
    np.testing.assert_array_equal(scores["elbo"], of_diagonal[0].frame["elbo"])


@pytest.mark.slow
def test_the_seed_decides_and_nothing_else_is_drawn():
    model, x, _ = linear(10)
    guide = Guide(full=False, shift=0.2)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    runs = [inference_gap(model, guide, x, steps=5, num_samples=50, seed=s) for s in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    pd.testing.assert_frame_equal(runs[0].frame, runs[1].frame)
    assert not runs[0].frame["elbo"].equals(runs[2].frame["elbo"])


def result_of(gap, approximation, unreliable, not_refined=()):
    """A verdict on 100 rows whose gaps are about these, in nats."""
    noise = np.random.default_rng(0).normal(0, 0.01, 100)
    frame = pd.DataFrame({"log_prob": noise - 3.0, "log_prob_upper": np.nan}, index=range(100))
    frame["gap"] = gap + noise
    frame["approximation"] = approximation + noise
    frame["amortization"] = frame["gap"] - frame["approximation"]
    frame["elbo"], frame["k_hat"] = frame["log_prob"] - frame["gap"], 0.1
    frame["elbo_refined"] = frame["elbo"] + frame["amortization"]
    summary = pd.DataFrame({"mean": frame.mean(), "error": frame.sem()})
    return InferenceGap(frame, summary, np.arange(100) < unreliable, dict(not_refined))


@pytest.mark.parametrize(
    ("arguments", "cause", "words"),
    [
        ((1.0, 0.9, 0), "family", "too narrow"),
        ((1.0, 0.1, 0), "encoder", "enlarge the encoder"),
        ((1.0, 0.5, 0), "both", "Family and network"),
        ((0.01, 0.01, 0), "neither", "as good as the posterior"),
        ((1.0, 0.9, 60), "unknown", "not reliable in 60 of 100 rows"),
        ((1.0, 0.9, 0, {"z": "a path"}), "unknown", 'site "z": a path'),
        ((0.01, 0.01, 0, {"z": "a path"}), "neither", "as good as"),
    ],
)
def test_causes_and_their_advice(arguments, cause, words):
    result = result_of(*arguments)
    assert result.cause == cause
    assert words in result.advice()
    assert words in str(result)


def test_the_figure_has_both_parts_of_each_row(of_diagonal):
    ax = of_diagonal[0].plot()
    heights = [bar.get_height() for bar in ax.patches]
    assert len(heights) == 2 * 150
    assert sum(heights) / 150 == pytest.approx(of_diagonal[0].summary["mean"]["gap"], abs=1e-6)


def test_missing_guides_and_wrong_arguments_are_refused():
    model, x, _ = linear(5)
    with pytest.raises(ValueError, match="guide: expected a guide"):
        inference_gap(model, None, x)
    with pytest.raises(ValueError, match="method: expected importance or annealed, got 'ais'"):
        inference_gap(model, Guide(full=True), x, method="ais")
    with pytest.raises(ValueError, match="simulated: expected True or False"):
        inference_gap(model, Guide(full=True), x, simulated="yes")


OFTEN = {
    ("bernoulli", "flow"), ("topics", "dirichlet"), ("semisupervised", "classifier"),
    ("deep_markov", "smoothing"), ("hierarchical", "top_down"), ("bayesian_decoder", "mean_field"),
}  # fmt: skip
"""Pairs that are run every time: a flow, a simplex, a summed class, a path, several latents."""
WITH_GUIDE = [names for names in zoo_names() if names[1] != NO_GUIDE]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "names",
    [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in WITH_GUIDE],
    ids="+".join,
)
def test_pairs_of_the_zoo_have_a_gap_or_say_at_which_site_there_is_none(names):
    if reason := refusal(*names):
        pytest.skip(reason)
    model, guide, data = zoo_pair(*names)
    if names[1] in ("delta", "nearest_code"):  # points have no likelihood
        with pytest.raises(ValueError, match=r"site .*point"):
            inference_gap(model, guide, data, steps=4, num_samples=30)
        return
    result = inference_gap(model, guide, data, steps=4, num_samples=30)
    frame = result.frame
    assert np.isfinite(frame[["log_prob", "elbo", "gap"]].to_numpy()).all()
    if frame["elbo_refined"].isna().all():
        assert result.not_refined or "latent" in result.advice()
    else:
        assert np.isfinite(frame["elbo_refined"]).all()
    assert all(f'site "{site}"' in reason for site, reason in result.not_refined.items())
