"""Paths as one variable: densities and draws of the steps one by one, and nothing past the end."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer, poutine

from ppl_vae.distributions import MarkovPath

T, ROWS = 5, 4
LENGTHS = torch.tensor([5, 1, 3, 4])


def matrix(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


A, TABLE = 0.5 * matrix(0, 2, 2), matrix(1, 3, 3)


def normal(z, u=0.0):
    return dist.Normal(z @ A.T + u, 0.3).to_event(1)


def positive(z, u=0.0):
    return dist.LogNormal((z @ A.T).tanh() + u, 0.5).to_event(1)


def bent(z, u=0.0):
    base = dist.Normal(z @ A.T + u, 0.5).to_event(1)
    return dist.TransformedDistribution(
        base, [dist.transforms.TanhTransform(), dist.transforms.AffineTransform(1.0, 2.0)]
    )


def discrete(z, u=0.0):
    return dist.Categorical(logits=TABLE[z] + (u if isinstance(u, float) else u[..., :1]))


FIRST = torch.zeros(2)
KINDS = {
    "normal": (normal(FIRST), normal),
    "positive": (positive(FIRST), positive),
    "bent": (bent(FIRST), bent),
    "discrete": (discrete(torch.tensor(0)), discrete),
}
every_kind = pytest.mark.parametrize("kind", list(KINDS))
with_inputs = pytest.mark.parametrize("given", [False, True])


def path_of(kind, lengths=LENGTHS, given=False, steps=T):
    inputs = matrix(3, ROWS, steps, 2) if given else None
    return MarkovPath(*KINDS[kind], steps, lengths, inputs)


def one_by_one(path, value, row):
    """The log-probability of a row's path, by a loop."""
    inputs = [()] * T if path.inputs is None else [(u,) for u in path.inputs[row]]
    total = path.first.log_prob(value[0])
    for t in range(1, int(path.lengths[row])):
        total = total + path.step(value[t - 1], *inputs[t]).log_prob(value[t])
    return total


@every_kind
@with_inputs
def test_a_path_is_scored_as_its_steps_are_one_by_one(kind, given):
    path = path_of(kind, given=given)
    value = path.sample()
    expected = torch.stack([one_by_one(path, value[row], row) for row in range(ROWS)])
    torch.testing.assert_close(path.log_prob(value), expected)


@every_kind
@with_inputs
def test_what_stands_after_the_end_is_neither_read_nor_given_a_gradient(kind, given):
    path = path_of(kind, given=given)
    value = path.sample()
    outside = torch.arange(T) >= LENGTHS[:, None]
    right = path.log_prob(value)
    if value.is_floating_point():
        value[outside] = torch.nan
        value.requires_grad_()
    else:
        value[outside] = 10_000
    if given:
        path.inputs[outside] = torch.nan
        path.inputs.requires_grad_()
    found = path.log_prob(value)
    torch.testing.assert_close(found, right, rtol=0, atol=0)
    for tensor in (value, path.inputs):
        if tensor is not None and tensor.requires_grad:
            (gradient,) = torch.autograd.grad(found.sum(), tensor, retain_graph=True)
            assert (gradient[outside] == 0).all()
            assert gradient.isfinite().all()


@every_kind
@with_inputs
def test_the_distributions_of_single_steps_make_up_the_path(kind, given):
    path = path_of(kind, given=given)
    value = path.sample()
    right = path.log_prob(value)
    if given:
        path.inputs[torch.arange(T) >= LENGTHS[:, None]] = torch.nan
    found, before = torch.zeros(ROWS), None
    for t in range(T):
        step = path.following(before, t).log_prob(value[:, t])
        found, before = found + torch.where(t < LENGTHS, step, 0.0), value[:, t]
        assert step.isfinite().all()
    torch.testing.assert_close(found, right)


@every_kind
def test_steps_that_are_added_after_the_end_change_nothing(kind):
    value = path_of(kind).sample()
    more = torch.cat([value, value[:, -2:]], 1)
    found = path_of(kind, steps=T + 2).log_prob(more)
    torch.testing.assert_close(found, path_of(kind).log_prob(value), rtol=0, atol=0)


@every_kind
def test_a_draw_is_in_the_support_and_repeats_its_last_state_after_the_end(kind):
    path = path_of(kind)
    draw = path.sample((3,))
    assert draw.shape == (3, ROWS, *path.event_shape)
    assert path.support.check(draw).all()
    for row, length in enumerate(LENGTHS.tolist()):
        assert (draw[:, row, length:] == draw[:, row, length - 1 : length]).all()


def test_draws_have_the_moments_of_the_process():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = path_of("normal").sample((40_000,))
    mean, covariance = torch.zeros(2), 0.09 * torch.eye(2)
    for t in range(T):
        torch.testing.assert_close(draws[:, 0, t].mean(0), mean, rtol=0, atol=0.01)
        torch.testing.assert_close(draws[:, 0, t].T.cov(), covariance, rtol=0, atol=0.01)
        covariance = A @ covariance @ A.T + 0.09 * torch.eye(2)


def test_the_gradient_of_a_draw_goes_through_all_of_its_steps():
    rho = torch.tensor(0.8, dtype=torch.double, requires_grad=True)
    first = dist.Normal(torch.ones(1, dtype=torch.double), 1e-9).to_event(1)
    path = MarkovPath(first, lambda z: dist.Normal(rho * z, 1e-9).to_event(1), steps=4)
    (gradient,) = torch.autograd.grad(path.rsample()[3, 0], rho)
    assert abs(gradient.item() - 3 * 0.8**2) < 1e-6


@every_kind
def test_more_dimensions_may_lead(kind):
    path = path_of(kind, given=True).expand((2, 3, ROWS))
    value = path.sample()
    assert value.shape == (2, 3, ROWS, *path.event_shape)
    each = path_of(kind, given=True)
    torch.testing.assert_close(path.log_prob(value)[1, 2], each.log_prob(value[1, 2]))


def test_a_model_is_scored_alike_with_particles_in_a_loop_and_in_one_run():
    def model(x):
        with pyro.plate("data", ROWS), poutine.scale(scale=2.5):
            z = pyro.sample("z", path_of("normal"))
            inside = torch.arange(T) < LENGTHS[:, None]
            pyro.sample("x", dist.Normal(z, 1.0).mask(inside[..., None]).to_event(2), obs=x)

    def guide(x):
        with pyro.plate("data", ROWS), poutine.scale(scale=2.5):
            pyro.sample("z", MarkovPath(KINDS["normal"][0], normal, T, LENGTHS, x))

    x = matrix(5, ROWS, T, 2)
    losses = []
    for vectorize in (False, True):
        elbo = infer.Trace_ELBO(3000 if vectorize else 300, 1, vectorize_particles=vectorize)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            losses.append(elbo.loss(model, guide, x))
    assert abs(losses[0] - losses[1]) < 0.02 * abs(losses[1])


def test_discrete_paths_have_the_gradient_of_their_enumerated_expectation():
    logits = torch.tensor([[0.5, -0.5], [-1.0, 0.3]], dtype=torch.double, requires_grad=True)
    reward = matrix(7, 2, 2).double()  # of a path of two steps
    first = dist.Categorical(logits=torch.zeros(2, dtype=torch.double))

    def two_steps(table):
        return MarkovPath(first, lambda z: dist.Categorical(logits=table[z]), 2)

    def model():
        with pyro.plate("data", 1):
            z = pyro.sample("z", two_steps(logits.detach()))
            pyro.factor("reward", reward[z[..., 0], z[..., 1]])

    def guide():
        with pyro.plate("data", 1):
            pyro.sample("z", two_steps(logits))

    elbo = infer.TraceGraph_ELBO(20_000, 1, vectorize_particles=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        elbo.loss_and_grads(model, guide)
    found, logits.grad = logits.grad, None
    expected = (0.5 * logits.softmax(-1) * reward).sum()
    (right,) = torch.autograd.grad(-expected, logits)
    torch.testing.assert_close(found, right, rtol=0, atol=0.01)


def test_what_is_not_known_is_not_made_up():
    path = path_of("normal")
    assert path.has_rsample
    assert not path_of("discrete").has_rsample
    for unknown in ("mean", "variance"):
        with pytest.raises(NotImplementedError):
            getattr(path, unknown)
    with pytest.raises(NotImplementedError):
        torch.distributions.kl_divergence(path, path)
    with pytest.raises(NotImplementedError):
        path_of("discrete").rsample()


def test_a_step_or_a_value_of_another_shape_is_refused():
    flat = MarkovPath(normal(FIRST), lambda z: dist.Normal(z, 1.0), T)
    with pytest.raises(ValueError, match=r"step: .*event shape.*use .to_event"):
        flat.sample()
    with pytest.raises(ValueError, match=r"value: expected a path of shape \(5, 2\)"):
        path_of("normal").log_prob(torch.zeros(ROWS, 4, 2))
