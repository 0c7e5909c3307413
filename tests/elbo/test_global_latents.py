"""A latent outside the row plate, fitted in minibatches: its posterior has the right width."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal

from ppl_vae import fit

N, PRIOR_SD, NOISE_SD = 210, 2.0, 1.5
ELBOS = {
    "Trace": Trace_ELBO,
    "MeanField": TraceMeanField_ELBO,
    "Graph": TraceGraph_ELBO,
    "Enum": lambda **settings: TraceEnum_ELBO(strict_enumeration_warning=False, **settings),
}


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, PRIOR_SD))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, NOISE_SD), obs=x)


def posterior(x):
    precision = 1 / PRIOR_SD**2 + len(x) / NOISE_SD**2
    return float(x.sum()) / NOISE_SD**2 / precision, precision**-0.5


def make_guide():
    found = {}

    def guide(x):
        found["loc"] = pyro.param("loc", torch.tensor(0.0))
        found["scale"] = pyro.param(
            "scale", torch.tensor(0.5), constraint=dist.constraints.positive
        )
        pyro.sample("mu", dist.Normal(found["loc"], found["scale"]))

    return guide, found


SCHEDULE = {
    "batch_size": 64,  # 64 + 64 + 64 + 18
    "epochs": 250,
    "progress": False,
    "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    "scheduler": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98),
}


@pytest.mark.parametrize(  # every time, MeanField has the latent tempered, below
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "MeanField")) for n in ELBOS]
)
def test_a_global_latent_reaches_its_posterior(name):
    x = 1.0 + NOISE_SD * torch.randn(N)
    guide, found = make_guide()
    elbo = ELBOS[name](num_particles=4, vectorize_particles=True)
    fit(model, guide, x, elbo=elbo, **SCHEDULE)
    mean, sd = posterior(x)
    assert found["loc"].item() == pytest.approx(mean, abs=0.1 * sd)
    assert found["scale"].item() == pytest.approx(sd, rel=0.05)


def test_an_autoguide_over_a_global_latent_reaches_the_posterior():
    x = 1.0 + NOISE_SD * torch.randn(N)
    guide = AutoNormal(model)
    fit(model, guide, x, **SCHEDULE)
    mean, sd = posterior(x)
    assert guide.locs.mu.item() == pytest.approx(mean, abs=0.15 * sd)
    assert guide.scales.mu.item() == pytest.approx(sd, rel=0.1)


def test_a_kl_weight_tempers_the_likelihood_of_a_global_latent():
    """With weight w the optimum is q proportional to prior * likelihood^(1/w)."""
    x = 1.0 + NOISE_SD * torch.randn(N)
    guide, found = make_guide()
    elbo = TraceMeanField_ELBO(num_particles=4, vectorize_particles=True)
    fit(model, guide, x, elbo=elbo, kl_weight=4.0, **SCHEDULE)
    precision = 1 / PRIOR_SD**2 + N / NOISE_SD**2 / 4.0
    assert found["scale"].item() == pytest.approx(precision**-0.5, rel=0.05)


def test_held_out_elbo_carries_the_global_kl_of_the_training_rows():
    """Seven held-out rows carry 7/300 of the global KL, and not all of it."""
    x = NOISE_SD * torch.randn(400)
    guide, _ = make_guide()
    schedule = {**SCHEDULE, "epochs": 60}
    history = fit(model, guide, x[:300], validation=x[:300], **schedule)
    last = history.frame.iloc[-1]
    assert last["elbo"] == pytest.approx(last["validation_elbo"], abs=0.02)
    few = fit(model, guide, x[:300], validation=x[:7], **{**schedule, "epochs": 1})
    row_terms = dist.Normal(0.0, NOISE_SD).log_prob(x[:7]).mean()
    assert few.frame["validation_elbo"].iloc[-1] == pytest.approx(float(row_terms), abs=0.1)
