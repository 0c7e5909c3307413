"""One thread a worker, one seed a test, and pictures that need no screen."""

import matplotlib as mpl
import pyro
import pytest
import torch

mpl.use("agg")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


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
