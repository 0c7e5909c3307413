"""Pyro's other objectives given as ``elbo=``: run as the ELBO that they compute, or refused."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer
from pyro.infer.tracetmc_elbo import TraceTMC_ELBO

from ppl_vae import fit, lint

X = torch.linspace(-2, 2, 30)
COMPILED = [
    (infer.JitTrace_ELBO, infer.Trace_ELBO),
    (infer.JitTraceGraph_ELBO, infer.TraceGraph_ELBO),
    (infer.JitTraceMeanField_ELBO, infer.TraceMeanField_ELBO),
    (infer.JitTraceEnum_ELBO, infer.TraceEnum_ELBO),
]


def continuous(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, pyro.param("s", torch.ones(()))), obs=x)


def continuous_guide(x):
    w = pyro.param("w", torch.tensor(0.3))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(w * x, 0.8))


def discrete(x):
    loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        pyro.sample("x", dist.Normal(loc[z.long()], 1.0), obs=x)


def discrete_guide(x):
    w = pyro.param("w", torch.zeros(()))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=w * x), infer={"enumerate": "parallel"})


@pytest.mark.parametrize(("compiled", "plain"), COMPILED, ids=lambda elbo: elbo.__name__)
def test_pyros_compiled_elbos_train_as_the_elbo_that_they_compile(compiled, plain):
    """Pyro's compiled functions look parameters up in the global store, where a pair has none."""
    enumerates = plain is infer.TraceEnum_ELBO
    pair = (discrete, discrete_guide) if enumerates else (continuous, continuous_guide)
    settings = {"epochs": 2, "batch_size": 10, "compile": False, "progress": False}
    assert lint(*pair, X, elbo=compiled()).findings == ()
    given, same = (fit(*pair, X, elbo=elbo(), **settings) for elbo in (compiled, plain))
    elbos = [f.frame["elbo"].tolist() for f in (given, same)]
    assert torch.isfinite(torch.tensor(elbos)).all()
    assert given.objective == plain.__name__


def test_an_objective_without_a_loss_is_refused_by_its_name():
    elbo = infer.TraceTailAdaptive_ELBO(num_particles=4, vectorize_particles=True)
    with pytest.raises(ValueError, match=r"elbo: TraceTailAdaptive_ELBO .*no loss.*IWAE"):
        lint(continuous, continuous_guide, X, elbo=elbo)


def test_tensor_monte_carlo_is_named_with_its_reason_where_sites_have_several_values():
    guide = infer.config_enumerate(continuous_guide, default="parallel", num_samples=3)
    (finding,) = lint(continuous, guide, X, elbo=TraceTMC_ELBO()).errors
    assert finding.where == 'site "z"'
    assert "TraceTMC_ELBO" in finding.problem
    assert "N/B inside its logsumexp" in finding.problem
    assert "IWAE" in finding.fix
