"""Files of models and guides: densities against formulas, files that stand alone."""

import ast
import importlib
import inspect
import math
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parts.zoo import binaries, reals
from pyro import poutine
from torch.distributions import Bernoulli, Normal

import ppl_vae.guides
import ppl_vae.models
from ppl_vae import build
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel

REAL, BINARY = reals(), binaries()
FILES = [
    importlib.import_module(f"{package.__name__}.{found.name}")
    for package in (ppl_vae.models, ppl_vae.guides)
    for found in pkgutil.iter_modules(package.__path__)
]
every_file = pytest.mark.parametrize("module", FILES, ids=lambda module: module.__name__)


def log_prob(model, x, z):
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x)
    return trace.log_prob_sum() - Normal(0.0, 1.0).log_prob(z).sum()


def test_the_bernoulli_likelihood_is_its_formula():
    model, z = BernoulliModel(4, 2), torch.randn(60, 2)
    exact = Bernoulli(logits=model.decoder(z)).log_prob(BINARY).sum()
    assert log_prob(model, BINARY, z).item() == pytest.approx(exact.item(), rel=1e-5)
    integers = log_prob(model, BINARY.to(torch.uint8), z)
    assert integers.item() == pytest.approx(exact.item(), rel=1e-5)


def test_the_gaussian_likelihood_is_its_formula_in_the_datas_units():
    model, z = build(GaussianModel, REAL, latents=2, floor=2.0), torch.randn(60, 2)
    mean, log_variance = model.decoder(z).chunk(2, -1)
    loc, scale = REAL.mean(0), REAL.std(0, correction=0)
    sd = (scale**2 * log_variance.exp() + 4.0).sqrt()
    exact = Normal(loc + scale * mean, sd).log_prob(REAL).sum()
    assert log_prob(model, REAL, z).item() == pytest.approx(exact.item(), rel=1e-4)


def test_changing_units_shifts_the_density_by_the_jacobian():
    z = torch.randn(60, 2)
    torch.manual_seed(0)
    decoder = torch.nn.Linear(2, 8)
    metres = build(GaussianModel, REAL, latents=2, decoder=decoder)
    millimetres = build(GaussianModel, 1000 * REAL, latents=2, decoder=decoder)
    difference = log_prob(metres, REAL, z) - log_prob(millimetres, 1000 * REAL, z)
    assert difference.item() == pytest.approx(REAL.numel() * math.log(1000), rel=1e-3)


def test_the_floor_bounds_the_density_of_a_feature_that_is_predicted_exactly():
    model = GaussianModel(4, 2, scale=30.0, floor=0.5)
    with torch.no_grad():
        model.decoder[-1].bias[4:] = -80.0
    trace = poutine.trace(model).get_trace(REAL)
    assert trace.nodes["x"]["fn"].base_dist.scale.min().item() == pytest.approx(0.5, rel=1e-4)


@every_file
def test_a_file_holds_one_public_class_in_under_eighty_lines(module):
    classes = [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and name[0] != "_"
    ]
    assert len(classes) == 1
    stem = module.__name__.rsplit(".", 1)[1].replace("_", "")
    assert classes[0].__name__.lower().startswith(stem)
    assert len(inspect.getsource(module).splitlines()) <= 80
    assert "Source:" in module.__doc__


def imports(source):
    """Full names of the modules that a file imports; a relative import begins with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@every_file
def test_a_file_imports_pyro_torch_networks_and_distributions_only(module):
    for name in imports(inspect.getsource(module)):
        top = name.partition(".")[0]
        assert (
            top in {"pyro", "torch"}
            or top in sys.stdlib_module_names
            or name in {"ppl_vae.nn", "ppl_vae.distributions"}
            or name.startswith("ppl_vae.nn.")
        ), f"{module.__file__} imports {name or 'a sibling'}: a copied file would not run"


RUN_EACH = """
import runpy, sys, traceback

failed = []
for path in sys.argv[1:]:
    try:
        runpy.run_path(path, run_name="__main__")
    except BaseException:
        traceback.print_exc()
        failed.append(path)
sys.exit(f"failed: {failed}" if failed else 0)
"""


def test_copied_files_run_on_their_own(tmp_path):
    """One process executes all copies as scripts, and names the one file that is broken."""
    (tmp_path / "broken.py").write_text("from models import bernoulli")
    for module in FILES:
        copy = tmp_path / f"{module.__name__.replace('.', '_')}_copy.py"
        copy.write_text(Path(module.__file__).read_text())
    command = [sys.executable, "-W", "error", "-c", RUN_EACH]
    command += sorted(path.name for path in tmp_path.iterdir())
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("failed: ['broken.py']\n"), done.stderr
