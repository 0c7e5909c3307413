"""Seeded generators: the draws of Pyro's own seed, at no cost for devices that are not there."""

import random
import traceback

import numpy as np
import pyro
import pytest
import torch

from ppl_vae.core.seeding import forked, seed_generators


def draws():
    of_numpy = np.random.rand(3).tolist()  # noqa: NPY002  the generator that is seeded
    return torch.rand(3).tolist(), of_numpy, random.random()


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_a_seed_gives_the_draws_of_pyros_seed(seed):
    pyro.set_rng_seed(seed)
    expected = draws()
    seed_generators(seed)
    assert draws() == expected
    with forked(seed):
        assert draws() == expected


def test_generators_are_restored():
    seed_generators(1)
    expected = draws()
    seed_generators(1)
    with forked(2):
        draws()
    assert draws() == expected


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a device to seed")
def test_a_seed_formats_no_stack_for_a_device_that_is_not_there(monkeypatch):
    stacks = []
    monkeypatch.setattr(traceback, "format_stack", lambda *_: stacks.append(1) or [])
    with forked(0):
        pass
    assert not stacks
    pyro.set_rng_seed(0)  # the test sees the stacks that torch formats
    assert stacks
