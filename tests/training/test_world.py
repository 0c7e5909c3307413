"""One fit on several processes: the same bits on any number of them, and one end for all."""

import pytest

from parts import world_programs
from parts.worlds import answers
from ppl_vae.training import stepper


@pytest.fixture(scope="module")
def on_two():
    """What two ranks found for every fit."""
    return answers("all_fits")


@pytest.mark.parametrize("name", world_programs.FITS)
def test_two_processes_end_with_the_bits_of_one(name, on_two, monkeypatch):
    monkeypatch.setattr(stepper, "TRACED_FROM", 1)
    alone = world_programs.fitted(name)
    assert [found[name] for found in on_two] == [alone, alone]
