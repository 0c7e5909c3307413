"""Pyro's ELBOs behind the adapter: values against closed forms, and the rule that chooses one."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import fit, lint
from ppl_vae.core.handlers import TrainingScale
from ppl_vae.core.pair import Pair
from ppl_vae.elbo.objectives import Objective, loss_at_unit_weight

FEATURES, LATENTS, ROWS = 4, 2, 50


class LinearModel(PyroModule):
    """z ~ N(0, I), x ~ N(W z + b, s^2 I)."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.W = nn.Parameter(torch.randn(FEATURES, LATENTS, generator=generator))
        self.b = nn.Parameter(torch.randn(FEATURES, generator=generator))
        self.s = 0.7

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.W.T + self.b, self.s).to_event(1), obs=x)


class LinearGuide(PyroModule):
    """z ~ N(A x + c, diag(r^2))."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        self.A = nn.Parameter(0.3 * torch.randn(LATENTS, FEATURES, generator=generator))
        self.c = nn.Parameter(torch.randn(LATENTS, generator=generator))
        self.r = nn.Parameter(torch.tensor([0.4, 0.9]))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.A.T + self.c, self.r).to_event(1))


def closed_form(model, guide, x, kl_weight=1.0):
    """Return the ELBO of each row, (rows,)."""
    m, r = x @ guide.A.T + guide.c, guide.r
    residual = x - m @ model.W.T - model.b
    spread = (model.W**2 @ r**2).sum()
    log_likelihood = -0.5 * ((residual**2).sum(1) + spread) / model.s**2
    log_likelihood = log_likelihood - FEATURES * math.log(model.s * math.sqrt(2 * math.pi))
    kl = 0.5 * (r**2 + m**2 - 2 * r.log() - 1).sum(1)
    return log_likelihood - kl_weight * kl


def data():
    return torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(7))


def elbos(**settings):
    quiet = {"strict_enumeration_warning": False}
    return {
        "Trace": Trace_ELBO(**settings),
        "MeanField": TraceMeanField_ELBO(**settings),
        "Graph": TraceGraph_ELBO(**settings),
        "Enum": TraceEnum_ELBO(**settings, **quiet),
    }


def evaluate(elbo, pair, x, *, rows=ROWS, kl_weight=None):
    """Return loss, unweighted loss and surrogate of one estimate."""
    scale = TrainingScale(rows, "data")
    weight = None if kl_weight is None else torch.tensor(kl_weight, requires_grad=True)
    scale.kl_weight = weight
    objective = Objective.of(elbo, "")
    loss, surrogate = objective.loss_and_surrogate(scale(pair.model), scale(pair.guide), (x,))
    plain = loss if weight is None else loss_at_unit_weight(loss, weight)
    return loss.detach(), plain.detach(), surrogate


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["Trace", "MeanField", "Graph", "Enum"])
@pytest.mark.parametrize("kl_weight", [None, 0.3, 0.0])
def test_elbo_and_its_gradient_match_the_closed_form(name, kl_weight):
    model, guide, x = LinearModel(), LinearGuide(), data()
    pair = Pair.of(model, guide, "data")
    weight = 1.0 if kl_weight is None else kl_weight
    exact = closed_form(model, guide, x, weight).sum()
    parameters = [*model.parameters(), *guide.parameters()]
    exact_gradient = torch.autograd.grad(exact, parameters)
    exact_plain = closed_form(model, guide, x).sum()
    draws, copies = 80, 5  # an estimate on the rows five times over is the mean of five
    losses, plains, gradients = [], [], []
    for _ in range(draws):
        elbo = elbos(num_particles=8, vectorize_particles=True)[name]
        loss, plain, surrogate = evaluate(elbo, pair, x.repeat(copies, 1), kl_weight=kl_weight)
        losses.append(loss)
        plains.append(plain)
        gradients.append(torch.autograd.grad(surrogate, parameters))
    for estimates, target in ((losses, exact), (plains, exact_plain)):
        values = -torch.stack(estimates)
        error = values.std() / draws**0.5
        assert abs(values.mean() - target.detach()) < 4 * error
    for estimates, target in zip(zip(*gradients, strict=True), exact_gradient, strict=True):
        values = -torch.stack(estimates)
        z = (values.mean(0) - target) / (values.std(0) / draws**0.5 + 1e-12)
        assert z.abs().max() < 4.5


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["Trace", "MeanField", "Graph", "Enum"])
def test_batches_add_up_to_the_full_data_elbo(name):
    """With the global latent fixed, the weighted estimates of the batches sum to the full one."""
    x = torch.randn(103)

    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(x):
        pyro.sample("mu", dist.Delta(pyro.param("m", torch.tensor(0.4))))

    pair = Pair.of(model, guide, "data")
    full = evaluate(elbos()[name], pair, x, rows=103)[0]
    parts = [(len(b), evaluate(elbos()[name], pair, b, rows=103)[0]) for b in x.split(20)]
    assert [count for count, _ in parts] == [20, 20, 20, 20, 20, 3]
    together = sum(loss * count / 103 for count, loss in parts)
    exact = dist.Normal(0.4, 1.0).log_prob(x).sum() + dist.Normal(0.0, 3.0).log_prob(
        torch.tensor(0.4)
    )
    assert together == pytest.approx(float(full), rel=1e-12)
    assert -together == pytest.approx(float(exact), rel=1e-12)


def test_a_subsampled_plate_is_not_scaled_twice():
    def model(x):
        with pyro.plate("data", 1000, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(pyro.param("m", torch.zeros(())), 1.0), obs=x)

    def bare(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("m", torch.zeros(())), 1.0), obs=x)

    x = torch.randn(10)
    losses = [
        float(evaluate(Trace_ELBO(), Pair.of(f, None, "data"), x, rows=1000)[0])
        for f in (model, bare)
    ]
    assert losses[0] == pytest.approx(losses[1])
    assert losses[0] == pytest.approx(-100 * float(dist.Normal(0.0, 1.0).log_prob(x).sum()))


# The rule that chooses an objective


def two_latents(x):
    """z2 ~ p(z2), z1 ~ p(z1 given z2)."""
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(len(x)), 1.0))
        z1 = pyro.sample("z1", dist.Normal(z2, 1.0))
        pyro.sample("x", dist.Normal(z1, 1.0), obs=x)


def top_down(x):
    loc = pyro.param("loc", torch.zeros(()))
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(loc + 0.3 * x, 1.0))
        pyro.sample("z1", dist.Normal((z2 + x) / 2, 0.8))


def bottom_up(x):
    loc = pyro.param("loc", torch.zeros(()))
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(loc + x / 2, 0.7))
        pyro.sample("z2", dist.Normal(z1 / 2, 0.7))


def no_closed_form(x):
    loc = pyro.param("loc", torch.zeros(()))
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.StudentT(4.0, loc + 0.3 * x, 1.0))
        pyro.sample("z1", dist.Normal((z2 + x) / 2, 0.8))


def coin(enumerate_in):
    def model(x):
        with pyro.plate("data", len(x)):
            ask = {"enumerate": "parallel"} if enumerate_in == "model" else {}
            y = pyro.sample("y", dist.Bernoulli(torch.tensor(0.4)), infer=ask)
            loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
            pyro.sample("x", dist.Normal(loc[y.long()], 1.0), obs=x)

    def guide(x):
        w = pyro.param("w", torch.zeros(()))
        with pyro.plate("data", len(x)):
            ask = {"enumerate": "parallel"} if enumerate_in == "guide" else {}
            pyro.sample("y", dist.Bernoulli(logits=w * x), infer=ask)

    return model, (None if enumerate_in == "model" else guide)


def only_data(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(pyro.param("m", torch.zeros(())), 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "guide", "objective", "reason"),
    [
        (two_latents, top_down, "TraceMeanField_ELBO", "closed-form KL for every latent"),
        (two_latents, bottom_up, "Trace_ELBO", "another order"),
        (two_latents, no_closed_form, "Trace_ELBO", '"z2" has none in closed form'),
        (*coin("nowhere"), "TraceGraph_ELBO", '"y" is not reparameterized'),
        (*coin("guide"), "TraceEnum_ELBO", '"y" asks for enumeration'),
        (*coin("model"), "TraceEnum_ELBO", '"y" asks for enumeration'),
        (only_data, None, "Trace_ELBO", "nothing is latent"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*expected a baseline for the score function")
def test_the_sites_of_a_pair_decide_the_objective(model, guide, objective, reason):
    x = torch.randn(30)
    chosen = lint(model, guide, x).objective
    history = fit(model, guide, x, epochs=1, progress=False)
    assert (chosen.name, history.objective) == (objective, objective)
    assert reason in chosen.reason == history.reason


def test_mean_field_would_be_wrong_on_the_bottom_up_guide():
    """The ELBO of the hierarchical pair in closed form, against two estimators."""
    x = torch.zeros(4000)
    pair = Pair.of(two_latents, bottom_up, "data")
    # E_q: z1 ~ N(0, .49), z2 | z1 ~ N(z1/2, .49); all terms are Gaussian moments at x = 0
    v1, v2 = 0.49, 0.25 * 0.49 + 0.49
    half_log = 0.5 * math.log(2 * math.pi)
    log_joint = -(v1 / 2 + half_log) - (v2 / 2 + half_log)
    log_joint -= (v1 * 0.25 + 0.49) / 2 + half_log  # E (z1 - z2)^2 = v1/4 + .49
    entropy = 2 * (0.5 + half_log + math.log(0.7))
    exact = log_joint + entropy
    sampled = -float(evaluate(Trace_ELBO(), pair, x, rows=1)[0])
    with pytest.warns(UserWarning, match="mean field"):
        mean_field = -float(evaluate(TraceMeanField_ELBO(), pair, x, rows=1)[0])
    assert sampled == pytest.approx(exact, abs=0.06)
    assert mean_field < exact - 0.2


def test_every_fit_has_an_elbo_object_of_its_own():
    mine = TraceEnum_ELBO(max_plate_nesting=float("inf"))
    before = dict(vars(mine))
    fit(*coin("guide"), torch.randn(30), elbo=mine, epochs=1, progress=False)
    assert vars(mine) == before


@pytest.mark.parametrize(
    ("elbo", "message"),
    [
        (Trace_ELBO, r"expected an instance.*Trace_ELBO\(\)"),
        ("Trace_ELBO", "one of Pyro's ELBOs, IWAE, RowELBO or FIVO, got str"),
        (RenyiELBO(), "no bound in minibatches"),
    ],
)
def test_other_objectives_are_refused(elbo, message):
    with pytest.raises(ValueError, match=message):
        Objective.of(elbo, "")


def test_scales_of_summed_latents_are_compared_without_their_gradient(monkeypatch):
    """Torch warns where a number with a gradient is read, once in a process."""
    read = torch.Tensor.__float__

    def strict(value):
        assert not value.requires_grad, "a KL weight was read with its gradient"
        return read(value)

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=torch.zeros(2)))
            z = pyro.sample("z", dist.Normal(k.to(x.dtype), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))

    pair = Pair.of(config_enumerate(model), guide, "data")
    monkeypatch.setattr(torch.Tensor, "__float__", strict)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    loss, plain, _ = evaluate(elbo, pair, torch.randn(5), kl_weight=0.3)
    assert loss.isfinite()
    assert not torch.equal(loss, plain)
