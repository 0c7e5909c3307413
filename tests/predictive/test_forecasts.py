"""Forecasts against exact predictive distributions; coverage of intervals; what is refused."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pairs import gaussian, made
from parts.paths import FilteringGuide, drawn_sequences, planted_model
from pyro.nn import PyroModule

from ppl_vae import build, fit, forecast, sequences
from ppl_vae.distributions import MarkovPath
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.deep_markov import DeepMarkovModel
from ppl_vae.models.sequence import SequenceModel
from ppl_vae.models.state_space import StateSpaceModel
from ppl_vae.nn import seen_cells


def table(frame, name):
    """One statistic of a forecast, (rows, steps, features)."""
    rows = frame.index.get_level_values(0).nunique()
    values = frame.xs(name, axis=1, level="statistic").to_numpy()
    return torch.tensor(values).reshape(rows, -1, values.shape[1])


def cut(data, steps):
    """Sequences without their last steps, and these steps, (rows, steps, features)."""
    lengths = data["lengths"] - steps
    places = lengths[:, None] + torch.arange(steps)
    held_out = data["x"][torch.arange(len(lengths))[:, None], places]
    most = int(lengths.max())
    past = {name: field[:, :most].clone() for name, field in data.items() if name != "lengths"}
    return {**past, "lengths": lengths}, held_out


def exact_future(model, data, row, steps):
    """Mean and standard deviation of the next steps of a row: log p is a quadratic function."""
    length = int(data["lengths"][row])
    past = data["x"][row, :length].double()
    model = model.double()

    def log_prob(future):
        return model.log_prob(torch.cat([past, future.reshape(steps, -1)])[None])[0]

    zero = torch.zeros(steps * past.shape[1]).double()
    torch.set_default_dtype(torch.double)
    try:
        hessian = torch.autograd.functional.hessian(log_prob, zero)
        slope = torch.autograd.functional.jacobian(log_prob, zero)
    finally:
        torch.set_default_dtype(torch.float)
        model.float()
    covariance = torch.linalg.inv(-hessian)
    shape = steps, past.shape[1]
    return (covariance @ slope).reshape(shape), covariance.diagonal().sqrt().reshape(shape)


@pytest.mark.parametrize("guided", [False, True])
def test_forecasts_are_the_exact_predictive_distributions_of_a_linear_gaussian_model(guided):
    model = planted_model(0.5 if guided else 1.0)
    data = drawn_sequences(model, torch.tensor([7, 3, 12]), 12)
    guide = FilteringGuide(model) if guided else None
    found = forecast(model, guide, data, steps=3, num_samples=10_000)
    assert found.index.tolist()[:4] == [(0, 7), (0, 8), (0, 9), (1, 3)]
    assert found.columns.tolist()[:4] == [(0, "mean"), (0, "lower"), (0, "upper"), (1, "mean")]
    for row in range(3):
        mean, sd = exact_future(model, data, row, 3)
        torch.testing.assert_close(table(found, "mean")[row], mean, rtol=0, atol=0.06)
        for name, sign in (("lower", -1), ("upper", 1)):
            bound = mean + sign * 1.6449 * sd
            torch.testing.assert_close(table(found, name)[row], bound, rtol=0, atol=0.12)


def covered(frame, held_out):
    inside = (table(frame, "lower") <= held_out) & (held_out <= table(frame, "upper"))
    return float(inside.double().mean())


def test_intervals_cover_as_many_held_out_steps_as_they_say_with_missing_cells():
    model = planted_model()
    full = drawn_sequences(model, 8 + torch.arange(300) % 5, 12)
    past, held_out = cut(full, 4)
    past["seen"] = torch.rand(past["x"].shape, generator=torch.Generator().manual_seed(0)) > 0.3
    past["x"][~past["seen"]] = 50.0
    guide = FilteringGuide(model)
    for level in (0.5, 0.9):
        found = forecast(model, guide, past, steps=4, level=level, num_samples=500)
        assert abs(covered(found, held_out) - level) < 0.03


@pytest.mark.slow  # two minutes: model and guide are learned
@pytest.mark.filterwarnings("ignore:forecast. fewer than 10 draws")  # in single rows
def test_intervals_of_a_fitted_model_cover_held_out_steps_of_new_sequences():
    true = planted_model()
    torch.manual_seed(1)
    known = drawn_sequences(true, 12 + torch.arange(300) % 9, 20)
    model, guide = (build(cls, known, latents=2) for cls in (StateSpaceModel, SmoothingGuide))
    fit(
        model, guide, known, batch_size=100, epochs=400, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.02),
        scheduler=lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, 400),
    )  # fmt: skip
    past, held_out = cut(drawn_sequences(true, 12 + torch.arange(1000) % 9, 20, seed=1), 4)
    assert 0.87 < covered(forecast(model, guide, past, steps=4), held_out) < 0.93


class Driven(PyroModule):
    """A level that rises by a given number at each step."""

    def step(self, z, u):
        return dist.Normal(z + u, 0.01).to_event(1)

    def forward(self, x, lengths, inputs):
        x, mask = seen_cells(x, lengths)
        first = dist.Normal(torch.zeros(1), 0.01).to_event(1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", MarkovPath(first, self.step, x.shape[1], lengths, inputs))
            pyro.sample("x", dist.Normal(z, 0.01).mask(mask).to_event(2), obs=x)


def driven(rows=3):
    inputs = torch.arange(5.0).expand(rows, 5)[..., None].clone()
    x = inputs.cumsum(1)
    return {"x": x, "lengths": torch.tensor([5, 2, 4])[:rows], "inputs": inputs}


def test_inputs_of_the_further_steps_drive_the_states():
    inputs = (
        torch.tensor([10.0, 20.0])[None, :, None] * torch.tensor([1.0, -1.0, 3.0])[:, None, None]
    )
    found = forecast(Driven(), None, driven(), steps=2, inputs=inputs.numpy(), num_samples=2000)
    last = torch.tensor([10.0, 1.0, 6.0])
    expected = last[:, None] + torch.tensor([10.0, 30.0]) * torch.tensor([[1.0], [-1.0], [3.0]])
    torch.testing.assert_close(table(found, "mean")[..., 0], expected.double(), rtol=0, atol=0.05)
    by_name = forecast(
        Driven(), None, driven(), steps=2, inputs={"inputs": inputs}, num_samples=2000
    )
    assert by_name.equals(found)


class Level(PyroModule):
    """One level for each sequence, which rises by 1 at each step, seen with noise."""

    def forward(self, x, lengths=None):
        x, mask = seen_cells(x, lengths)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            each = dist.Normal(z[..., None, :] + torch.arange(x.shape[1])[:, None], 2.0)
            pyro.sample("x", each.mask(mask).to_event(2), obs=x)


def level_guide(x, lengths=None):
    x, mask = seen_cells(x, lengths)
    precision = 1 + mask.sum((1, 2)) / 4
    with pyro.plate("data", len(x)):
        above = torch.where(mask, x - torch.arange(x.shape[1])[:, None], 0.0)
        loc = (above.sum((1, 2)) / 4 / precision)[:, None]
        pyro.sample("z", dist.Normal(loc, precision[:, None] ** -0.5).to_event(1))


def test_a_code_of_the_sequence_is_read_from_its_past_alone():
    data = {"x": 3 + torch.randn(2, 6, 1, generator=torch.Generator().manual_seed(0))}
    data["lengths"] = torch.tensor([6, 2])
    found = forecast(Level(), level_guide, data, steps=2, num_samples=20_000)
    for row, length in enumerate([6, 2]):
        precision = 1 + length / 4
        above = data["x"][row, :length, 0] - torch.arange(length)
        mean = float(above.sum()) / 4 / precision + torch.tensor([[length], [length + 1.0]])
        sd = math.sqrt(4 + 1 / precision)
        assert (table(found, "mean")[row] - mean).abs().max() < 0.06
        assert (table(found, "upper")[row] - mean - 1.6449 * sd).abs().max() < 0.15


def test_forecasts_of_binary_steps_are_probabilities_and_their_bounds_are_values():
    data = sequences([torch.ones(4, 3), torch.zeros(2, 3)])
    found = forecast(DeepMarkovModel(3, 2, 8), None, data, steps=2, num_samples=300)
    assert table(found, "mean").min() > 0
    assert table(found, "mean").max() < 1
    assert set(np.unique(table(found, "lower"))) <= {0.0, 1.0}


def test_the_seed_alone_decides_and_the_generators_stay_as_they_were():
    model, before = planted_model(), torch.get_rng_state()
    data = drawn_sequences(model, torch.tensor([4, 2]), 4)
    first, second, other = (
        forecast(model, FilteringGuide(model), data, steps=2, seed=seed) for seed in (0, 0, 1)
    )
    assert first.equals(second)
    assert not first.equals(other)
    assert torch.equal(before, torch.get_rng_state())


def test_a_filter_whose_last_states_hardly_count_is_told():
    model = planted_model(0.01)
    data = drawn_sequences(model, torch.tensor([5, 5]), 5)
    with pytest.warns(UserWarning, match="fewer than 10 draws count for the last state of 2 of 2"):
        forecast(model, None, data, steps=1)


def reader(x, lengths):
    """Each observation follows the one before it."""
    x, mask = seen_cells(x, lengths)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
        before = torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1] + z[..., None, :]
        pyro.sample("x", dist.Normal(before, 1.0).mask(mask).to_event(2), obs=x)


def stepwise(x, lengths):
    """A state at each step that is no path."""
    x, mask = seen_cells(x, lengths)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(2))
        pyro.sample("x", dist.Normal(z, 1.0).mask(mask).to_event(2), obs=x)


def stepwise_guide(x, lengths):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(2))


def twice(x, lengths):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(torch.zeros_like(x), 1.0).to_event(2), obs=x)
        pyro.sample("n", dist.Poisson(x.new_full((len(x),), 3.0)), obs=lengths.float())


PLAIN = {"x": torch.randn(3, 4, 1), "lengths": torch.tensor([4, 2, 3])}


@pytest.mark.parametrize(
    ("model", "guide", "words"),
    [
        (reader, level_guide, "draws that change with the values at the steps to forecast"),
        (stepwise, stepwise_guide, "expected a latent that is the same at more steps"),
        (reader, None, "expected a guide that draws it from the sequence"),
        (twice, None, r"expected one observed site to forecast, .* got \['x', 'n'\]"),
    ],
)
def test_models_that_it_would_forecast_wrongly_are_refused(model, guide, words):
    with pytest.raises(ValueError, match=words):
        forecast(model, guide, PLAIN, steps=2)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_model_that_reads_is_refused_on_one_sequence_that_ends_as_it_begins(value):
    one = {"x": torch.full((1, 3, 1), value), "lengths": torch.tensor([3])}
    with pytest.raises(ValueError, match="draws that change with the values"):
        forecast(reader, level_guide, one, steps=2)


def test_bad_arguments_are_refused_by_name():
    model, guide, x = made(gaussian)
    with pytest.raises(ValueError, match="data: expected sequences, with the fields x and lengths"):
        forecast(model, guide, x, steps=1)
    model = SequenceModel(1)
    with pytest.raises(ValueError, match="level: expected a probability between 0 and 1, got 90"):
        forecast(model, None, PLAIN, steps=1, level=90)
    with pytest.raises(ValueError, match="steps: expected a whole number of at least 1, got 0"):
        forecast(model, None, PLAIN, steps=0)
    with pytest.raises(
        ValueError, match=r"inputs: expected .* for the fields \[\], got \['inputs'"
    ):
        forecast(model, None, PLAIN, steps=1, inputs=torch.zeros(3, 1, 1))
    with pytest.raises(
        ValueError, match=r"inputs: expected .* for the fields \['inputs'\], got \[\]"
    ):
        forecast(Driven(), None, driven(), steps=1)
    with pytest.raises(ValueError, match=r"inputs: expected shape \(3, 2, 1\) .* got \(3, 1, 1\)"):
        forecast(Driven(), None, driven(), steps=2, inputs=torch.zeros(3, 1, 1))
