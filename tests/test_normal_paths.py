"""Paths of normal steps have the gradient that autograd finds step by step."""

import gc
import weakref

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_vae.distributions import MarkovPath
from ppl_vae.distributions.normal_paths import drawn_path, normal_of


@pytest.fixture(autouse=True)
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc, self.scale = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, z, h):
        both = torch.cat([z, h.expand(*z.shape[:-1], 1)], -1).tanh()
        return dist.Independent(dist.Normal(self.loc(both), self.scale(both).exp()), 1)


def loss(path, loc, scale, inside):
    score = dist.Normal(loc, scale).log_prob(path[..., 1:, :]).sum(-1)
    return (path**3).sum() + torch.where(inside[..., 1:], score, 0.0).sum()


@pytest.mark.parametrize("lead", [(4,), (3, 4)], ids=["rows", "particles"])
def test_gradients_are_those_of_autograd_through_the_loop(lead):
    step, steps = Step(), 6
    lengths = torch.tensor([6, 1, 3, 5])
    inside = (torch.arange(steps) < lengths[:, None]).expand(*lead, steps)
    encoder = nn.Linear(1, 1)
    raw, first = torch.randn(4, steps, 1), torch.randn(*lead, 2, requires_grad=True)
    noise = torch.randn(steps - 1, *lead, 2)
    tensors = [first, *step.parameters(), *encoder.parameters()]

    h = encoder(raw)
    states, locs, scales = [first], [], []
    for t in range(1, steps):
        fn = step(states[-1], h[:, t]).base_dist
        locs.append(fn.loc)
        scales.append(fn.scale)
        new = fn.loc + fn.scale * noise[t - 1]
        states.append(torch.where(inside[..., t, None], new, states[-1]))
    each = [torch.stack(numbers, -2) for numbers in (states, locs, scales)]
    right = torch.autograd.grad(loss(*each, inside), tensors)

    h = encoder(raw)

    def one_or_all(before, t):
        return step(before, h[:, 1:] if t is None else h[:, t].detach()).base_dist

    found = drawn_path(first, noise, one_or_all, inside.movedim(-1, 0)[..., None])
    for left, whole in zip(found, each, strict=True):
        torch.testing.assert_close(left, whole)
    for retain in (True, False):  # a loss may be differentiated twice
        slopes = torch.autograd.grad(loss(*found, inside), tensors, retain_graph=retain)
        for left, slope in zip(slopes, right, strict=True):
            torch.testing.assert_close(left, slope)


def path_of(step, rows=4, steps=5):
    first = dist.Normal(torch.zeros(rows, 2), 1.0).to_event(1)
    return MarkovPath(first, step, steps, torch.tensor([5, 1, 3, 2]), torch.randn(rows, steps, 1))


def test_a_draw_is_scored_as_any_other_path_is():
    step = Step()
    path = path_of(step)
    drawn = path.rsample((3,))
    value = drawn.detach()
    torch.testing.assert_close(path.log_prob(drawn), path.log_prob(value))
    for value in (drawn, drawn.clone()):
        assert torch.autograd.grad(path.log_prob(value).sum(), drawn, retain_graph=True)[0].any()


def test_only_vectors_of_normal_steps_go_back_by_hand():
    def positive(z):
        return dist.Independent(dist.LogNormal(z.log(), 0.1), 1)

    assert normal_of(positive(torch.ones(2))) is None
    assert normal_of(dist.Normal(0.0, 1.0).mask(torch.tensor(False))) is None
    rate = torch.ones((), requires_grad=True)
    path = MarkovPath(dist.LogNormal(torch.zeros(2), rate).to_event(1), positive, 4)
    drawn = path.rsample()
    assert drawn.min() > 0
    assert torch.autograd.grad(drawn.sum(), rate)[0] != 0


def test_steps_may_leave_out_the_state_before_them():
    loc, scale = torch.randn(2, requires_grad=True), torch.rand(2, requires_grad=True)
    first = dist.Normal(torch.zeros(5, 2), 1.0).to_event(1)
    path = MarkovPath(first, lambda z: dist.Normal(loc, scale).to_event(1), 4)
    drawn = path.rsample()
    slopes = torch.autograd.grad((drawn * torch.arange(4.0)[:, None]).sum(), [loc, scale])
    torch.testing.assert_close(slopes[0], torch.full((2,), 30.0))  # 5 rows, 1 + 2 + 3
    path.log_prob(drawn).sum().backward()


def test_a_draw_leaves_no_memory_behind():
    gc.collect()
    gc.disable()
    try:
        path = path_of(Step())
        drawn = path.rsample()
        path.log_prob(drawn).sum().backward()
        seen = weakref.ref(drawn)
        del drawn, path
        assert seen() is None
    finally:
        gc.enable()
