"""The small example gives the library's results, and stays short and readable."""

import ast
import importlib.util
import math
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.extras import sklearn
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import fit
from ppl_vae.core.handlers import TrainingScale
from ppl_vae.core.pair import Pair
from ppl_vae.elbo.loss import LossAndGradient
from ppl_vae.elbo.objectives import Objective
from ppl_vae.training.eager_step import EagerStep

sklearn("datasets")  # the example reads its digits or wines
FILE = Path(__file__).parents[2] / "examples" / "mini.py"
ROWS, FEATURES, LATENTS = 500, 9, 3


@pytest.fixture(scope="module")
def mini():
    spec = importlib.util.spec_from_file_location("mini", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_pair(mini):
    pyro.set_rng_seed(0)
    return mini.Model(FEATURES, LATENTS), mini.Guide(FEATURES, LATENTS)


def binary(rows=ROWS):
    return torch.rand(rows, FEATURES, generator=torch.Generator().manual_seed(1)).round()


def gradients(loss, *modules):
    return torch.autograd.grad(loss, [p for module in modules for p in module.parameters()])


def library_loss(model, guide, x, rows, kl_weight):
    """Return the library's loss and surrogate on one batch, with a sampled KL divergence."""
    pair, scale = Pair.of(model, guide, "data"), TrainingScale(rows, "data")
    scale.kl_weight = kl_weight
    objective = Objective.of(Trace_ELBO(), "test")
    return objective.loss_and_surrogate(scale(pair.model), scale(pair.guide), (x,))


class PPCA(PyroModule):
    """Probabilistic PCA: z ~ Normal(0, I), x ~ Normal(W z + b, s I)."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(FEATURES, LATENTS, generator=generator))
        self.shift = nn.Parameter(torch.randn(FEATURES, generator=generator))
        self.noise = 0.5

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENTS), 1.0).to_event(1))
            loc = z @ self.weight.T + self.shift
            pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=x)

    def log_prob(self, x):
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(FEATURES)
        return dist.MultivariateNormal(self.shift, covariance).log_prob(x)


class PlatedPPCA(PPCA):
    """The same model with a plate for the features."""

    def forward(self, x):
        features = pyro.plate("features", FEATURES, dim=-2)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENTS), 1.0).to_event(1))
            with features:
                loc = (z * self.weight[:, None]).sum(-1) + self.shift[:, None]
                pyro.sample("x", dist.Normal(loc, self.noise), obs=x.T)


class Posterior(PyroModule):
    """The exact posterior of probabilistic PCA."""

    def __init__(self, model):
        super().__init__()
        self.model = [model]  # in a list: its parameters are not the guide's

    def forward(self, x):
        (model,) = self.model
        weight, variance = model.weight, model.noise**2
        precision = torch.eye(LATENTS) + weight.T @ weight / variance
        loc = (x - model.shift) @ weight @ precision.inverse() / variance
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=precision))


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
@pytest.mark.parametrize("batch", [64, ROWS])
def test_elbo_and_gradients_equal_those_of_the_library(mini, batch, kl_weight):
    model, guide = make_pair(mini)
    x = binary()[:batch]
    pyro.set_rng_seed(3)
    mini_elbo = mini.elbo(mini.Half(model), mini.Half(guide), x, ROWS, kl_weight)
    pyro.set_rng_seed(3)
    loss, surrogate = library_loss(model, guide, x, ROWS, kl_weight)
    torch.testing.assert_close(mini_elbo, -loss, rtol=1e-6, atol=0)
    for mini_gradient, gradient in zip(
        gradients(-mini_elbo, model, guide), gradients(surrogate, model, guide), strict=True
    ):
        torch.testing.assert_close(mini_gradient, gradient, rtol=1e-4, atol=1e-4)


def test_kl_weight_and_rows_change_the_elbo(mini):
    model, guide = (mini.Half(half) for half in make_pair(mini))
    values = []
    for rows, kl_weight in [(64, 1.0), (ROWS, 1.0), (ROWS, 0.3)]:
        pyro.set_rng_seed(3)
        values.append(mini.elbo(model, guide, binary(64), rows, kl_weight).item())
    assert values[1] == pytest.approx(values[0] * ROWS / 64, rel=1e-5)
    assert abs(values[2] - values[1]) > 1.0


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_one_update_equals_the_eager_steps(mini, kl_weight):
    mini_pair, library_pair = make_pair(mini), make_pair(mini)
    halves = [mini.Half(half) for half in mini_pair]
    x = binary(64)
    mini_parameters, parameters = (
        [p for half in pair for p in half.parameters()] for pair in (mini_pair, library_pair)
    )
    before = [p.detach().clone() for p in mini_parameters]
    optimizer = torch.optim.SGD(parameters, lr=1e-4)
    objective = Objective.of(Trace_ELBO(), "test")
    derivative = LossAndGradient(Pair.of(*library_pair, "data"), objective, ROWS, parameters)
    step = EagerStep(derivative, optimizer, None)
    pyro.set_rng_seed(3)
    (negative_elbo, loss), applied = step((x,), None if kl_weight == 1.0 else kl_weight)
    assert applied
    pyro.set_rng_seed(3)
    assert negative_elbo == pytest.approx(-mini.elbo(*halves, x, ROWS).item(), rel=1e-6)
    pyro.set_rng_seed(3)
    assert loss == pytest.approx(-mini.elbo(*halves, x, ROWS, kl_weight).item(), rel=1e-6)
    pyro.set_rng_seed(3)
    (-mini.elbo(*halves, x, ROWS, kl_weight)).backward()
    torch.optim.SGD(mini_parameters, lr=1e-4).step()
    for old, mini_value, value in zip(before, mini_parameters, parameters, strict=True):
        assert not torch.equal(old, mini_value)
        torch.testing.assert_close(mini_value, value, rtol=1e-5, atol=1e-6)


def test_training_reaches_the_elbo_of_fit(mini):
    x = torch.rand(400, 1, generator=torch.Generator().manual_seed(4)).round().expand(-1, FEATURES)
    halves = [mini.Half(half) for half in make_pair(mini)]
    start = -FEATURES * math.log(2)
    mini.train(*halves, x, epochs=40)
    pyro.set_rng_seed(5)
    mini_elbo = mini.elbo(*halves, x, rows=1).item()
    pair = make_pair(mini)
    fit(
        *pair,
        x,
        elbo=Trace_ELBO(),
        epochs=40,
        progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    )
    pyro.set_rng_seed(5)
    library_elbo = mini.elbo(*(mini.Half(half) for half in pair), x, rows=1).item()
    assert mini_elbo > start / 2
    assert mini_elbo == pytest.approx(library_elbo, abs=0.5)


@pytest.mark.parametrize("make", [PPCA, PlatedPPCA])
def test_log_likelihood_matches_closed_form(mini, make):
    model = make()
    x = torch.randn(40, FEATURES, generator=torch.Generator().manual_seed(6))
    estimate = mini.log_likelihood(mini.Half(model), mini.Half(Posterior(model)), x, num_samples=7)
    assert estimate.shape == (40,)
    torch.testing.assert_close(estimate, model.log_prob(x).detach(), rtol=1e-5, atol=1e-5)


def test_log_likelihood_bounds_the_elbo(mini):
    halves = [mini.Half(half) for half in make_pair(mini)]
    x = binary()
    mini.train(*halves, x, epochs=5)
    log_prob = mini.log_likelihood(*halves, x, num_samples=200).mean()
    assert log_prob > mini.elbo(*halves, x, rows=1)


def test_replicates_are_new_draws_from_the_model(mini):
    model = PPCA()
    halves = mini.Half(model), mini.Half(Posterior(model))
    pyro.set_rng_seed(7)
    z = torch.randn(20_000, LATENTS)
    x = (z @ model.weight.T + model.shift + model.noise * torch.randn(20_000, FEATURES)).detach()
    replicates = mini.replicate(*halves, x)
    assert set(replicates) == {"x"}
    drawn = replicates["x"]
    assert drawn.shape == x.shape
    assert (drawn != x).float().mean() > 0.99
    torch.testing.assert_close(drawn.mean(0), x.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(drawn.T.cov(), x.T.cov(), rtol=0, atol=0.3)
    # a row and its replicate have the same latents, so they differ by noise and posterior width
    assert (drawn - x).var() < 0.5 * x.var()


def test_parameters_stay_out_of_the_global_store(mini):
    pyro.clear_param_store()
    model, guide = make_pair(mini)
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    halves = mini.Half(model), mini.Half(guide)
    mini.train(*halves, binary(), epochs=2)
    mini.log_likelihood(*halves, binary(), num_samples=2)
    mini.replicate(*halves, binary())
    assert len(pyro.get_param_store()) == 0
    after = [*model.parameters(), *guide.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_main_prints_the_elbo_below_the_log_likelihood(mini, capsys):
    before = pyro.util.get_rng_state()
    mini.main(epochs=2)
    pyro.util.set_rng_state(before)
    printed = capsys.readouterr().out.replace(",", "").split()
    bound, log_prob = (float(printed[printed.index(w) + 1]) for w in ("ELBO", "log-likelihood"))
    data, replicates = (float(printed[printed.index(w) + 1]) for w in ("data", "replicates"))
    assert -64 * math.log(2) < bound < log_prob < 0
    assert data == pytest.approx(replicates, abs=0.05)


def test_the_file_is_short_and_every_function_documented():
    text = FILE.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 140
    assert "ppl_vae" not in text
    nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    for node in nodes:
        if node.name != "__init__":  # described by its class
            assert ast.get_docstring(node), f"{node.name} has no docstring"
        assert node.end_lineno - node.lineno < 30, f"{node.name} is too long"
