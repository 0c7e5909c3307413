"""The guide of any family: targets of the family itself, exact posteriors, gradients, refusals."""

import math
import re
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.steps import Sides
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn
from torch.distributions import biject_to, constraints

from ppl_vae import fit, lint, load, log_likelihood, save
from ppl_vae.distributions import CenteredUniform
from ppl_vae.guides.amortized import AmortizedGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP

pytestmark = pytest.mark.usefixtures("double")

TARGETS = {
    "Normal": lambda: dist.Normal(1.0, 0.5),
    "Laplace": lambda: dist.Laplace(1.0, 0.5),
    "StudentT": lambda: dist.StudentT(4.0, 1.0, 0.5),
    "Logistic": lambda: dist.Logistic(1.0, 0.5),
    "Uniform": lambda: dist.Uniform(-1.0, 1.0),
    "Exponential": lambda: dist.Exponential(2.0),
    "Cauchy": lambda: dist.Cauchy(1.0, 0.5),
    "Weibull": lambda: dist.Weibull(2.0, 1.5),
    "Pareto": lambda: dist.Pareto(0.6, 1.3),
    "Gumbel": lambda: dist.Gumbel(0.5, 0.7),
    "LogNormal": lambda: dist.LogNormal(0.5, 0.5),
    "Gamma": lambda: dist.Gamma(3.0, 2.0),
    "Dirichlet": lambda: dist.Dirichlet(torch.tensor([2.0, 4.0])),
    "Beta": lambda: dist.Beta(2.0, 4.0),
    "Chi2": lambda: dist.Chi2(3.0),
}
"""One distribution of each family."""

MOVING = {"Uniform": {"loc", "width"}, "Pareto": {"scale"}}
"""Parameters that move the ends of the support."""


def steps(rate, epochs):
    """Arguments of ``fit``: all rows in a batch, and a learning rate that falls to 0."""
    return {
        "epochs": epochs,
        "batch_size": 500,
        "compile": False,
        "progress": False,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=rate),
        "scheduler": lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs),
    }


def of_families(*often, among=TARGETS):
    """Names of families; all but a few run with the slow tests."""
    return [pytest.param(name, marks=[] if name in often else pytest.mark.slow) for name in among]


every_family = pytest.mark.parametrize("name", TARGETS)


class Constant(nn.Module):
    """An encoder that gives every row the same numbers."""

    def __init__(self, *numbers):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor(numbers))

    def forward(self, x):
        return self.numbers.expand(*x.shape[:-1], -1)


class Target(PyroModule):
    """z ~ prior; x has nothing to do with z, so that the prior is the posterior."""

    def __init__(self, prior):
        super().__init__()
        self.prior = prior

    def forward(self, x):
        with pyro.plate("data", len(x)):
            prior = self.prior
            size = [] if prior.event_shape else [2]
            pyro.sample("z", prior.expand([len(x), *size]).to_event(len(size)))
            pyro.sample("x", dist.Normal(0.0, 1.0).expand(x.shape).to_event(1), obs=x)


def drawn(guide, x):
    """The guide's distribution of z for some rows, and the draws."""
    site = poutine.trace(guide).get_trace(x).nodes["z"]
    return site["fn"], site["value"]


def single(fn):
    """A distribution of numbers: (..., latents), or Beta for Dirichlet of two numbers, (...)."""
    fn = fn.base_dist if isinstance(fn, dist.Independent) else fn
    if isinstance(fn, dist.Dirichlet):
        return dist.Beta(*fn.concentration.unbind(-1))
    return fn


def integral(function, fn):
    """The integral of function(z) over the density of a distribution of numbers, by trapezoids."""
    t = torch.linspace(-30, 30, 6001).reshape(-1, *(1 for _ in fn.batch_shape))
    t = t.expand(-1, *fn.batch_shape)
    if fn.support is constraints.real:
        z, slope = t.sinh(), t.cosh()
    else:
        transform = biject_to(fn.support)
        z = transform(t)
        slope = transform.log_abs_det_jacobian(t, z).exp()
    log_density = fn.log_prob(z)
    terms = torch.where(log_density > -500, log_density.exp() * slope * function(z, log_density), 0)
    return torch.trapezoid(terms, dx=0.01, dim=0)


def divergence(q, p):
    """KL(q, p) by quadrature, in nats."""
    q, p = single(q), single(p)
    assert (integral(lambda z, _: 1.0, q) - 1).abs().max() < 1e-3
    return integral(lambda z, log_q: log_q - p.log_prob(z), q)


@pytest.mark.parametrize("name", of_families("StudentT", "Weibull", "Gamma", "Dirichlet"))
def test_a_target_of_the_family_is_recovered(name):
    """Within 0.01 nats. At the ends of a support the optimum is an edge: beyond it, KL is infinite.

    So Uniform and Pareto come from within, in small steps, and stop when they are near.
    """
    model, x = Target(TARGETS[name]()), torch.randn(500, 1)
    parameters = AmortizedGuide(1, 2, family=name).transforms
    start = [-math.log(10) if each == "alpha" else 0.0 for each in parameters for _ in range(2)]
    guide = AmortizedGuide(1, 2, name, encoder=Constant(*start))

    moves = name in MOVING

    def near(row, model, guide):
        return moves and bool((divergence(drawn(guide, x[:1])[0], model.prior) < 0.009).all())

    how = steps(0.003, 400) | {"scheduler": None} if moves else steps(0.2, 100)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*draws")  # the support of MOVING is narrow at first
        fit(model, guide, x, callbacks=[near], **how)
    assert divergence(drawn(guide, x[:1])[0], model.prior).abs().max() < 0.01


class Conjugate(PyroModule):
    """z ~ prior; the likelihood of a row x given z is one for which the posterior is known."""

    def __init__(self, prior, likelihood):
        super().__init__()
        self.prior, self.likelihood = prior, likelihood

    def forward(self, x):
        with pyro.plate("data", len(x)):
            prior = self.prior
            size = [] if prior.event_shape else [1]
            z = pyro.sample("z", prior.expand([len(x), *size]).to_event(len(size)))
            fn, value = self.likelihood(z, x)
            pyro.sample("x", fn.to_event(1), obs=value)


def none_counted(rate):
    """A count of zero, of a Poisson variable of this rate: the likelihood is exp(-rate)."""
    return dist.Poisson(rate), torch.zeros(rate.shape[-2:])


EXPOSURES = torch.linspace(0.1, 3.0, 200).unsqueeze(-1)
COUNTS = torch.arange(200).reshape(-1, 1) % 7
PARTS = torch.stack([COUNTS[:, 0] % 4, COUNTS[:, 0] % 3], -1)

CONJUGATE = {  # prior; likelihood of rows x given z, and what is observed; rows; posterior
    "Normal": (
        lambda: dist.Normal(0.0, 1.0), lambda z, x: (dist.Normal(z, 0.5), x), EXPOSURES,
        lambda x: dist.Normal(0.8 * x, 0.2**0.5),
    ),
    "LogNormal": (
        lambda: dist.LogNormal(0.0, 1.0), lambda z, x: (dist.LogNormal(z.log(), 0.5), x),
        1 + EXPOSURES, lambda x: dist.LogNormal(0.8 * x.log(), 0.2**0.5),
    ),
    "Gamma": (
        lambda: dist.Gamma(2.0, 1.0), lambda z, x: (dist.Poisson(z), x), COUNTS,
        lambda x: dist.Gamma(2.0 + x, 2.0),
    ),
    "Beta": (
        lambda: dist.Beta(2.0, 2.0), lambda z, x: (dist.Binomial(6, z), x), COUNTS,
        lambda x: dist.Beta(2.0 + x, 8.0 - x),
    ),
    "Dirichlet": (
        lambda: dist.Dirichlet(torch.tensor([2.0, 1.0])),
        lambda z, x: (dist.Poisson(5 * z), x), PARTS,  # the sum of the rates is the same for all z
        lambda x: dist.Dirichlet(torch.tensor([2.0, 1.0]) + x),
    ),
    "Exponential": (
        lambda: dist.Exponential(1.0), lambda z, x: none_counted(z * x), EXPOSURES,
        lambda x: dist.Exponential(1.0 + x),
    ),
    "Gumbel": (
        lambda: dist.Gumbel(0.0, 1.0), lambda z, x: none_counted((-z).exp() * x), EXPOSURES,
        lambda x: dist.Gumbel(x.log1p(), 1.0),
    ),
    "Weibull": (
        lambda: dist.Weibull(1.0, 2.0), lambda z, x: none_counted(z**2 * x), EXPOSURES,
        lambda x: dist.Weibull((1 + x) ** -0.5, 2.0),
    ),
}  # fmt: skip
"""Exact posteriors. Those of Uniform and Pareto have ends that differ from row to row."""


@pytest.mark.parametrize("name", of_families("Gamma", "Dirichlet", among=CONJUGATE))
def test_an_exact_posterior_of_the_family_is_recovered_row_by_row(name):
    prior, likelihood, x, posterior = CONJUGATE[name]
    x = x.to(torch.get_default_dtype())
    latents = x.shape[1]
    k = len(AmortizedGuide(1, family=name).transforms)
    guide = AmortizedGuide(
        latents, latents, name, encoder=MLP(latents, k * latents, (32,)), loc=x.mean(0),
        scale=x.std(0),
    )  # fmt: skip
    fit(Conjugate(prior(), likelihood), guide, x, **(steps(0.03, 100) | {"batch_size": 100}))
    with torch.no_grad():
        kl = divergence(drawn(guide, x)[0], posterior(x))
    assert kl.mean() < 0.01


@every_family
def test_gradients_of_an_expectation_agree_with_the_score_function_and_with_quadrature(name):
    """d/dp E[tanh(z)] from 10,000 draws: z-scores of two estimates, and against differences.

    The score function is biased for parameters that move the support; they have quadrature alone.
    """
    size = 1 if name == "Dirichlet" else 2  # a Dirichlet of two numbers is one Beta variable
    names = list(AmortizedGuide(1, 2, name).transforms)
    raw = torch.linspace(-0.4, 0.6, 2 * len(names)).expand(10_000, -1).clone().requires_grad_()
    guide = AmortizedGuide(1, 2, name)
    guide.encoder.forward = lambda x: raw
    fn, z = drawn(guide, torch.zeros(10_000, 1))

    def bounded(z):
        return z.tanh()[..., :size].sum(-1)

    (pathwise,) = torch.autograd.grad(bounded(z).sum(), raw, retain_graph=True)
    weighted = bounded(z).detach() * fn.log_prob(z.detach())
    (score,) = torch.autograd.grad(weighted.sum(), raw)

    def expected(numbers):
        guide.encoder.forward = lambda x: numbers.expand(1, -1)
        with torch.no_grad():
            q = single(drawn(guide, torch.zeros(1, 1))[0])
            return integral(lambda z, _: z.tanh(), q).sum()

    numbers, step = raw[0].detach(), 1e-4
    exact = torch.stack([
        (expected(numbers + step * unit) - expected(numbers - step * unit)) / (2 * step)
        for unit in torch.eye(len(numbers))
    ])  # fmt: skip
    error, score_error = (g.std(0) / 100 for g in (pathwise, score))
    assert ((pathwise.mean(0) - exact).abs() < 4 * error + 1e-5).all()
    fixed_support = [p not in MOVING.get(name, ()) for p in names for _ in range(2)]
    both = (error**2 + score_error**2).sqrt()
    z_scores = ((pathwise.mean(0) - score.mean(0)) / both)[torch.tensor(fixed_support)]
    assert (z_scores.abs() < 4).all()


@pytest.mark.parametrize(
    ("family", "words"),
    [
        (dist.Poisson, "draws have gradients .reparameterized., got Poisson"),
        (dist.Bernoulli, "draws have gradients .reparameterized., got Bernoulli"),
        (dist.VonMises, "draws have gradients .reparameterized., got VonMises"),
        (dist.Delta, "got v of Delta"),
        ("Wishart", "each free of the others, got the parameters of Wishart"),
        ("MixtureOfDiagNormals", "takes just .*locs.*, got MixtureOfDiagNormals"),
        (dist.MultivariateNormal, "got covariance_matrix of MultivariateNormal"),
        (dist.RelaxedBernoulli, "takes just .*logits.*, got RelaxedBernoulli"),
        (torch.distributions.Normal, "a class of pyro.distributions or its name, as dist.Laplace"),
        (dist.Normal(0.0, 1.0), "a class of pyro.distributions or its name"),
        ("Norml", "a class of pyro.distributions or its name, .* got .Norml."),
    ],
)
def test_a_family_that_is_not_reparameterized_or_has_other_parameters_is_refused(family, words):
    with pytest.raises(ValueError, match=f"^family: expected .*{words}"):
        AmortizedGuide(4, family=family)


@pytest.mark.parametrize("positive", ["exp", "softplus"])
def test_positive_parameters_are_exp_or_softplus_of_the_outputs(positive):
    outputs = torch.tensor([0.3, -1.0, 2.0, 0.5])
    right = {"exp": torch.exp, "softplus": nn.functional.softplus}[positive]
    guide = AmortizedGuide(4, 2, "Gamma", encoder=Constant(*outputs.tolist()), positive=positive)
    fn = drawn(guide, torch.zeros(1, 4))[0].base_dist
    torch.testing.assert_close(fn.concentration[0], right(outputs[:2]))
    torch.testing.assert_close(fn.rate[0], right(outputs[2:]))
    normal = NormalGuide(4, 2, encoder=Constant(*outputs.tolist()), positive=positive)
    scale = drawn(normal, torch.zeros(1, 4))[0].base_dist.scale[0]
    torch.testing.assert_close(scale, right(outputs[2:] / 2))
    for cls in (AmortizedGuide, NormalGuide):
        with pytest.raises(ValueError, match=r'^positive: expected "exp" or "softplus", got .relu'):
            cls(4, positive="relu")


@pytest.mark.parametrize("positive", ["exp", "softplus"])
@pytest.mark.parametrize("name", ["StudentT", "Pareto", "InverseGamma", "FisherSnedecor"])
def test_the_outputs_0_give_a_finite_variance(name, positive):
    k = len(AmortizedGuide(4, 2, name).transforms)
    guide = AmortizedGuide(4, 2, name, encoder=Constant(*[0.0] * 2 * k), positive=positive)
    fn = drawn(guide, torch.zeros(3, 4))[0].base_dist
    assert fn.variance.isfinite().all()
    if name == "StudentT":
        torch.testing.assert_close(fn.df, torch.full((3, 2), 10.0))
        low = guide.transforms["df"](torch.tensor(-20.0))  # every degree of freedom can be reached
        assert 0 < low < 1e-6


def test_the_best_uniform_under_a_normal_posterior_has_its_mean_and_its_variance_but_no_tails():
    """KL(Uniform(m, w), Normal(a, s)) is least at m = a, w = s sqrt(12)."""
    x = torch.randn(100, 1)
    model = Target(dist.Normal(1.0, 0.5))
    guide = AmortizedGuide(1, 2, dist.Uniform, encoder=Constant(*[0.0] * 4))
    with pytest.warns(UserWarning, match="draws numbers between"):
        fit(model, guide, x, **steps(0.06, 100))
    fn = drawn(guide, x[:1])[0].base_dist
    torch.testing.assert_close(fn.loc, torch.ones(1, 2), rtol=0, atol=0.02)
    torch.testing.assert_close(fn.width, torch.full((1, 2), 3**0.5), rtol=0, atol=0.02)
    with pytest.warns(UserWarning, match='site "z": the guide draws only a part'):
        scores = log_likelihood(model, guide, x)
    exact = dist.Normal(0.0, 1.0).log_prob(x)[:, 0]
    missing = 2 * torch.erf(torch.tensor(3**0.5 / 2**0.5)).log()  # log P(z in the interval)
    right = (exact + missing).numpy()
    assert abs(scores["log_prob"] - right).max() < 0.1


@pytest.mark.parametrize(
    ("prior", "family", "severity", "words"),
    [
        (dist.Exponential, "Laplace", "error", "numbers from 0.*a guide that draws real numbers"),
        (dist.Exponential, "Uniform", "error", "a guide that draws numbers between"),
        (dist.Gumbel, "Exponential", "warning", "real numbers.*one that draws"),
    ],
)
def test_lint_names_a_family_whose_support_is_not_the_priors(prior, family, severity, words):
    model = Target(prior(*[1.0] * len(prior.arg_constraints)))
    (finding,) = lint(model, AmortizedGuide(1, 2, family), torch.randn(30, 1)).findings
    assert finding.severity == severity
    assert finding.where == 'site "z"'
    assert re.search(words, str(finding))


def test_lint_finds_nothing_where_the_supports_are_the_same():
    for name, prior in TARGETS.items():
        if name not in MOVING:
            verdict = lint(Target(prior()), AmortizedGuide(1, 2, name), torch.randn(30, 1))
            assert verdict.findings == (), name


@pytest.mark.parametrize("family", ["StudentT", dist.StudentT, dist.Uniform, CenteredUniform])
@pytest.mark.filterwarnings("ignore:.*draws")  # of the uniform's narrow support
def test_a_saved_pair_has_the_family(family, tmp_path):
    x = torch.rand(20, 4).round()
    pair = BernoulliModel(4, 2), AmortizedGuide(4, 2, family, positive="softplus")
    save(*pair, tmp_path / "run")
    found = [log_likelihood(*p, x, num_samples=5) for p in (pair, load(tmp_path / "run"))]
    assert found[0].equals(found[1])


@pytest.mark.parametrize("name", ["StudentT", "Gamma", "Dirichlet", "Gumbel"])
def test_the_traced_step_is_the_eager_step(name):
    guide = AmortizedGuide(1, 2, name)
    sides = Sides(Target(TARGETS[name]()), guide, torch.randn(60, 1))
    sides.shake()
    sides.compare()
