"""Pairs of every kind without a fault have no finding, and ``lint`` leaves Pyro as it was."""

import re

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import FEATURES, LATENTS, Guide, Model, X, normal
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn

from ppl_vae import build, lint
from ppl_vae.guides.linear import LinearGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.ppca import PPCAModel
from ppl_vae.nn import MLP

BINARY = (X > 0).float()
PARALLEL = {"enumerate": "parallel"}


def bernoulli():
    return BernoulliModel(FEATURES), NormalGuide(FEATURES), BINARY


def bernoulli_on_bytes():
    return BernoulliModel(FEATURES), NormalGuide(FEATURES), BINARY.to(torch.uint8)


def gaussian():
    data = 50.0 + 1000.0 * X
    return build(GaussianModel, data), build(NormalGuide, data), data


def gaussian_on_a_frame():
    frame = pd.DataFrame(X.double().numpy(), columns=["a", "b", "c"])
    return build(GaussianModel, frame), build(NormalGuide, frame), frame


def ppca():
    data = 50.0 + 1000.0 * X
    return build(PPCAModel, data, latents=2), build(LinearGuide, data, latents=2), data


def ppca_with_nothing_latent():
    return build(PPCAModel, X, latents=2).marginal, None, X


class ClassicVAE(nn.Module):
    """Pyro's own example: bound methods that register their networks."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = MLP(FEATURES, 2 * LATENTS), MLP(LATENTS, FEATURES)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = x.new_zeros((x.shape[0], LATENTS))
            z = pyro.sample("latent", dist.Normal(z_loc, torch.ones_like(z_loc)).to_event(1))
            loc = torch.sigmoid(self.decoder(z))
            pyro.sample("obs", dist.Bernoulli(loc, validate_args=False).to_event(1), obs=x)
            return loc

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_log = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(z_loc, z_log.exp()).to_event(1))


def classic():
    vae = ClassicVAE()
    return vae.model, vae.guide, BINARY


def functions_with_dropout():
    encoder = nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.5), nn.Linear(8, LATENTS))

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(encoder(x)))

    return Model(), guide, X


class Hierarchy(PyroModule):
    """top ~ Normal(0, 1), z ~ Normal(net(top), 1), x ~ Normal(decoder(z), 1)."""

    def __init__(self):
        super().__init__()
        self.upper, self.lower = MLP(LATENTS, LATENTS), MLP(LATENTS, FEATURES)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", normal(x.new_zeros(LATENTS)))
            z = pyro.sample("z", normal(self.upper(top)))
            pyro.sample("x", normal(self.lower(z)), obs=x)


class TwoLatents(PyroModule):
    """Draws two latents, the second from the first."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second
        self.one, self.two = MLP(FEATURES, LATENTS), MLP(LATENTS, LATENTS)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            draw = pyro.sample(self.first, normal(self.one(x)))
            pyro.sample(self.second, normal(self.two(draw)))


def top_down():
    return Hierarchy(), TwoLatents("top", "z"), X


def bottom_up():
    return Hierarchy(), TwoLatents("z", "top"), X


class Mixture(PyroModule):
    """k ~ Categorical(weights), x ~ Normal(locs[k], 1)."""

    def __init__(self, **how):
        super().__init__()
        self.how = how
        self.locs = nn.Parameter(torch.randn(4, FEATURES))
        self.weights = PyroParam(torch.ones(4) / 4, dist.constraints.simplex)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(self.weights), **self.how)
            pyro.sample("x", normal(self.locs[k]), obs=x)


class Classifier(PyroModule):
    """k ~ Categorical(logits=net(x))."""

    def __init__(self, **how):
        super().__init__()
        self.how, self.net = how, MLP(FEATURES, 4)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=self.net(x)), **self.how)


def categorical_with_a_baseline():
    classifier = Classifier()

    def guide(x):
        classifier.how = {"infer": {"baseline": {"baseline_value": x.new_full((len(x),), -4.0)}}}
        pyro.module("classifier", classifier)
        classifier(x)

    return Mixture(), guide, X


def categorical_enumerated_in_guide():
    return Mixture(), Classifier(infer=PARALLEL), X


def categorical_enumerated_in_model():
    return Mixture(infer=PARALLEL), None, X


def mean_model(x):
    mean = pyro.sample("mean", normal(x.new_zeros(FEATURES), 10.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", normal(mean), obs=x)


def global_latent():
    def guide(x):
        loc = pyro.param("loc", torch.zeros(FEATURES))
        scale = pyro.param("scale", torch.ones(FEATURES), constraint=dist.constraints.positive)
        pyro.sample("mean", normal(loc, scale))

    return mean_model, guide, X


def global_latent_with_autoguide():
    return mean_model, AutoNormal(mean_model), X


def autoguide_of_a_model_with_parameters():
    def model(x):
        scale = pyro.param("scale", torch.ones(FEATURES), constraint=dist.constraints.positive)
        mean = pyro.sample("mean", normal(x.new_zeros(FEATURES), 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(mean, scale), obs=x)

    return model, AutoNormal(model), X


def autoguide_beside_an_encoder():
    decoder, encoder = MLP(LATENTS, FEATURES), Guide()

    def model(x):
        pyro.module("decoder", decoder)
        shift = pyro.sample("shift", normal(x.new_zeros(FEATURES)))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
            pyro.sample("x", normal(decoder(z) + shift), obs=x)

    shared = AutoNormal(poutine.block(model, hide=["z"]))

    def guide(x):
        shared(x)
        encoder(x)

    return model, guide, X


PAIRS = [
    bernoulli,
    bernoulli_on_bytes,
    gaussian,
    gaussian_on_a_frame,
    ppca,
    ppca_with_nothing_latent,
    classic,
    functions_with_dropout,
    top_down,
    bottom_up,
    categorical_with_a_baseline,
    categorical_enumerated_in_guide,
    categorical_enumerated_in_model,
    global_latent,
    global_latent_with_autoguide,
    autoguide_of_a_model_with_parameters,
    autoguide_beside_an_encoder,
]
pairs = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.__name__)


@pairs
def test_a_pair_without_a_fault_has_no_finding(pair):
    verdict = lint(*pair())
    assert not verdict.findings, str(verdict)
    assert verdict.objective is not None
    verdict.raise_if_failed()


@pairs
def test_the_table_has_the_documented_columns(pair):
    verdict = lint(*pair())
    columns = "site role distribution guide event_shape batch_shape plates support"
    assert list(verdict.sites) == [*columns.split(), "reparameterized", "estimator"]
    roles = {"latent", "data", "deterministic", "auxiliary", "factor"}
    assert set(verdict.sites["role"]) <= roles
    assert "data" in set(verdict.sites["role"])
    text = str(verdict)
    assert f"objective: {verdict.objective.name} ({verdict.objective.reason})" in text
    assert text.endswith("no findings")
    assert not re.search(r"0x[0-9a-f]{6}|NaN", text)


@pytest.mark.parametrize(
    "elbo",
    [
        Trace_ELBO(num_particles=4, vectorize_particles=True),
        Trace_ELBO(num_particles=3),
        TraceGraph_ELBO(),
        TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
    ],
    ids=["vectorized", "particles", "graph", "enum"],
)
@pytest.mark.parametrize("pair", [bernoulli, gaussian, classic, top_down])
def test_a_pair_without_a_fault_has_no_finding_under_a_users_elbo(pair, elbo):
    before = dict(vars(elbo))
    verdict = lint(*pair(), elbo=elbo)
    assert not verdict.findings, str(verdict)
    assert vars(elbo) == before


@pytest.mark.parametrize("rows", [1, 2, 10, 17])
def test_lint_works_on_few_rows(rows):
    model, guide, data = bernoulli()
    assert not lint(model, guide, data[:rows]).findings
    assert not lint(*gaussian()[:2], gaussian()[2][:rows]).findings


def test_the_table_says_how_each_sites_term_is_estimated():
    table = lint(*categorical_enumerated_in_guide()).sites.set_index("site")
    assert table.loc["k", ["role", "estimator"]].tolist() == ["latent", "summed exactly"]
    assert table.loc["x", ["role", "estimator"]].tolist() == ["data", "log-probability"]
    table = lint(*categorical_with_a_baseline()).sites.set_index("site")
    assert table.loc["k", "estimator"] == "score function (value)"
    assert not table.loc["k", "reparameterized"]
    table = lint(*bernoulli()).sites.set_index("site")
    assert table.loc["z", "estimator"] == "closed-form KL"
    assert table.loc["z", ["distribution", "guide"]].tolist() == ["Normal", "Normal"]
    assert table.loc["z", ["event_shape", "batch_shape"]].tolist() == [(8,), (16,)]
    assert table.loc["x", ["plates", "support"]].tolist() == ["data", "0 or 1"]
    assert lint(*bottom_up()).sites["estimator"].iloc[0] == "reparameterized draw"


@pairs
def test_lint_changes_no_global_state_of_pyro(pair):
    arguments = pair()
    pyro.get_param_store()["bystander"] = torch.ones(2)
    settings = pyro.settings.get()
    checks = torch.distributions.Distribution._validate_args
    try:
        lint(*arguments)
        assert list(pyro.get_param_store().keys()) == ["bystander"]
        assert pyro.settings.get() == settings
        assert torch.distributions.Distribution._validate_args is checks
    finally:
        pyro.clear_param_store()
