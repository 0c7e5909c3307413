"""The particle filter against exact likelihoods; what it refuses; and how far it can be trusted."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.paths import FilteringGuide, drawn_sequences, planted_model
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import log_likelihood
from ppl_vae.distributions import MarkovPath
from ppl_vae.elbo.path_filter import systematic
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.deep_markov import DeepMarkovModel
from ppl_vae.models.sequence import SequenceModel
from ppl_vae.nn import seen_cells

FILTER = {"method": "particle_filter"}
few = pytest.mark.filterwarnings("ignore:log_likelihood. the particle filter")  # particles


def with_gaps(data, share=0.3):
    generator = torch.Generator().manual_seed(1)
    return {**data, "seen": torch.rand(data["x"].shape, generator=generator) > share}


@few  # of single rows without a guide; the mean is tested
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("guided", [False, True])
def test_it_agrees_with_the_kalman_filter_at_every_length_and_with_missing_cells(gaps, guided):
    model = planted_model(0.5 if guided else 1.5)
    data = drawn_sequences(model, 1 + torch.arange(60) % 12, 12)
    data = with_gaps(data) if gaps else data
    exact = model.log_prob(**data).numpy()
    guide = FilteringGuide(model) if guided else None
    found = log_likelihood(model, guide, data, num_samples=2000, **FILTER)
    error = found["log_prob"] - exact
    assert list(found.columns) == ["log_prob", "standard_error", "ess"]
    assert abs(error.mean()) < 0.03
    scores = error / (found["standard_error"] + 1e-4)  # of a row of one step it is 0
    assert abs(scores).mean() < 1.3  # of Student's t with 7 degrees of freedom: 0.87
    assert found["standard_error"].mean() < 0.1
    assert found["ess"].between(1, 2000).all()


def test_its_estimate_of_a_probability_has_no_bias_with_few_particles():
    model = planted_model()
    data = drawn_sequences(model, torch.tensor([6]), 6)
    data = {"x": data["x"].repeat(3000, 1, 1), "lengths": data["lengths"].repeat(3000)}
    exact = model.log_prob(**data).numpy()
    with warnings.catch_warnings(action="ignore", category=UnreliableWarning):
        found = log_likelihood(model, FilteringGuide(model), data, num_samples=32, **FILTER)
    ratio = torch.tensor(found["log_prob"].to_numpy() - exact).exp()
    assert ratio.std() > 0.1  # the particles are few
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 3000**0.5


def test_it_is_nearer_to_the_truth_than_importance_sampling_on_long_sequences():
    model = planted_model()
    data = drawn_sequences(model, torch.full((10,), 100), 100)
    exact = model.log_prob(**data).numpy()
    guide = FilteringGuide(model)
    with warnings.catch_warnings(action="ignore", category=UnreliableWarning):
        whole = log_likelihood(model, guide, data, num_samples=400)["log_prob"] - exact
    steps = log_likelihood(model, guide, data, num_samples=400, **FILTER)["log_prob"] - exact
    assert 3 * (steps**2).mean() ** 0.5 < (whole**2).mean() ** 0.5


class Discrete(PyroModule):
    """Three states that given numbers drive; each state has a mean."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(3, 3, generator=generator)
        self.means = 2 * torch.randn(3, 2, generator=generator)

    def step(self, z, u):
        return dist.Categorical(logits=self.table[z] + u)

    def forward(self, x, lengths, inputs):
        x, mask = seen_cells(x, lengths)
        first = dist.Categorical(logits=torch.tensor([0.0, 1.0, 0.0]))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", MarkovPath(first, self.step, x.shape[1], lengths, inputs))
            each = dist.Normal(self.means[z], 1.0)
            pyro.sample("x", each.mask(mask).to_event(2), obs=x)

    def log_prob(self, x, inputs):
        """Of one sequence, by the forward algorithm."""
        alpha = torch.tensor([0.0, 1.0, 0.0]).log_softmax(0)
        for t in range(len(x)):
            if t:
                moves = self.step(torch.arange(3), inputs[t]).logits
                alpha = (alpha[:, None] + moves).logsumexp(0)
            alpha = alpha + dist.Normal(self.means, 1.0).log_prob(x[t]).sum(-1)
        return float(alpha.logsumexp(0))


@few
def test_discrete_states_and_given_inputs_agree_with_the_forward_algorithm():
    model, lengths = Discrete(), torch.tensor([7, 1, 4, 6])
    x, inputs = torch.randn(2, 4, 7, 3, generator=torch.Generator().manual_seed(2))
    data = {"x": x[..., :2], "lengths": lengths, "inputs": inputs}
    exact = [model.log_prob(data["x"][r, :n], inputs[r, :n]) for r, n in enumerate(lengths)]
    found = log_likelihood(model, None, data, num_samples=4000, **FILTER)
    torch.testing.assert_close(
        torch.tensor(found["log_prob"].to_numpy()), torch.tensor(exact).double(), rtol=0, atol=0.15
    )
    inputs[0, 5:], inputs[1, 0] = 0, torch.nan  # the first inputs are not read; others are
    data["inputs"][1, 0] = 0
    assert log_likelihood(model, None, data, num_samples=4000, **FILTER)["log_prob"][0] != exact[0]


@few
def test_what_stands_after_the_end_of_a_sequence_is_never_read():
    model = planted_model()
    data = drawn_sequences(model, torch.tensor([3, 5, 1]), 5)
    clean = log_likelihood(model, FilteringGuide(model), data, **FILTER)
    for row, length in enumerate(data["lengths"]):
        data["x"][row, length:] = 1e6
    planted = log_likelihood(model, FilteringGuide(model), data, **FILTER)
    assert clean.equals(planted)


@few
def test_a_row_has_the_same_numbers_in_every_call_and_the_generators_stay_as_they_were():
    model = planted_model()
    data = drawn_sequences(model, torch.tensor([3, 5, 2]), 5)
    before = torch.get_rng_state()
    first, second = (log_likelihood(model, None, data, num_samples=100, **FILTER) for _ in "12")
    other = log_likelihood(model, None, data, num_samples=100, seed=1, **FILTER)
    assert first.equals(second)
    assert torch.equal(before, torch.get_rng_state())
    assert (first["log_prob"] != other["log_prob"]).all()


def test_a_filter_that_few_particles_decide_is_told():
    model = planted_model()
    with torch.no_grad():
        model.log_sd.fill_(-4.0)  # observations so exact that the prior's steps all miss them
    data = drawn_sequences(model, torch.full((4,), 10), 10)
    with pytest.warns(UnreliableWarning, match="not reliable in 4 of 4 rows"):
        found = log_likelihood(model, None, data, num_samples=100, **FILTER)
    assert (found["standard_error"] > found.attrs["standard_error_threshold"]).all()


@pytest.mark.parametrize("weights", [[0.1, 0.2, 0.3, 0.4], [0.0, 0.97, 0.03, 0.0]])
def test_systematic_draws_are_as_many_as_the_weights_say(weights):
    torch.manual_seed(0)
    shares = torch.tensor(weights).double()
    drawn = systematic(shares.log()[None, :, None].expand(1, 4, 2000))
    counts = torch.stack([(drawn == p).sum(1)[0] for p in range(4)]).double()  # (4, 2000)
    assert ((counts - 4 * shares[:, None]).abs() < 1).all()
    torch.testing.assert_close(counts.mean(1), 4 * shares, rtol=0, atol=0.05)


class Emission(PyroModule):
    """A state-space model whose observations at a step depend on more than the state there."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.cell = kind, nn.GRU(2, 2, batch_first=True)

    def mean(self, z, x):
        if self.kind == "earlier states":
            return z.cumsum(-2)
        if self.kind == "earlier observations":
            return z + nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]
        if self.kind == "a recurrent network":
            return self.cell(z.reshape(-1, *z.shape[-2:]))[0].reshape(z.shape)
        if self.kind == "the number of the step":
            return z * torch.arange(x.shape[1])[:, None]
        return z

    def forward(self, x, lengths=None):
        x, mask = seen_cells(x, lengths)
        first = dist.Normal(torch.zeros(2), 1.0).to_event(1)

        def step(z):
            return dist.Normal(0.9 * z, 1.0).to_event(1)

        with pyro.plate("data", len(x)):
            z = pyro.sample("z", MarkovPath(first, step, x.shape[1], lengths))
            if self.kind == "a second latent":
                z = z + pyro.sample("level", dist.Normal(0.0, torch.ones(len(x))))[..., None, None]
            pyro.sample("x", dist.Normal(self.mean(z, x), 1.0).mask(mask).to_event(2), obs=x)


SEQUENCES = {
    "x": torch.randn(5, 6, 2, generator=torch.Generator().manual_seed(0)),
    "lengths": torch.tensor([6, 2, 4, 6, 3]),
}


@few
@pytest.mark.parametrize(
    "kind",
    ["earlier states", "earlier observations", "a recurrent network", "the number of the step"],
)
def test_observations_that_depend_on_more_than_the_state_of_their_step_are_refused(kind):
    log_likelihood(Emission("plain"), None, SEQUENCES, num_samples=2000, **FILTER)
    with pytest.raises(ValueError, match="that depend on the state, and on the given fields"):
        log_likelihood(Emission(kind), None, SEQUENCES, **FILTER)


@few
def test_a_single_row_of_many_whose_observations_depend_on_more_is_refused():
    data = {"x": torch.zeros(200, 6, 2), "lengths": torch.full((200,), 6)}
    log_likelihood(Emission("earlier observations"), None, data, num_samples=64, **FILTER)
    data["x"][190, 2, 1] = 1.0
    with pytest.raises(ValueError, match="that depend on the state"):
        log_likelihood(Emission("earlier observations"), None, data, num_samples=64, **FILTER)


def point_guide(x, lengths=None):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(x.shape), 1.0).to_event(2))


def longer_guide(x, lengths=None):
    """A guide that draws paths as long as the padding."""
    first = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", MarkovPath(first, lambda z: dist.Normal(z, 1.0).to_event(1), x.shape[1]))


def renamed_guide(x, lengths=None):
    first = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    with pyro.plate("data", len(x)):
        pyro.sample("y", MarkovPath(first, lambda z: dist.Normal(z, 1.0).to_event(1), x.shape[1]))


@pytest.mark.parametrize(
    ("model", "guide", "words"),
    [
        (Emission("a second latent"), None, 'expected one latent .* got "z", "level"'),
        (SequenceModel(2), None, "expected a MarkovPath without a mask in the model"),
        (Emission("plain"), point_guide, "expected a MarkovPath without a mask in the guide"),
        (Emission("plain"), renamed_guide, 'site "z": expected a path of this name .* got "y"'),
        (Emission("plain"), longer_guide, 'a path "z" of the guide .* over the same lengths'),
    ],
)
def test_pairs_without_one_path_are_refused(model, guide, words):
    with pytest.raises(ValueError, match=words):
        log_likelihood(model, guide, SEQUENCES, **FILTER)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method: expected importance or particle_filter"):
        log_likelihood(planted_model(), None, torch.zeros(2, 3, 3), method="smc")


def test_binary_sequences_without_lengths_are_filtered_too():
    torch.manual_seed(0)
    model = DeepMarkovModel(3, 2, 8)
    x = torch.rand(4, 5, 3).bernoulli()
    whole = log_likelihood(model, None, x, num_samples=4000)["log_prob"]
    steps = log_likelihood(model, None, x, num_samples=4000, **FILTER)["log_prob"]
    assert abs(whole - steps).max() < 0.05


def test_a_path_that_is_bent_as_a_whole_is_refused_by_what_to_do():
    model = planted_model()
    data = drawn_sequences(model, torch.tensor([4, 2]), 4)
    guide = SmoothingGuide(3, 2, 8, flows=1)
    with pytest.raises(ValueError, match="bent as a whole in the guide; fit the pair with a guide"):
        log_likelihood(model, guide, data, num_samples=16, **FILTER)


class Narrow(PyroModule):
    """A slow walk that is seen within half a unit."""

    def forward(self, x, lengths=None):
        first = dist.Normal(torch.zeros(1), 0.1).to_event(1)
        with pyro.plate("data", len(x)):
            path = MarkovPath(first, lambda z: dist.Normal(z, 0.1).to_event(1), x.shape[1], lengths)
            z = pyro.sample("z", path)
            each = dist.Uniform(z - 0.5, z + 0.5, validate_args=False)
            pyro.sample("x", each.to_event(2), obs=x)


def test_a_step_that_no_particle_explains_is_not_trusted():
    x = torch.tensor([0.0, 0.0, 2.0, 2.0])[None, :, None]
    with pytest.warns(UnreliableWarning, match="not reliable in 1 of 1"):
        found = log_likelihood(Narrow(), None, x, num_samples=100, **FILTER)
    assert found["ess"].item() == 0
