"""Priors of the zoo: densities against loops and integrals, planted structure, the partner."""

from functools import partial

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.extras import sklearn
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn

from ppl_vae import build, encode, fit, generate, load, log_likelihood, save, traverse
from ppl_vae.cli.pairs import build_pair
from ppl_vae.guides.linear import LinearGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.flow_prior import FlowPriorModel
from ppl_vae.models.mixture_prior import MixturePriorModel
from ppl_vae.models.sparse import SparseModel
from ppl_vae.models.vampprior import VampPriorModel
from ppl_vae.nn import MLP

BITS = (torch.rand(50, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()
CODES = 2 * torch.randn(7, 2, generator=torch.Generator().manual_seed(2))
IMAGES = (torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(3)) < 0.4).float()


def adam(lr):
    return partial(torch.optim.Adam, lr=lr)


def vamp(guide=None, data=BITS, **settings):
    """A VampPrior with five pseudo-inputs, and its guide."""
    guide = guide or build(NormalGuide, data, latents=2)
    return build(VampPriorModel, data, guide=guide, latents=2, pseudo_inputs=5, **settings), guide


def shaken(model):
    """The model with weights that are not special."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model


# Sparse codes.


def test_the_sparse_model_recovers_a_planted_dictionary():
    """12 parts of 16 features, a fifth of them in each row; the model has room for 32.

    The mean best-match cosine is 0.98 with three seeds, 0.69 where the prior is normal.
    """
    random = torch.Generator().manual_seed(0)
    parts = nn.functional.normalize(torch.randn(16, 12, generator=random), dim=0)
    uniform = 2 * torch.rand(2000, 12, generator=random) - 1
    codes = -uniform.sign() * torch.log1p(-uniform.abs())  # Laplace
    codes = codes * (torch.rand(2000, 12, generator=random) < 0.2)
    x = codes @ parts.T + 0.05 * torch.randn(2000, 16, generator=random)
    model = build(SparseModel, x)
    guide = build(NormalGuide, x, latents=32, encoder=MLP(16, 64, (128,)))
    fit(model, guide, x, epochs=50, batch_size=100, optimizer=adam(0.01), progress=False)
    found = nn.functional.normalize(model.scale[:, None] * model.decoder.weight.detach(), dim=0)
    assert (parts.T @ found).abs().amax(1).mean() > 0.9


def test_the_sparse_model_has_more_latents_than_features_unless_told_otherwise():
    assert build(SparseModel, torch.randn(9, 4)).latents == 8
    assert build(SparseModel, torch.randn(9, 4), latents=3).decoder.weight.shape == (4, 3)


def test_a_pair_that_is_built_by_name_has_one_number_of_latents():
    for names, settings, latents in (
        (("sparse", "normal"), [], 12),
        (("sparse", "normal"), ["model.latents=7"], 7),
        (("vampprior", "normal"), ["guide.latents=3"], 3),
        (("bernoulli", "normal"), ["latents=5"], 5),
    ):
        model, guide = build_pair(*names, BITS, settings, seed=0)
        assert model.latents == guide.latents == latents


@pytest.mark.usefixtures("double")
def test_the_sparse_density_is_that_of_its_equations():
    model = shaken(SparseModel(3, loc=5.0, scale=torch.tensor([1.0, 2.0, 4.0])))
    x, z = 5 + torch.randn(4, 3), torch.randn(4, 6)
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x)
    mean = 5 + model.scale * (z @ model.decoder.weight.T + model.decoder.bias)
    right = dist.Normal(mean, model.scale * model.log_sigma.exp()).log_prob(x).sum()
    right = right - z.abs().sum() - z.numel() * torch.tensor(2.0).log()
    torch.testing.assert_close(trace.log_prob_sum(), right)


# A mixture of normals.


@pytest.mark.usefixtures("double")
def test_the_mixture_is_the_weighted_sum_of_its_components():
    model, z = shaken(MixturePriorModel(6, latents=2, components=3)), CODES.double()
    spreads, weights = model.log_spreads.exp(), model.logits.softmax(-1)
    terms = [
        weights[k] * dist.Normal(model.centers[k], spreads[k]).log_prob(z).sum(-1).exp()
        for k in range(3)
    ]
    total = sum(terms)
    torch.testing.assert_close(model.prior().log_prob(z), total.log())
    torch.testing.assert_close(model.cluster(z), torch.stack(terms, -1) / total[:, None])
    many = model.cluster(z.expand(4, 7, 2))
    assert torch.equal(many[1], model.cluster(z))
    for codes in (pd.DataFrame(z.numpy()), z.numpy(), z.tolist(), z.requires_grad_()):
        assert torch.equal(model.cluster(codes), many[1])


def test_draws_of_the_mixture_have_its_moments():
    """Within four standard errors of 20,000 draws."""
    prior = shaken(MixturePriorModel(6, latents=2, components=3)).prior()
    drawn = prior.sample((20_000,))
    error = drawn.std(0) / 20_000**0.5
    assert bool(((drawn.mean(0) - prior.mean).abs() < 4 * error).all())


def test_the_mixture_finds_three_planted_clusters():
    """The adjusted Rand index is 1 with four seeds, 0.6 where the spreads begin at 1."""
    random = torch.Generator().manual_seed(0)
    label = torch.randint(3, (600,), generator=random)
    centers, within = 3 * torch.randn(3, 30, generator=random), torch.randn(2, 30, generator=random)
    logits = centers[label] + 0.3 * torch.randn(600, 2, generator=random) @ within
    x = (torch.rand(600, 30, generator=random) < logits.sigmoid()).float()
    model = build(MixturePriorModel, x, latents=2, components=3)
    guide = build(NormalGuide, x, latents=2)
    fit(model, guide, x, epochs=50, batch_size=100, optimizer=adam(0.01), progress=False)
    clusters = model.cluster(encode(model, guide, x)["z"]["mean"]).argmax(1)
    assert sklearn("metrics").adjusted_rand_score(label, clusters) > 0.95


# A learned flow.


@torch.no_grad()
def integral(prior, size=20.0, points=600):
    """The integral of a density of two latents over a square."""
    axis = torch.linspace(-size, size, points)
    total = prior.log_prob(torch.cartesian_prod(axis, axis)).double().exp().sum()
    return total.item() * (2 * size / (points - 1)) ** 2


def test_the_flow_is_a_density_before_and_after_training():
    model, guide = build(FlowPriorModel, BITS, latents=2), build(NormalGuide, BITS, latents=2)
    assert integral(model.prior()) == pytest.approx(1.0, abs=1e-3)
    options = {"optimizer": adam(0.003), "compile": False, "progress": False}
    fit(model, guide, BITS, epochs=10, batch_size=20, **options)
    assert integral(model.prior()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("latents", [1, 2, 5])
@pytest.mark.usefixtures("double")
def test_the_flows_density_is_the_change_of_variables_by_autograd(latents):
    prior = shaken(FlowPriorModel(6, latents=latents)).prior()

    def codes_of(u):
        for layer in prior.transforms:
            u = layer(u)
        return u

    u = torch.randn(latents)
    jacobian = torch.autograd.functional.jacobian(codes_of, u)
    right = dist.Normal(0.0, 1.0).log_prob(u).sum() - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(prior.log_prob(codes_of(u).detach().clone()), right)


# The guide's answers to pseudo-inputs.


@pytest.mark.parametrize("cls", [NormalGuide, LinearGuide])
@pytest.mark.usefixtures("double")
def test_the_vampprior_is_the_mean_of_the_guides_answers(cls):
    model = shaken(vamp(build(cls, BITS, latents=2))[0])
    z, total = CODES.double(), 0
    for u in model.pseudo_logits.sigmoid():
        answer = poutine.trace(model.guide).get_trace(u[None]).nodes["z"]["fn"]
        total = total + answer.log_prob(z).exp() / 5
    torch.testing.assert_close(model.prior().log_prob(z), total.log())
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(BITS[:7])
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["z"]["log_prob"], total.log())


def test_pseudo_inputs_begin_at_the_mean_of_the_data_and_differ():
    x = torch.cat([BITS, torch.zeros(50, 1), torch.ones(50, 1)], 1)
    model = build(VampPriorModel, x, guide=NormalGuide(8, 2), latents=2, pseudo_inputs=2000)
    u = model.pseudo_logits.detach().sigmoid()
    assert u.shape == (2000, 8)
    assert u.std(0).min() > 0.01
    assert u.median(0).values[:6] == pytest.approx(BITS.mean(0), abs=0.05)
    assert bool(u.isfinite().all())


def test_the_pseudo_inputs_are_no_rows_of_the_data():
    """The guide's plate and sites stay out of the model, with particles and batches of any size."""
    model, guide = vamp()
    for rows in (1, 5, 7):
        trace = poutine.trace(model).get_trace(BITS[:rows])
        drawn = [name for name, site in trace.nodes.items() if site["type"] == "sample"]
        assert drawn == ["data", "z", "x"]
        assert trace.nodes["z"]["fn"].batch_shape == (rows,)
    for elbo in (None, Trace_ELBO(num_particles=3, vectorize_particles=True)):
        options = {"epochs": 2, "batch_size": 16, "compile": False, "progress": False}
        history = fit(model, guide, BITS, elbo=elbo, **options)
        assert not history.objective_differs  # the scale is N/B, in the ragged last batch too


def test_guide_and_model_share_parameters_in_training_and_in_a_run(tmp_path):
    model, guide = vamp(build(LinearGuide, BITS, latents=2))
    fit(
        model,
        guide,
        BITS,
        epochs=3,
        batch_size=16,
        compile=False,
        progress=False,
        run=tmp_path / "run",
    )
    again, partner = load(tmp_path / "run")
    assert again.guide is partner
    z = CODES
    assert torch.equal(again.prior().log_prob(z), model.prior().log_prob(z))
    before = again.prior().log_prob(z)
    with torch.no_grad():
        partner.encoder.weight.add_(1.0)
    assert bool((again.prior().log_prob(z) != before).all())


def test_a_frozen_guide_stays_frozen_inside_the_model():
    model, guide = vamp(build(LinearGuide, BITS, latents=2))
    guide.requires_grad_(False)
    before = [p.clone() for p in guide.parameters()]
    fit(model, guide, BITS, epochs=2, compile=False, progress=False)
    assert not any(p.requires_grad for p in guide.parameters())
    assert all(torch.equal(*both) for both in zip(before, guide.parameters(), strict=True))


def test_a_new_guide_is_fitted_to_a_frozen_vampprior():
    model, _ = vamp()
    model.requires_grad_(False)
    model.eval()  # in training mode, Pyro remarks on frozen layers
    before, other = model.prior().log_prob(CODES), build(NormalGuide, BITS, latents=2)
    start = other.encoder[0].weight.clone()
    fit(model, other, BITS, epochs=2, compile=False, progress=False)
    assert torch.equal(model.prior().log_prob(CODES), before)
    assert not torch.equal(other.encoder[0].weight, start)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(9)])
@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
@pytest.mark.filterwarnings("ignore:layer .guide.encoder.1")  # lint advises against batch norm
def test_a_guide_whose_layers_have_modes_answers_as_in_evaluation(layer, tmp_path):
    encoder = nn.Sequential(nn.Linear(6, 9), layer, nn.Tanh(), nn.Linear(9, 4))
    model, guide = vamp(build(NormalGuide, BITS, latents=2, encoder=encoder))
    fit(model, guide, BITS, epochs=2, batch_size=16, compile=False, progress=False)
    model.eval()
    right = model.prior().log_prob(CODES)
    model.train()
    scores = [log_likelihood(model, guide, BITS, num_samples=30)["log_prob"] for _ in range(2)]
    assert scores[0].equals(scores[1])
    save(model, guide, tmp_path / "run")
    again, _ = load(tmp_path / "run")
    assert torch.equal(again.eval().prior().log_prob(CODES), right)


def test_a_partner_that_is_no_guide_of_z_is_refused_by_name():
    with pytest.raises(ValueError, match="guide: expected a module with a site z, got function"):
        VampPriorModel(6, lambda x: None)

    class Other(NormalGuide):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("code", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"guide: expected a latent site z, got .*'code'"):
        VampPriorModel(6, Other(6)).prior()


# All priors of images of 0 and 1.


@pytest.mark.parametrize("cls", [MixturePriorModel, VampPriorModel, FlowPriorModel])
def test_priors_take_images(cls):
    guide = build(NormalGuide, IMAGES, latents=2)
    partner = {"guide": guide} if cls is VampPriorModel else {}
    model = build(cls, IMAGES, latents=2, **partner)
    fit(model, guide, IMAGES, epochs=1, batch_size=8, compile=False, progress=False)
    assert generate(model, None, IMAGES, num_samples=3).shape == (3, 1, 8, 8)
    assert traverse(model, guide, IMAGES[:2]).shape[1:] == (1, 8, 8)
