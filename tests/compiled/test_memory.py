"""A compiled fit leaves nothing behind in the tables that torch fills with every graph."""

import linecache
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.fx import graph_module

from ppl_vae import fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

FITS = """
import gc, sys
import torch
from ppl_vae import fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

torch.manual_seed(0)
data = torch.randn(128, 5)
for number in range(int(sys.argv[1])):
    fit(GaussianModel(5), NormalGuide(5), data, epochs=2, compile=True, progress=False)
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    print(pages * 4096 / 1e6)
"""


def sizes():
    """How many programs torch, Python and inductor hold on to."""
    from torch._inductor.codecache import PyCodeCache

    return {
        "texts": len(graph_module._loader.eval_cache),
        "lines": sum(name.startswith("<eval_with_key>") for name in linecache.cache),
        "modules": len(PyCodeCache.modules),
        "named": len(PyCodeCache.modules_no_attr),
        "imported": sum("torch._inductor.runtime.compile_tasks" in name for name in sys.modules),
    }


def test_no_graph_of_a_fit_stays_in_torchs_tables():
    of_others = torch.fx.symbolic_trace(torch.nn.Linear(1, 1))
    model, guide = GaussianModel(5, latents=2), NormalGuide(5, latents=2)
    before = sizes()
    fit(model, guide, torch.randn(64, 5), epochs=2, compile=True, progress=False)
    assert sizes() == before
    assert of_others.forward.__code__.co_filename in graph_module._loader.eval_cache


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's memory counts")
def test_twenty_compiled_fits_leave_the_memory_as_it_is():
    done = subprocess.run(
        [sys.executable, "-c", FITS, "25"], capture_output=True, text=True, check=True
    )
    memory = [float(line) for line in done.stdout.split()]
    assert memory[-1] - memory[4] < 4  # 9 MB before the texts were dropped
