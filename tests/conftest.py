"""Settings of every test: one thread, fixed seeds, a quiet console, figures that need no screen.

``make test`` runs one worker of pytest on each core, so every process must keep to one thread:
with more, threads of OpenMP that wait for each other spin and take the cores from the other
worker. The variables are set before torch is imported, and workers and the processes that tests
start inherit them. A test that is about threads calls ``torch.set_num_threads`` itself.
"""

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # torch, NumPy's BLAS and scikit-learn read it when imported
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that a test asks for sleep while they wait
# Compile in the test's process: the compiler's pool of processes imports torch once in each.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import matplotlib as mpl
import pyro
import pytest
import torch

from ppl_vae.core.seeding import seed_generators

mpl.use("agg")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    pyro.clear_param_store()
    seed_generators(0)
    yield
    if "matplotlib.pyplot" in sys.modules:
        import matplotlib.pyplot as plt

        plt.close("all")
    pyro.clear_param_store()  # fixtures of a whole file are made before the next test clears it


@pytest.fixture(autouse=True)
def console_lines():
    """No logger of torch or Pyro writes to the console while the library runs."""
    from parts.console import log_lines

    with log_lines() as lines:
        yield lines
    assert lines == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test whose captured output has lines of torch's or Pyro's own."""
    from parts.console import lines_of_torch

    report = yield
    if report.when == "teardown" and report.passed:
        lines = lines_of_torch(report.capstdout + report.capstderr)
        if lines:
            report.outcome = "failed"
            report.longrepr = "\n".join(["torch or Pyro wrote to the console:", *lines])
    return report


@pytest.fixture
def double():
    """Double precision for tests against closed forms."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def digits():
    """(1797, 64) real images, each pixel 0 or 1."""
    from parts.extras import load_digits

    return torch.as_tensor(load_digits().data > 7).float()
