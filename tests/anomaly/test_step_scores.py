"""Scores of steps against the Kalman filter's innovations; a strange step is found at its time."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pairs import gaussian, made
from parts.paths import FilteringGuide, drawn_sequences, exact_steps, planted_model

from ppl_vae import anomaly_scores, log_likelihood
from ppl_vae.distributions import MarkovPath
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.guides.recurrent import RecurrentGuide
from ppl_vae.models.sequence import SequenceModel
from ppl_vae.nn import step_mask

SCORE = "negative_log_likelihood"
LENGTHS = 1 + torch.arange(40) % 9


@pytest.mark.parametrize("guided", [False, True])
def test_scores_of_steps_are_the_kalman_filters_innovations(guided):
    model = planted_model(0.5 if guided else 1.5)
    data = drawn_sequences(model, LENGTHS, 9)
    data["seen"] = torch.rand(data["x"].shape, generator=torch.Generator().manual_seed(1)) > 0.2
    guide = FilteringGuide(model) if guided else None
    found = anomaly_scores(model, guide, data, per_step=True, num_samples=4000)
    inside = torch.arange(9) < LENGTHS[:, None]
    exact = -exact_steps(model, data)[inside]
    error = torch.tensor(found[SCORE].to_numpy()) - exact
    assert list(found.columns) == [SCORE, "standard_error", "ess"]
    assert error.abs().max() < 0.25
    assert error.abs().mean() < 0.03
    assert (error.abs() / torch.tensor(found["standard_error"].to_numpy() + 1e-4)).mean() < 1.3


def test_there_is_a_line_for_every_row_and_step_and_they_add_up_to_the_rows_score():
    model = planted_model()
    data = drawn_sequences(model, torch.tensor([3, 1, 4]), 5)
    data["lengths"] = pd.Series(
        data["lengths"].numpy(), index=pd.Index(list("abc"), name="machine")
    )
    steps = anomaly_scores(model, FilteringGuide(model), data, per_step=True, num_samples=2000)
    assert steps.index.names == ["machine", "step"]
    assert steps.loc["a"].index.tolist() == [0, 1, 2]
    assert len(steps) == 8
    whole = log_likelihood(
        model, FilteringGuide(model), data, num_samples=2000, method="particle_filter"
    )
    np.testing.assert_allclose(
        -steps[SCORE].groupby(level=0).sum(), whole["log_prob"], rtol=0, atol=0.02
    )


@pytest.mark.filterwarnings("ignore:anomaly_scores. the particle filter")
def test_a_strange_step_is_found_at_its_time_and_the_steps_before_it_stay_as_they_were():
    model = planted_model()
    data = drawn_sequences(model, torch.full((20,), 15), 15)
    ordinary = anomaly_scores(model, FilteringGuide(model), data, per_step=True)[SCORE]
    where = 2 + torch.arange(20) % 12
    data["x"][torch.arange(20), where] += torch.tensor([-2.0, 4.0, 4.0])  # no state has it
    strange = anomaly_scores(model, FilteringGuide(model), data, per_step=True)[SCORE]
    strange, ordinary = (each.to_numpy().reshape(20, 15) for each in (strange, ordinary))
    assert (strange.argmax(1) == where.numpy()).all()
    before = np.arange(15) < where.numpy()[:, None]
    np.testing.assert_allclose(strange[before], ordinary[before], rtol=0, atol=1e-6)


def walk(x, lengths):
    first = dist.Normal(x.new_zeros(1), 1.0).to_event(1)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", MarkovPath(first, walk_step, x.shape[1], lengths))
        inside = step_mask(lengths, x.shape[1])[..., None]
        pyro.sample("x", dist.Normal(z, 1.0).mask(inside).to_event(2), obs=x)


def walk_step(z, bent=0.0):
    return dist.Normal(z + bent, 1.0).to_event(1)


def bent_guide(x, lengths):
    """Overflows where x is large."""
    bent = (x.abs() - 1e20).relu() * 1e30
    with pyro.plate("data", len(x)):
        first = walk_step(torch.zeros(1), bent[:, 0])
        pyro.sample("z", MarkovPath(first, walk_step, x.shape[1], lengths, bent))


def test_a_row_on_which_the_pair_overflows_is_strange_at_each_of_its_steps():
    data = {"x": torch.arange(12.0).reshape(3, 4, 1) / 10, "lengths": torch.tensor([3, 2, 4])}
    expected = anomaly_scores(walk, bent_guide, data, per_step=True, num_samples=1000)
    data["x"][1] = 1e30
    with pytest.warns(UserWarning, match="an overflow of the pair in 1 of 3 rows, first in row 1"):
        found = anomaly_scores(walk, bent_guide, data, per_step=True, num_samples=1000)
    assert found.index.equals(expected.index)
    assert np.isposinf(found.loc[1, SCORE]).all()
    assert np.isfinite(found.drop(1, level=0)[SCORE]).all()


def test_what_has_no_steps_is_refused():
    model, guide, x = made(gaussian)
    with pytest.raises(
        ValueError, match=r"expected a MarkovPath .* for anomaly_scores\(..., per_st"
    ):
        anomaly_scores(model, guide, x, per_step=True)
    with pytest.raises(ValueError, match="expected a MarkovPath"):
        anomaly_scores(SequenceModel(2), RecurrentGuide(2), torch.zeros(3, 4, 2), per_step=True)
    for more in ({"reference": x}, {"attribution": True, "reference": x}):
        with pytest.raises(ValueError, match="per_step: expected one pair, without reference"):
            anomaly_scores(model, guide, x, per_step=True, **more)
    with pytest.raises(ValueError, match="per_step: expected one pair"):
        anomaly_scores([(model, guide)], None, x, per_step=True)
    with pytest.raises(ValueError, match="per_step: expected True or False"):
        anomaly_scores(model, guide, x, per_step="yes")


def test_steps_that_few_particles_decide_are_told():
    model = planted_model(0.01)
    data = drawn_sequences(model, torch.tensor([4, 4]), 4)
    with pytest.warns(UnreliableWarning, match=r"not reliable in \d of 8 steps"):
        anomaly_scores(model, None, data, per_step=True)
