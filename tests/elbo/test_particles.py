"""Particles of a pair: in one run or in one run each, and the names of the ELBO's terms."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import RowELBO, elbo_terms, fit
from ppl_vae.core.pair import Pair
from ppl_vae.elbo.loss import BatchLoss
from ppl_vae.elbo.objectives import Objective
from ppl_vae.elbo.particles import ParticleRuns, particles_per_run


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    mu = pyro.sample("mu", dist.Normal(0.4, 0.2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((mu + x) / 2, 0.7))


@pytest.mark.parametrize(("total", "most"), [(1, 64), (64, 64), (65, 64), (1000, 64), (7, 2)])
def test_runs_are_as_few_and_as_even_as_the_maximum_allows(total, most):
    each = particles_per_run(total, most)
    runs = -(-total // each)
    assert each <= most
    assert runs == -(-total // most)
    assert runs * each - total < runs


@pytest.mark.parametrize("share_globals", [False, True])
@pytest.mark.parametrize("vectorized", [False, True])
def test_particles_have_weights_by_row_and_share_global_latents_on_demand(
    vectorized, share_globals
):
    pair, x = Pair.of(model, guide, "data"), torch.randn(6)
    runs = ParticleRuns(1, vectorized)
    draws = list(runs.draws(pair, (x,), 5, share_globals=share_globals))
    assert len(draws) == (1 if vectorized else 5)
    assert torch.cat([draw.log_weights() for draw in draws]).shape == (5, 6)
    values = [draw.guide_trace.nodes["mu"]["value"].reshape(-1) for draw in draws]
    assert len(torch.cat(values).unique()) == (1 if share_globals else 5)


# Names of terms


def pair_with_latent(name):
    def named_model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample(name, dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def named_guide(x):
        with pyro.plate("data", len(x)):
            loc = torch.stack([x / 2, x / 3], -1)
            pyro.sample(name, dist.Normal(loc, 0.7).to_event(1))

    return named_model, named_guide


@pytest.mark.parametrize("free_bits", [0.0, 0.5])
def test_a_latent_may_have_a_plus_in_its_name(free_bits):
    x, found = torch.randn(8, generator=torch.Generator().manual_seed(3)), {}
    for name in ("z", "z + w"):
        torch.manual_seed(0)
        elbo = Objective.of(RowELBO(2, free_bits=free_bits), "")
        bound = BatchLoss(Pair.of(*pair_with_latent(name), "data"), elbo, 80)
        found[name] = [value.tolist() for value in bound((x,), torch.tensor(0.5))]
    assert found["z + w"] == found["z"]
    assert list(elbo_terms(*pair_with_latent("z + w"), x).columns) == ["z + w", "x"]


def test_a_term_that_joins_sites_has_no_kl_to_weigh():
    def mixture(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(y * pyro.param("w", torch.tensor(2.0)), 1.0), obs=x)

    x = torch.randn(20)
    assert list(elbo_terms(mixture, None, x).columns) == ["y + x"]
    with pytest.raises(ValueError, match='site "y": expected a KL weight of 1 on a site that the'):
        fit(mixture, None, x, elbo=RowELBO(), kl_weight=0.5, epochs=1, progress=False)


def test_free_bits_without_a_latent_in_the_row_plate_change_nothing():
    def mean(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def mean_guide(x):
        pyro.sample("mu", dist.Normal(pyro.param("m", torch.tensor(0.4)), 0.2))

    x, surrogates = torch.randn(8), []
    for bits in (0.0, 0.5):
        torch.manual_seed(0)
        elbo = Objective.of(RowELBO(2, free_bits=bits), "")
        bound = BatchLoss(Pair.of(mean, mean_guide, "data"), elbo, 8)
        surrogates.append(bound((x,), None)[1].item())
    assert surrogates[0] == pytest.approx(surrogates[1])
