"""Replicates are drawn anew, from the right distribution, for every row, and repeatably."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pairs import PAIRS, made
from pyro import poutine
from torch import nn

from ppl_vae import posterior_predictive, prior_predictive


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


@pytest.fixture(params=["one run", pytest.param("one run each", marks=pytest.mark.slow)])
def either_way(request, monkeypatch):
    if request.param == "one run each":
        monkeypatch.setattr("ppl_vae.predictive.replicates.can_vectorize", lambda *_: False)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, and groups of few replicates."""
    monkeypatch.setattr("ppl_vae.core.blocks.ELEMENTS", 1 << 7)
    monkeypatch.setattr("ppl_vae.predictive.replicates.PARTICLES", 4)


# No value of the data is repeated


@pytest.mark.parametrize("name", PAIRS)
def test_every_observed_cell_is_drawn_anew_in_every_replicate(name):
    model, guide, data = made(PAIRS[name])
    for value in posterior_predictive(model, guide, data, num_samples=60).values():
        constant = (value == value[:1]).all(0)
        assert constant.float().mean() < 0.02


@pytest.mark.parametrize("name", PAIRS)
def test_prior_predictive_does_not_depend_on_the_data(name):
    model, _, data = made(PAIRS[name])
    if name in ("masked", "obs_masked"):
        other = {**data, "x": data["x"] + 1}
    elif isinstance(data, dict):
        other = {**data, "x": data["x"] + 1, "label": 2 - data["label"]}
    elif isinstance(data, tuple):
        other = (data[0] + 1, 2 - data[1])
    else:
        other = 1 - data
    first = prior_predictive(model, data, num_samples=3)
    second = prior_predictive(model, other, num_samples=3)
    assert all(torch.equal(value, second[site]) for site, value in first.items())


def test_sites_after_an_observed_site_use_its_draw(either_way):
    def model(x, lengths):
        with pyro.plate("data", len(x)):
            before = x.new_zeros(len(x))
            for t in pyro.markov(range(x.shape[1])):
                with poutine.mask(mask=t < lengths):
                    fn = dist.Normal(before + 10, 0.01)
                    before = pyro.sample(f"x_{t}", fn, obs=x[:, t])

    x, lengths = torch.randn(30, 4) * 100, torch.arange(30) % 4 + 1
    parts = list(
        posterior_predictive(model, None, {"x": x, "lengths": lengths}, num_samples=3, stream=True)
    )
    (part,) = parts
    for t in range(4):
        assert (part.values[f"x_{t}"] - 10 * (t + 1)).abs().max() < 0.2
        assert torch.equal(part.observed[f"x_{t}"], x[:, t])
        unmasked = part.masks.get(f"x_{t}", torch.ones(30, dtype=torch.bool))
        assert torch.equal(unmasked, t < lengths)


def test_masks_of_either_kind_are_returned_and_masked_cells_are_drawn():
    unmasked = torch.rand(40, 3) > 0.4

    def model(x, unmasked):
        fn = dist.Normal(x.new_zeros(3), 1.0).mask(unmasked).to_event(1)
        with pyro.plate("data", len(x)), poutine.mask(mask=unmasked[:, 0]):
            pyro.sample("x", fn, obs=x)

    (part,) = prior_predictive(
        model, {"x": torch.full((40, 3), 9.0), "unmasked": unmasked}, num_samples=50, stream=True
    )
    assert torch.equal(part.masks["x"], unmasked & unmasked[:, :1])
    assert (part.values["x"].std(0) > 0.5).all()


def test_a_partly_observed_site_is_one_site():
    model, guide, data = made(PAIRS["obs_masked"])
    (part,) = posterior_predictive(model, guide, data, num_samples=5, stream=True)
    assert list(part.values) == ["x"]
    assert "x_unobserved" not in part.latents
    assert torch.equal(part.masks["x"].all(1), data["seen"][:, 0])


# Replicates have the right distribution


def linear_gaussian(rows):
    """x ~ N(W z, 0.25), z ~ N(0, I), and its exact posterior as the guide."""
    weight = torch.randn(2, 3)
    precision = torch.eye(2) + weight @ weight.T / 0.25
    cov = torch.linalg.inv(precision)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(x.new_zeros(2)))
            pyro.sample("x", normal(z @ weight, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = x @ weight.T @ cov / 0.25
            pyro.sample("z", dist.MultivariateNormal(loc, cov))

    x = torch.randn(rows, 2) @ weight + 0.5 * torch.randn(rows, 3)
    return model, guide, x, weight, cov


def test_posterior_predictive_has_the_moments_of_the_closed_form(double, either_way):
    model, guide, x, weight, cov = linear_gaussian(6)
    made = posterior_predictive(model, guide, x, num_samples=4000)["x"]
    loc = x @ weight.T @ cov / 0.25 @ weight
    spread = weight.T @ cov @ weight + 0.25 * torch.eye(3)
    error = (spread.diagonal() / 4000).sqrt()
    assert ((made.mean(0) - loc).abs() / error).max() < 4.5
    centered = made - made.mean(0)
    found = torch.einsum("srf,srg->rfg", centered, centered).mean(0) / 4000
    assert (found - spread).abs().max() < 0.02 * spread.diagonal().max()


def test_prior_predictive_has_the_moments_of_the_closed_form(double):
    model, _, x, weight, _ = linear_gaussian(400)
    made = prior_predictive(model, x, num_samples=50)["x"].reshape(-1, 3)
    spread = weight.T @ weight + 0.25 * torch.eye(3)
    assert (made.mean(0).abs() / (spread.diagonal() / 20000).sqrt()).max() < 4.5
    assert (made.T.cov() - spread).abs().max() < 0.06 * spread.diagonal().max()


@pytest.mark.parametrize("rows", [1, 20])
def test_an_enumerated_latent_is_drawn_from_its_exact_posterior(rows, either_way):
    centers, chances = torch.tensor([-1.0, 0.0, 1.5]), torch.tensor([0.2, 0.5, 0.3])

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(chances), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(centers[k], 0.8), obs=x)

    x = torch.linspace(-2, 2, rows)
    exact = (chances.log() + dist.Normal(centers, 0.8).log_prob(x[:, None])).softmax(-1)
    parts = posterior_predictive(model, None, x, num_samples=1500, stream=True)
    drawn = torch.cat([part.latents["k"] for part in parts])
    found = nn.functional.one_hot(drawn, 3).double().mean(0)
    assert ((found - exact).abs() / (exact * (1 - exact) / 1500).sqrt()).max() < 4.5


def test_an_enumerated_latent_follows_the_guides_draw_in_every_cell_masked_or_not(either_way):
    chances, unmasked = torch.tensor([0.3, 0.7]), torch.tensor([True, True, False])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(x.new_zeros(1)))
            with pyro.plate("features", 3):
                how = {"enumerate": "sequential"}
                k = pyro.sample("k", dist.Categorical(chances), infer=how)
                loc = 2.0 * k + z[..., 0].unsqueeze(-2)
                with poutine.mask(mask=unmasked[:, None]):
                    pyro.sample("x", dist.Normal(loc, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x[:, :1], 0.7))

    x = torch.randn(5, 3)
    parts = list(posterior_predictive(model, guide, x, num_samples=1000, stream=True))
    k, z = (torch.cat([part.latents[name] for part in parts]) for name in "kz")
    value = torch.cat([part.values["x"] for part in parts])
    assert k.shape == value.shape == (1000, 5, 3)
    likely = torch.stack([dist.Normal(2.0 * i + z, 1.0).log_prob(x) for i in range(2)], -1)
    exact = torch.where(unmasked[:, None], chances.log() + likely, chances.log()).softmax(-1)[
        ..., 1
    ]
    far = (k - exact).sum(0) / (exact * (1 - exact)).sum(0).sqrt()
    assert far.abs().max() < 4.5
    rest = value - 2.0 * k - z
    assert abs(rest.mean()) < 0.04
    assert abs(rest.std() - 1) < 0.04


def test_a_chain_of_enumerated_states_is_drawn_from_its_exact_posterior():
    move = torch.tensor([[0.9, 0.1], [0.3, 0.7]])

    def model(x):
        with pyro.plate("data", len(x)):
            k = 0
            for t in pyro.markov(range(3)):
                fn = dist.Categorical(move[k])
                k = pyro.sample(f"k_{t}", fn, infer={"enumerate": "parallel"})
                pyro.sample(f"x_{t}", dist.Normal(2.0 * k, 1.0), obs=x[:, t])

    x = torch.tensor([[0.5, 1.0, 1.8], [1.5, 0.2, 0.9]])
    paths = torch.cartesian_prod(*3 * [torch.arange(2)])
    before = torch.cat([torch.zeros(8, 1, dtype=torch.long), paths[:, :-1]], 1)
    joint = move[before, paths].log().sum(1)
    joint = joint + dist.Normal(2.0 * paths, 1.0).log_prob(x[:, None]).sum(-1)
    exact = joint.softmax(-1)
    parts = list(posterior_predictive(model, None, x, num_samples=2000, stream=True))
    drawn = [torch.cat([part.latents[f"k_{t}"] for part in parts]) for t in range(3)]
    code = 4 * drawn[0] + 2 * drawn[1] + drawn[2]
    found = nn.functional.one_hot(code, 8).double().mean(0)
    assert ((found - exact).abs() / (exact * (1 - exact) / 2000).sqrt()).max() < 4.5


class Convolved(pyro.nn.PyroModule):
    """A convolutional decoder, which takes four dimensions and no more."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1, 3, 3), 1.0).to_event(3))
            pyro.sample("x", dist.Normal(self.net(z), 0.01).to_event(3), obs=x)


def test_a_network_that_accepts_no_particle_dimension_is_run_one_replicate_at_a_time(small_blocks):
    model = Convolved()
    for part in prior_predictive(model, torch.zeros(17, 2, 3, 3), num_samples=6, stream=True):
        net = model.net.eval()
        with torch.no_grad():
            expected = torch.stack([net(z) for z in part.latents["z"]])
        assert (part.values["x"] - expected).abs().max() < 0.1
        assert part.latents["z"].std(0).min() > 0


def test_covariates_are_not_replicated_and_model_and_guide_read_their_own_fields():
    def model(x, level):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(10 * level + z, 0.01), obs=x)

    def guide(hint, unused=None):
        with pyro.plate("data", len(hint)):
            pyro.sample("z", dist.Normal(hint, 0.01))

    level, hint = torch.arange(8.0), torch.randn(8)
    data = {"hint": hint, "level": level, "x": torch.zeros(8)}
    drawn = posterior_predictive(model, guide, data, num_samples=4)["x"]
    assert (drawn - 10 * level - hint).abs().max() < 0.1


# Latents outside the row plate


def shared_loc(x):
    loc = pyro.sample("loc", normal(torch.zeros(2), 3.0))
    with pyro.plate("groups", 3):
        pyro.sample("other", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", normal(loc, 0.001), obs=x)


def shared_loc_guide(x):
    pyro.sample("loc", normal(torch.ones(2), 3.0))


@pytest.mark.parametrize("guide", [None, shared_loc_guide])
def test_a_shared_latent_is_one_draw_for_all_blocks_and_another_for_each_replicate(
    guide, either_way, small_blocks
):
    x = torch.zeros(200, 2)
    parts = list(posterior_predictive(shared_loc, guide, x, num_samples=10, stream=True))
    assert len(parts) > 20
    drawn = posterior_predictive(shared_loc, guide, x, num_samples=10)["x"]
    assert drawn.std(1).max() < 0.01
    assert drawn.mean(1).std(0).min() > 0.5
    assert len(drawn.mean(1)[:, 0].unique()) == 10
    for part in parts:
        assert part.latents["loc"].shape == (len(part.samples), 2)
        assert part.latents["other"].shape == (len(part.samples), 3)
        assert (part.values["x"] - part.latents["loc"][:, None]).abs().max() < 0.01


# Every row once, and repeatable


@pytest.mark.parametrize("name", ["gaussian", "mapping", "with_global", "enumerated_in_the_model"])
def test_a_stream_has_each_row_of_each_replicate_once_with_the_same_draws(
    name, either_way, small_blocks
):
    model, guide, data = made(PAIRS[name])
    whole = posterior_predictive(model, guide, data, num_samples=6, seed=3)
    count = {site: torch.zeros(value.shape[:2]) for site, value in whole.items()}
    parts = posterior_predictive(model, guide, data, num_samples=6, seed=3, stream=True)
    for part in parts:
        chosen = torch.arange(part.samples.start, part.samples.stop)[:, None]
        assert len(part.samples) <= 4
        for site, value in part.values.items():
            count[site][chosen, part.index] += 1
            assert torch.equal(value, whole[site][chosen, part.index])
    assert all((times == 1).all() for times in count.values())


@pytest.mark.parametrize("stream", [False, True])
def test_a_seed_decides_the_draws_and_the_generators_are_restored(stream):
    model, guide, x = made(PAIRS["gaussian"])

    def draw(seed):
        found = posterior_predictive(model, guide, x, num_samples=3, seed=seed, stream=stream)
        return next(found).values["x"] if stream else found["x"]

    before = pyro.util.get_rng_state()
    first = draw(5)
    after = pyro.util.get_rng_state()
    assert torch.equal(before["torch"], after["torch"])
    assert before["random"] == after["random"]
    assert (before["numpy"][1] == after["numpy"][1]).all()
    assert torch.equal(first, draw(5))
    assert not torch.equal(first, draw(6))
    torch.manual_seed(1)
    free = draw(None)
    assert not torch.equal(free, draw(None))
    torch.manual_seed(1)
    assert torch.equal(free, draw(None))


def test_the_modules_are_left_in_training_mode():
    model, guide, x = made(PAIRS["dropout"])
    posterior_predictive(model, guide, x, num_samples=2)
    assert model.training
    assert guide.training


def test_sites_are_chosen_by_name_and_unknown_names_are_refused():
    model, guide, data = made(PAIRS["mapping"])
    chosen = posterior_predictive(model, guide, data, num_samples=2, sites="label")
    assert list(chosen) == ["label"]
    with pytest.raises(ValueError, match=r"sites: expected some of \['x', 'label'\]"):
        posterior_predictive(model, guide, data, sites="z")
    with pytest.raises(ValueError, match='row plate "other"'):
        posterior_predictive(model, guide, data, plate="other")
    with pytest.raises(ValueError, match="num_samples: expected a whole number"):
        posterior_predictive(model, guide, data, num_samples=0)


def test_any_form_of_data_gives_the_same_draws(tmp_path):
    model, guide, x = made(PAIRS["gaussian"])
    expected = posterior_predictive(model, guide, x, num_samples=2)["x"]
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=tuple(x.shape))
    mapped[:] = x.numpy()
    frame = pd.DataFrame(x.numpy(), index=range(100, 100 + len(x)))
    for data in (x.numpy(), x.double().numpy(), (x,), {"x": x}, mapped, frame):
        assert torch.equal(posterior_predictive(model, guide, data, num_samples=2)["x"], expected)


def test_replicates_have_the_dtype_of_the_site(double):
    model, guide, x = made(PAIRS["gaussian"])
    assert posterior_predictive(model, guide, x, num_samples=2)["x"].dtype == torch.float64
    model, guide, data = made(PAIRS["mapping"])
    drawn = posterior_predictive(model, guide, data, num_samples=2)["label"]
    assert drawn.dtype == torch.int64
    assert drawn.shape == (2, 40)


def test_one_row_another_plate_name_and_no_latent_work():
    def model(x):
        with pyro.plate("lines", len(x)):
            pyro.sample("x", normal(x.new_full((2,), 5.0), 0.01), obs=x)

    for guide in (None, lambda x: None):
        drawn = posterior_predictive(model, guide, torch.zeros(1, 2), num_samples=3, plate="lines")[
            "x"
        ]
        assert drawn.shape == (3, 1, 2)
        assert (drawn - 5).abs().max() < 0.1


def test_the_dimension_of_a_plate_of_features_follows_that_of_the_rows():
    def model(x):
        with pyro.plate("data", len(x)), pyro.plate("features", 3):
            loc = 10 * torch.arange(3.0)[:, None] + 100 * torch.arange(float(len(x)))
            pyro.sample("x", dist.Normal(loc, 0.01), obs=x.T)

    drawn = prior_predictive(model, torch.zeros(5, 3), num_samples=2)["x"]
    expected = 100 * torch.arange(5.0)[:, None] + 10 * torch.arange(3.0)
    assert (drawn - expected).abs().max() < 0.1
