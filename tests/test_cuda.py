"""A pair on a CUDA device: every step trains alike, every question is answered as on the CPU."""

import copy
import subprocess
import sys

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.extras import arviz
from parts.worlds import answers
from pyro.nn import PyroModule
from torch.testing import assert_close

import ppl_vae
from ppl_vae import IWAE, fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.state_space import StateSpaceModel
from ppl_vae.nn import MLP

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="this machine has no CUDA device"
)
ROWS = torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
STEPS = {"epochs": 8, "batch_size": 100, "progress": False}


class Classes(PyroModule):
    """Three classes, each with a mean of its own; the class asks for enumeration."""

    def __init__(self):
        super().__init__()
        self.means = torch.nn.Parameter(torch.randn(3, 6))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(x.new_ones(3)), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(self.means[y], 1.0).to_event(1), obs=x)


def pair(name):
    torch.manual_seed(0)
    if name == "classes":
        return Classes().cuda(), None, ROWS
    if name == "bernoulli":
        return BernoulliModel(6, 2).cuda(), NormalGuide(6, 2).cuda(), (ROWS > 0).float()
    return GaussianModel(6, 2).cuda(), NormalGuide(6, 2).cuda(), ROWS


PAIRS = ["bernoulli", "gaussian", "classes"]


@pytest.mark.parametrize("name", PAIRS)
def test_eager_traced_and_compiled_steps_train_alike(name, monkeypatch):
    monkeypatch.setattr("ppl_vae.training.stepper.TRACED_FROM", 1)
    found = {}
    for kind, compiled in (("eager", False), ("traced", "auto"), ("compiled", True)):
        model, guide, data = pair(name)
        history = fit(model, guide, data, compile=compiled, validation=0.2, **STEPS)
        assert history.step == kind
        found[kind] = history.frame["elbo"].to_numpy()
        assert all(p.is_cuda for p in model.parameters())
    assert np.allclose(found["eager"], found["traced"], rtol=1e-4)
    assert np.allclose(found["eager"], found["compiled"], rtol=0.02)  # other random numbers


def test_importance_weighted_training_runs_compiled():
    model, guide, data = pair("gaussian")
    history = fit(model, guide, data, elbo=IWAE(4), compile=True, **STEPS)
    assert history.step == "compiled"
    assert history.frame["elbo"].iloc[-1] > history.frame["elbo"].iloc[0]


def test_a_fit_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr("ppl_vae.saving.snapshots.SOONEST", 0.0)
    monkeypatch.setattr("ppl_vae.saving.snapshots.SHARE", 0)
    model, guide, data = pair("gaussian")
    whole = fit(model, guide, data, **STEPS)
    model, guide, data = pair("gaussian")
    fit(model, guide, data, run=tmp_path / "run", **{**STEPS, "epochs": 3})
    model, guide, data = pair("gaussian")
    resumed = fit(model, guide, data, run=tmp_path / "run", resume=True, **STEPS)
    columns = ["epoch", "step", "elbo"]
    pd.testing.assert_frame_equal(whole.frame[columns], resumed.frame[columns], rtol=1e-4)


def test_a_run_made_on_the_device_opens_on_the_cpu(tmp_path):
    torch.manual_seed(0)
    model = GaussianModel(6, 2, decoder=MLP(2, 12, (8,))).cuda()
    guide = NormalGuide(6, 2, encoder=MLP(6, 4, (8,))).cuda()
    fit(model, guide, ROWS, run=tmp_path / "run", **STEPS)
    opened, _ = ppl_vae.load(tmp_path / "run")
    for name, value in model.state_dict().items():
        there = opened.state_dict()[name]
        assert there.device.type == "cpu"
        assert torch.equal(there, value.cpu())


@pytest.fixture(scope="module")
def both():
    """A fitted pair on the device, the same pair on the CPU, and its rows."""
    model, guide, data = pair("gaussian")
    fit(model, guide, data, **{**STEPS, "epochs": 30})
    return (model, guide, data), (copy.deepcopy(model).cpu(), copy.deepcopy(guide).cpu(), data)


@pytest.mark.filterwarnings("ignore:log_likelihood")  # a guide that was fitted for a moment
def test_log_likelihoods_are_those_of_the_cpu(both):
    scores = [ppl_vae.log_likelihood(*one, num_samples=2000)["log_prob"].mean() for one in both]
    compiled = ppl_vae.log_likelihood(*both[0], num_samples=2000, compile=True)["log_prob"].mean()
    assert np.allclose([scores[0], compiled], scores[1], atol=0.05)


def test_terms_of_the_elbo_are_those_of_the_cpu(both):
    assert np.allclose(*(ppl_vae.elbo_terms(*one).mean() for one in both), atol=0.1)


def test_codes_and_reconstructions_are_those_of_the_cpu(both):
    codes = [ppl_vae.encode(*one) for one in both]
    pd.testing.assert_frame_equal(*codes, check_exact=False, rtol=1e-3, atol=1e-4)
    rows = [ppl_vae.reconstruct(*one, num_samples=400).cpu() for one in both]
    assert_close(*rows, rtol=0.1, atol=0.3)


def test_new_rows_and_paths_have_the_form_of_the_data(both):
    model, guide, data = both[0]
    assert ppl_vae.generate(model, guide, data, num_samples=50).shape == (50, 6)
    assert ppl_vae.interpolate(model, guide, data[:3], steps=4) is not None
    assert ppl_vae.traverse(model, guide, data[:1], steps=3) is not None


@pytest.mark.parametrize("prior", [True, False])
def test_replicates_and_checks(both, prior):
    model, guide, data = both[0]
    if prior:
        drawn = ppl_vae.prior_predictive(model, data, num_samples=5)
    else:
        drawn = ppl_vae.posterior_predictive(model, guide, data, num_samples=5)
    assert drawn["x"].shape == (5, 600, 6)
    assert drawn["x"].device.type == "cpu"
    check = ppl_vae.predictive_check(model, None if prior else guide, data, num_samples=60)
    here = ppl_vae.predictive_check(both[1][0], None if prior else both[1][1], data, num_samples=60)
    observed = [one.features["observed"].sort_index() for one in (check, here)]
    assert np.allclose(*observed, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_a_statistic_of_data_and_latents(both):
    check = ppl_vae.predictive_check(
        *both[0], statistics=lambda x, latents: (x.mean(), latents["z"].std())[0], num_samples=60
    )
    assert len(check.frame) == 1


def test_the_report(both, tmp_path):
    page = ppl_vae.write_report(*both[0], tmp_path / "p.html", num_samples=60, replicates=40)
    assert page.stat().st_size > 10_000


@pytest.mark.filterwarnings("ignore:compare")
def test_a_comparison(both):
    model, guide, data = both[0]
    found = ppl_vae.compare({"a": (model, guide), "b": (model, None)}, data, num_samples=60)
    assert found.rows.shape == (600, 2)


def test_draws_for_arviz(both):
    arviz()
    assert ppl_vae.to_arviz(*both[0], num_samples=20)["posterior"]["z"].shape == (1, 20, 600, 2)


def test_a_value_that_is_not_finite_is_named():
    model, guide, data = pair("gaussian")
    with torch.no_grad():
        next(guide.parameters())[0] = float("nan")
    with pytest.raises(ValueError, match='site "z": expected finite values'):
        fit(model, guide, data, **STEPS)


def test_a_fit_on_the_cpu_leaves_the_device_alone(tmp_path):
    program = """
import sys, torch
from ppl_vae import fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.state_space import StateSpaceModel
fit(GaussianModel(6, 2), NormalGuide(6, 2), torch.randn(60, 6), run=sys.argv[1], epochs=2)
sys.exit(torch.cuda.is_initialized())
"""
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    assert subprocess.run(command, check=False).returncode == 0


def test_discrete_latents_are_summed_as_on_the_cpu():
    model, _, data = pair("classes")
    fit(model, None, data, **STEPS)
    here = copy.deepcopy(model).cpu()
    scores = [ppl_vae.log_likelihood(m, None, data)["log_prob"] for m in (model, here)]
    assert np.allclose(*scores, rtol=1e-4)


def walks():
    """Sequences of 2 to 9 steps of two features, and their pair on the device."""
    torch.manual_seed(0)
    data = ppl_vae.sequences([torch.randn(2 + i % 8, 2) for i in range(64)])
    return StateSpaceModel(2, 2).cuda(), SmoothingGuide(2, 2, hidden=8).cuda(), data


@pytest.mark.filterwarnings("ignore:log_likelihood")  # a guide that was fitted for a moment
@pytest.mark.filterwarnings("ignore:anomaly_scores")
def test_sequences_are_trained_and_scored_as_on_the_cpu():
    model, guide, data = walks()
    here = walks()[0].cpu(), walks()[1].cpu()
    elbos = [
        fit(*one, data, epochs=4, batch_size=16, seed=0, progress=False).frame["elbo"]
        for one in ((model, guide), here)
    ]
    assert np.allclose(*elbos, rtol=0.1)  # other random numbers
    here = copy.deepcopy(model).cpu(), copy.deepcopy(guide).cpu()
    for method in ("importance", "particle_filter"):
        scores = [
            ppl_vae.log_likelihood(*one, data, method=method, num_samples=2000)["log_prob"].mean()
            for one in ((model, guide), here)
        ]
        assert np.allclose(*scores, atol=0.3)  # estimates with other random numbers
    ahead = [ppl_vae.forecast(*one, data, steps=3) for one in ((model, guide), here)]
    assert np.allclose(*ahead, atol=0.5)
    steps = [ppl_vae.anomaly_scores(*one, data, per_step=True) for one in ((model, guide), here)]
    assert len(steps[0]) == len(steps[1]) == int(data["lengths"].sum())


def test_a_fit_from_shards_has_the_bits_of_one_process():
    """Two ranks on one device meet on the CPU: NCCL wants a device for each."""
    found = answers("fits_on_the_device", "gloo", *SHARDED)
    alone = answers("fits_on_the_device", "gloo", *SHARDED, size=1)[0]
    for rank in found:
        assert "no memory on this rank" in rank.pop("an error of rank 1")[1]
        assert rank == {name: alone[name] for name in SHARDED}


SHARDED = ["Trace, eager", "Trace, traced", "Graph", "batch normalization, eager"]


def test_two_ranks_on_one_device_are_refused_by_nccl():
    for found in answers("end_of_two_on_the_device"):
        assert "expected a CUDA device for each process" in found[1]


def test_sums_of_one_rank_pass_through_nccl():
    assert answers("sums_by_nccl", size=1) == [[[0, 1, 2, 3], [4, 5]]]


def test_a_guide_with_its_own_recurrent_layer_can_be_fitted_and_refined():
    class Reader(PyroModule):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.GRU(1, 8, num_layers=2, dropout=0.1, batch_first=True)
            self.head = torch.nn.Linear(8, 2)

        def forward(self, x):
            last = self.rnn(x[..., None])[0][:, -1]
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.head(last), 1.0).to_event(1))

    model, guide = GaussianModel(6, 2).cuda(), Reader().cuda()
    fit(model, guide, ROWS, compile=False, **STEPS)
    guide = ppl_vae.refine(model, guide, ROWS[:40], steps=3)
    assert len(ppl_vae.elbo_terms(model, guide, ROWS[:40])) == 40


@pytest.mark.parametrize("name", PAIRS)
def test_a_guide_is_calibrated_on_the_device(name):
    model, guide, data = pair(name)
    found = ppl_vae.guide_calibration(model, guide, data, num_rows=50, num_draws=9)
    assert len(found.ranks) == 50
    assert found.left_out == 0
