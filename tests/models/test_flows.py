"""The two flows: densities against integrals and Jacobians, inverses, far rows, exact scores."""

import math
import warnings
from functools import partial

import pyro
import pytest
import torch
from pyro.distributions import MultivariateNormal
from sklearn.datasets import make_moons

from ppl_vae import (
    build,
    elbo_terms,
    fit,
    generate,
    interpolate,
    lint,
    log_likelihood,
    predictive_check,
)
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.flow import FlowModel
from ppl_vae.models.flow_decoder import FlowDecoderModel
from ppl_vae.nn import CouplingNetwork

MOONS = torch.as_tensor(make_moons(600, noise=0.1, random_state=0)[0]).float() * 30 + 100


def reals(features):
    """(40, features) real numbers, far from zero."""
    return torch.randn(40, features, generator=torch.Generator().manual_seed(1)) * 30 + 100


def densities(features):
    """``(name, p(x) or p(x given one z))`` of untrained models, in the data's units."""
    torch.manual_seed(0)
    units = {"loc": 100.0, "scale": torch.linspace(10.0, 40.0, features)}
    yield "flow", FlowModel(features, **units).density()
    decoder = FlowDecoderModel(features, latents=2, **units)
    yield "flow_decoder", decoder.density(torch.tensor([0.5, -1.5]))


@torch.no_grad()
def integral(density, low, high, points=300):
    """The integral of a density of two features over the square from low to high."""
    axis = torch.linspace(low, high, points)
    grid = torch.cartesian_prod(axis, axis)
    return density.log_prob(grid).exp().sum().item() * ((high - low) / (points - 1)) ** 2


@pytest.fixture(scope="module")
def moons():
    """A flow fitted to two moons."""
    torch.manual_seed(0)
    model, fast = build(FlowModel, MOONS, layers=6), partial(torch.optim.Adam, lr=1e-2)
    fit(model, None, MOONS, epochs=20, batch_size=100, optimizer=fast, progress=False)
    model.requires_grad_(False)
    return model


def test_the_density_of_two_features_integrates_to_one():
    for name, density in densities(2):
        assert integral(density, -200.0, 400.0) == pytest.approx(1.0, abs=1e-3), name


def test_the_density_integrates_to_one_after_training(moons):
    assert integral(moons.density(), -100.0, 350.0, 400) == pytest.approx(1.0, abs=1e-3)


def test_a_fitted_flow_beats_a_normal_on_two_moons(moons):
    new = torch.as_tensor(make_moons(300, noise=0.1, random_state=1)[0]).float() * 30 + 100
    normal = MultivariateNormal(MOONS.mean(0), MOONS.T.cov())
    assert moons.density().log_prob(new).mean() > normal.log_prob(new).mean() + 0.2


@pytest.mark.parametrize("features", [1, 2, 5])
def test_the_inverse_of_the_layers_is_their_inverse(features):
    u = torch.randn(7, features)
    for _, density in densities(features):
        x = u
        for layer in density.transforms:
            x = layer(x)
        back = x.clone()  # another tensor, so that no cache knows it
        for layer in reversed(density.transforms):
            back = layer.inv(back)
        assert torch.allclose(back, u, atol=1e-4)


@pytest.mark.parametrize("features", [1, 5])
@pytest.mark.usefixtures("double")
def test_the_log_density_is_the_change_of_variables_by_autograd(features):
    for _, density in densities(features):
        u = torch.randn(features)

        def rows_of(u, density=density):
            for layer in density.transforms:
                u = layer(u)
            return u

        jacobian = torch.autograd.functional.jacobian(rows_of, u)
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(u).sum()
        exact = normal - torch.linalg.slogdet(jacobian).logabsdet
        assert density.log_prob(rows_of(u).clone()).item() == pytest.approx(exact.item(), rel=1e-9)


def test_changing_units_shifts_the_density_by_the_jacobian():
    x, shift = reals(4), 4 * math.log(1000)
    torch.manual_seed(0)
    metres = build(FlowModel, x)
    torch.manual_seed(0)
    millimetres = build(FlowModel, 1000 * x)
    difference = metres.density().log_prob(x) - millimetres.density().log_prob(1000 * x)
    assert torch.allclose(difference, torch.full((40,), shift), rtol=1e-4)
    torch.manual_seed(0)
    metres = build(FlowDecoderModel, x)
    torch.manual_seed(0)
    millimetres, z = build(FlowDecoderModel, 1000 * x), torch.randn(40, 8)
    difference = metres.density(z).log_prob(x) - millimetres.density(z).log_prob(1000 * x)
    assert torch.allclose(difference, torch.full((40,), shift), rtol=1e-4)


def test_drawn_rows_have_the_distribution_that_is_scored(moons):
    """The probability of a half-plane by draws is its integral, within four standard errors."""
    torch.manual_seed(0)
    drawn = (moons.density().sample((20_000,))[:, 1] > 110).float().mean().item()
    axis = torch.linspace(-100.0, 350.0, 400)
    grid = torch.cartesian_prod(axis, axis)
    cells = moons.density().log_prob(grid[grid[:, 1] > 110]).exp()
    exact = cells.sum().item() * (450 / 399) ** 2
    assert drawn == pytest.approx(exact, abs=0.015)


def test_every_layer_changes_every_feature_that_its_partner_leaves():
    model = FlowModel(7, layers=2)
    (first, swap, second, _), x = model.density().transforms[:4], torch.randn(1, 7)
    changed = first(x) != x
    before = swap(x)
    changed |= swap.inv((second(before) != before).float()).bool()
    assert bool(changed.all())


def test_features_that_are_constant_have_a_bounded_density():
    x = torch.cat([reals(2), torch.full((40, 1), 3.0)], 1)
    model = build(FlowModel, x)
    with pytest.warns(UserWarning, match="one value"):  # lint cannot know the bound
        fit(model, None, x, epochs=30, progress=False)
    scores = log_likelihood(model, None, x)["log_prob"]
    assert scores.between(-20.0, 5.0).all()


@pytest.mark.parametrize("far", [1e6, -1e6])
def test_rows_far_out_have_a_finite_density_and_finite_gradients(far):
    torch.manual_seed(0)
    for _, density in densities(3):
        x = torch.tensor([[100.0, 100.0, 100.0], [40 * far, 100.0, 100.0], [40 * far] * 3])
        log_prob = density.log_prob(x)
        assert bool(log_prob.isfinite().all())
        assert log_prob[0] > log_prob[1:].max()
    model = FlowModel(3, loc=100.0, scale=30.0)
    model.density().log_prob(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_fit_to_data_with_a_far_outlier_ends_with_finite_numbers():
    x = torch.cat([reals(3), torch.full((1, 3), 1e8)])
    for model, guide in (
        (build(FlowModel, x), None),
        (build(FlowDecoderModel, x), build(NormalGuide, x)),
    ):
        history = fit(model, guide, x, epochs=3, progress=False)
        assert history.frame["elbo"].map(math.isfinite).all()


def test_the_exact_score_needs_one_sample_and_has_no_warning():
    x, calls = reals(4), []
    model = build(FlowModel, x)
    model.register_forward_hook(lambda *_: calls.append(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many = log_likelihood(model, None, x, num_samples=1000)
        spent = len(calls)
        one = log_likelihood(model, None, x, num_samples=1)
    assert spent < 20  # not once for each of 1,000 draws
    exact = model.density().log_prob(x).detach().numpy()
    assert many["log_prob"].to_numpy() == pytest.approx(exact, rel=1e-6)
    assert one["log_prob"].to_numpy() == pytest.approx(exact, rel=1e-6)
    assert many["elbo"].to_numpy() == pytest.approx(exact, rel=1e-6)
    assert (many["k_hat"] == -math.inf).all()
    assert many["ess"].to_numpy() == pytest.approx(1000)
    terms = elbo_terms(model, None, x)
    assert list(terms.columns) == ["x"]
    assert terms["x"].to_numpy() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("features", [1, 4])
def test_flows_of_any_width_run_through_the_library(features):
    x = reals(features)
    for model, guide in (
        (build(FlowModel, x), None),
        (build(FlowDecoderModel, x, latents=2), build(NormalGuide, x, latents=2)),
    ):
        assert lint(model, guide, x).findings == ()
        fit(model, guide, x, epochs=2, batch_size=7, progress=False)
        assert generate(model, guide, x[:1], num_samples=3).shape == (3, features)
        assert len(predictive_check(model, guide, x, num_samples=20).frame) > 0


def test_hundreds_of_particles_may_lead_the_flow_decoder():
    model, x = FlowDecoderModel(3, latents=2), torch.randn(6, 3)
    with pyro.plate("particles", 300, dim=-2):
        trace = pyro.poutine.trace(model).get_trace(x)
    assert trace.nodes["x"]["fn"].batch_shape == (300, 6)
    z = trace.nodes["z"]["value"]
    one = model.density(z[7]).log_prob(x)
    assert torch.allclose(trace.nodes["x"]["fn"].log_prob(x)[7], one, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "compile", "epochs"),
    [("traced", "auto", 150), pytest.param("compiled", True, 2, marks=pytest.mark.slow)],
)
def test_traced_and_compiled_fits_equal_eager_fits(kind, compile, epochs):  # noqa: A002
    x = reals(3)

    def trained(compile):  # noqa: A002
        torch.manual_seed(0)
        model = build(FlowModel, x, layers=2, hidden=(8,))
        options = {"epochs": epochs, "batch_size": 20, "compile": compile}
        step = fit(model, None, x, **options, progress=False).step
        return step, torch.cat([p.detach().flatten() for p in model.parameters()])

    (step, weights), (_, eager) = trained(compile), trained(False)
    assert step == kind
    assert torch.allclose(weights, eager, atol=1e-4)


def test_a_coupling_network_without_inputs_is_a_constant():
    shift, log_scale = CouplingNetwork(0, 2)(torch.zeros(5, 0))
    assert shift.shape == log_scale.shape == (5, 2)
    assert bool((shift == shift[0]).all())
    _, wide = CouplingNetwork(3, 2, bound=1.5)(1e9 * torch.ones(5, 3))
    assert wide.abs().max() <= 1.5


def test_rows_of_a_flow_have_no_codes_to_interpolate():
    with pytest.raises(ValueError, match="rows have no codes"):
        interpolate(FlowModel(3), None, torch.zeros(2, 3))
