"""A pair that ``lint`` refuses has no more parameters than before, so that it can be mended."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from ppl_vae import fit, lint
from ppl_vae.core.pair import Pair


class Classic:
    """A pair of methods whose parameter has as many numbers as ``size``."""

    size, sound = 3, False

    def model(self, x):
        loc = pyro.param("loc", torch.zeros(self.size))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            likelihood = dist.Normal(loc + z[..., None], 1.0).to_event(1)
            pyro.sample("x", likelihood, obs=x if self.sound else x[:, :2])

    def guide(self, x):
        shift = pyro.param("shift", torch.zeros(self.size))
        with pyro.plate("data", len(x)):
            name = "z" if self.sound else "w"
            pyro.sample(name, dist.Normal(shift.sum(), 1.0))


def parameters(pair):
    halves = Pair.of(pair.model, pair.guide, "data")
    return sorted(halves.parameters())


def test_a_refused_pair_of_functions_has_no_parameters():
    pair, x = Classic(), torch.randn(20, 4)
    assert lint(pair.model, pair.guide, x).errors
    assert parameters(pair) == []
    with pytest.raises(ValueError, match='site "w"'):
        fit(pair.model, pair.guide, x, epochs=1, progress=False)
    pair.size, pair.sound = 4, True
    assert not lint(pair.model, pair.guide, x).errors
    assert parameters(pair) == ["guide.shift", "model.loc"]
    fit(pair.model, pair.guide, x, epochs=1, progress=False)


def test_a_refused_autoguide_takes_its_shapes_from_the_next_data():
    def model(x):
        weight = pyro.sample("weight", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            assert x.shape[1] != 3 or x.shape[0] == 16, "three columns are too few"
            pyro.sample("x", dist.Normal(weight, 1.0).to_event(1), obs=x)

    guide = AutoNormal(model)
    assert lint(model, guide, torch.randn(20, 3)).errors
    assert not lint(model, guide, torch.randn(20, 4)).errors
    fit(model, guide, torch.randn(20, 4), epochs=1, progress=False)
