"""``IWAE`` and ``RowELBO``: enumerated latents, and the settings and pairs that they refuse."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_vae import IWAE, RowELBO, fit, lint
from ppl_vae.core.pair import Pair
from ppl_vae.elbo.loss import BatchLoss
from ppl_vae.elbo.objectives import Objective
from ppl_vae.zoo.catalog import find_class


def mixture(x):
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Categorical(torch.tensor([0.3, 0.7])))
        z = pyro.sample("z", dist.Normal(y * 3.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def mixture_guide(x, infer=None):
    w, v = pyro.param("w", torch.tensor(0.2)), pyro.param("v", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Categorical(logits=torch.stack([-w * x, w * x], -1)), infer=infer)
        pyro.sample("z", dist.Normal((y * 3.0 + 4 * x) / 5, v.exp() / 3))


def summed_guide(x):
    mixture_guide(x, {"enumerate": "parallel"})


@pytest.mark.usefixtures("double")
def test_enumerated_latents_train_under_the_bounds():
    x = torch.randn(200) + 1.0
    for elbo in (RowELBO(2), IWAE(4)):
        pair = Pair.of(mixture, summed_guide, "data")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = fit(mixture, summed_guide, x, elbo=elbo, epochs=2, progress=False)
        # under IWAE the sum over y is inside the logarithm, where q(y given x) cancels
        assert [str(w.message)[:19] for w in caught] == ['parameter "guide.w"'] * isinstance(
            elbo, IWAE
        )
        assert history.objective == type(elbo).__name__
        bound = BatchLoss(pair, Objective.of(elbo, ""), 200)
        found = -float(bound((x,), None)[0][1]) / 200
        exact = torch.stack(
            [
                math.log(c) + dist.Normal(m, math.sqrt(1.25)).log_prob(x)
                for c, m in [(0.3, 0.0), (0.7, 3.0)]
            ]
        ).logsumexp(0)
        assert found < exact.mean() + 0.05
        assert found > exact.mean() - 0.8


FAULTS = [
    (lambda: IWAE(0), "num_particles"),
    (lambda: RowELBO(free_bits=-1.0), "free_bits"),
    (lambda: RowELBO(free_bits=0.1, sticking_the_landing=True), "choose one"),
    (lambda: RowELBO(sticking_the_landing=True, vectorize_particles=False), "vectorize_particles"),
]


@pytest.mark.parametrize(("make", "words"), FAULTS)
def test_settings_without_a_meaning_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_lint_names_a_draw_whose_gradient_would_be_dropped():
    """A score function carries the gradient of a discrete draw, but not through the draw itself."""
    through_draws = IWAE(2, doubly_reparameterized=True)
    report = lint(mixture, mixture_guide, torch.randn(20), elbo=through_draws)
    assert any("expected a reparameterized draw under IWAE" in f.problem for f in report.errors)
    assert not lint(mixture, mixture_guide, torch.randn(20), elbo=IWAE(2)).errors
    assert not lint(mixture, summed_guide, torch.randn(20), elbo=IWAE(2)).errors


def test_a_poutine_scale_is_refused():
    def model(x):
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=0.5):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=0.5):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.3)) * x, 1.0))

    with pytest.raises(ValueError, match=r"poutine\.scale"):
        fit(model, guide, torch.randn(20), elbo=IWAE(2), epochs=1, progress=False)


def test_a_fit_resumes_only_with_the_same_bound(tmp_path):
    x = torch.rand(60, 4).bernoulli()
    make = find_class("bernoulli", "models"), find_class("normal", "guides")
    pair = [half(4, 2) for half in make]
    run = tmp_path / "run"
    fit(*pair, x, elbo=IWAE(3), epochs=2, run=run, progress=False)
    for other in (IWAE(4), IWAE(3, doubly_reparameterized=True), RowELBO(3)):
        with pytest.raises(ValueError, match="resume"):
            fit(*pair, x, elbo=other, epochs=3, run=run, resume=True, progress=False)
    history = fit(*pair, x, elbo=IWAE(3), epochs=3, run=run, resume=True, progress=False)
    assert len(history.frame) == 3


@pytest.mark.parametrize(
    "elbo", [IWAE(2, doubly_reparameterized=True), RowELBO(2, sticking_the_landing=True)]
)
def test_gradients_through_draws_alone_refuse_an_enumerated_latent(elbo):
    with pytest.raises(ValueError, match="no latent that is summed"):
        fit(mixture, summed_guide, torch.randn(20), elbo=elbo, epochs=1, progress=False)


class Mixing(nn.Module):
    """Softmax over dim 1: features without particles, rows with particles."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 4)

    def forward(self, z):
        return self.inner(z).softmax(1)


def test_networks_that_mix_particles_are_refused_and_run_once_for_each_particle():
    x = torch.rand(20, 4).bernoulli()
    model, guide = find_class("bernoulli", "models"), find_class("normal", "guides")
    pair = model(4, 2, Mixing()), guide(4, 2)
    with pytest.raises(ValueError, match="vectorize_particles=False"):
        fit(*pair, x, elbo=IWAE(3), epochs=1, progress=False)
    fit(*pair, x, elbo=IWAE(3, vectorize_particles=False), epochs=1, progress=False)
