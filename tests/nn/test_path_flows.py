"""Flows of paths: their densities, what is remembered, and steps that are no part of a path."""

import pyro.distributions as dist
import pytest
import torch

from ppl_vae.distributions import MarkovPath
from ppl_vae.nn import PathFlow
from ppl_vae.nn.flows import Autoregressive

pytestmark = pytest.mark.usefixtures("double")
LENGTHS = torch.tensor([4, 2, 1])


def flow_of(layers=2):
    """A flow of states of two latents, away from the identity, and its context at four steps."""
    torch.manual_seed(0)
    flow = PathFlow(2, context=3, layers=layers, hidden=8)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_()
    return flow, torch.randn(3, 4, 3)


def chain(flow, context, lengths=LENGTHS):
    """A path whose states follow the bent state before them."""
    first = dist.Normal(torch.zeros(3, 2), 1.0).to_event(1)

    def step(u, before):
        return dist.Normal(flow.states(u, before), 0.5).to_event(1)

    path = MarkovPath(first, step, 4, lengths, context.roll(1, 1))
    return dist.TransformedDistribution(path, flow(context, lengths))


def test_the_density_of_a_path_is_that_of_its_states_one_after_the_other():
    flow, context = flow_of()
    fn = chain(flow, context)
    z = fn.sample((5,))
    found = fn.log_prob(z.clone())
    for row, length in enumerate(LENGTHS.tolist()):
        total = torch.zeros(5)
        for t in range(length):
            layers = flow.flow(context[row, t])
            loc = z[:, row, t - 1] if t else torch.zeros(2)
            base = dist.Normal(loc, 0.5 if t else 1.0).expand((5, 2)).to_event(1)
            total = total + dist.TransformedDistribution(base, layers).log_prob(z[:, row, t])
        torch.testing.assert_close(found[:, row], total)


def test_the_log_determinant_is_that_of_the_whole_map():
    flow, context = flow_of()
    bend = flow(context, LENGTHS)
    u = torch.randn(3, 4, 2)
    found = bend.log_abs_det_jacobian(u, bend(u))
    for row in range(3):
        whole = torch.autograd.functional.jacobian(
            lambda v, row=row: bend(torch.stack([v if r == row else u[r] for r in range(3)]))[row],
            u[row],
        )
        torch.testing.assert_close(found[row], whole.reshape(8, 8).slogdet().logabsdet)


def test_the_density_of_ones_own_draw_inverts_nothing(monkeypatch):
    flow, context = flow_of()
    fn = chain(flow, context)
    z = fn.rsample()
    right = fn.log_prob(z.clone())
    z = fn.rsample()
    copied = z.clone()

    def refuse(*arguments):
        raise AssertionError("inverted")

    with monkeypatch.context() as patch:
        patch.setattr(Autoregressive, "unbend", refuse)
        found = fn.log_prob(z)
        with pytest.raises(AssertionError, match="inverted"):
            fn.log_prob(copied)
    assert right.shape == found.shape
    torch.testing.assert_close(found, fn.log_prob(copied))


def test_steps_after_the_end_are_neither_bent_nor_counted():
    flow, context = flow_of()
    wild = torch.where((torch.arange(4) < LENGTHS[:, None])[..., None], context, 1e30)
    fn, other = chain(flow, context), chain(flow, wild)
    torch.manual_seed(1)
    z = fn.sample()
    torch.manual_seed(1)
    assert torch.equal(other.sample(), z)
    assert torch.equal(z[1, 2], z[1, 3])
    changed = torch.where((torch.arange(4) < LENGTHS[:, None])[..., None], z, 9.0)
    for value in (z, z.clone(), changed):
        torch.testing.assert_close(other.log_prob(value), fn.log_prob(z.clone()))
