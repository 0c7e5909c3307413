"""What a guide needs beside its draws: the sign of a factor, and the mask of ``obs_mask=``."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import X, assert_only_finding
from pyro import poutine
from pyro.infer import Trace_ELBO

from ppl_vae import lint


def test_a_factor_of_no_draw_is_said_to_be_subtracted_as_pyro_subtracts_it():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.zeros(3)), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.factor("bonus", x.new_full((len(x),), 2.0), has_rsample=False)

    def plain(x):
        with pyro.plate("data", len(x)):
            pass

    with_factor, without = (Trace_ELBO().loss(model, half, X) for half in (guide, plain))
    pyro.clear_param_store()
    assert with_factor == pytest.approx(without + 2.0 * len(X))  # the loss grows with the factor
    pieces = ("Pyro subtracts a factor of the guide", "training makes it smaller", "-log_factor")
    assert_only_finding(lint(model, guide, X), "warning", 'site "bonus"', *pieces)


@pytest.mark.parametrize("masked", [False, True])
def test_cells_that_an_obs_mask_leaves_out_have_its_complement_as_mask_in_the_guide(masked):
    seen = torch.arange(len(X)) % 3 > 0

    def model(x, seen):
        with pyro.plate("data", len(x)):
            loc = pyro.param("loc", torch.zeros(()))
            pyro.sample("y", dist.Normal(loc, 1.0), obs=x[:, 0], obs_mask=seen)

    def guide(x, seen):
        with pyro.plate("data", len(x)), poutine.mask(mask=~seen if masked else torch.tensor(True)):
            pyro.sample("y_unobserved", dist.Normal(x.new_zeros(len(x)), 1.0))

    verdict = lint(model, guide, {"x": X, "seen": seen})
    if masked:
        assert not verdict.findings
        return
    pieces = ('obs_mask= of site "y" masks the cells that are observed', "mask=~obs_mask")
    assert_only_finding(verdict, "error", 'site "y_unobserved"', *pieces)
