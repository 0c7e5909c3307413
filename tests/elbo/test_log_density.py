"""The log-density of a Delta in the guide (a change of variables) enters every ELBO."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import assert_finding
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import RowELBO, elbo_terms, fit, lint

pytestmark = pytest.mark.usefixtures("double")
STRETCH, SD, SLOPE, DENSITY = 2.0, 0.7, 0.25, 0.9


def rows(count=50):
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).double() * 1.4


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class Sloped(PyroModule):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(SLOPE))


class Stretched(Sloped):
    """u ~ Normal(slope x, sd), z = 2 u: z ~ Normal(2 slope x, 2 sd)."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            how = {"infer": {"is_auxiliary": True}}
            u = pyro.sample("u", dist.Normal(self.slope * x, SD), **how)
            jacobian = -math.log(STRETCH) * torch.ones(len(x))
            pyro.sample("z", dist.Delta(STRETCH * u, log_density=jacobian))


class Weighed(Sloped):
    """A point with a log-density of its own, plain or inside a wrapper."""

    def __init__(self, wrapped):
        super().__init__()
        self.wrapped = wrapped

    def forward(self, x):
        with pyro.plate("data", len(x)):
            density = torch.full((len(x),), DENSITY)
            fn = dist.Delta(self.slope * x, log_density=density)
            pyro.sample("z", fn.mask(torch.tensor(True)) if self.wrapped else fn)


def stretched_elbo(x):
    mean, sd = STRETCH * SLOPE * x, STRETCH * SD
    likelihood = dist.Normal(mean, 1.0).log_prob(x) - 0.5 * sd**2
    kl = 0.5 * (sd**2 + mean**2 - 1) - math.log(sd)
    return likelihood - kl


def weighed_elbo(x):
    z = SLOPE * x
    return dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x) - DENSITY


GUIDES = {
    "a transform": (Stretched, stretched_elbo, 'site "u"'),
    "a point": (lambda: Weighed(False), weighed_elbo, 'site "z"'),
    "a wrapped point": (lambda: Weighed(True), weighed_elbo, 'site "z"'),
}
guides = pytest.mark.parametrize("name", GUIDES)


@guides
def test_a_given_mean_field_elbo_is_refused(name):
    make, _, where = GUIDES[name]
    verdict = lint(model, make(), rows(), elbo=TraceMeanField_ELBO())
    assert_finding(verdict, "error", where, "TraceMeanField_ELBO", "leave elbo=None")
    with pytest.raises(ValueError, match=where):
        fit(model, make(), rows(), elbo=TraceMeanField_ELBO(), epochs=1, progress=False)


@guides
@pytest.mark.parametrize("elbo", [None, Trace_ELBO(), RowELBO()], ids=["chosen", "Trace", "row"])
def test_every_other_elbo_has_the_exact_value(name, elbo):
    make, exact, _ = GUIDES[name]
    x, how = rows(), {"epochs": 200, "batch_size": 50, "progress": False}
    frozen = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0), **how}
    history = fit(model, make(), x, elbo=elbo, **frozen).frame["elbo"]
    error = 4 * history.std() / len(history) ** 0.5 + 1e-9
    assert history.mean() == pytest.approx(float(exact(x).mean()), abs=error)
    assert fit(model, make(), x, epochs=1, progress=False).objective == "Trace_ELBO"


@guides
def test_the_terms_have_the_exact_value(name):
    make, exact, _ = GUIDES[name]
    terms = elbo_terms(model, make(), rows(), num_samples=2000)
    assert terms.sum(axis=1).mean() == pytest.approx(float(exact(rows()).mean()), abs=0.02)


def test_a_point_without_a_log_density_may_have_its_closed_form():
    def mean_model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("mu", dist.Delta(pyro.param("m", torch.tensor(0.4))))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    assert lint(mean_model, guide, rows()).objective.name == "TraceMeanField_ELBO"
    assert not lint(mean_model, guide, rows(), elbo=TraceMeanField_ELBO()).findings


def test_an_autoguide_with_a_bounded_latent_is_refused_under_a_mean_field_elbo():
    def scale_model(x):
        scale = pyro.sample("scale", dist.LogNormal(torch.tensor(0.0), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, scale), obs=x)

    guide = AutoNormal(scale_model)
    assert not lint(scale_model, guide, rows()).findings
    errors = lint(scale_model, guide, rows(), elbo=TraceMeanField_ELBO()).errors
    assert errors
    assert "TraceMeanField_ELBO" in str(errors[0])
