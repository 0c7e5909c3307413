"""A row plate that Pyro's own examples open: without a size, or with the rows as its subsample."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate

import ppl_vae
from ppl_vae.core.handlers import has_own_scale, scale_of_plates
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.loss import BatchLoss
from ppl_vae.elbo.objectives import Objective
from ppl_vae.nn import MLP

FEATURES, LATENTS, CLASSES = 6, 2, 3
generator = torch.Generator().manual_seed(0)
X = torch.rand(50, FEATURES, generator=generator).round()
Y = torch.eye(CLASSES)[torch.randint(CLASSES, (50,), generator=generator)]

PLATES = {
    "a size": lambda x: pyro.plate("data", len(x)),
    "no size": lambda x: pyro.plate("data"),
    "rows as the subsample": lambda x: pyro.plate("data", len(x), subsample=x),
    "rows of more data as the subsample": lambda x: pyro.plate("data", 50, subsample=x),
}
plates = pytest.mark.parametrize("plate", list(PLATES)[1:])


def joined(*parts):
    """Concatenate along the last dimension, the others broadcast."""
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], -1)


class SemiSupervised(torch.nn.Module):
    """Class y of an image x, observed or not, and its style z, as bound methods."""

    def __init__(self, plate):
        super().__init__()
        torch.manual_seed(0)
        self.plate = PLATES[plate]
        self.classes = MLP(FEATURES, CLASSES)
        self.encoder = MLP(FEATURES + CLASSES, 2 * LATENTS)
        self.decoder = MLP(LATENTS + CLASSES, FEATURES)

    def model(self, xs, ys=None):
        pyro.module("vae", self)
        with self.plate(xs):
            z = pyro.sample("z", dist.Normal(xs.new_zeros(len(xs), LATENTS), 1.0).to_event(1))
            even = xs.new_ones(len(xs), CLASSES)
            ys = pyro.sample("y", dist.OneHotCategorical(even), obs=ys)
            logits = self.decoder(joined(z, ys))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=xs)

    def guide(self, xs, ys=None):
        with self.plate(xs):
            if ys is None:
                ys = pyro.sample("y", dist.OneHotCategorical(logits=self.classes(xs)))
            loc, log_scale = self.encoder(joined(xs, ys)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def classify(self, xs, ys=None):
        pyro.module("vae", self)
        with self.plate(xs):
            pyro.sample("y", dist.OneHotCategorical(logits=self.classes(xs)), obs=ys)

    def classify_guide(self, xs, ys=None):
        pass


OBJECTIVES = {
    "unsupervised": lambda vae: (vae.model, vae.guide, X),
    "enumerated": lambda vae: (vae.model, config_enumerate(vae.guide, "parallel"), X),
    "supervised": lambda vae: (vae.model, vae.guide, (X, Y)),
    "auxiliary": lambda vae: (vae.classify, vae.classify_guide, (X, Y)),
}
objectives = pytest.mark.parametrize("objective", OBJECTIVES)


@objectives
@plates
@pytest.mark.filterwarnings("ignore:parameter:UserWarning")  # a network that an objective lacks
@pytest.mark.filterwarnings("ignore:site .*expected a baseline")  # a plain score function
def test_it_fits_to_the_same_history_as_with_a_size(plate, objective):
    def history(plate):
        pair = OBJECTIVES[objective](SemiSupervised(plate))
        frame = ppl_vae.fit(*pair, epochs=2, batch_size=16, compile=False, progress=False).frame
        return frame[["elbo", "objective"]].to_numpy(float)

    np.testing.assert_allclose(history(plate), history("a size"), rtol=1e-6)


@objectives
@plates
def test_lint_has_no_error(plate, objective):
    assert not ppl_vae.lint(*OBJECTIVES[objective](SemiSupervised(plate))).errors


@objectives
@plates
@pytest.mark.filterwarnings("ignore::ppl_vae.evaluation.summary.UnreliableWarning")
def test_every_question_has_the_answer_it_has_with_a_size(plate, objective):
    def answers(plate):
        pair = OBJECTIVES[objective](SemiSupervised(plate))
        yield ppl_vae.elbo_terms(*pair).to_numpy()
        yield ppl_vae.log_likelihood(*pair, num_samples=5)["log_prob"].to_numpy()
        yield ppl_vae.posterior_predictive(*pair, num_samples=2)["y" if len(pair[2]) == 2 else "x"]
        if objective != "auxiliary":
            yield ppl_vae.encode(*pair).to_numpy(float)

    for found, expected in zip(answers(plate), answers("a size"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("elbo", [Trace_ELBO(), TraceEnum_ELBO(strict_enumeration_warning=False)])
def test_its_elbo_and_gradient_are_those_of_pyro(elbo):
    vae = SemiSupervised("no size")
    pair = Pair.of(vae.model, vae.guide, "data")
    batch = as_rows((X, Y)).take(torch.arange(50))
    parameters = [p for p in vae.parameters() if p.requires_grad]
    loss = BatchLoss(pair, Objective.of(elbo, "given"), 100)
    torch.manual_seed(1)
    ours, surrogate = loss(batch, None)
    torch.manual_seed(1)
    with pyro.get_param_store().scope({"params": {}, "constraints": {}}):
        theirs = elbo.differentiable_loss(vae.model, vae.guide, X, Y)
    assert ours[0].item() == pytest.approx(2 * theirs.item(), rel=1e-6)
    gradients = [
        torch.autograd.grad(value, parameters, allow_unused=True) for value in (surrogate, theirs)
    ]
    for found, expected in zip(*gradients, strict=True):
        assert (found is None) is (expected is None)
        assert found is None or torch.allclose(found, 2 * expected, rtol=1e-4, atol=1e-4)


def test_a_site_is_as_long_as_the_batch_in_a_plate_without_a_size():
    def model(x):
        with pyro.plate("data"):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data"):
            pyro.sample("z", dist.Normal(x[:, 0] / 2, 0.7))

    table = ppl_vae.lint(model, guide, X).sites.set_index("site")
    assert table.loc["z", "batch_shape"] == (16,)
    assert ppl_vae.log_likelihood(model, guide, X)["log_prob"].between(-10, 0).all()


def test_a_plate_without_a_size_over_other_rows_than_the_batch_is_named():
    def model(x):
        with pyro.plate("data"):
            pyro.sample("x", dist.Normal(torch.zeros(3), 1.0), obs=x[:3, 0])

    finding = ppl_vae.lint(model, None, X).errors[0]
    assert finding.where == 'plate "data"'
    assert "16 rows of the batch, got 3" in finding.problem


def test_another_plate_without_a_size_scales_nothing():
    def model(x):
        with pyro.plate("columns", dim=-2), pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(FEATURES, len(x)), 1.0), obs=x.T)

    site = poutine.trace(model).get_trace(X).nodes["x"]
    assert scale_of_plates(site) == 1
    assert not has_own_scale(site)
    assert not ppl_vae.lint(model, None, X).findings
