"""Benchmarks imported as modules, which leave nothing behind."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def imported():
    """``imported("zoo")`` is the module benchmarks/zoo.py; it is forgotten after the test file."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == FOLDER:
            del sys.modules[name]


@pytest.fixture(autouse=True)
def generator():
    """Restore the state of the global generator, which a benchmark seeds."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
