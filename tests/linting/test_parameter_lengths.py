"""A parameter in a plate is as long as the plate; another length is named with both."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import assert_only_finding

from ppl_vae import lint

X = torch.randn(40, generator=torch.Generator().manual_seed(0))
PLACES = 10


def guide_of(shape, event_dim):
    def guide(x):
        with pyro.plate("genes", PLACES, 3):
            loc = pyro.param("loc", torch.zeros(shape), event_dim=event_dim)
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(event_dim))

    return guide


def model_of(event_dim):
    def model(x):
        with pyro.plate("genes", PLACES, 3):
            prior = dist.Normal(torch.zeros((3, 2)[: 1 + event_dim]), 1.0)
            pyro.sample("z", prior.to_event(event_dim))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    return model


@pytest.mark.parametrize("length", [2, 3, 5, 9, 11, 16, 40])
@pytest.mark.parametrize("event_dim", [0, 1])
def test_another_length_is_named_with_the_plate(length, event_dim):
    shape = (length, 2)[: 1 + event_dim]
    verdict = lint(model_of(event_dim), guide_of(shape, event_dim), X)
    assert_only_finding(
        verdict, "error", 'parameter "loc"',
        f'expected length 10 at dim {-1 - event_dim}, that of plate "genes", got shape {shape}',
        "a value for each place",
    )  # fmt: skip


@pytest.mark.parametrize("length", [1, PLACES])
@pytest.mark.parametrize("event_dim", [0, 1])
def test_the_plates_length_and_one_value_for_all_are_sound(length, event_dim):
    assert not lint(
        model_of(event_dim), guide_of((length, 2)[: 1 + event_dim], event_dim), X
    ).errors
