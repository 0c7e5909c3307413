"""Latents that hold the cells which an observed site hides are found by name or by their mask."""

import pyro
import pyro.distributions as dist
import torch
from parts import missing
from pyro import poutine

from ppl_vae.core.held_cells import holders

X, SEEN = missing.drawn_rows(8)


def held(model):
    return holders(poutine.trace(model).get_trace(X, SEEN))


def test_latents_are_found_in_both_ways_to_write_them():
    assert held(missing.complement) == {"x": ["rest"]}
    assert held(missing.obs_mask) == {"x_observed": ["x_unobserved"]}
    assert held(missing.masked) == {}
    assert held(missing.around) == {}


def test_a_mask_around_a_latent_counts_and_one_of_other_cells_does_not():
    def model(x, seen):
        fn = dist.Normal(torch.zeros_like(x), 1.0)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("free", fn.to_event(1))
            pyro.sample("same", fn.mask(seen).to_event(1))
            pyro.sample("x", fn.mask(seen).to_event(1), obs=x)
            with poutine.mask(mask=~seen[:, 0]):
                pyro.sample("rest", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("first", dist.Normal(0.0, 1.0).mask(seen[:, 0]), obs=x[:, 0])

    assert held(model) == {"first": ["rest"]}
