"""Fixed noise many times as wide as the data leaves nothing to learn of latents: a warning."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import FEATURES, X, assert_only_finding, code, guide, model

from ppl_vae import build, lint
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.isotropic import IsotropicModel

SMALL = 0.01 * X


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_noise_of_one_on_data_of_a_small_spread_is_a_warning(shift):
    verdict = lint(model, guide, SMALL + shift)
    pieces = "fixed standard deviation of 1", "data's is 0.01", "nats of its latents"
    assert_only_finding(verdict, "warning", 'site "x"', *pieces)


def test_noise_that_is_learned_or_near_the_spread_is_sound():
    halves = {
        "fixed": (build(IsotropicModel, SMALL, sigma=0.02), True),
        "learned": (build(IsotropicModel, SMALL, learn_sigma=True), True),
        "wide": (build(IsotropicModel, SMALL), False),
        "from the data": (build(GaussianModel, SMALL), True),
    }
    for name, (half, sound) in halves.items():
        found = lint(half, build(NormalGuide, SMALL), SMALL).findings
        assert (found == ()) is sound, name


def test_many_features_may_tell_much_together():
    """Each of 2,000 features tells 0.0001 nats, and all of them 0.2."""
    wide = 0.01 * torch.randn(40, 2000, generator=torch.Generator().manual_seed(0))

    def half(x):
        with pyro.plate("data", len(x)):
            z = code(x)
            mean = z.sum(-1, keepdim=True).expand(*z.shape[:-1], 2000)
            pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=x)

    assert lint(half, guide, wide).findings == ()


def test_a_model_without_latents_of_the_rows_may_have_any_noise():
    def half(x):
        level = pyro.param("level", torch.zeros(FEATURES))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(level, 1.0).to_event(1), obs=x)

    assert lint(half, None, SMALL).findings == ()


def test_rows_in_order_are_as_wide_as_all_of_them():
    """The first rows of sorted data are alike; rows from all over the data are not."""
    ordered = torch.linspace(-3, 3, 3000)[:, None].expand(3000, FEATURES).contiguous()
    assert lint(model, guide, ordered).findings == ()
