"""``gradient_estimators``: biases are found, noise is ordered, and the pair is left as it was."""

import copy
import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pairs import Labeled, LabeledGuide, batch_norm, made, reals
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import IWAE, RowELBO, gradient_estimators
from ppl_vae.distributions import BernoulliVector
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.evaluation.estimator_choice import Judged, best_of
from ppl_vae.evaluation.estimator_table import _bias
from ppl_vae.evaluation.gradient_draws import Moments
from ppl_vae.guides.bernoulli import BernoulliGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.guides.relaxed import RelaxedGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.discrete import DiscreteModel
from ppl_vae.models.sigmoid_belief import SigmoidBeliefModel

FEATURES, LATENTS, COPIES = 4, 2, 16


def bits(rows=8, seed=0):
    """Eight rows, sixteen times each: one gradient holds as many independent draws of a row."""
    random = torch.Generator().manual_seed(seed)
    return torch.rand(rows, FEATURES, generator=random).round().repeat(COPIES, 1)


def network(value):
    """A network that predicts the same number for every row."""
    net = nn.Linear(FEATURES, 1)
    nn.init.zeros_(net.weight)
    nn.init.constant_(net.bias, value)
    return net


def spread(module):
    """Return a module whose weights are drawn far from 0, so that gradients are large."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.8)
    return module


def layered():
    """A model of two binary layers, its guide's encoder, and a function that makes guides."""
    sizes = (LATENTS, LATENTS)
    first = spread(BernoulliGuide(FEATURES, sizes, encoder=nn.Linear(FEATURES, LATENTS)))

    def guide(**options):
        other = BernoulliGuide(FEATURES, sizes, nn.Linear(FEATURES, LATENTS), **options)
        other.load_state_dict(first.state_dict(), strict=False)
        return other

    return spread(SigmoidBeliefModel(FEATURES, sizes)), guide


class FirstLayerForgotten(RowELBO):
    """A faulty estimator: the score of the first layer's draws is left out."""

    def draws(self, pair, batch, detached=None):
        return [Forgetful(**vars(draw)) for draw in super().draws(pair, batch, detached)]


class Forgetful(Draw):
    def without_gradient(self):
        return {name: site for name, site in super().without_gradient().items() if name != "z1"}


def test_score_functions_with_any_baseline_have_no_bias_and_a_faulty_one_has():
    """Each gradient holds 128 rows of four particles, so that 60 of them are 30,720 draws."""
    model, guide = layered()
    drawn = guide()
    found = gradient_estimators(
        model,
        {
            "summed": guide(enumerated=True),
            "none": (drawn, RowELBO(4)),
            "network": (guide(baseline=network(-4.0)), RowELBO(4)),
            "average": (drawn, RowELBO(4, baseline="average")),
            "leave_one_out": (drawn, RowELBO(4, baseline="leave_one_out")),
            "faulty": (drawn, FirstLayerForgotten(4, baseline="leave_one_out")),
        },
        bits(),
        num_draws=60,
    )
    table = found.frame.xs("guide", level="group")
    unbiased = table.drop(index="faulty")
    assert (unbiased["bias"] <= 3 * unbiased["bias_se"] + 1e-6).all(), str(found)
    assert table["bias"]["faulty"] > 10 * table["bias_se"]["faulty"]
    norm = found.gradient_norm["summed", "guide"]
    assert table["bias"]["faulty"] > 0.3 * norm
    assert 3 * table["bias_se"]["leave_one_out"] < 0.1 * norm  # the test would have seen 10 %
    variance = table["variance"]
    ratios = variance["none"] / variance
    print(ratios.to_string())  # noqa: T201  for who looks at the orders of magnitude
    assert variance["summed"] < 1e-12 * norm**2
    assert ratios["network"] > 2
    assert ratios["average"] > 2
    assert ratios["leave_one_out"] > 2
    verdicts = {each.name: each.sentence() for each in found.judged}
    assert verdicts["summed"].startswith("no bias")
    assert "no bias found" in verdicts["leave_one_out"]
    assert "faulty: bias" in str(found)
    assert found.recommended != "faulty"


def code_pair(**options):
    """A model of a binary code, and a function that makes guides with one encoder."""
    encoder = spread(nn.Linear(FEATURES, LATENTS))
    model = spread(DiscreteModel(FEATURES, LATENTS, states=2, decoder=nn.Linear(2, FEATURES)))
    return model, lambda cls, **how: cls(FEATURES, LATENTS, encoder=encoder, **options, **how)


def relaxed(guide, **options):
    return guide(RelaxedGuide, states=2, **options)


def test_the_bias_of_relaxed_draws_is_found_and_said():
    model, guide = code_pair()
    found = gradient_estimators(
        model,
        {
            "straight-through": relaxed(guide, straight_through=True),
            "relaxed": (relaxed(guide, temperature=1.0), Trace_ELBO()),
        },
        bits(),
        num_draws=40,
    )
    for name in ("straight-through", "relaxed"):
        share = found.frame["bias"][name, "guide"] / found.gradient_norm[name, "guide"]
        assert share > 0.05
        assert f"{name}: bias {100 * share:.0f} % of the gradient" in str(found) or share < 0.1
    assert "all estimators are biased" in str(found)
    assert found.recommended == found.frame["bias"].xs("guide", level="group").idxmin()
    assert [text.get_text().partition(",")[2][:5] for text in found.plot().texts] == [" bias"] * 2


def brute_force(model, guide, x):
    """The ELBO per row, by a loop over the configurations of the code."""
    q, total = BernoulliVector(guide.layers[0](x)), 0.0
    for code in torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * LATENTS):
        values = pyro.poutine.condition(model, {"z": code.expand(len(x), -1)})
        trace = pyro.poutine.trace(values).get_trace(x)
        trace.compute_log_prob()
        joint = trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]
        log_q = q.log_prob(code)
        total = total + (log_q.exp() * (joint - log_q)).mean()
    return total


def test_the_exact_gradient_is_that_of_the_sum_over_configurations(double):
    model, guide = code_pair()
    x = bits().double()
    encoder = guide(BernoulliGuide)
    for module in (model, encoder):
        module.double()
    parts = {"model": model, "guide": encoder}
    elbo = brute_force(model, encoder, x)
    found = gradient_estimators(model, {"drawn": encoder}, x[:128], num_draws=2)
    for group, module in parts.items():
        gradient = torch.autograd.grad(elbo, list(module.parameters()), retain_graph=True)
        norm = torch.cat([g.flatten() for g in gradient]).norm()
        assert found.gradient_norm["drawn", group] == pytest.approx(norm.item(), rel=1e-9)


def test_a_summed_guide_has_neither_bias_nor_variance_and_is_recommended():
    model, guide = code_pair()
    summed, drawn = guide(BernoulliGuide, enumerated=True), guide(BernoulliGuide)
    found = gradient_estimators(model, {"drawn": drawn, "summed": summed}, bits(), num_draws=3)
    assert (found.frame.loc["summed", "variance"] < 1e-12).all()
    assert (found.frame.loc["summed", "bias"] < 1e-6).all()
    assert found.recommended == "summed"
    assert 'recommended: "summed": of the 2 estimators without a bias' in str(found)
    assert found.same_guides
    assert found.rows == 128
    shares = [text.get_text() for text in found.plot().texts]
    assert "variance 0 below" in shares


def test_the_gradient_varies_from_batch_to_batch_as_from_rows_to_rows():
    """Of a batch of 128 of 512 rows: the variance of a mean, without replacement."""
    model, guide = code_pair()
    x = bits(rows=32)
    summed = guide(BernoulliGuide, enumerated=True)
    found = gradient_estimators(model, {"summed": summed}, x, num_draws=2)
    rows = []
    for row in x[:32]:
        elbo = brute_force(model, summed, row[None])
        gradient = torch.autograd.grad(elbo, list(summed.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradient]))
    between = torch.stack(rows).var(0).sum().item() / 128 * (1 - 128 / 512)
    assert found.batch_variance["guide"] == pytest.approx(between, rel=0.5)
    whole = gradient_estimators(model, {"summed": summed}, x[:100], num_draws=2)
    assert whole.batch_variance == {"model": 0.0, "guide": 0.0}


def test_a_continuous_latent_beside_the_discrete_one_leaves_noise_in_the_exact_gradient():
    model, guide, x = Labeled(), LabeledGuide(), reals()
    found = gradient_estimators(model, {"summed": guide}, x, num_draws=30)
    row = found.frame.loc["summed", "guide"]
    assert row["bias_se"] ** 2 == pytest.approx(2 * row["variance"] / 30, rel=0.5)
    assert row["bias"] < 3 * row["bias_se"]


class Independent(PyroModule):
    """A guide of Bernoulli latents that Pyro does not enumerate."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(FEATURES, LATENTS)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=self.encoder(x)).to_event(1))


def test_where_the_exact_gradient_cannot_be_summed_the_bias_is_not_known_and_this_is_said():
    model, guide = code_pair()
    many = DiscreteModel(FEATURES, 15, states=2), BernoulliGuide(FEATURES, 15)
    cases = {
        "to_event": (model, Independent(), None, "unbiased by construction, which is not checked"),
        "many": (*many, None, "the exact gradient cannot be summed here"),
        "IWAE": (model, guide(BernoulliGuide), IWAE(2), "another objective, IWAE"),
        "free bits": (
            BernoulliModel(FEATURES, 2), NormalGuide(FEATURES, 2), RowELBO(free_bits=0.1),
            "another objective, RowELBO",
        ),
        "relaxed": (
            many[0], RelaxedGuide(FEATURES, 15, states=2), None, "biased by its relaxation"
        ),
    }  # fmt: skip
    for name, (each, half, elbo, words) in cases.items():
        found = gradient_estimators(each, {name: (half, elbo)}, bits(), num_draws=2)
        assert found.frame["bias"].isna().all()
        assert (found.frame["bias_se"] >= 0).all()
        assert words in str(found)


def test_other_guides_are_named_as_such():
    model, guide = code_pair()
    other = BernoulliGuide(FEATURES, LATENTS)
    found = gradient_estimators(
        model, {"one": guide(BernoulliGuide), "other": other}, bits(), num_draws=2
    )
    assert not found.same_guides
    assert "the guides differ" in str(found)


def test_the_pair_and_the_random_generators_are_left_as_they_were():
    model, guide, x = made(batch_norm)
    for half in (model, guide):
        half.train()
        for parameter in half.parameters():
            parameter.grad = torch.ones_like(parameter)
    before = [copy.deepcopy(half.state_dict()) for half in (model, guide)]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    gradient_estimators(model, {"plain": guide, "row": (guide, RowELBO())}, x, num_draws=3)
    for half, kept in zip((model, guide), before, strict=True):
        assert all(torch.equal(half.state_dict()[name], kept[name]) for name in kept)
        assert all((parameter.grad == 1).all() for parameter in half.parameters())
        assert all(module.training for module in half.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


def test_a_seed_gives_the_same_numbers_whatever_stands_beside_an_estimator():
    model, guide = code_pair()
    drawn = guide(BernoulliGuide)
    columns = ["bias", "bias_se", "variance"]
    alone = gradient_estimators(model, {"a": drawn}, bits(), num_draws=5).frame[columns]
    beside = gradient_estimators(
        model, {"a": drawn, "b": (drawn, RowELBO(2))}, bits(), num_draws=5
    ).frame[columns]
    pd.testing.assert_frame_equal(alone, beside.loc[["a"]])
    other = gradient_estimators(model, {"a": drawn}, bits(), num_draws=5, seed=1).frame[columns]
    assert (other["variance"] != alone["variance"]).all()


def test_frozen_models_and_networks_of_baselines_have_no_part():
    model, guide = code_pair()
    net = network(-3.0)
    net.register_parameter("unused", nn.Parameter(torch.zeros(1000)))
    model.requires_grad_(False)
    found = gradient_estimators(
        model, {"network": (guide(BernoulliGuide, baseline=net), RowELBO())}, bits(), num_draws=20
    )
    assert list(found.frame.index) == [("network", "guide")]
    row = found.frame.iloc[0]
    assert row["bias"] < 3 * row["bias_se"]  # with the network's own gradient it is far above


@pytest.mark.parametrize(
    ("estimators", "words"),
    [
        ({}, "expected a mapping {name: guide or .guide, elbo.}, got {}"),
        (NormalGuide(4), "expected a mapping"),
        ({3: None}, "expected names as text, got 3"),
        ({"a": 5}, r'estimators\["a"\]: expected a guide'),
        ({"a": (NormalGuide(4, 3), None)}, r'estimators\["a"\]: site "z": expected the model'),
    ],
)
def test_what_is_no_estimator_is_refused_by_its_name(estimators, words):
    with pytest.raises(ValueError, match=words):
        gradient_estimators(BernoulliModel(4, 2), estimators, bits(), num_draws=2)


def test_moments_are_those_of_numpy():
    vectors = np.random.default_rng(0).normal(3.0, 2.0, (50, 4))
    moments = Moments()
    for vector in vectors:
        moments.add(torch.tensor(vector))
    assert moments.mean.numpy() == pytest.approx(vectors.mean(0))
    assert moments.variance == pytest.approx(vectors.var(0, ddof=1).sum())


@pytest.mark.parametrize("true", [0.0, 6.0])
def test_the_noise_of_the_mean_is_taken_off_the_bias(true):
    """2,000 numbers of unit variance, drawn 50 times: the mean is 6.3 from its expectation."""
    drawn, exact = Moments(), Moments()
    for vector in np.random.default_rng(1).normal(true / 2000**0.5, 1.0, (50, 2000)):
        drawn.add(torch.tensor(vector))
    exact.add(torch.zeros(2000))
    bias, error = _bias(drawn, exact)
    assert drawn.mean.norm().item() > 6
    assert error == pytest.approx(40**0.5, rel=0.05)
    assert bias == pytest.approx(true, abs=2)


def judged(name, share=0.0, visible=0.01, variance=1.0, noise=1.0, target="ELBO"):
    return Judged(name, share, visible, variance, noise, target)


@pytest.mark.parametrize(
    ("others", "best"),
    [
        ([judged("a", noise=2.0), judged("b", noise=1.0)], "b"),
        ([judged("biased", 0.1, noise=0.1), judged("a")], "a"),
        ([judged("unknown", math.nan, math.nan, noise=0.5), judged("a")], "unknown"),
        ([judged("relaxed", math.nan, math.nan, noise=0.1, target="relaxed"), judged("a")], "a"),
        ([judged("IWAE", math.nan, math.nan, noise=0.1, target="IWAE"), judged("a")], "a"),
        ([judged("exact", 0.0, 0.0, 0.0, noise=5.0), judged("cheap", noise=1.0)], "cheap"),
        ([judged("exact", 0.0, 0.0, 0.0, noise=0.0), judged("cheap", noise=1.0)], "exact"),
        ([judged("more", 0.3), judged("less", 0.2, noise=9.0)], "less"),
        ([judged("unclear", 0.0, 0.2, target="relaxed"), judged("a", noise=9.0)], "a"),
        ([judged("small", 0.001, 0.005, target="relaxed"), judged("a", noise=9.0)], "small"),
    ],
)
def test_the_least_noise_without_a_bias_is_recommended(others, best):
    name, reason = best_of(others)
    assert name == best
    assert reason
