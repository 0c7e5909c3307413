"""Data outside a likelihood's support, and likelihoods that can narrow without limit."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import nn

from ppl_vae import lint
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.nn import MLP

ROWS, FEATURES, LATENTS = 40, 3, 2
X = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))
GREY = torch.sigmoid(X)
COUNTS = torch.tensor([[3.0, 1.0, 1.0]]).repeat(ROWS, 1)


class Likelihood(PyroModule):
    """z ~ Normal(0, 1), x ~ fn(decoder(z), scale), with a learned positive scale per feature."""

    def __init__(self, fn):
        super().__init__()
        self.net, self.fn = MLP(LATENTS, FEATURES), fn
        self.scale = PyroParam(torch.ones(FEATURES), constraints.positive)
        self.dummy = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENTS), 1.0).to_event(1))
            fn = self.fn(self.net(z) + self.dummy * self.scale, self.scale)
            pyro.sample("x", fn if fn.event_dim else fn.to_event(1), obs=x)


def linted(fn, x):
    return lint(Likelihood(fn), NormalGuide(FEATURES, LATENTS), x)


# Outside the support


def bernoulli(loc, scale, **how):
    return dist.Bernoulli(logits=loc, **how)


def multinomial(loc, scale, **how):
    return dist.Multinomial(4, logits=loc, **how)


def masked(loc, scale, **how):
    return dist.Bernoulli(logits=loc, **how).mask(True).to_event(1)


@pytest.mark.parametrize(
    ("fn", "x"), [(bernoulli, GREY), (masked, GREY), (multinomial, COUNTS)],
    ids=["Bernoulli", "masked Bernoulli", "Multinomial"],
)  # fmt: skip
def test_data_outside_the_support_are_a_warning_where_validation_was_turned_off(fn, x):
    verdict = linted(lambda *made: fn(*made, validate_args=False), x)
    (finding,) = verdict.findings
    assert (finding.severity, finding.where) == ("warning", 'site "x"')
    value = f"{float(x[0, 0]):g}"
    assert f"outside it in 40 of 40 rows, the first is row 0 with {value}" in str(finding)
    assert ", which validate_args=False lets pass" in str(finding)
    verdict.raise_if_failed()
    (finding,) = linted(fn, x).findings
    assert (finding.severity, finding.where) == ("error", 'site "x"')


def test_data_that_pass_without_validation_still_need_a_finite_log_probability():
    x = X.exp()
    x[21, 1] = -1.0
    verdict = linted(lambda loc, scale: dist.Gamma(loc.exp(), scale, validate_args=False), x)
    severities = [finding.severity for finding in verdict.findings]
    assert severities == ["error", "warning"], str(verdict)
    assert "finite log-probability" in verdict.errors[0].problem
    assert "1 of 40 rows, the first is row 21" in verdict.errors[0].problem


def test_a_distribution_that_torch_builds_without_validation_is_still_checked():
    (finding,) = linted(lambda loc, scale: dist.HalfNormal(scale + 0 * loc), X).findings
    assert finding.severity == "error"


# Constant columns


CONSTANT = GREY.clone()
CONSTANT[:, 1] = 0.5


def flow(loc, scale):
    affine = dist.transforms.AffineTransform(loc, scale)
    return dist.TransformedDistribution(dist.Normal(torch.zeros_like(loc), 1.0), [affine])


def mixture(loc, scale):
    parts = dist.Normal(torch.stack([loc, -loc], -1), scale[..., None])
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(*loc.shape, 2)), parts)


def shared(scale):
    return scale[..., :1].expand(scale.shape)


NARROWING = {
    "Normal": dist.Normal,
    "masked Normal": lambda loc, scale: dist.Normal(loc, scale).mask(True),
    "StudentT": lambda loc, scale: dist.StudentT(3.0, loc, scale),
    "LogNormal": dist.LogNormal,
    "Gamma": lambda loc, scale: dist.Gamma(scale, loc.exp()),
    "MultivariateNormal": lambda loc, scale: dist.MultivariateNormal(loc, torch.diag(scale)),
    "affine": flow,
    "mixture": mixture,
}
BOUNDED = {
    "Normal of scale 1": lambda loc, scale: dist.Normal(loc, 1.0),
    "Normal of known scales": lambda loc, scale: dist.Normal(loc, torch.full_like(loc, 0.1)),
    "ContinuousBernoulli": lambda loc, scale: dist.ContinuousBernoulli(logits=loc),
    "Beta": lambda loc, scale: dist.Beta(5 * loc.sigmoid(), 5 * (1 - loc.sigmoid())),
    "Exponential": lambda loc, scale: dist.Exponential(loc.exp()),
    "HalfNormal": lambda loc, scale: dist.HalfNormal(loc.exp()),
    "one learned scale for all columns": lambda loc, scale: dist.Normal(loc, shared(scale)),
    "mixture of scale 1": lambda loc, scale: mixture(loc, torch.ones(FEATURES)),
}


@pytest.mark.parametrize("fn", NARROWING.values(), ids=NARROWING)
def test_constant_columns_where_the_scale_is_learned(fn):
    (finding,) = linted(fn, CONSTANT).findings
    assert (finding.severity, finding.where) == ("warning", 'site "x"')
    assert "1 with one value (column 1)" in finding.problem


@pytest.mark.parametrize("fn", BOUNDED.values(), ids=BOUNDED)
def test_constant_columns_are_harmless_where_the_scale_cannot_shrink(fn):
    verdict = linted(fn, CONSTANT)
    assert not verdict.findings, str(verdict)


def test_one_learned_scale_narrows_where_no_column_varies():
    (finding,) = linted(lambda loc, scale: dist.Normal(loc, shared(scale)), 0 * CONSTANT).findings
    assert f"{FEATURES} with one value" in finding.problem


FLOORS = {
    "added": lambda loc, scale: dist.Normal(loc, scale + 0.01),
    "root of squares": lambda loc, scale: dist.Normal(loc, (scale**2 + 1e-6).sqrt()),
    "clamped": lambda loc, scale: dist.Normal(loc, loc.exp().clamp_min(1e-3)),
    "masked": lambda loc, scale: dist.StudentT(3.0, loc, scale + 0.01).mask(True),
    "LogNormal": lambda loc, scale: dist.LogNormal(loc, scale + 0.01),
    "a largest concentration": lambda loc, scale: dist.Gamma(scale.clamp_max(50.0), loc.exp()),
    "low rank": lambda loc, scale: dist.LowRankMultivariateNormal(
        loc, loc[..., None], scale + 0.01
    ),
}


@pytest.mark.parametrize("fn", FLOORS.values(), ids=FLOORS)
def test_constant_columns_are_harmless_where_the_scale_has_a_floor(fn):
    verdict = linted(fn, CONSTANT)
    assert not verdict.findings, str(verdict)


def test_the_search_for_a_floor_leaves_the_weights_as_they_were():
    model = GaussianModel(FEATURES, floor=0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (finding,) = lint(model, NormalGuide(FEATURES), CONSTANT).findings
    assert (finding.severity, finding.where) == ("warning", 'site "x"')
    assert "give the scale a floor" in finding.fix
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not lint(GaussianModel(FEATURES), NormalGuide(FEATURES), CONSTANT).findings


def test_constant_columns_are_harmless_under_a_frozen_pair():
    model, guide = GaussianModel(FEATURES), NormalGuide(FEATURES)
    for half in (model, guide):
        half.requires_grad_(False)
    assert not lint(model, guide, CONSTANT).findings
