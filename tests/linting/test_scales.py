"""A scale that changes with the length of the batch is found; other scales are left alone."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import Guide, Model
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule

from ppl_vae import fit, lint

N = 1000
X = torch.randn(N, generator=torch.Generator().manual_seed(0)) * 2 + 3
ROWS = X[:, None].expand(N, 3).contiguous()


class Mean(PyroModule):
    """m ~ Normal(0, 10), x ~ Normal(m, 2); ``scale`` makes the scales of m and of x."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        of_mean, of_data = self.scale(x)
        with poutine.scale(scale=of_mean):
            m = pyro.sample("m", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)), poutine.scale(scale=of_data):
            pyro.sample("x", dist.Normal(m, 2.0), obs=x)


def by_factor(x):
    m = pyro.sample("m", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)), poutine.scale(scale=N / len(x)):
        pyro.factor("x", dist.Normal(m, 2.0).log_prob(x))


WEIGHTS = torch.linspace(0.5, 1.5, N)
BY_HAND = {
    "the data": (Mean(lambda x: (1.0, N / len(x))), ["x"]),
    "a tensor": (Mean(lambda x: (1.0, torch.tensor(N / len(x)))), ["x"]),
    "the global latent instead": (Mean(lambda x: (len(x) / N, 1.0)), ["m"]),
    "weights of the rows": (Mean(lambda x: (1.0, WEIGHTS[: len(x)] * N / len(x))), ["x"]),
    "a mean over the batch": (Mean(lambda x: (1 / len(x), 1 / len(x))), ["m", "x"]),
    "a factor": (by_factor, ["x"]),
}


@pytest.mark.parametrize("how", BY_HAND)
def test_a_scale_with_the_length_of_the_batch_is_an_error(how):
    model, sites = BY_HAND[how]
    report = lint(model, AutoNormal(Mean(lambda x: (1.0, 1.0))), X)
    by_length = [f for f in report.errors if "length of the batch" in f.problem]
    assert [f.where for f in by_length] == [f'site "{name}"' for name in sites]


def test_the_message_has_both_scales_and_fit_refuses():
    model, _ = BY_HAND["the data"]
    with pytest.raises(ValueError, match=r'^site "x": .* got 62.5 for 16 rows and 111.1 for 9: '):
        fit(model, AutoNormal(model), X, epochs=1, progress=False)


def test_a_scale_around_a_whole_pair_is_found_in_model_and_guide():
    def scaled(half):
        return lambda x: poutine.scale(half, scale=N / len(x))(x)

    report = lint(scaled(Model()), scaled(Guide()), ROWS)
    assert {f.where for f in report.errors} == {'site "x"', 'site "z"'}


class Warming(Mean):
    """The scale of the latent grows from call to call, as in a warm-up by hand."""

    def __init__(self):
        self.calls = 0
        super().__init__(self.next_scale)

    def next_scale(self, x):
        self.calls += 1
        return min(1.0, self.calls / 4), 1.0


def subsampling(x):
    m = pyro.sample("m", dist.Normal(0.0, 10.0))
    with pyro.plate("data", N, subsample=torch.arange(len(x))):
        pyro.sample("x", dist.Normal(m, 2.0), obs=x)


SOUND = {
    "none": Mean(lambda x: (1.0, 1.0)),
    "a constant": Mean(lambda x: (1.0, 0.5)),
    "weights of the rows": Mean(lambda x: (1.0, WEIGHTS[: len(x)])),
    "a plate of the whole data": subsampling,
    "a warm-up by hand": Warming(),
}


@pytest.mark.parametrize("how", SOUND)
def test_other_scales_are_not_errors(how):
    assert lint(SOUND[how], AutoNormal(Mean(lambda x: (1.0, 1.0))), X).errors == []
