"""Soaks: many fits in one process and many rows in one pass leave memory flat.

Both run in a process of their own, so that the memory of other tests is not counted.
"""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

FITS = """
import gc, json, pathlib, resource
import torch
import pyro
from ppl_vae import fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel

def resident():
    gc.collect()
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20  # MiB

x = (torch.rand(400, 20) > 0.5).float()
kinds, sizes, steps = ["eager", "traced"] * 60 + ["compiled"] * 30, [], []
kinds = [kinds[i * 53 % 150] for i in range(150)]  # mixed
for number, kind in enumerate(kinds):
    pair = BernoulliModel(20, 3), NormalGuide(20, 3)
    epochs = 110 if kind == "traced" else 3
    compiled = {"eager": False, "traced": "auto", "compiled": True}[kind]
    history = fit(*pair, x, epochs=epochs, batch_size=100, compile=compiled, seed=number,
                  validation=0.2, progress=False)
    steps.append(history.step)
    del pair, history
    sizes.append(resident())
assert steps == kinds, (steps, kinds)
assert not pyro.get_param_store().keys()
print(json.dumps(sizes))
"""

ROWS = """
import json, resource
import numpy as np, torch
import ppl_vae
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel

torch.manual_seed(0)
pair = BernoulliModel(8, 2), NormalGuide(8, 2)
x = torch.randint(0, 2, (2_000_000, 8), dtype=torch.uint8)
x = x.numpy().astype(np.float32)
for name, options in {
    "log_likelihood": {"num_samples": 2}, "elbo_terms": {"num_samples": 2}, "encode": {},
    "reconstruct": {"num_samples": 2}, "generate": {"num_samples": 2_000_000},
}.items():
    result = getattr(ppl_vae, name)(*pair, x, **options)
    assert len(result) == len(x), name
    del result
for part in ppl_vae.posterior_predictive(*pair, x, num_samples=2, stream=True):
    pass
for part in ppl_vae.prior_predictive(pair[0], x, num_samples=2, stream=True):
    pass
check = ppl_vae.predictive_check(*pair, x, num_samples=3)
assert check.rows == len(x)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))  # GiB
"""


def last_line(program):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_memory_is_flat_over_150_fits_in_one_process():
    sizes = last_line(FITS)
    assert len(sizes) == 150
    assert max(sizes[10:]) - sizes[9] < 20, sizes


def test_two_million_rows_go_through_every_evaluation_in_constant_memory():
    assert last_line(ROWS) < 1.5
