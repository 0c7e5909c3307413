"""Discrete latents: exact sums, relaxed guides whose ELBO is that of discrete draws, bad input."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.steps import Sides
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import (
    IWAE,
    RowELBO,
    elbo_terms,
    encode,
    fit,
    generate,
    lint,
    log_likelihood,
    predictive_check,
)
from ppl_vae.distributions import BernoulliVector
from ppl_vae.guides.bernoulli import BernoulliGuide
from ppl_vae.guides.categorical import CategoricalGuide
from ppl_vae.guides.relaxed import RelaxedGuide
from ppl_vae.models.discrete import DiscreteModel
from ppl_vae.models.sigmoid_belief import SigmoidBeliefModel

X = (torch.rand(50, 5, generator=torch.Generator().manual_seed(0)) > 0.4).float()


def moved(*halves):
    torch.manual_seed(3)
    for half in halves:
        for parameter in half.parameters():
            nn.init.normal_(parameter, std=0.5)
    return halves


def codes(states, latents):
    """All configurations, (configurations, latents * states), or (..., latents) of two states."""
    values = torch.eye(states) if states > 2 else torch.tensor([[0.0], [1.0]])
    rows = [torch.cat(list(each)) for each in itertools.product(values, repeat=latents)]
    return torch.stack(rows)


@pytest.mark.parametrize("states", [2, 3])
def test_log_likelihood_of_an_enumerated_guide_is_the_exact_sum(states):
    model = DiscreteModel(5, 3, states)
    cls, sizes = (BernoulliGuide, (5, 3)) if states == 2 else (CategoricalGuide, (5, 3, 3))
    model, guide = moved(model, cls(*sizes, enumerated=True))
    z = codes(states, 3)
    if states == 2:
        prior = dist.Bernoulli(logits=model.prior_logits).log_prob(z).sum(-1)
    else:
        prior = (z * model.prior_logits.log_softmax(-1).flatten()).sum(-1)
    code = 2 * z - 1 if states == 2 else z
    likelihood = dist.Bernoulli(logits=model.decoder(code)).log_prob(X[:, None]).sum(-1)
    exact = (prior + likelihood).logsumexp(-1)
    scores = log_likelihood(model, guide, X, num_samples=1)
    torch.testing.assert_close(torch.tensor(scores["log_prob"].values).float(), exact.detach())


def test_log_likelihood_of_two_layers_is_the_exact_sum():
    sizes = (3, 2)
    model, guide = moved(SigmoidBeliefModel(5, sizes), BernoulliGuide(5, sizes, enumerated=True))
    below, above = codes(2, 3), codes(2, 2)
    top = dist.Bernoulli(logits=model.prior_logits).log_prob(above).sum(-1)
    middle = dist.Bernoulli(logits=model.layers[1](above)).log_prob(below[:, None]).sum(-1)
    likelihood = dist.Bernoulli(logits=model.layers[0](below)).log_prob(X[:, None]).sum(-1)
    exact = (likelihood[:, :, None] + middle + top).flatten(1).logsumexp(-1)
    scores = log_likelihood(model, guide, X, num_samples=1)
    torch.testing.assert_close(torch.tensor(scores["log_prob"].values).float(), exact.detach())


PAIRS = {
    "categorical": lambda **how: (DiscreteModel(5, 2, 3), CategoricalGuide(5, 2, 3, **how)),
    "bernoulli": lambda **how: (DiscreteModel(5, 2, 2), BernoulliGuide(5, 2, **how)),
    "layers": lambda **how: (SigmoidBeliefModel(5, (2, 2)), BernoulliGuide(5, (2, 2), **how)),
    "relaxed": lambda **how: (DiscreteModel(5, 2, 3), RelaxedGuide(5, 2, 3, **how)),
    "straight-through": lambda **how: (
        SigmoidBeliefModel(5, 2), RelaxedGuide(5, 2, 2, straight_through=True, **how)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("enumerated", [False, True])
def test_every_pair_fits_and_answers_every_question(name, enumerated):
    if enumerated and name in ("relaxed", "straight-through"):
        pytest.skip("a relaxed guide enumerates nothing")
    torch.manual_seed(0)
    model, guide = PAIRS[name](**({"enumerated": True} if enumerated else {}))
    drawn = name in ("categorical", "bernoulli", "layers") and not enumerated
    elbo = RowELBO(2, baseline="leave_one_out") if drawn else None
    assert lint(model, guide, X, elbo=elbo).findings == ()
    history = fit(
        model, guide, X, elbo=elbo, epochs=30, batch_size=25, progress=False, compile=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.03),
    )  # fmt: skip
    assert history.frame["elbo"].iloc[-5:].mean() > history.frame["elbo"].iloc[:3].mean()
    scores = log_likelihood(model, guide, X, num_samples=100)
    assert (scores["log_prob"] + 1e-6 >= scores["elbo"]).all()
    assert len(encode(model, guide, X)) == 50
    assert generate(model, guide, X, num_samples=7).shape == (7, 5)
    assert predictive_check(model, guide, X, num_samples=20).frame["p_value"].between(0, 1).all()


class Coin(PyroModule):
    """One Bernoulli latent, and features whose probabilities depend on it."""

    def __init__(self):
        super().__init__()
        self.prior = nn.Parameter(torch.tensor([0.3]))
        self.logits = nn.Parameter(torch.tensor([[-1.0, 0.5], [1.5, -0.2]]))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", BernoulliVector(self.prior))
            logits = self.logits[0] + z * (self.logits[1] - self.logits[0])
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_elbos_of_a_relaxed_pair_are_those_of_the_discrete_model(temperature, straight_through):
    """All rows are alike, so that their ELBO is known; the learning rate is 0."""
    model = Coin()
    encoder = nn.Linear(2, 1)
    guide = RelaxedGuide(
        2, 1, 2, encoder, temperature=temperature, straight_through=straight_through
    )
    x = torch.tensor([[1.0, 0.0]]).repeat(4000, 1)
    log_q = BernoulliVector(encoder(x[:1]))
    z = torch.tensor([[0.0], [1.0]])
    log_joint = BernoulliVector(model.prior).log_prob(z)
    log_joint = log_joint + dist.Bernoulli(logits=model.logits).log_prob(x[0]).sum(-1)
    q = log_q.log_prob(z).exp()
    elbo = float((q * (log_joint - q.log())).sum().detach())
    history = fit(
        model, guide, x, validation=x, epochs=1, batch_size=2000, progress=False, compile=False,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
    )  # fmt: skip
    assert "no bound" in history.reason
    (row,) = history.frame.to_dict("records")
    assert row["elbo"] == pytest.approx(elbo, abs=0.05)
    assert row["validation_elbo"] == pytest.approx(elbo, abs=0.05)
    if not straight_through and temperature == 1.0:
        assert abs(row["objective"] - elbo) > 0.1  # what the columns are told apart for
    terms = elbo_terms(model, guide, x[:200], num_samples=50)
    assert terms.sum(axis=1).mean() == pytest.approx(elbo, abs=0.05)
    scores = log_likelihood(model, guide, x[:20], num_samples=1000)
    assert scores["log_prob"].mean() == pytest.approx(
        float(log_joint.logsumexp(0).detach()), abs=0.01
    )
    assert scores["elbo"].mean() == pytest.approx(elbo, abs=0.05)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    "elbo",
    [
        RowELBO(2),
        RowELBO(2, baseline="average"),
        RowELBO(2, baseline="leave_one_out"),
        IWAE(2, baseline="leave_one_out"),
    ],
    ids=["none", "average", "leave_one_out", "vimco"],
)
def test_the_traced_step_is_the_eager_step(name, elbo):
    """Loss and gradient on other rows, weights and draws; the temperature is an input, too."""
    torch.manual_seed(0)
    model, guide = PAIRS[name]()
    sides = Sides(model, guide, X, elbo=elbo)
    sides.shake()
    if hasattr(guide, "temperature"):
        guide.temperature.mul_(0.5)
    sides.compare()


class PlainPrior(DiscreteModel):
    """The prior of Pyro's own distribution, which scores a relaxed draw as its largest number."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            fn = dist.OneHotCategorical(logits=self.prior_logits[0]).expand([2]).to_event(1)
            z = pyro.sample("z", fn)
            logits = self.decoder(z.flatten(-2))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def test_bad_input_is_named(monkeypatch):
    (finding,) = lint(PlainPrior(5, 2, 3), RelaxedGuide(5, 2, 3), X).errors
    assert finding.where == 'site "z"'
    assert "expected a prior that takes the guide's relaxed draws" in finding.problem
    assert "CategoricalVector" in finding.fix
    many = DiscreteModel(5, 20, 10), CategoricalGuide(5, 20, 10, enumerated=True)
    with pytest.raises(ValueError, match=r'site "z": .* 1e\+20 joint values of z;'):
        fit(*many, X, progress=False)
    many = DiscreteModel(5, 15, 3), CategoricalGuide(5, 15, 3, enumerated=True)
    with pytest.raises(ValueError, match=r'site "z": .* joint values of z;'):
        fit(*many, X, progress=False)
    few = DiscreteModel(5, 5, 3), CategoricalGuide(5, 5, 3, enumerated=True)
    monkeypatch.setattr("ppl_vae.arguments.machine_memory", lambda: 4e5)
    with pytest.raises(ValueError, match=r"batch_size: expected .* memory, got 40, .* smaller"):
        fit(*few, X, batch_size=40, progress=False)
    fit(*few, X, batch_size=10, epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"temperature: expected .* positive number, got .* 0"):
        RelaxedGuide(5, 2, temperature=0.0)
    guide = RelaxedGuide(5, 2, 3)
    guide.temperature.fill_(0.0)
    with pytest.raises(ValueError, match=r"expected finite draws in train mode.*temperature"):
        fit(DiscreteModel(5, 2, 3), guide, X, progress=False)
    with pytest.raises(ValueError, match="states: expected 3 or more, got 2; use BernoulliGuide"):
        CategoricalGuide(5, 2, 2)
    (finding,) = lint(DiscreteModel(5, 2, 2), NormalOfTwo(), X).errors
    assert "divide a probability by a density" in finding.problem


class NormalOfTwo(PyroModule):
    """A continuous guide for a discrete latent."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(1))
