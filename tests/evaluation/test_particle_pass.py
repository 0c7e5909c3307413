"""Runs of a pair are cut so that their largest tensor is small, and only where that is right."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import log_likelihood
from ppl_vae.core.pair import Pair
from ppl_vae.evaluation import particle_pass, particle_terms
from ppl_vae.evaluation.particle_pass import ParticlePass
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.nn import MLP

FEATURES, HIDDEN = 5, 40


def wide():
    """A pair whose decoder has a layer that is wider than a row."""
    decoder = MLP(2, 2 * FEATURES, hidden=(HIDDEN,))
    return GaussianModel(FEATURES, 2, decoder), NormalGuide(FEATURES, 2)


def passes(model, guide, x, samples=100, **settings):
    pair = Pair.of(model, guide, "data")
    return ParticlePass(pair, pair.rows(x), samples, compile=False, **settings)


@pytest.mark.parametrize(
    ("most", "particles", "rows"),
    [(1 << 20, 50, 200), (50 * 7 * HIDDEN, 50, 7), (20 * HIDDEN, 20, 1), (1, 1, 1)],
)
def test_the_largest_tensor_of_a_run_is_bounded(monkeypatch, most, particles, rows):
    monkeypatch.setattr(particle_pass, "RUN_NUMBERS", most)
    found = passes(*wide(), torch.randn(200, FEATURES))
    assert (found.terms.count, found.size) == (particles, rows)


def test_the_size_of_a_block_does_not_depend_on_the_number_of_rows(monkeypatch):
    monkeypatch.setattr(particle_pass, "RUN_NUMBERS", 50 * 7 * HIDDEN)
    pair, x = wide(), torch.randn(200, FEATURES)
    assert {passes(*pair, x[:count]).full_size for count in (1, 3, 8, 200)} == {7}


@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
def test_estimates_of_cut_runs_agree_with_those_of_whole_ones(monkeypatch):
    pair, x = wide(), 0.3 * torch.randn(30, FEATURES)
    whole = log_likelihood(*pair, x, num_samples=4000, compile=False)
    for most in (64 * 7 * HIDDEN, 20 * HIDDEN):
        monkeypatch.setattr(particle_pass, "RUN_NUMBERS", most)
        cut = log_likelihood(*pair, x, num_samples=4000, compile=False)
        error = (1 / whole["ess"] + 1 / cut["ess"]) ** 0.5
        assert ((whole["log_prob"] - cut["log_prob"]).abs() < 5 * error).all()
        assert (whole["log_prob"] != cut["log_prob"]).any(), "the runs were not cut"


def test_a_guide_that_reads_all_rows_sees_all_of_them(monkeypatch):
    seen = []

    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            layer = z[..., None] * torch.ones(HIDDEN)
            pyro.sample("x", dist.Normal(mu + layer.mean(-1), 1.0), obs=x)

    def guide(x):
        seen.append(len(x))
        pyro.sample("mu", dist.Normal(x.mean(), 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    monkeypatch.setattr(particle_pass, "RUN_NUMBERS", 1 << 40)
    whole = passes(model, guide, torch.randn(30))
    monkeypatch.setattr(particle_pass, "RUN_NUMBERS", 50 * 7 * HIDDEN)
    found = passes(model, guide, torch.randn(30))
    assert found.size == 30
    assert found.full_size == whole.full_size
    seen.clear()
    log_likelihood(model, guide, torch.randn(30), num_samples=100)
    assert max(seen) == 30


def test_the_compiler_starts_by_the_work_and_not_by_the_number_of_cut_runs(monkeypatch):
    asked = []
    monkeypatch.setattr(
        particle_terms.ParticleTerms, "prepare", lambda self, *words: asked.append(words)
    )
    pair, x = wide(), torch.randn(200, FEATURES)
    passes(*pair, x)
    monkeypatch.setattr(particle_pass, "RUN_NUMBERS", 50 * 7 * HIDDEN)
    passes(*pair, x)
    passes(*pair, x, total=20_000)
    (whole, cut, longer) = asked
    assert whole == (200, 2, False, 2)
    assert cut == (7, 29 * 2, False, 2)
    assert longer == (7, 2858 * 2, False, 200)
