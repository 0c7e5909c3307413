"""A pair of which some rows have labels: the sum over the label, the classifier's term, errors."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch.nn.functional import log_softmax

from ppl_vae import IWAE, build, elbo_terms, encode, fit, lint, log_likelihood
from ppl_vae.distributions import Taught
from ppl_vae.guides.classifier import ClassifierGuide
from ppl_vae.models.semisupervised import SemisupervisedModel
from ppl_vae.models.semisupervised_gaussian import SemisupervisedGaussianModel
from ppl_vae.nn import beside, seen_labels

CLASSES, FEATURES, ROWS = 3, 6, 12
X = torch.rand(ROWS, FEATURES, generator=torch.Generator().manual_seed(0)).round()
Y = torch.tensor([0, -1, 2, -1, -1, 1, -1, 2, -1, -1, 0, -1])
QUICK = {"epochs": 2, "batch_size": 6, "progress": False, "compile": False}


def pair(weight=50.0):
    torch.manual_seed(0)
    model = SemisupervisedModel(FEATURES, 2, CLASSES)
    with torch.no_grad():
        model.prior_logits.normal_()
    return model, ClassifierGuide(FEATURES, 2, CLASSES, weight)


@torch.no_grad()
def by_brute_force(model, guide, x, y):
    """The ELBO of every row at the guide's mean code, label by label, (rows,)."""
    h = guide.encoder(guide.standardize(x)).tanh()
    each = []
    for label in range(CLASSES):
        one_hot = torch.eye(CLASSES, dtype=x.dtype)[label].expand(len(x), -1)
        mean, log_variance = guide.joint(torch.cat([h, one_hot], -1)).chunk(2, -1)
        q = dist.Normal(mean, (log_variance / 2).exp())
        latent = dist.Normal(0.0, 1.0).log_prob(mean) - q.log_prob(mean)
        logits = model.decoder(torch.cat([mean, one_hot], -1))
        each.append(dist.Bernoulli(logits=logits).log_prob(x).sum(-1) + latent.sum(-1))
    joint = torch.stack(each, -1) + log_softmax(model.prior_logits, -1)
    log_q = log_softmax(guide.classifier(guide.standardize(x)), -1)
    summed = (log_q.exp() * (joint - log_q)).sum(-1)
    return torch.where(y >= 0, joint.gather(1, y.clamp(min=0)[:, None])[:, 0], summed)


@pytest.mark.parametrize("missing", [-1, torch.nan])
def test_the_elbo_sums_over_the_labels_that_are_not_known(missing, double, monkeypatch):
    model, guide = pair()
    x, y = X.double(), torch.where(Y >= 0, Y.double(), missing)
    y = y if missing != -1 else y.long()
    at_mean = lambda fn, shape=(): fn.loc.expand(fn._extended_shape(shape))  # noqa: E731
    monkeypatch.setattr(torch.distributions.Normal, "rsample", at_mean)
    found = elbo_terms(model, guide, {"x": x, "y": y}, num_samples=1).sum(axis=1)
    assert np.allclose(found, by_brute_force(model, guide, x, Y), atol=1e-6, rtol=0)


def test_the_probability_of_a_label_is_the_classifiers_or_one_where_it_is_known():
    model, guide = pair()
    found = encode(model, guide, {"x": X, "y": Y})["y"]["probability"].to_numpy()
    with torch.no_grad():
        expected = guide.classifier(guide.standardize(X)).softmax(-1)
    expected[Y >= 0] = torch.eye(CLASSES)[Y[Y >= 0]]
    assert np.allclose(found, expected, atol=1e-5)


def test_a_known_label_is_part_of_the_likelihood():
    model, guide = pair()
    whole = {k: log_likelihood(model, guide, {"x": X, "y": torch.full((ROWS,), k)},
                               num_samples=4000)["log_prob"] for k in range(CLASSES)}  # fmt: skip
    without = log_likelihood(model, guide, {"x": X, "y": torch.full((ROWS,), -1)}, num_samples=4000)
    summed = np.logaddexp.reduce([whole[k] for k in range(CLASSES)])
    assert np.allclose(summed, without["log_prob"], atol=0.03)


@pytest.mark.slow
def test_the_term_of_the_classifier_is_trained_and_no_part_of_the_elbo():
    gains = {}
    for weight in (0.0, 50.0):
        model, guide = pair(weight)
        x, y = X.repeat(20, 1), Y.repeat(20)
        history = fit(model, guide, {"x": x, "y": y}, **{**QUICK, "epochs": 30})
        shown = history.frame[["elbo", "objective"]].iloc[-1]
        assert (shown["elbo"] - shown["objective"] > 0.01) == (weight > 0)
        with torch.no_grad():
            logits = guide.eval().classifier(guide.standardize(X))
        gains[weight] = float(log_softmax(logits, -1)[Y >= 0, Y[Y >= 0]].mean())
    assert gains[50.0] > gains[0.0] + 0.2


def test_lint_has_nothing_to_say_unless_the_bound_leaves_the_term_out():
    assert not lint(*pair(), {"x": X, "y": Y}).findings
    found = lint(*pair(), {"x": X, "y": Y}, elbo=IWAE(3)).findings
    assert any("which trains what the site teaches" in str(finding) for finding in found)


class Toy(PyroModule):
    """One probability, taught beside a latent that does not matter."""

    def __init__(self):
        super().__init__()
        self.logit = torch.nn.Parameter(torch.zeros(()))

    def forward(self, y):
        with pyro.plate("data", len(y)):
            fn = Taught(dist.Bernoulli(logits=self.logit.expand(len(y))).mask(y >= 0), 2.0)
            pyro.sample("taught", fn, obs=y.clamp(min=0), infer={"is_auxiliary": True})


def test_a_taught_site_adds_its_weighted_log_probability_to_what_is_maximized():
    guide, y = Toy(), torch.tensor([1.0, 1.0, 0.0, -1.0])

    def model(y):
        with pyro.plate("data", len(y)):
            pass

    loss = Trace_ELBO().differentiable_loss(model, guide, y)
    loss.backward()
    assert loss.item() == pytest.approx(2 * 3 * np.log(2.0))
    assert guide.logit.grad.item() == pytest.approx(-2 * (2 - 3 * 0.5))


def test_sizes_come_from_the_labels_that_are_there():
    for y in (Y, torch.where(Y >= 0, Y.float(), torch.nan)):
        assert build(SemisupervisedModel, {"x": X, "y": y}).classes == CLASSES


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.full((ROWS,), -1), "expected a label in at least one row of the field y"),
        (torch.full((ROWS,), torch.nan), "got -1 or NaN in all 12 rows"),
        (Y.float() / 2, r"expected labels 0, 1, 2, \.\.\. in the field y, got -0\.5"),
        (Y - 1, r"got -2 in row"),
        (torch.stack([Y, Y], 1), "expected one label a row in the field y, got 2 integers a row"),
    ],
)
def test_labels_that_cannot_be_are_refused_by_build(y, words):
    with pytest.raises(ValueError, match=words):
        build(SemisupervisedModel, {"x": X, "y": y})


def test_a_label_out_of_range_is_named():
    with pytest.raises(ValueError, match=r'field "y": expected categories from 0 to 2.*got 5 in r'):
        fit(*pair(), {"x": X, "y": torch.where(Y == 2, 5, Y)}, **QUICK)


@pytest.mark.parametrize("label", [-2.0, 0.5])
def test_a_number_that_is_no_label_is_refused_by_every_function(label):
    y = Y.double()
    y[3] = label
    for function in (log_likelihood, encode, lambda *pair: fit(*pair, **QUICK)):
        with pytest.raises(ValueError, match=rf"({label:g} in row 3|row 3 with {label:g})"):
            function(*pair(), {"x": X, "y": y})


def test_vectors_beside_each_other_share_their_leading_dimensions():
    z, one_hot = torch.zeros(7, 2), torch.eye(3).long()[:, None]
    assert torch.equal(beside(z, one_hot)[1], torch.tensor([0.0, 0, 0, 1, 0]).expand(7, 5))
    labels, seen = seen_labels(torch.tensor([[1], [-1]]))
    assert (labels.tolist(), seen.tolist()) == ([1, 0], [True, False])
    with pytest.raises(ValueError, match="expected one label a row, got 2 numbers"):
        seen_labels(torch.zeros(3, 2))


def test_truth_values_are_labels():
    losses = []
    for labels in (Y.clamp(0, 1), Y.clamp(0, 1).bool()):
        model, guide = pair()
        losses.append(fit(model, guide, {"x": X, "y": labels}, **QUICK).frame["elbo"])
    assert losses[0].equals(losses[1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (float("inf"), "expected labels 0, 1, 2, ... in the field y, got inf"),
        (1_000_000, "expected labels 0, 1, 2, ... in the field y, got 1000000 among 6 of them"),
    ],
)
def test_numbers_that_count_nothing_are_no_labels(wrong, message):
    y = torch.where(torch.arange(ROWS) == 4, wrong, Y.double())
    with pytest.raises(ValueError, match=message):
        build(SemisupervisedModel, {"x": X, "y": y})


def test_a_guide_of_fewer_labels_than_the_model_is_named():
    torch.manual_seed(0)
    pair = SemisupervisedModel(FEATURES, 2, CLASSES), ClassifierGuide(FEATURES, 2, 2)
    y = torch.where(Y == 2, -1, Y)
    (finding,) = lint(*pair, {"x": X, "y": y}).findings
    assert finding.where == 'site "y"'
    assert "whole numbers from 0 to 2" in str(finding)


@torch.no_grad()
def test_the_density_of_real_features_is_that_of_the_formula():
    torch.manual_seed(0)
    loc, scale = torch.randn(FEATURES), torch.rand(FEATURES) + 0.5
    model = SemisupervisedGaussianModel(FEATURES, 2, CLASSES, loc=loc, scale=scale, floor=0.3)
    x = torch.randn(ROWS, FEATURES)
    trace = pyro.poutine.trace(model).get_trace(x, Y)
    one_hot = torch.eye(CLASSES)[trace.nodes["y"]["value"]]
    mean, spread = model.decoder(torch.cat([trace.nodes["z"]["value"], one_hot], -1)).chunk(2, -1)
    variance = scale**2 * spread.exp() + 0.3**2
    expected = dist.Normal(loc + scale * mean, variance.sqrt()).log_prob(x).sum(-1)
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], expected)
    wrong = (trace.nodes["y"]["value"] != Y) & (Y >= 0)
    assert bool(wrong.any())
    label = trace.nodes["label"]["log_prob"]
    assert bool((label[wrong] == -100).all())
    assert bool((label[~wrong].abs() < 1e-5).all())


def test_real_features_without_labels_help_to_classify():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=random) * torch.tensor([0.4, 3.0])
    x += torch.tensor([[-1.5, 0.0], [1.5, 0.0]]).repeat_interleave(150, 0)
    truth = torch.tensor([0, 1]).repeat_interleave(150)
    y = torch.full((300,), -1)
    y[[0, 1, 298, 299]] = truth[[0, 1, 298, 299]]
    torch.manual_seed(0)
    data = {"x": x, "y": y}
    model = build(SemisupervisedGaussianModel, data, latents=1)
    guide = build(ClassifierGuide, data, latents=1)
    fit(
        model, guide, data, epochs=150, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 5e-3),
    )  # fmt: skip
    found = encode(model, guide, data)["y"]["probability"].to_numpy().argmax(1)
    assert (found == truth.numpy()).mean() > 0.97
