"""Pairs with a path of states, and sequences drawn from them, that tests share."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule

from ppl_vae.distributions import MarkovPath
from ppl_vae.models.state_space import StateSpaceModel
from ppl_vae.nn import seen_cells


def planted_model(sd=0.5):
    """A state-space model of three features, seen with noise, whose states turn and decay."""
    model = StateSpaceModel(3, 2)
    with torch.no_grad():
        model.transition.copy_(torch.tensor([[0.9, 0.3], [-0.3, 0.8]]))
        model.weight.copy_(torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]]))
        model.log_sd.fill_(math.log(sd))
    return model.requires_grad_(False)


def drawn_sequences(model, lengths, steps, seed=0):
    """Sequences of some lengths that a model draws, padded to ``steps``."""
    with torch.random.fork_rng(), pyro.get_param_store().scope(), torch.no_grad():
        torch.manual_seed(seed)
        x = torch.zeros(len(lengths), steps, model.features)
        trace = poutine.trace(poutine.uncondition(model)).get_trace(x, lengths)
    model.requires_grad_(False)  # Pyro's store asks for gradients of what it meets
    return {"x": trace.nodes["x"]["value"].detach(), "lengths": lengths}


class FilteringGuide(PyroModule):
    """The exact distribution of a state of ``StateSpaceModel`` given the one before and x_t."""

    def __init__(self, model):
        super().__init__()
        self.model = [model]  # not a part of this module

    def after(self, mean, sd, given):
        x, mask = given.chunk(2, -1)
        (model,) = self.model
        loading = model.weight.T / model.log_sd.exp()  # (latents, features)
        seen = loading * mask[..., None, :]
        precision = torch.eye(model.latents) / sd**2 + seen @ seen.mT
        weighted = (seen @ ((x - model.shift) / model.log_sd.exp())[..., None])[..., 0]
        weighted = weighted + mean / sd**2  # more particles than the precision has
        loc = (precision.inverse() @ weighted[..., None])[..., 0]
        return dist.MultivariateNormal(loc, precision_matrix=precision)

    def forward(self, x, lengths=None, seen=None):
        x, mask = seen_cells(x, lengths, seen)
        (model,) = self.model
        given = torch.cat([x, mask.to(x.dtype)], -1)

        def step(z, at):
            return self.after(z @ model.transition.T, 1.0, at)

        first = self.after(model.start, model.log_spread.exp(), given[:, 0])
        with pyro.plate("data", len(x)):
            pyro.sample("z", MarkovPath(first, step, x.shape[1], lengths, given))


def exact_steps(model, data):
    """The exact log p(x_t given x_1 ... x_(t-1)) of every step, (rows, steps); 0 after an end."""
    totals = [torch.zeros(len(data["x"]))]
    for t in range(data["x"].shape[1]):
        cut = {name: field[:, : t + 1] for name, field in data.items() if name != "lengths"}
        totals.append(model.log_prob(**cut, lengths=data["lengths"].clamp_max(t + 1)))
    return torch.stack(totals, 1).diff(dim=1)
