"""What Pyro reports of its own work does not reach the console."""

import subprocess
import sys

SCRIPT = """
import pyro, torch, pyro.distributions as dist
from pyro.infer import TraceEnum_ELBO
from ppl_vae import fit, lint
def model(x):
    loc = pyro.param("loc", torch.zeros(2, 3))
    with pyro.plate("data", len(x)):
        kind = pyro.sample("kind", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc[kind.long()], 1.0).to_event(1), obs=x)
x = torch.ones(12, 3) + torch.arange(3)
for elbo in (None, TraceEnum_ELBO()):
    lint(model, None, x, elbo=elbo)
    fit(model, None, x, elbo=elbo, epochs=2, progress=False, validation=0.3)
"""


def test_a_fit_and_lint_write_nothing_of_pyros_log():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert "plate" not in run.stdout + run.stderr
    assert not run.stdout
