"""inference_gap on odd data and odd pairs: refused, marked, or the same as on plain ones."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pairs import bernoulli, dropout, functions
from torch import nn

from ppl_vae import InferenceGap, inference_gap
from ppl_vae.evaluation.psis import FEWEST

FEW = {"steps": 2, "num_samples": 30}


@pytest.mark.parametrize("num_samples", [1, 2, FEWEST - 1])
def test_too_few_draws_for_a_k_hat_name_no_cause(num_samples):
    model, guide, x = bernoulli()
    result = inference_gap(model, guide, x, steps=2, num_samples=num_samples)
    assert result.unreliable.all()
    assert result.cause == "unknown"
    assert "more num_samples" in result.advice()


def test_as_many_draws_as_a_k_hat_needs_may_name_one():
    model, guide, x = bernoulli()
    assert not inference_gap(model, guide, x, steps=2, num_samples=FEWEST).unreliable.any()


def gaps(values, parts=0.2, **others):
    """A result on rows with these gaps, of which the approximation has a part."""
    frame = pd.DataFrame({"log_prob": -3.0, "log_prob_upper": np.nan, "gap": values})
    frame["approximation"] = parts * frame["gap"]
    frame["amortization"] = frame["gap"] - frame["approximation"]
    frame["elbo"] = frame["log_prob"] - frame["gap"]
    frame["elbo_refined"], frame["k_hat"] = frame["elbo"] + frame["amortization"], 0.1
    summary = pd.DataFrame({"mean": frame.mean(), "error": frame.sem()})
    return InferenceGap(frame, summary, np.zeros(len(frame), bool), {}, **others)


def test_a_large_gap_of_rows_that_differ_much_is_never_called_none():
    result = gaps([1.0, 2.0, 0.5, 150.0, 3.0])
    assert result.summary.loc["gap", "mean"] < 3 * result.summary.loc["gap", "error"]
    assert result.cause == "unknown"
    assert "31.3 +- 30 nats, is not clearly above 0; take more rows" in result.advice()
    assert gaps([150.0, 140.0, 130.0]).cause == "encoder"
    assert gaps([150.0]).cause == "encoder"  # one row is all that is asked about


def test_without_a_latent_to_refine_no_site_is_blamed():
    result = gaps([1.0, 1.1, 0.9], parts=np.nan)
    assert result.cause == "unknown"
    assert result.advice().endswith("the guide draws no latent of the rows to be refined.")


def test_annealing_is_no_mend_of_annealing():
    result = gaps([1.0, 1.1], method="annealed")
    result.unreliable[:] = True
    assert result.advice().endswith("in 2 of 2 rows; take more num_samples.")


@pytest.mark.parametrize("simulated", [False, True])
def test_a_wrong_plate_is_named_with_the_right_one(simulated):
    model, guide, x = bernoulli()
    with pytest.raises(ValueError, match='pass plate="data"'):
        inference_gap(model, guide, x, plate="rows", simulated=simulated, **FEW)


class OfIndex(nn.Module):
    """A guide with a mean for each index, which reads nothing else of a row."""

    def __init__(self, rows):
        super().__init__()
        self.means = nn.Parameter(torch.zeros(rows, 2))

    def forward(self, x, index):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.means[index], 1.0).to_event(1))


def test_rows_of_the_model_are_not_asked_of_numbers_for_single_rows():
    model, _, x = bernoulli()
    data = {"x": x, "index": torch.arange(len(x))}
    assert len(inference_gap(model, OfIndex(len(x)), data, **FEW).frame) == len(x)
    with pytest.raises(ValueError, match='on "index" alone'):
        inference_gap(model, OfIndex(len(x)), data, simulated=True, **FEW)


@pytest.mark.parametrize("method", ["importance", "annealed"])
def test_a_cell_that_is_nan_is_refused_by_its_place(method):
    model, guide, x = bernoulli()
    x[2, 1] = torch.nan
    with pytest.raises(ValueError, match="row 2 in column 1"):
        inference_gap(model, guide, x, method=method, **FEW)


def test_equal_rows_and_equal_labels_are_taken():
    model, guide, x = bernoulli()
    data = pd.DataFrame(x[[0, 0, 1]].numpy(), index=["a", "a", "a"])
    result = inference_gap(model, guide, data, **FEW)
    assert list(result.frame.index) == ["a", "a", "a"]
    assert np.isfinite(result.frame.drop(columns="log_prob_upper").to_numpy()).all()


@pytest.mark.parametrize(
    "method",
    ["importance", pytest.param("annealed", marks=pytest.mark.slow)],  # refined by the same code
)
def test_layers_gradients_and_modes_are_left_as_they_are(method):
    model, guide, x = dropout()
    halves = nn.ModuleList([model, guide]).train()
    runs = [inference_gap(model, guide, x[:5], method=method, **FEW) for _ in range(2)]
    pd.testing.assert_frame_equal(runs[0].frame, runs[1].frame)
    assert all(module.training for module in halves.modules())
    assert all(p.requires_grad and p.grad is None for p in halves.parameters())


def test_functions_and_double_precision_are_taken():
    model, guide, x = functions()
    assert np.isfinite(inference_gap(model, guide, x, **FEW).summary["mean"]["gap"])
    model, guide, x = bernoulli()
    result = inference_gap(model.double(), guide.double(), x.double(), **FEW)
    assert np.isfinite(result.summary["mean"]["approximation"])


class Off(nn.Module):
    """A normal guide whose mean is off by some of its own standard deviations."""

    def __init__(self, scale, by):
        super().__init__()
        self.scale, self.by = scale, by

    def forward(self, x):
        with pyro.plate("data", len(x)):
            mean = torch.full((len(x), 2), self.scale * self.by)
            pyro.sample("z", dist.Normal(mean, self.scale).to_event(1))


def line(x):
    """z ~ Normal(0, I) in two dimensions, seen with noise: the family has the posterior."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(2 * z, 0.5).to_event(1), obs=x)


def test_a_guide_that_is_far_too_narrow_is_no_fault_of_the_family():
    x = 2 * torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    result = inference_gap(line, Off(1e-3, 0.0), x, steps=300, num_samples=100)
    assert result.summary.loc["gap", "mean"] > 5
    assert abs(result.summary.loc["approximation", "mean"]) < 0.05
    assert result.cause == "encoder"


def test_a_best_of_the_family_that_was_not_reached_is_no_cause():
    x = torch.zeros(8, 2)
    result = inference_gap(line, Off(0.5, 300.0), x, steps=4, num_samples=30, method="annealed")
    assert result.cause == "unknown"
    assert "after 16 steps the ELBO still rose" in result.advice()
    assert result.advice().startswith('The cause is unknown: site "z": ')


@pytest.mark.filterwarnings("ignore:inference_gap. expected finite numbers")
@pytest.mark.parametrize("method", ["importance", "annealed"])
def test_a_row_on_which_the_guide_overflows_is_marked_and_the_others_stand(method):
    model, guide, x = bernoulli()
    guide, x[:6, 0] = Exponential(), 0.0  # no other row is all ones
    alone = inference_gap(model, guide, x[:6], method=method, **FEW)
    x[6] = 1.0
    guide.overflows = True
    result = inference_gap(model, guide, x[:7], method=method, **FEW)
    assert result.unreliable[6]
    assert result.unreliable[:6].sum() < 6
    assert result.frame[["elbo", "gap"]].iloc[6].isna().all()
    assert np.isfinite(result.frame["gap"].iloc[:6]).all()
    assert result.frame["gap"].iloc[:6].mean() == pytest.approx(alone.frame["gap"].mean(), abs=0.3)


class Exponential(nn.Module):
    """A guide whose scale is infinite on rows of ones."""

    overflows = False

    def forward(self, x):
        with pyro.plate("data", len(x)):
            scale = 1 + self.overflows * (1000 * (x.mean(-1, keepdim=True) - 0.999)).exp() ** 400
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), scale).to_event(1))
