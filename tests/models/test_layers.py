"""Layers of codes: the top-down guide against closed forms, and the ELBO against quadrature."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule

from ppl_vae import build, elbo_terms, fit, lint, load, log_likelihood, save
from ppl_vae.core.sites import log_prob, sample_sites
from ppl_vae.guides.top_down import TopDownGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.hierarchical import HierarchicalModel

ROWS, FEATURES = 6, 3


def shaken(*halves, size=0.2):
    """Move all weights away from where they begin, so that every term counts."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for half in halves:
            for p in half.parameters():
                p.add_(size * torch.randn(p.shape, generator=generator))
    return halves


def small_pair(latents=(1, 1)):
    pyro.set_rng_seed(0)
    model = HierarchicalModel(FEATURES, latents, hidden=5)
    return shaken(model, TopDownGuide(FEATURES, model, hidden=4))


def bits(rows=ROWS):
    return torch.rand(rows, FEATURES, generator=torch.Generator().manual_seed(1)).round()


@pytest.mark.usefixtures("double")
def test_every_layer_below_the_top_is_the_prior_times_a_factor_of_the_row():
    model, guide = small_pair(latents=(2, 3, 2))
    x = bits()
    trace = poutine.trace(guide).get_trace(x)
    layers = [guide.encoder(x).tanh()]
    for upwards in guide.upwards:
        layers.append(upwards(layers[-1]).tanh())
    grid = torch.linspace(-3, 3, 7)[:, None, None]  # values of z_l, for every row and coordinate
    for layer in (1, 2):
        m, v = guide.evidence[layer - 1](layers[layer - 1]).chunk(2, -1)
        above = trace.nodes[f"z{layer + 1}"]["value"]
        mean, log_variance = model.given_above(layer, above)
        sd = (log_variance / 2).exp()
        linear, precision = m * (1 + v.exp()).sqrt() / sd, v.exp() / sd**2
        factor = linear * grid - precision * grid**2 / 2
        found = trace.nodes[f"z{layer}"]["fn"].base_dist.log_prob(grid)
        difference = dist.Normal(mean, sd).log_prob(grid) + factor - found
        # the logarithm of the product's integral, whatever z_l
        torch.testing.assert_close(difference, difference[:1].expand_as(difference))


class Linear(PyroModule):
    """z2 ~ Normal(0, 1), z1 ~ Normal(a z2 + b, r), x ~ Normal(z1, s)."""

    latents, a, b, r, s = (1, 1), 0.8, -0.3, 0.6, 0.5

    def given_above(self, layer, above):
        mean = self.a * above + self.b
        return mean, torch.full_like(mean, 2 * np.log(self.r))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(self.a * z2 + self.b, self.r).to_event(1))
            pyro.sample("x", dist.Normal(z1, self.s).to_event(1), obs=x)


@pytest.mark.usefixtures("double")
def test_the_guide_is_the_posterior_of_a_linear_model_where_the_row_says_its_likelihood():
    model, x = Linear(), torch.tensor([[1.7]])
    guide = TopDownGuide(1, model, hidden=3)
    noise = model.r**2 + model.s**2  # variance of x given z2
    precision = 1 + model.a**2 / noise  # of z2 given x
    top = model.a * (x.item() - model.b) / noise / precision
    gain = (model.r / model.s) ** 2  # exp(v): of the likelihood's precision over the prior's
    moved = x.item() * model.r / model.s**2 / np.sqrt(1 + gain)
    with torch.no_grad():
        for network, said in zip(
            guide.evidence, [(moved, np.log(gain)), (top, -np.log(precision))], strict=True
        ):
            network.weight.zero_()
            network.bias.copy_(torch.tensor(said))
    found = log_likelihood(model, guide, x, num_samples=5)
    exact = dist.Normal(model.b, np.sqrt(model.a**2 + noise)).log_prob(x).item()
    assert found["log_prob"].item() == pytest.approx(exact, abs=1e-12)
    assert found["elbo"].item() == pytest.approx(exact, abs=1e-12)


@pytest.mark.usefixtures("double")
def test_elbo_and_log_likelihood_of_two_layers_are_those_of_a_sum_over_a_grid():
    model, guide = small_pair()
    for network, v in zip(guide.evidence, (-3.0, 1.0), strict=True):
        network.bias.data[1:] = v  # wide, so that few draws decide no estimate
    x = bits()
    points = torch.linspace(-12, 12, 301)
    cell = (points[1] - points[0]) ** 2
    z2, z1 = torch.meshgrid(points, points, indexing="ij")
    values = {"z1": z1.reshape(-1, 1, 1), "z2": z2.reshape(-1, 1, 1)}
    values = {name: value.expand(-1, ROWS, 1) for name, value in values.items()}

    def log_density(half):
        with pyro.plate("points", z1.numel(), dim=-2):
            trace = poutine.trace(poutine.condition(half, values)).get_trace(x)
        return sum(map(log_prob, sample_sites(trace).values()))  # (points, rows)

    with torch.no_grad():
        joint, proposal = log_density(model), log_density(guide)
    assert (proposal.exp().sum(0) * cell).numpy() == pytest.approx(1, abs=1e-6)
    exact = (joint.logsumexp(0) + cell.log()).numpy()
    elbo = (proposal.exp() * (joint - proposal)).sum(0).mul(cell).numpy()
    assert (elbo < exact - 0.7).all()  # a bound far below, so that neither passes for the other
    # Errors of the draws that were measured: 0.025, 0.020 and 0.012 nats.
    found = log_likelihood(model, guide, x, num_samples=160_000)
    assert found["log_prob"].to_numpy() == pytest.approx(exact, abs=0.04)
    assert found["elbo"].to_numpy() == pytest.approx(elbo, abs=0.05)
    terms = elbo_terms(model, guide, x, num_samples=40_000)
    assert list(terms.columns) == ["z2", "z1", "x"]
    assert terms.sum(axis=1).to_numpy() == pytest.approx(elbo, abs=0.05)


def test_the_training_loss_is_the_elbo_of_a_grid_too():
    """The closed-form KL divergence of a layer is averaged over the guide's layer above."""
    model, guide = small_pair()
    x = bits(60)
    for half in (model, guide):
        half.requires_grad_(False)
    model.decoder[0].bias.requires_grad_(True)  # one weight that a step of size 0 leaves
    history = fit(
        model, guide, x, epochs=40, batch_size=60, progress=False, compile=False,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
    )  # fmt: skip
    terms = elbo_terms(model, guide, x, num_samples=2000).sum(axis=1).mean()
    # Measured: 0.01 apart; 40 epochs have a standard error of 0.007.
    assert history.frame["elbo"].mean() == pytest.approx(terms, abs=0.05)


def test_a_number_stands_for_two_layers_of_this_size():
    assert HierarchicalModel(FEATURES, 3).latents == (3, 3)
    assert HierarchicalModel(FEATURES, [4]).latents == (4,)


@pytest.mark.parametrize("latents", [(), 0, (3, 0)])
def test_sizes_that_are_no_layers_are_refused(latents):
    with pytest.raises(ValueError, match="latents: expected a whole number of at least 1"):
        HierarchicalModel(FEATURES, latents)


def test_a_guide_of_layers_refuses_a_model_without_layers():
    with pytest.raises(ValueError, match="model: expected layers as of HierarchicalModel, got"):
        TopDownGuide(FEATURES, BernoulliModel(FEATURES))


def test_images_have_layers_too(tmp_path):
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1)).round()
    model = build(HierarchicalModel, images, latents=(3, 2))
    guide = build(TopDownGuide, images, model=model)
    assert lint(model, guide, images).findings == ()
    fit(model, guide, images, epochs=1, progress=False)
    save(model, guide, tmp_path / "run")
    reopened = load(tmp_path / "run")
    assert reopened[1].model is reopened[0]  # one model, stored once
    found = [elbo_terms(*pair, images) for pair in ((model, guide), reopened)]
    assert found[0].equals(found[1])
