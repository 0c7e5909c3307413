"""Statistics that users pass as functions: their arguments, and what is done with their results."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pairs import PAIRS, made
from scipy.stats import kstest

from ppl_vae import predictive_check

S = 30


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


def plain(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", normal(x.new_zeros(x.shape[1])), obs=x)


def run(statistics, data=None, model=plain, guide=None, **options):
    data = torch.randn(20, 3) if data is None else data
    options = {"num_samples": S, **options}
    return predictive_check(model, guide, data, statistics=statistics, **options)


class Recorder:
    """A statistic that records its arguments."""

    def __init__(self):
        self.given = []

    def __call__(self, x):
        self.given.append(x)
        return 0.0


def test_a_function_is_called_once_for_the_data_and_once_for_each_replicate():
    x, recorder = torch.randn(20, 3), Recorder()
    run(recorder, x)
    assert len(recorder.given) == S + 1
    same = [bool(torch.equal(given, x)) for given in recorder.given]
    assert sum(same) == 1
    assert all(given.shape == x.shape for given in recorder.given)


def test_rows_of_several_blocks_arrive_in_order(monkeypatch):
    monkeypatch.setattr("ppl_vae.core.blocks.ELEMENTS", 1 << 6)
    monkeypatch.setattr("ppl_vae.predictive.replicates.PARTICLES", 4)

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(x[:, :1].expand(-1, 3), 0.001), obs=x)

    x, recorder = torch.arange(50.0)[:, None].expand(50, 3).clone(), Recorder()
    run(recorder, x, model)
    assert len(recorder.given) == S + 1
    assert all((given - x).abs().max() < 0.1 for given in recorder.given)


def test_a_users_mean_has_the_p_value_of_the_built_in_mean():
    x = torch.randn(40, 3) + torch.tensor([0.0, 0.3, 0.0])
    by_user = run({"centre": lambda x: x.mean(0)}, x).frame.loc[("(own)", "centre")]
    built_in = run("mean", x).frame.loc[("x", "mean")]
    for column in ("p_value", "p_adjusted", "flagged", "feature"):
        assert by_user[column] == built_in[column]
    for column in ("observed", "mean", "lower", "upper"):
        assert by_user[column] == pytest.approx(built_in[column], abs=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        torch.mean,
        lambda x: float(x.mean()),
        lambda x: np.float64(x.mean()),
        lambda x: x.double().mean().numpy(),
        lambda x: [x.mean()],
        lambda x: (float(x.mean()),),
        lambda x: x.mean()[None, None],
        lambda x, weight=1.0: x.mean() * weight,
    ],
)
def test_a_function_may_return_numbers_of_any_form(function):
    x = torch.randn(20, 3)
    line = run({"T": function}, x).frame.loc[("(own)", "T")]
    assert line["observed"] == pytest.approx(float(x.mean()), abs=1e-6)
    assert line["lower"] < line["mean"] < line["upper"]


def test_lists_and_mappings_may_mix_names_and_functions():
    def widest(x):
        return x.amax() - x.amin()

    assert set(run([widest, "mean"]).frame.index) == {("(own)", "widest"), ("x", "mean")}
    assert set(run({"W": widest, "any": "sd"}).frame.index) == {("(own)", "W"), ("x", "sd")}
    whole = run(["built-in", widest]).frame.index
    assert set(whole) == {*run(None).frame.index, ("(own)", "widest")}


def test_a_function_that_writes_into_its_argument_changes_nothing():
    x = torch.randn(20, 3)
    before = x.clone()

    def spoil(x):
        return x.fill_(7.0).mean()

    def mean(x):
        return x.mean()

    spoilt, clean = run([spoil, mean], x), run(mean, x)
    assert torch.equal(x, before)
    first, second = (check.frame.loc[("(own)", "mean")] for check in (spoilt, clean))
    for column in ("observed", "mean", "lower", "upper", "p_value"):
        assert first[column] == second[column]


def test_a_function_of_several_sites_gets_a_mapping_with_their_dtypes():
    model, guide, data = made(PAIRS["mapping"])
    recorder = Recorder()
    run(recorder, data, model, guide)
    assert all(list(given) == ["x", "label"] for given in recorder.given)
    assert all(given["label"].dtype == torch.int64 for given in recorder.given)
    assert sum(torch.equal(given["label"], data["label"]) for given in recorder.given) == 1
    recorder = Recorder()
    run(recorder, data, model, guide, sites="label")
    assert all(given.shape == (40,) for given in recorder.given)


def test_masked_cells_are_nan_in_the_data_and_in_every_replicate():
    unmasked = torch.rand(30, 3) > 0.3

    def model(x, unmasked):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(3), 1.0).mask(unmasked).to_event(1), obs=x)

    recorder = Recorder()
    run(recorder, {"x": torch.randn(30, 3), "unmasked": unmasked}, model)
    assert len(recorder.given) == S + 1
    assert all(torch.equal(given.isnan(), ~unmasked) for given in recorder.given)


# Discrepancies


def test_a_discrepancy_gets_the_latents_from_which_the_replicate_was_drawn():
    def model(x):
        loc = pyro.sample("loc", normal(torch.zeros(2)))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(x.new_zeros(2)))
            pyro.sample("x", normal(loc + 10 * z, 0.001), obs=x)

    def guide(x):
        pyro.sample("loc", normal(torch.ones(2)))
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x, 0.5))

    given = []

    def record(x, latents):
        given.append((x, dict(latents)))
        return 0.0

    x = torch.randn(20, 2)
    run(record, x, model, guide)
    assert len(given) == 2 * S
    replicated = [pair for pair in given if not torch.equal(pair[0], x)]
    assert len(replicated) == S
    for drawn, latents in given:
        assert latents["loc"].shape == (2,)
        assert latents["z"].shape == (20, 2)
        rest = (drawn - latents["loc"] - 10 * latents["z"]).abs().max()
        assert torch.equal(drawn, x) or rest < 0.05


def known_noise(scale):
    """Return a model x ~ N(z, 1), its exact guide, and data whose noise has another scale."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", normal(z[..., None].expand(*z.shape, 4), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(1) / 5, 0.2**0.5))

    return model, guide, torch.randn(100, 1) + scale * torch.randn(100, 4)


def chi_square(x, latents):
    return (x - latents["z"][:, None]).square().sum()


@pytest.mark.parametrize(("scale", "flagged"), [(1.0, False), (1.3, True), (0.7, True)])
def test_a_discrepancy_flags_noise_of_another_scale(scale, flagged):
    model, guide, x = known_noise(scale)
    line = run(chi_square, x, model, guide, num_samples=99).frame.iloc[0]
    assert bool(line["flagged"]) == flagged
    assert (line["p_value"] > 0.1) != flagged
    assert (line["observed"] > line["upper"]) == (scale > 1)


def test_a_discrepancy_without_a_guide_is_refused_and_one_with_the_exact_guide_is_sound():
    """The model made the data: with prior draws chi-square of the data is near 3, not near 1."""
    model, guide, x = known_noise(1.0)
    message = r'expected a guide for "chi_square", .* latents from the prior \(z\) have not seen'
    with pytest.raises(ValueError, match=message):
        run(chi_square, x, model)
    assert not run(chi_square, x, model, guide, num_samples=99).frame["flagged"].any()
    run(lambda x: x.square().sum(), x, model)


def test_a_discrepancy_of_a_model_without_latents_needs_no_guide():
    x = torch.randn(20, 3)
    line = run({"T": lambda x, latents: x.mean() + len(latents)}, x).frame.iloc[0]
    assert line["observed"] == pytest.approx(float(x.mean()), abs=1e-6)


def test_a_discrepancy_may_not_read_a_latent_that_the_guide_leaves_to_the_prior():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            w = pyro.sample("w", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", normal((z + w)[..., None].expand(*z.shape, 3)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(1), 1.0))

    x = torch.randn(20, 3)
    run({"T": lambda x, latents: latents["z"].mean()}, x, model, guide)
    with pytest.raises(ValueError, match='site "w": expected a latent that the guide draws'):
        run({"T": lambda x, latents: latents["w"].mean()}, x, model, guide)


def test_a_function_whose_second_argument_has_a_default_is_no_discrepancy():
    calls = []

    def statistic(x, latents=None):
        calls.append(latents)
        return x.mean()

    run(statistic)
    assert calls == [None] * (S + 1)


# p-values


@pytest.mark.slow
def test_p_values_of_a_users_statistic_are_uniform_under_the_model():
    found = []
    for seed in range(150):
        x = torch.randn(10, 2, generator=torch.Generator().manual_seed(1000 + seed))
        check = run({"T": lambda x: x.exp().mean(0)}, x, num_samples=39, seed=seed)
        found.append(check.frame["p_value"].iloc[0])
    assert kstest(np.array(found) - 0.5 / 40, "uniform").pvalue > 0.001


def test_the_worst_value_is_named_by_its_feature_or_its_number():
    x = torch.randn(50, 3)
    x[:, 1] += 2
    assert run({"T": lambda x: x.mean(0)}, x).frame["feature"].iloc[0] == "1"
    halves = run({"T": lambda x: [x[:, 0].mean(), x[:, 1].mean()]}, x)
    assert halves.frame["feature"].iloc[0] == "1"
    assert run({"T": lambda x: x.mean()}, x).frame["feature"].iloc[0] == ""


# Refused


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ("nope", "statistics: expected functions, or names among"),
        (["mean", 3], "got 3"),
        ([], "statistics: expected at least one, got none"),
        ({"T": lambda x: None}, 'expected "T" to return numbers, got NoneType'),
        ({"T": lambda x: "text"}, 'expected "T" to return numbers, got str'),
        ({"T": lambda x: {}}, 'expected "T" to return numbers, got dict'),
        ({"T": lambda x: x[x > 0]}, 'expected "T" to return the same number of values'),
    ],
)
def test_other_things_than_statistics_are_refused(statistics, message):
    with pytest.raises(ValueError, match=message):
        run(statistics)
