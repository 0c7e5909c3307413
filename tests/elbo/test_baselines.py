"""Score-function gradients are unbiased under every baseline, and less noisy with one."""

import itertools
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.discrete import Labeled
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import IWAE, RowELBO, fit
from ppl_vae.core.pair import Pair
from ppl_vae.distributions import CategoricalVector
from ppl_vae.elbo.bounds import ParticleBound
from ppl_vae.elbo.loss import LossAndGradient
from ppl_vae.elbo.objectives import Objective
from ppl_vae.guides.bernoulli import BernoulliGuide
from ppl_vae.guides.categorical import CategoricalGuide
from ppl_vae.models.discrete import DiscreteModel
from ppl_vae.models.sigmoid_belief import SigmoidBeliefModel

FEATURES, REPEATS, ROWS = 4, 100, 100  # 10,000 draws of each estimator


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def far_from_zero(*halves):
    """Parameters with which the posterior is neither flat nor sure."""
    torch.manual_seed(1)
    for half in halves:
        for parameter in half.parameters():
            nn.init.normal_(parameter, std=0.7)
    return halves


def discrete(enumerated=False, network=False):
    encoder = nn.Linear(FEATURES, 6)
    guide = CategoricalGuide(FEATURES, 2, 3, encoder, enumerated=enumerated)
    model, guide = far_from_zero(DiscreteModel(FEATURES, 2, 3, nn.Linear(6, FEATURES)), guide)
    if network:
        guide.baseline = nn.Linear(FEATURES, 1)
        nn.init.constant_(guide.baseline.bias, -4.0)
    return model, guide


def layered(enumerated=False):
    model = SigmoidBeliefModel(FEATURES, (2, 2))
    guide = BernoulliGuide(FEATURES, (2, 2), nn.Linear(FEATURES, 2), enumerated=enumerated)
    return far_from_zero(model, guide)


def gradients(model, guide, elbo, x, repeats):
    """Gradients of the loss by all parameters but those of baselines, (repeats, count)."""
    pair = Pair.of(model, guide, "data")
    parameters = [p for n, p in pair.trainable().items() if "baseline" not in n]
    run = LossAndGradient(pair, Objective.of(elbo, "test"), len(x), parameters)
    torch.manual_seed(0)
    rows = [run({"x": x}, None)[1] for _ in range(repeats)]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]) / len(x)


X = torch.tensor([[1.0, 0.0, 1.0, 1.0]]).double().expand(ROWS, FEATURES)

ESTIMATORS = {
    "none": (RowELBO(2), {}),
    "average": (RowELBO(2, baseline="average"), {}),
    "leave_one_out": (RowELBO(2, baseline="leave_one_out"), {}),
    "network": (RowELBO(2), {"network": True}),
    "runs apart": (RowELBO(2, baseline="leave_one_out", vectorize_particles=False), {}),
}


def assert_unbiased(found, exact):
    z = (found.mean(0) - exact) / (found.std(0) / len(found) ** 0.5 + 1e-12)
    assert z.abs().max() < 4, z


@pytest.mark.parametrize("name", ESTIMATORS)
def test_score_function_gradients_match_enumeration(name):
    elbo, options = ESTIMATORS[name]
    exact = gradients(*discrete(enumerated=True), RowELBO(1), X, 1)[0]
    assert_unbiased(gradients(*discrete(**options), elbo, X, REPEATS), exact)


@pytest.mark.parametrize("baseline", [None, "average", "leave_one_out"])
def test_gradients_of_layers_match_enumeration(baseline):
    exact = gradients(*layered(enumerated=True), pyro.infer.TraceEnum_ELBO(), X, 1)[0]
    found = gradients(*layered(), RowELBO(3, baseline=baseline), X, REPEATS)
    assert_unbiased(found, exact)


def test_each_baseline_lowers_the_variance():
    """Rows differ, so that the mean of the others is no perfect guess."""
    x = torch.eye(FEATURES).repeat(5, 1)
    noise = {}
    for name in ("none", "average", "leave_one_out", "network"):
        elbo, options = ESTIMATORS[name]
        noise[name] = gradients(*discrete(**options), elbo, x, 100).var(0).sum()
    ratios = {name: float(noise["none"] / variance) for name, variance in noise.items()}
    sys.stdout.write(f"variance without a baseline, by variance with it: {ratios}\n")
    assert min(ratios["average"], ratios["leave_one_out"], ratios["network"]) > 1.5, ratios


class OneLatent(PyroModule):
    """One categorical latent of three values, as plainly as can be, in float64."""

    def __init__(self):
        super().__init__()
        self.prior = nn.Parameter(torch.tensor([[0.2, -0.5, 0.9]]))
        self.means = nn.Parameter(torch.tensor([-1.0, 0.5, 2.0]))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", CategoricalVector(self.prior))
            pyro.sample("x", dist.Normal(z[..., 0, :] @ self.means, 1.0), obs=x)


class OneLatentGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([[0.3, 0.1, -0.2]]))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", CategoricalVector(self.logits))


@pytest.mark.parametrize("baseline", [None, "average", "leave_one_out"])
def test_importance_weighted_gradients_match_the_sum_over_all_pairs_of_particles(baseline):
    """VIMCO and its kin: E log (w_1 + w_2) / 2 is a sum over nine pairs of values."""
    model, guide = OneLatent(), OneLatentGuide()
    x = torch.tensor(0.8)
    log_q = guide.logits[0].log_softmax(-1)
    log_w = model.prior[0].log_softmax(-1) + dist.Normal(model.means, 1.0).log_prob(x) - log_q
    bound = sum(
        (log_q[i] + log_q[j]).exp() * torch.logaddexp(log_w[i], log_w[j])
        for i, j in itertools.product(range(3), repeat=2)
    )
    exact = torch.autograd.grad(-bound, [model.prior, model.means, guide.logits])
    found = gradients(model, guide, IWAE(2, baseline=baseline), x.expand(ROWS), REPEATS)
    assert_unbiased(found, torch.cat([g.flatten() for g in exact]))


class DrawnLabel(PyroModule):
    """A drawn discrete latent, and a continuous latent that depends on it."""

    def __init__(self):
        super().__init__()
        self.chances = nn.Linear(5, 3)
        self.encoder = nn.Linear(8, 2)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            fn = dist.OneHotCategorical(logits=self.chances(x))
            k = pyro.sample("k", fn, infer=self.infer)
            shape = torch.broadcast_shapes(k.shape[:-1], x.shape[:-1])
            both = torch.cat([x.expand(*shape, 5), k.expand(*shape, 3)], -1)
            pyro.sample("z", dist.Normal(self.encoder(both), 0.5).to_event(1))


def test_a_discrete_latent_beside_a_continuous_one_has_the_right_gradient():
    found = {}
    for name, infer in (("drawn", {}), ("summed", {"enumerate": "parallel"})):
        model, guide = far_from_zero(Labeled(), DrawnLabel())
        guide.infer = infer
        elbo = RowELBO(2, baseline=None if infer else "leave_one_out")
        found[name] = gradients(model, guide, elbo, torch.ones(200, 5), 50)
    difference = found["drawn"].mean(0) - found["summed"].mean(0)
    error = (sum(f.var(0) for f in found.values()) / 50).sqrt()
    z = difference / (error + 1e-12)
    assert z.abs().max() < 4, z


def test_the_enumerated_elbo_is_the_sum_over_all_configurations():
    model, guide = discrete(enumerated=True)
    x = torch.eye(FEATURES)
    eye = torch.eye(3)
    elbo = torch.zeros(())
    prior, posterior = model.prior_logits.log_softmax(-1), guide.encoder(x).unflatten(-1, (2, 3))
    posterior = posterior.log_softmax(-1)
    for i, j in itertools.product(range(3), repeat=2):
        log_q = posterior[:, 0, i] + posterior[:, 1, j]
        logits = model.decoder(torch.cat([eye[i], eye[j]]))
        log_p = prior[0, i] + prior[1, j] + dist.Bernoulli(logits=logits).log_prob(x).sum(-1)
        elbo = elbo + (log_q.exp() * (log_p - log_q)).sum()
    for bound in (RowELBO(1), pyro.infer.TraceEnum_ELBO()):
        pair = Pair.of(model, guide, "data")
        run = LossAndGradient(pair, Objective.of(bound, "test"), 4, list(pair.trainable().values()))
        assert -run({"x": x}, None)[0][0] == pytest.approx(elbo.item(), abs=1e-6)


def test_a_network_baseline_learns_the_bound_of_the_rows():
    torch.manual_seed(0)
    model = DiscreteModel(FEATURES, 2, 3)
    guide = CategoricalGuide(FEATURES, 2, 3, baseline=nn.Linear(FEATURES, 1))
    fit(
        model, guide, torch.eye(FEATURES).repeat(20, 1), elbo=RowELBO(2), epochs=15, batch_size=20,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.1), progress=False,
        compile=False,
    )  # fmt: skip
    predicted = guide.baseline(torch.eye(FEATURES))
    pair = Pair.of(model, guide, "data")
    draws = RowELBO(200).draws(pair, {"x": torch.eye(FEATURES)})
    bounds = draws[0].log_weights().mean(0)
    torch.testing.assert_close(predicted[:, 0], bounds, atol=0.5, rtol=0)  # from 0


def test_a_ragged_last_batch_and_a_lone_row_have_baselines():
    """Pyro's running average has the shape of the first batch, and raises at another."""
    torch.manual_seed(0)
    for baseline in ("average", "leave_one_out"):
        history = fit(
            DiscreteModel(FEATURES, 2, 3), CategoricalGuide(FEATURES, 2, 3),
            torch.eye(FEATURES).repeat(3, 1)[:11], elbo=RowELBO(2, baseline=baseline), epochs=2,
            batch_size=5, progress=False, compile=False,
        )  # fmt: skip
        assert history.frame["elbo"].notna().all()


class SharedClass(PyroModule):
    """A discrete latent outside the row plate."""

    def forward(self, x):
        k = pyro.sample("k", dist.Categorical(logits=torch.zeros(2)))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(k.to(x.dtype).expand(2), 1.0).to_event(1), obs=x)


class SharedClassGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        pyro.sample("k", dist.Categorical(logits=self.logits))


class OddBaseline(CategoricalGuide):
    """A baseline as its site's ``infer`` has it."""

    def forward(self, x):
        fn = CategoricalVector(self.encoder(x).unflatten(-1, (self.latents, self.states)))
        with pyro.plate("data", len(x)):
            pyro.sample("z", fn, infer={"baseline": self.how})


def test_what_would_go_wrong_is_refused():
    with pytest.raises(ValueError, match=r"baseline: expected .* got 'mean'"):
        RowELBO(2, baseline="mean")
    for bound in (RowELBO, IWAE):
        with pytest.raises(ValueError, match="num_particles: expected 2 or more with the baseline"):
            bound(1, baseline="leave_one_out")
    x, shared = torch.zeros(3, 2), (SharedClass(), SharedClassGuide())
    with pytest.raises(ValueError, match=r'site "k": expected a reparameterized .* row plate'):
        gradients(*shared, RowELBO(1), x, 1)
    with pytest.raises(ValueError, match="free_bits: expected reparameterized draws"):
        gradients(*discrete(), RowELBO(2, free_bits=0.1), X, 1)
    with pytest.raises(ValueError, match="expected a reparameterized draw under IWAE"):
        gradients(*discrete(), IWAE(2, doubly_reparameterized=True), X, 1)
    guide = OddBaseline(FEATURES, 2, 3)
    for how, message in (
        ({"use_decaying_avg_baseline": True}, "no use_decaying_avg_baseline"),
        ({"nn_baseline": nn.Linear(FEATURES, 1), "nn_baseline_input": X}, r"got \(100, 1\)"),
        ({"baseline_value": torch.zeros(7)}, r"shape \(100,\)"),
    ):
        guide.how = how
        with pytest.raises(ValueError, match=message):
            gradients(DiscreteModel(FEATURES, 2, 3), guide, RowELBO(2), X, 1)


def test_every_bound_of_particles_takes_a_baseline():
    for bound in ParticleBound.__subclasses__():
        assert bound(2, baseline="average").baseline == "average"
