"""``IWAE`` and ``RowELBO``: values and gradients against closed forms and quadrature."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import IWAE, RowELBO, fit, log_likelihood
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.loss import BatchLoss, LossAndGradient
from ppl_vae.elbo.objectives import Objective
from ppl_vae.zoo.catalog import find_class

FEATURES, ROWS, N = 3, 6, 60


class Model(PyroModule):
    """z ~ N(0, 1), x ~ N(w z + b, s^2 I)."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.8, -1.2, 0.3]))
        self.b = nn.Parameter(torch.tensor([0.1, 0.4, -0.2]))
        self.s = 0.7

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z * self.w + self.b, self.s).to_event(1), obs=x)

    def exact(self, x):
        covariance = self.w[:, None] @ self.w[None] + self.s**2 * torch.eye(FEATURES)
        return dist.MultivariateNormal(self.b, covariance).log_prob(x)


class Guide(PyroModule):
    """z ~ N(a x + c, r^2)."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([[0.4], [-0.5], [0.1]]))
        self.c = nn.Parameter(torch.tensor([0.2]))
        self.r = nn.Parameter(torch.tensor(0.6))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.a + self.c, self.r).to_event(1))


class Posterior(Guide):
    """The posterior of the model, as a guide with its own copies of the parameters."""

    def __init__(self, model):
        super().__init__()
        variance = 1 / (1 + (model.w**2).sum().item() / model.s**2)
        self.a = nn.Parameter((variance * model.w / model.s**2).detach()[:, None].clone())
        self.c = nn.Parameter(-(model.b @ self.a).detach().clone())
        self.r = nn.Parameter(torch.tensor(math.sqrt(variance)))


def data():
    return torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(7))


def by_quadrature(model, guide, x, particles, kl_weight=1.0, nodes=60):
    """Return the sum over rows of E log 1/P sum_p w_p, by Gauss-Hermite quadrature in P dims."""
    places, chances = np.polynomial.hermite_e.hermegauss(nodes)
    places = torch.as_tensor(places)
    chances = torch.as_tensor(chances) / math.sqrt(2 * math.pi)
    mean = x @ guide.a + guide.c  # (rows, 1)
    z = mean + guide.r * places  # (rows, nodes)
    likelihood = dist.Normal(z[..., None] * model.w + model.b, model.s).log_prob(x[:, None]).sum(-1)
    ratio = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(mean, guide.r).log_prob(z)
    log_w = likelihood + kl_weight * ratio
    grids = torch.meshgrid(*[torch.arange(nodes)] * particles, indexing="ij")
    index = torch.stack([g.flatten() for g in grids])  # (particles, nodes ** particles)
    weight = chances[index].prod(0)
    total = (log_w[:, index].logsumexp(1) - math.log(particles)) @ weight
    return total.sum()


def estimates(elbo, pair, x, *, rows, kl_weight, draws, copies=1):
    """Minus the ELBO and the training loss, (draws, 2), and its gradients, [(draws, ...)].

    Each is the mean of ``copies`` independent estimates: the batch holds every row that often,
    which costs little more than once.
    """
    x = x.repeat(copies, *[1] * (x.dim() - 1))
    parameters = list(pair.trainable().values())
    derivative = LossAndGradient(pair, Objective.of(elbo, ""), rows, parameters)
    weight = None if kl_weight is None else torch.tensor(kl_weight)
    found = [derivative((x,), weight) for _ in range(draws)]
    losses = torch.stack([pair_of_losses for pair_of_losses, _ in found])
    return losses, [torch.stack(g) for g in zip(*(gs for _, gs in found), strict=True)]


def z_scores(values, target):
    return (values.mean(0) - target) / (values.std(0) / len(values) ** 0.5 + 1e-10)


OBJECTIVES = {
    "iwae": (IWAE(2), 2),
    "doubly": (IWAE(2, doubly_reparameterized=True), 2),
    "in runs": (IWAE(2, vectorize_particles=False), 2),
    "elbo": (RowELBO(2), 1),
    "sticking": (RowELBO(2, sticking_the_landing=True), 1),
}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kl_weight", [None, 0.3])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_value_and_gradient_match_quadrature(name, kl_weight):
    elbo, inside = OBJECTIVES[name]
    model, guide, x = Model(), Guide(), data()
    pair = Pair.of(model, guide, "data")
    parameters = list(pair.trainable().values())
    weight = 1.0 if kl_weight is None else kl_weight
    negative_elbo = -by_quadrature(model, guide, x, 1) * N / ROWS
    exact = -by_quadrature(model, guide, x, inside, weight) * N / ROWS
    slopes = torch.autograd.grad(exact, parameters)
    losses, gradients = estimates(elbo, pair, x, rows=N, kl_weight=kl_weight, draws=150, copies=10)
    values = torch.stack([negative_elbo, exact]).detach()
    assert z_scores(losses, values).abs().max() < 4
    for found, slope in zip(gradients, slopes, strict=True):
        assert z_scores(found, slope).abs().max() < 4.5
        deviation = 10**0.5 * found.std(0).max()
        # with a larger spread the z-scores above would pass for any gradient
        assert deviation < 5 * slope.abs().max() + 30


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["doubly", "sticking"])
def test_gradient_of_the_guide_vanishes_at_the_posterior(name):
    model, x = Model(), data()
    guide = Posterior(model)
    pair = Pair.of(model, guide, "data")
    names = list(pair.trainable())
    _, gradients = estimates(OBJECTIVES[name][0], pair, x, rows=N, kl_weight=None, draws=3)
    for key, found in zip(names, gradients, strict=True):
        if key.startswith("guide"):
            assert found.abs().max() < 1e-9, key
        else:
            assert found.abs().max() > 0.1, key
    _, plain = estimates(IWAE(2), pair, x, rows=N, kl_weight=None, draws=3)
    assert max(g.abs().max() for n, g in zip(names, plain, strict=True) if n[0] == "g") > 1e-3


class Chain(PyroModule):
    """A chain of two latents: a -> b -> x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(self.w * a, 0.8))
            pyro.sample("x", dist.Normal(b, 0.5), obs=x)


class ChainGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.m = nn.Parameter(torch.tensor([0.3, 0.5]))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(self.m[0] * x, 0.7))
            pyro.sample("b", dist.Normal(self.m[1] * (a + x), 0.6))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("plain", "other"),
    [
        (RowELBO(20), RowELBO(20, sticking_the_landing=True)),
        (IWAE(3), IWAE(3, doubly_reparameterized=True)),
    ],
)
def test_gradient_through_an_earlier_latent_is_complete(plain, other):
    x = torch.randn(5, generator=torch.Generator().manual_seed(1))
    pair = Pair.of(Chain(), ChainGuide(), "data")
    settings = {"rows": 5, "kl_weight": None, "draws": 150, "copies": 20}
    _, right = estimates(plain, pair, x, **settings)
    _, found = estimates(other, pair, x, **settings)
    for other_slope, plain_slope in zip(found, right, strict=True):
        error = (other_slope.var(0) + plain_slope.var(0)).sqrt() / 150**0.5
        assert ((other_slope.mean(0) - plain_slope.mean(0)) / error).abs().max() < 4.5


@pytest.mark.usefixtures("double")
def test_iwae_is_a_bound_in_minibatches_and_renyi_is_not():
    model, guide, x = Model(), Guide(), data()
    pair = Pair.of(model, guide, "data")
    exact = (N / ROWS * model.exact(x).sum()).item()
    both, _ = estimates(IWAE(2), pair, x, rows=N, kl_weight=None, draws=100, copies=8)
    losses = both[:, 1]
    estimate = -losses.mean().item()
    error = losses.std().item() / 100**0.5
    assert estimate + 4 * error < exact
    target = N / ROWS * by_quadrature(model, guide, x, 2).item()
    assert abs(estimate - target) < 4 * error

    def subsampled(x):
        with pyro.plate("data", N, subsample=torch.arange(ROWS)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            loc = z * model.w.detach() + model.b.detach()
            pyro.sample("x", dist.Normal(loc, model.s).to_event(1), obs=x)

    def proposal(x):
        with pyro.plate("data", N, subsample=torch.arange(ROWS)):
            loc = (x @ guide.a + guide.c).detach()
            pyro.sample("z", dist.Normal(loc, guide.r.detach()).to_event(1))

    renyi = RenyiELBO(alpha=0, num_particles=200, vectorize_particles=True)
    values = torch.tensor([-renyi.loss(subsampled, proposal, x) for _ in range(50)])
    assert values.mean() - 4 * values.std() / 50**0.5 > exact


@pytest.mark.usefixtures("double")
def test_a_latent_outside_the_row_plate_is_drawn_once_and_counted_once():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        mu = pyro.sample("mu", dist.Normal(pyro.param("m", torch.tensor(0.4)), 0.2))
        with pyro.plate("data", len(x)):  # the posterior, given mu
            pyro.sample("z", dist.Normal((mu + x) / 2, math.sqrt(0.5)))

    x = torch.randn(4)
    for elbo in (IWAE(7), IWAE(7, vectorize_particles=False), RowELBO(3)):
        bound = BatchLoss(Pair.of(model, guide, "data"), Objective.of(elbo, ""), 40)
        torch.manual_seed(3)
        found = -torch.tensor([float(bound((x,), None)[0][1]) for _ in range(300)])
        mu = 0.4 + 0.2 * torch.randn(200_000)
        each = 10 * dist.Normal(mu, math.sqrt(2.0)).log_prob(x[:, None]).sum(0)
        each += dist.Normal(0.0, 3.0).log_prob(mu) - dist.Normal(0.4, 0.2).log_prob(mu)
        error = found.std() / 300**0.5
        assert abs(found.mean() - each.mean()) < 4 * error
        if isinstance(elbo, IWAE):  # weights are exact given mu; 7 draws of mu would spread less
            assert found.std() == pytest.approx(each.std().item(), rel=0.2)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kl_weight", [None, 0.5])
def test_free_bits_cost_nothing_and_the_elbo_is_without_them(kl_weight):
    """Free bits act on each dimension: the first costs more than 0.5 nats, the second less."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(x):
        loc, scale = pyro.param("loc", torch.tensor([2.0, 0.1])), torch.tensor([0.5, 0.9])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    x = torch.randn(8)
    guide(x)
    pair = Pair.of(model, guide, "data")
    weight = None if kl_weight is None else torch.tensor(kl_weight)
    factor = 1.0 if kl_weight is None else kl_weight
    results = {}
    for bits in (0.0, 0.5):
        bound = BatchLoss(pair, Objective.of(RowELBO(free_bits=bits), ""), 80)
        torch.manual_seed(0)
        with torch.enable_grad():
            losses, surrogate = bound((x,), weight)
        assert losses[1].item() == pytest.approx(surrogate.item())  # the training loss has the bits
        parameters = list(pair.trainable().values())
        results[bits] = (
            losses[0].item(),
            surrogate.item(),
            torch.autograd.grad(surrogate, parameters)[0],
        )
    with torch.no_grad():
        loc = pair.trainable()["guide.loc"]
    kl = 0.5 * (0.9**2 + 0.1**2 - 1) - math.log(0.9)
    assert 0 < kl < 0.5
    assert results[0.0][0] == pytest.approx(results[0.5][0])
    assert results[0.5][1] - results[0.0][1] == pytest.approx(80 * factor * (0.5 - kl))
    change = results[0.0][2] - results[0.5][2]
    assert change[0].item() == pytest.approx(0.0, abs=1e-9)
    assert change[1].item() == pytest.approx(80 * factor * loc[1].item())


@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "ppca"])
def test_more_particles_are_tighter_for_pairs_of_the_zoo(name):
    x = (torch.randn(60, 5, generator=torch.Generator().manual_seed(2)) > 0).float()
    torch.manual_seed(1)
    model, guide = find_class(name, "models")(5, 2), find_class("normal", "guides")(5, 2)
    fit(model, guide, x, epochs=20, progress=False)
    pair, rows = Pair.of(model, guide, "data"), as_rows(x)
    values, errors = [], []
    for elbo in (RowELBO(50), IWAE(5), IWAE(50)):
        bound = BatchLoss(pair, Objective.of(elbo, ""), len(rows))
        draws = torch.tensor([-float(bound((x,), None)[0][1]) / len(rows) for _ in range(60)])
        values.append(draws.mean().item())
        errors.append(draws.std().item() / 60**0.5)
    scores = log_likelihood(model, guide, x, num_samples=2000)
    values.append(scores["log_prob"].mean())
    errors.append(0.002)
    for i in range(3):
        assert values[i] < values[i + 1] + 3 * math.hypot(errors[i], errors[i + 1]), values
    assert values[0] < values[2]  # so that the comparisons above are strict somewhere


@pytest.mark.usefixtures("double")
def test_tiny_free_bits_change_nothing_in_a_plate_inside_the_rows():
    def model(x):
        with pyro.plate("data", len(x)), pyro.plate("parts", 3, dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x.T)

    def guide(x):
        loc = pyro.param("loc", torch.tensor([0.5, -0.4]))
        with pyro.plate("data", len(x)), pyro.plate("parts", 3, dim=-2):
            pyro.sample("z", dist.Normal(loc, 0.7).to_event(1))

    x = torch.randn(8, 3)
    guide(x)
    surrogates = []
    for bits in (0.0, 1e-9):
        torch.manual_seed(0)
        bound = BatchLoss(
            Pair.of(model, guide, "data"), Objective.of(RowELBO(4, free_bits=bits), ""), 80
        )
        surrogates.append(bound((x,), None)[1].item())
    assert surrogates[0] == pytest.approx(surrogates[1])
