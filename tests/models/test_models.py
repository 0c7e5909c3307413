"""Every zoo pair: densities against formulas, particles in front, files that stand alone."""

import importlib
import inspect
import math
import pkgutil
from pathlib import Path

import pyro
import pytest
import torch
from parts.scripts import run_script
from pyro import poutine
from torch.distributions import Bernoulli, Normal

import ppl_vae.guides
import ppl_vae.models
from ppl_vae import build, fit, lint
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.ppca import PPCAModel

REAL = torch.randn(60, 4, generator=torch.Generator().manual_seed(1)) * 30 + 100
BINARY = (REAL > 100).float()
PAIRS = {BernoulliModel: BINARY, GaussianModel: REAL, PPCAModel: REAL}
FILES = [
    importlib.import_module(f"{package.__name__}.{found.name}")
    for package in (ppl_vae.models, ppl_vae.guides)
    for found in pkgutil.iter_modules(package.__path__)
]


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


@pytest.mark.parametrize("cls", PAIRS)
def test_a_pair_trains_and_has_no_findings(cls):
    data = PAIRS[cls]
    model, guide = build(cls, data, latents=2), build(NormalGuide, data, latents=2)
    assert lint(model, guide, data).findings == ()
    history = fit(model, guide, data, epochs=30, batch_size=16, progress=False)
    assert history.frame["elbo"].iloc[-1] > history.frame["elbo"].iloc[0]


@pytest.mark.parametrize("cls", PAIRS)
def test_particles_may_lead(cls):
    data = PAIRS[cls]
    model, guide = build(cls, data, latents=2), build(NormalGuide, data, latents=2)

    def particles(half):
        def run(x):
            with pyro.plate("particles", 5, dim=-2):
                half(x)

        return run

    guide_trace = poutine.trace(particles(guide)).get_trace(data)
    model_trace = poutine.trace(poutine.replay(particles(model), guide_trace)).get_trace(data)
    assert guide_trace.nodes["z"]["value"].shape == (5, 60, 2)
    assert model_trace.nodes["x"]["fn"].batch_shape == (5, 60)


@pytest.mark.parametrize("module", FILES, ids=lambda module: module.__name__)
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


@pytest.mark.parametrize("module", FILES, ids=lambda module: module.__name__)
def test_a_copied_file_runs_on_its_own(module, tmp_path):
    copy = tmp_path / "mine.py"
    copy.write_text(Path(module.__file__).read_text())
    run_script(copy, folder=tmp_path)


@pytest.mark.usefixtures("double")
def test_double_precision_reaches_every_number():
    data = REAL.double()
    model, guide = build(GaussianModel, data, latents=2), build(NormalGuide, data, latents=2)
    fit(model, guide, data, epochs=1, progress=False)
    assert {t.dtype for m in (model, guide) for t in m.state_dict().values()} == {torch.float64}
