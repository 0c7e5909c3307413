"""A refined guide is nearer to the posterior, for its rows alone, and changes nothing else."""

import copy

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pandas.testing import assert_frame_equal
from parts import pairs
from parts.discrete import Labeled, LabeledGuide
from pyro.nn import PyroModule
from torch import nn

import ppl_vae
from ppl_vae import elbo_terms, fit, load, log_likelihood, refine, save
from ppl_vae.core.pair import Pair
from ppl_vae.elbo import refinement
from ppl_vae.elbo.offset_search import OffsetSearch
from ppl_vae.evaluation import particle_terms
from ppl_vae.guides.mean_field import MeanFieldGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.guides.top_down import TopDownGuide
from ppl_vae.models.bayesian_decoder import BayesianDecoderModel
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.hierarchical import HierarchicalModel
from ppl_vae.models.ppca import PPCAModel
from ppl_vae.models.vampprior import VampPriorModel
from ppl_vae.nn import MLP

pytestmark = pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")


def correlated(rows=200):
    """A linear-Gaussian model with correlated posteriors, and rows of it."""
    torch.manual_seed(0)
    model = PPCAModel(4, latents=2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.9], [0.8, 1.0], [0.5, 0.7], [1.0, 1.0]]))
        model.log_sigma.fill_(-0.7)
    return model, model.density().sample((rows,))


def mean_elbo(model, guide, x):
    return elbo_terms(model, guide, x, num_samples=200).sum(axis=1).mean()


def test_a_refined_normal_is_the_exact_posterior_of_a_linear_model():
    model, x = correlated(50)
    exact = model.log_prob(x).detach().numpy()
    for guide in (NormalGuide(4, 2), None):
        refined = refine(model, guide, x, steps=150, lr=0.1)
        scores = log_likelihood(model, refined, x, num_samples=100, compile=False)
        assert (exact - scores["elbo"]).mean() < 0.05  # 0.01 after 150 steps; 30 before
        assert np.abs(scores["log_prob"] - exact).max() < 0.2


def test_refining_recovers_the_amortization_gap_of_a_small_encoder():
    model, x = correlated(260)
    model.requires_grad_(False)
    guide = NormalGuide(4, 2, encoder=MLP(4, 4, (4,)))
    train, new = x[:200], x[200:]
    fit(
        model, guide, train, validation=0.2, epochs=100, patience=5, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.02),
    )  # fmt: skip
    best = float(model.log_prob(new).mean())  # the optimum: a normal with all correlations
    before = mean_elbo(model, guide, new)
    after = mean_elbo(model, refine(model, guide, new), new)
    assert best - before > 0.05, (best, before, after)
    assert (after - before) / (best - before) > 0.9


class BestDiagonal(PyroModule):
    """The best normal guide without correlations of a linear-Gaussian model."""

    def __init__(self, model):
        super().__init__()
        weight, noise = model.weight.detach(), (2 * model.log_sigma.detach()).exp()
        precision = torch.eye(weight.shape[1]) + weight.T @ weight / noise
        self.regression = torch.linalg.solve(precision, weight.T / noise)
        self.scale = precision.diagonal().rsqrt()

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.regression.T, self.scale).to_event(1))


def test_correlations_of_many_latents_are_found_in_as_many_steps():
    torch.manual_seed(0)
    model = PPCAModel(50, latents=40)
    with torch.no_grad():
        model.weight.copy_(torch.randn(50, 40) / 4)
        model.log_sigma.fill_(-0.5)
    x, guide = model.density().sample((20,)), BestDiagonal(model)
    best, before = float(model.log_prob(x).mean().detach()), mean_elbo(model, guide, x)
    after = mean_elbo(model, refine(model, guide, x), x)
    assert best - before > 5
    assert (after - before) / (best - before) > 0.75  # 0.87; 0.05 with 780 entries at full steps


def labeled():
    return Labeled(), LabeledGuide(), pairs.reals()


def layers():
    model = HierarchicalModel(pairs.FEATURES, latents=(3, 2))
    return model, TopDownGuide(pairs.FEATURES, model), pairs.bits()


def pseudo_inputs():
    guide = NormalGuide(pairs.FEATURES, 2)
    return VampPriorModel(pairs.FEATURES, guide, 2, pseudo_inputs=3), guide, pairs.bits()


def autoguide():
    model, x = BayesianDecoderModel(pairs.FEATURES, 2), pairs.reals()
    guide = MeanFieldGuide(pairs.FEATURES, model, 2)
    log_likelihood(model, guide, x, num_samples=2)  # the first call makes the parameters
    return model, guide, x


def methods():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder, self.encoder = nn.Linear(2, 5), nn.Linear(5, 2)

        def model(self, x):
            pyro.module("decoder", self.decoder)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", pairs.normal(x.new_zeros(2)))
                pyro.sample("x", pairs.normal(self.decoder(z)), obs=x)

        def guide(self, x):
            pyro.module("encoder", self.encoder)
            sd = pyro.param("sd", torch.tensor(0.3), dist.constraints.positive)
            with pyro.plate("data", len(x)):
                pyro.sample("z", pairs.normal(self.encoder(x), sd))

    both = Both()
    return both.model, both.guide, pairs.reals()


class Plates(PyroModule):
    """A latent in a plate inside the rows, one beside it, and one outside of them."""

    def forward(self, x):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            w = pyro.sample("w", dist.Normal(x.new_zeros(len(x)), 1.0))
            with pyro.plate("places", 5, dim=-2):
                z = pyro.sample("z", dist.LogNormal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z + w + level, 1.0), obs=x.T)


class PlatesGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        pyro.sample("level", dist.Normal(self.loc, 0.1))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("w", dist.Normal(x.mean(1), 0.5))
            with pyro.plate("places", 5, dim=-2):
                pyro.sample("z", dist.LogNormal(x.T.clamp(-1, 1), 1.0))


def plates():
    return Plates(), PlatesGuide(), pairs.reals()


OFTEN = (pairs.functions, pairs.in_a_tuple, pairs.batch_norm, labeled, layers, methods, plates)
MAKERS = (
    pairs.gaussian, pairs.functions, pairs.dropout, pairs.batch_norm, pairs.masked,
    pairs.obs_masked, pairs.mapping, pairs.in_a_tuple, pairs.integers, pairs.gamma_latent,
    pairs.hierarchy, pairs.enumerated_in_the_model, labeled, layers, pseudo_inputs, methods, plates,
)  # fmt: skip


@pytest.mark.parametrize(
    "make", [pytest.param(m, marks=[] if m in OFTEN else pytest.mark.slow) for m in MAKERS],
    ids=lambda make: make.__name__,
)  # fmt: skip
def test_every_kind_of_pair_has_a_higher_elbo_and_is_left_as_it_was(make):
    torch.manual_seed(0)
    model, guide, data = make()
    pair = Pair.of(model, guide, "data")
    before = mean_elbo(model, guide, data)
    weights = {name: value.clone() for name, value in pair.tensors().items()}
    frozen = {name: value.requires_grad for name, value in pair.parameters().items()}
    state = torch.get_rng_state()
    refined = refine(model, guide, data, steps=15)
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: p.requires_grad for name, p in pair.parameters().items()} == frozen
    assert all(torch.equal(value, weights[name]) for name, value in pair.tensors().items())
    assert mean_elbo(model, guide, data) == before
    assert mean_elbo(model, refined, data) > before + 0.005


def test_the_prior_is_refined_for_every_model_without_an_encoder():
    for make in (pairs.functions, pairs.mapping, layers, plates):
        model, _, data = make()
        refined = refine(model, None, data, steps=20)
        assert mean_elbo(model, refined, data) > mean_elbo(model, None, data) + 0.005, make


def small(rows=60):
    torch.manual_seed(0)
    return BernoulliModel(5, 2), NormalGuide(5, 2), torch.rand(rows, 5).round()


def test_any_block_of_the_rows_is_taken_in_any_order_and_no_other_row():
    model, guide, x = pairs.gaussian()
    refined = refine(model, guide, x, steps=5)
    everywhere = refined.offsets_of(x)["z"]
    order = torch.randperm(len(x))[:17]
    assert torch.equal(refined.offsets_of(x[order])["z"], everywhere[order])
    assert torch.equal(everywhere, refined.offsets[0])
    other = x[:10].clone()
    other[3, 1] += 1e-6
    for function in (log_likelihood, elbo_terms, ppl_vae.encode, ppl_vae.predictive_check):
        with pytest.raises(ValueError, match=r"1 other rows .* place 3; call refine"):
            function(model, refined, other)


def test_a_graph_of_the_weights_refuses_other_rows_too(monkeypatch):
    monkeypatch.setattr(particle_terms, "TRACED_FROM", 1)
    model, guide, x = pairs.gaussian()
    refined = refine(model, guide, x, steps=5)
    traced = log_likelihood(model, refined, x, num_samples=100)
    assert_frame_equal(traced, log_likelihood(model, refined, x, num_samples=100, compile=False))
    with pytest.raises(ValueError, match="1 other rows in a batch"):
        log_likelihood(model, refined, torch.cat([x, x[3:4] + 1]), num_samples=100)


def test_equal_rows_share_an_offset():
    model, guide, x = pairs.gaussian()
    refined = refine(model, guide, torch.cat([x, x[:5]]), steps=5)
    assert torch.equal(refined.offsets_of(x)["z"][:5], refined.offsets_of(x[:5])["z"])


def test_every_function_takes_a_refined_guide(tmp_path):
    model, guide, x = small()
    refined = refine(model, guide, x, steps=10)
    pair = model, refined, x
    assert ppl_vae.lint(*pair).errors == []
    assert ppl_vae.encode(*pair).attrs["exact"]["z"]
    assert ppl_vae.reconstruct(*pair).shape == x.shape
    assert ppl_vae.generate(*pair, num_samples=3).shape == (3, 5)
    assert ppl_vae.posterior_predictive(*pair, num_samples=3)["x"].shape == (3, 60, 5)
    assert len(ppl_vae.predictive_check(*pair, num_samples=19).frame)
    assert len(ppl_vae.interpolate(model, refined, x[:3], steps=4))
    assert len(ppl_vae.traverse(model, refined, x[:3], steps=4))
    ppl_vae.write_report(*pair, tmp_path / "report.html")
    trained = copy.deepcopy((model, refined))
    history = fit(*trained, x, epochs=2, batch_size=16, progress=False)
    assert np.isfinite(history.frame["elbo"]).all()
    before, after = (dict(half.guide.named_parameters()) for half in (refined, trained[1]))
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("make", [small, layers, pseudo_inputs], ids=lambda make: make.__name__)
@pytest.mark.parametrize("start", ["guide", "prior"])
def test_a_refined_guide_is_saved_with_its_pair_and_opened(make, start, tmp_path):
    model, guide, data = make()
    refined = refine(model, guide if start == "guide" else None, data, steps=5)
    save(model, refined, tmp_path / "run", data=data)
    reopened = load(tmp_path / "run")
    first, second = (log_likelihood(*pair, data) for pair in ((model, refined), reopened))
    assert first.equals(second)
    with pytest.raises(ValueError, match="rows that the guide was refined for"):
        log_likelihood(*reopened, data + 1)


@pytest.mark.parametrize("with_data", [True, False])
def test_parameters_that_appear_on_a_first_call_are_opened_and_stay_frozen(with_data, tmp_path):
    model, guide, data = autoguide()
    refined = refine(model, guide, data, steps=2)
    save(model, refined, tmp_path / "run", data=data if with_data else None)
    _, reopened = pair = load(tmp_path / "run")
    assert log_likelihood(*pair, data).equals(log_likelihood(model, refined, data))
    trainable = {name for name, p in reopened.named_parameters() if p.requires_grad}
    assert trainable == {name for name, p in refined.named_parameters() if p.requires_grad}


def test_a_refined_guide_stays_as_it_is_when_the_encoder_is_trained_on():
    model, guide, x = small()
    refined = refine(model, guide, x, steps=5)
    before = log_likelihood(model, refined, x)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(1.0)
    assert log_likelihood(model, refined, x).equals(before)
    again = refine(model, refined, x, steps=30)  # from where it is
    assert mean_elbo(model, again, x) >= mean_elbo(model, refined, x) - 1e-3


def test_frames_are_read_by_the_names_of_their_columns():
    model, guide, x = small()
    frame = pd.DataFrame(x.numpy(), columns=list("abcde"))
    refined = refine(model, guide, frame, steps=5)
    expected = log_likelihood(model, refined, frame)
    assert log_likelihood(model, refined, frame[list("edcba")]).equals(expected)


def test_rows_that_get_worse_keep_the_answer_of_the_guide(monkeypatch):
    model, guide, x = small()
    noise = [torch.randn(60, 5)]
    monkeypatch.setattr(OffsetSearch, "gradient", lambda *_, **__: [1e6 * noise[0]])
    refined = refine(model, guide, x, steps=20, lr=10.0)
    assert (refined.offsets[0] == 0).all()


def two_modes(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z**2, 0.1).to_event(1), obs=x)


def wide_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))


def test_a_wide_guide_is_not_refined_to_one_of_two_modes():
    x = 1 + 0.1 * torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
    scores = log_likelihood(two_modes, wide_guide, x, num_samples=10_000)["log_prob"]
    refined = refine(two_modes, wide_guide, x, num_particles=64)
    lost = scores - log_likelihood(two_modes, refined, x, num_samples=10_000)["log_prob"]
    assert (lost > 0.5).mean() < 0.2  # 0.13; by the bounds alone 0.6


def test_a_traced_search_finds_the_offsets_of_the_eager_one(monkeypatch):
    model, guide, x = pairs.gaussian()
    eager = refine(model, guide, x, steps=20)
    monkeypatch.setattr(refinement, "TRACED_FROM", 1)
    graphs = []
    monkeypatch.setattr(
        OffsetSearch, "offsets", lambda search, *given, original=OffsetSearch.offsets: (
            graphs.append(search), original(search, *given)
        )[1],
    )  # fmt: skip
    traced = refine(model, guide, x, steps=20)
    assert set(graphs[0].graphs) == {False, True}
    torch.testing.assert_close(traced.offsets[0], eager.offsets[0], rtol=1e-2, atol=1e-2)


def point(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(x[:, :2]).to_event(1))


@pytest.mark.parametrize(
    ("make", "guide", "message"),
    [
        (pairs.gaussian, point, r'site "z": expected a guide that draws .* got a point'),
        (pairs.sampled_class, ..., 'site "z": expected a reparameterized draw'),
        (pairs.enumerated_in_the_guide, ..., "there is nothing to refine"),
        (pairs.with_global, ..., "there is nothing to refine"),
        (pairs.enumerated_in_the_model, None, 'site "k": expected a guide beside a latent that'),
    ],
    ids=["point", "discrete", "enumerated", "global", "prior of a summed latent"],
)
def test_what_cannot_be_refined_is_refused(make, guide, message):
    model, own, data = make()
    with pytest.raises(ValueError, match=message):
        refine(model, own if guide is ... else guide, data, steps=1)


@pytest.mark.parametrize(
    "arguments", [{"steps": 0}, {"num_particles": 0}, {"lr": 0.0}, {"lr": float("nan")}]
)
def test_wrong_arguments_are_refused_by_name(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        refine(*small(), **arguments)
