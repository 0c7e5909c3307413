"""What Pyro warns of is a finding of ``lint``, which ``fit`` repeats once and Pyro does not."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import assert_only_finding
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from pyro.nn import PyroModule

from ppl_vae import fit, lint

X = torch.randn(40, generator=torch.Generator().manual_seed(0))


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    slope = pyro.param("slope", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 1.0))


def guide_with_a_plate_of_its_own(x):
    with pyro.plate("extra", 3, dim=-2):
        pyro.sample("draw", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
    guide(x)


CASES = {
    "nothing to enumerate": (guide, TraceEnum_ELBO(), "elbo", "asks to be summed out", "elbo=None"),
    "a plate of the guide": (
        guide_with_a_plate_of_its_own, Trace_ELBO(), "model and guide", "'extra'", "Pyro names",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_one_finding_which_fit_repeats_once(case):
    guide, elbo, where, *pieces = CASES[case]
    assert_only_finding(lint(model, guide, X, elbo=elbo), "warning", where, *pieces)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, guide, X, elbo=elbo, epochs=2, progress=False, compile=False)
    assert [str(one.message).partition(":")[0] for one in caught] == [where]


def test_an_elbo_told_not_to_warn_gives_no_finding():
    elbo = TraceEnum_ELBO(strict_enumeration_warning=False)
    assert not lint(model, guide, X, elbo=elbo).findings


class Glimpse(PyroModule):
    """Calls a function of torch that warns, with a drawn latent (of AIR's kind)."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            shown = pyro.sample("shown", dist.Bernoulli(torch.full((len(x), 1), 0.5)).to_event(1))
            theta = torch.eye(2, 3).expand(len(x), 2, 3) * (1 + shown[..., None])
            grid = torch.nn.functional.affine_grid(theta, [len(x), 1, 2, 2])
            pyro.sample("x", dist.Normal(grid.reshape(len(x), 8), 1.0).to_event(1), obs=x)


class Shown(PyroModule):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(8, 1)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            fn = dist.Bernoulli(logits=self.encoder(x)).to_event(1)
            level = {"baseline": {"baseline_value": x.new_full((len(x),), -20.0)}}
            pyro.sample("shown", fn, infer=level)


@pytest.mark.filterwarnings("ignore:Default grid_sample:UserWarning")
def test_a_warning_of_torch_that_passes_through_pyro_is_no_finding():
    report = lint(Glimpse(), Shown(), torch.randn(20, 8), elbo=TraceGraph_ELBO())
    assert [str(finding) for finding in report.findings] == []
