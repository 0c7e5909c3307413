"""Layers of flows: densities against autograd's Jacobians, inverses, masks, splines."""

import pyro.distributions as dist
import pytest
import torch

from ppl_vae.nn.flows import FLOWS, MaskedNetwork, Planar, _Layer, make_flow
from ppl_vae.nn.splines import spline

CONTEXT = 6
every_flow = pytest.mark.parametrize("kind", FLOWS)
every_size = pytest.mark.parametrize("latents", [1, 4])


def flow(kind, latents, size=1.0):
    """Three layers with parameters far from those of a new flow."""
    torch.manual_seed(0)
    layers = make_flow(kind, latents, CONTEXT, layers=3, hidden=8)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return layers


def density(layers, rows=()):
    """The distribution of draws that layers bend, for random rows of contexts."""
    context = torch.randn(*rows, CONTEXT, generator=torch.Generator().manual_seed(1))
    start = dist.Normal(torch.zeros(*rows, layers.latents), 1.0).to_event(1)
    return dist.TransformedDistribution(start, layers(context.to(torch.get_default_dtype())))


def bent(fn, u):
    for layer in fn.transforms:
        u = layer(u)
    return u


@every_flow
@every_size
@pytest.mark.usefixtures("double")
def test_the_log_density_of_a_draw_is_the_change_of_variables_by_autograd(kind, latents):
    fn = density(flow(kind, latents, size=0.5))
    for _ in range(3):
        u = 2 * torch.randn(latents)
        jacobian = torch.autograd.functional.jacobian(lambda u: bent(fn, u), u)
        exact = dist.Normal(0.0, 1.0).log_prob(u).sum() - torch.linalg.slogdet(jacobian).logabsdet
        assert fn.log_prob(bent(fn, u)).item() == pytest.approx(exact.item(), rel=1e-9)


@every_flow
def test_the_density_of_a_draw_is_remembered_and_nothing_is_inverted(kind, monkeypatch):
    def fail(self, y):
        raise AssertionError("a layer was inverted")

    monkeypatch.setattr(_Layer, "_inverse", fail)
    fn = density(flow(kind, 4), (7,)).expand((5, 7))
    z = fn.rsample()
    assert fn.log_prob(z).shape == (5, 7)
    with pytest.raises(AssertionError, match="inverted"):
        fn.log_prob(z.clone())


@every_flow
@every_size
@pytest.mark.usefixtures("double")
def test_the_density_of_a_copy_is_that_of_the_draw(kind, latents):
    fn = density(flow(kind, latents), (7,))
    z = 3 * fn.sample((200,))  # far out, too
    u = z
    for layer in reversed(fn.transforms):
        u = layer.inv(u)
    other = density(flow(kind, latents), (7,))
    y = bent(other, u.clone())
    torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fn.log_prob(z), other.log_prob(y), rtol=1e-9, atol=1e-9)


class Density(torch.nn.Module):
    """The log-density of given values under layers, for a context of ones."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, z):
        start = dist.Normal(torch.zeros(self.layers.latents), 1.0).to_event(1)
        chain = self.layers(torch.ones(CONTEXT))
        return dist.TransformedDistribution(start, chain).log_prob(z.clone())


@every_flow
@pytest.mark.usefixtures("double")
def test_the_inverse_has_the_derivatives_of_an_inverse(kind):
    """Derivatives by the value and by every parameter, against differences along a direction."""
    log_prob = Density(flow(kind, 3, size=0.5))
    values = dict(log_prob.named_parameters())
    z, step = torch.tensor([0.5, -0.3, 0.8], requires_grad=True), 1e-6
    slopes = torch.autograd.grad(log_prob(z), [z, *values.values()])
    torch.manual_seed(1)
    directions = [torch.randn_like(slope) for slope in slopes]

    def moved(size):
        new = [v + size * d for v, d in zip(values.values(), directions[1:], strict=True)]
        given = dict(zip(values, new, strict=True))
        return torch.func.functional_call(log_prob, given, (z + size * directions[0],)).item()

    found = sum((s * d).sum() for s, d in zip(slopes, directions, strict=True)).item()
    assert found == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=1e-5)


@every_flow
def test_particles_that_lead_are_runs_of_their_own(kind):
    layers = flow(kind, 4)
    u = torch.randn(5, 7, 4)
    together, alone = density(layers, (7,)), density(layers, (7,))
    torch.testing.assert_close(bent(together, u)[3], bent(alone, u[3]), rtol=1e-5, atol=1e-5)


@every_flow
def test_a_new_flow_is_near_the_identity(kind):
    torch.manual_seed(0)
    fn = density(make_flow(kind, 4, CONTEXT, layers=4), (7,))
    u = torch.randn(100, 7, 4)
    assert (bent(fn, u) - u).abs().max() < 0.3


@every_flow
def test_draws_and_densities_far_out_are_finite(kind):
    fn = density(flow(kind, 4, size=5.0), (7,))
    u = 1e4 * torch.randn(50, 7, 4)
    z = bent(fn, u.requires_grad_())
    log_prob = fn.log_prob(z)
    assert bool(log_prob.isfinite().all())
    (gradient,) = torch.autograd.grad(log_prob.sum(), u)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_a_planar_layer_is_invertible_whatever_its_parameters(size):
    """Its slope along w is 1 + w.a (1 - tanh^2), between 1 and 1 + w.a: positive where w.a > -1."""
    a, w, b = size * torch.randn(10_000, 3), size * torch.randn(10_000, 3), torch.randn(10_000, 1)
    layer = Planar(a, w, b)
    assert ((w * a).sum(-1) < -1).any() or size < 1  # what came in may well be not invertible
    assert (layer.slope >= -0.99).all()
    torch.testing.assert_close(
        (w * layer.a).sum(-1, keepdim=True), layer.slope, rtol=1e-3, atol=1e-3
    )
    across = a - (a * w).sum(-1, keepdim=True) * w / (w * w).sum(-1, keepdim=True)
    moved = layer.a - (layer.a * w).sum(-1, keepdim=True) * w / (w * w).sum(-1, keepdim=True)
    torch.testing.assert_close(moved, across, rtol=1e-3, atol=1e-3 * size)  # moved along w alone
    _, log_det = layer.bend(torch.randn(10_000, 3) / size)
    assert bool(log_det.isfinite().all())


def test_a_plane_without_a_normal_vector_moves_all_draws_alike():
    layer = Planar(torch.ones(3), torch.zeros(3), torch.ones(1))
    y, log_det = layer.bend(torch.zeros(5, 3))
    torch.testing.assert_close(y, torch.full((5, 3), 1.0).tanh())
    assert bool((log_det == 0).all())


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("latents", "hidden"), [(1, 4), (4, 16), (5, 3)])
def test_outputs_of_a_latent_read_all_those_before_it_and_no_other(latents, hidden, backwards):
    torch.manual_seed(0)
    network = MaskedNetwork(latents, 2, CONTEXT, hidden, backwards)
    context = torch.randn(CONTEXT)
    jacobian = torch.autograd.functional.jacobian(
        lambda u: network(u, context).sum(-1), torch.randn(latents)
    )
    order = torch.arange(latents).flip(0) if backwards else torch.arange(latents)
    before = order[:, None] > order  # (latent, what it may read)
    assert not bool((jacobian[~before] != 0).any())
    assert bool((jacobian[before] != 0).all()) or hidden < latents
    last = int(order.argmax())
    by_context = torch.autograd.functional.jacobian(
        lambda c: network(torch.randn(latents), c)[last].sum(), context
    )
    assert bool((by_context != 0).all())


@pytest.mark.usefixtures("double")
def test_a_spline_rises_with_the_slope_that_it_says():
    torch.manual_seed(0)
    numbers = 3 * torch.randn(50, 1, 14)
    x = torch.linspace(-7, 7, 401).expand(50, -1).clone().requires_grad_()
    y, log_slope = spline(x, numbers.expand(50, 401, 14), bound=5.0)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (y.diff(dim=-1) > 0).all()
    torch.testing.assert_close(slope.log(), log_slope, rtol=1e-8, atol=1e-8)
    outside = x.abs() >= 5
    torch.testing.assert_close(y[outside], x[outside])
    back, again = spline(y.detach(), numbers.expand(50, 401, 14), bound=5.0, inverse=True)
    torch.testing.assert_close(back, x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(again, log_slope, rtol=1e-6, atol=1e-6)


def test_other_kinds_and_sizes_are_refused():
    with pytest.raises(ValueError, match="flow: expected one of planar, autoregressive, spline"):
        make_flow("radial", 2, CONTEXT, 2)
    for kind in FLOWS:
        with pytest.raises(ValueError, match="layers: expected"):
            make_flow(kind, 2, CONTEXT, 0)
