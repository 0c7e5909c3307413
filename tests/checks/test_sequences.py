"""Statistics of sequences in predictive checks: memory is seen, padding is not."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

import ppl_vae
from ppl_vae.checks.step_statistics import step_statistics
from ppl_vae.distributions import MarkovPath
from ppl_vae.nn import seen_cells

MEMORY = {"autocorrelation, lag 1", "autocorrelation, lag 2", "run length"}
LENGTHS = torch.randint(5, 30, (60,), generator=torch.Generator().manual_seed(0))


class Numbers(PyroModule):
    """Steps that follow one another with a correlation, each observed as it is."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def forward(self, x, lengths=None, seen=None):
        x, mask = seen_cells(x, lengths, seen)
        with pyro.plate("data", len(x)):
            noise = (1 - self.memory**2) ** 0.5
            path = MarkovPath(
                dist.Normal(torch.zeros(2), 1.0).to_event(1),
                lambda before: dist.Normal(self.memory * before, noise).to_event(1),
                x.shape[1],
                lengths,
            )
            z = pyro.sample("z", path)
            pyro.sample("x", dist.Normal(z, 0.1).mask(mask).to_event(2), obs=x)


class Bits(PyroModule):
    """Bits that stay as they were with a probability; half of them are 1."""

    def __init__(self, stays):
        super().__init__()
        self.stays = stays

    def forward(self, x, lengths=None, seen=None):
        x, mask = seen_cells(x, lengths, seen)
        with pyro.plate("data", len(x)):
            path = MarkovPath(
                dist.Bernoulli(torch.full((2,), 0.5)).to_event(1),
                lambda b: dist.Bernoulli(b * self.stays + (1 - b) * (1 - self.stays)).to_event(1),
                x.shape[1],
                lengths,
            )
            z = pyro.sample("z", path)
            each = dist.Bernoulli(0.02 + 0.96 * z)
            pyro.sample("x", each.mask(mask).to_event(2), obs=x)


def drawn(model, seed):
    """Sequences that a model has made, with NaN where nothing stands."""
    empty = {"x": torch.zeros(60, int(LENGTHS.max()), 2), "lengths": LENGTHS}
    data = ppl_vae.generate(
        model, None, empty, num_samples=60, given={"lengths": LENGTHS}, seed=seed
    )
    outside = torch.arange(data["x"].shape[1]) >= LENGTHS[:, None]
    data["x"][outside] = torch.nan
    return data


@pytest.mark.parametrize(
    ("right", "wrong", "found"),
    [
        (Numbers(0.8), Numbers(0.0), MEMORY),
        (Bits(0.9), Bits(0.5), MEMORY | {"0 to 1", "1 to 0"}),
    ],
    ids=["numbers", "bits"],
)
def test_a_model_without_memory_is_found_misfit_and_the_right_one_is_not(right, wrong, found):
    for seed in range(3):
        data = drawn(right, seed)
        for model, expected in ((wrong, found), (right, set())):
            frame = ppl_vae.predictive_check(model, None, data, num_samples=99).frame.loc["x"]
            flagged = set(frame.index[frame["flagged"]])
            assert expected <= flagged if expected else not flagged


def test_flags_of_a_right_model_of_sequences_are_as_rare_as_they_should_be():
    flagged = [
        bool(
            ppl_vae.predictive_check(Bits(0.9), None, drawn(Bits(0.9), seed), num_samples=39)
            .frame["flagged"]
            .any()
        )
        for seed in range(30)
    ]
    assert sum(flagged) <= 5  # 1.5 are expected; 6 or more have a chance of 0.3 %


def series(steps):
    return [torch.tensor(values)[:, None] for values in steps]


def statistics_of(arrays, kind, categories=0):
    """The statistics of some sequences of one feature, padded by ``sequences``."""
    data = ppl_vae.sequences(arrays)
    found = step_statistics(data["x"][None].float(), data["seen"], kind, categories)
    return {name: values[0].tolist() for name, values in found.items()}


def test_statistics_of_numbers_are_those_of_numpy_over_all_pairs():
    random = np.random.default_rng(0)
    arrays = [random.normal(5, 1, (steps, 1)) for steps in (3, 9, 1, 6)]
    arrays[1][4] = np.nan
    found = statistics_of(arrays, "real")
    for lag in (1, 2, 4):
        pairs = np.concatenate([np.stack([a[:-lag, 0], a[lag:, 0]]) for a in arrays], 1)
        pairs = pairs[:, ~np.isnan(pairs).any(0)]
        right = np.corrcoef(pairs)[0, 1]
        np.testing.assert_allclose(found[f"autocorrelation, lag {lag}"], right, rtol=1e-5)


def test_transitions_and_runs_are_counted_within_sequences_only():
    ones, zeros = [1.0] * 6, [0.0] * 6
    found = statistics_of(series([[*ones, *zeros], [*ones, 0.0, *ones], zeros]), "binary")
    np.testing.assert_allclose(
        found["0 to 1"], 1 / 11
    )  # the last zeros of two sequences have no successor
    np.testing.assert_allclose(found["1 to 0"], 2 / 17)
    assert found["run length"] == [18 / 3]


def test_a_gap_ends_a_run_and_makes_no_pair():
    gap = [*[1.0] * 5, np.nan, *[1.0] * 5, *[0.0] * 10]
    found = statistics_of(series([gap]), "binary")
    assert found["run length"] == [5]
    np.testing.assert_allclose(found["1 to 0"], 1 / 9)


def test_categories_have_a_column_each_and_rare_ones_none():
    steps = [*[0.0] * 12, *[2.0] * 12, 1.0]
    found = statistics_of(series([steps]), "categories", 3)
    np.testing.assert_equal(found["run length"], [12, np.nan, 12])
    np.testing.assert_allclose(found["1 to 0"], [1 / 12, np.nan, 1 / 12])


def test_padding_changes_no_statistic_and_no_flag():
    data = drawn(Numbers(0.8), 0)
    more = torch.full((60, 7, 2), torch.nan)
    longer = data | {"x": torch.cat([data["x"], more], 1)}
    titles = [f"{column}" for column in "01"]
    for one, other in zip(
        *(ppl_vae.predictive_check(Numbers(0.0), None, d, num_samples=19).features.itertuples()
          for d in (data, longer)), strict=True,
    ):  # fmt: skip
        assert one.Index == other.Index
        assert one.Index[2] in (*titles, "0 & 1")
        np.testing.assert_allclose(one.observed, other.observed, rtol=1e-5)


def test_inputs_of_each_step_are_covariates_and_lengths_are_not():
    class Follows(PyroModule):
        def forward(self, x, lengths=None, seen=None, inputs=None):
            x, mask = seen_cells(x, lengths, seen)
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(0 * inputs, 1.0).mask(mask).to_event(2), obs=x)

    random = np.random.default_rng(0)
    inputs = [random.normal(size=(int(steps), 1)) for steps in LENGTHS]
    arrays = [given + random.normal(size=given.shape) for given in inputs]
    data = ppl_vae.sequences(arrays, inputs=inputs)
    check = ppl_vae.predictive_check(Follows(), None, data, num_samples=19)
    line = check.features.loc[("x", "covariate correlation")]
    assert line.index.tolist() == ["0 ~ inputs[0]"]
    right = np.corrcoef(np.concatenate(arrays)[:, 0], np.concatenate(inputs)[:, 0])[0, 1]
    np.testing.assert_allclose(line["observed"], right, rtol=1e-6)


def test_figures_and_pit_are_of_the_steps_inside():
    data = drawn(Numbers(0.8), 0)
    check = ppl_vae.predictive_check(Numbers(0.0), None, data, num_samples=39)
    steps = int(LENGTHS.sum())
    assert check.coverage.loc["x"]["cells"].tolist() == [steps, steps]
    observed, replicated = check.values("x", "0")
    assert np.isfinite(observed).sum() == steps
    assert (np.isfinite(replicated) == np.isfinite(observed)).all()
    assert np.isfinite(check.sample["x"][0]).all()


def test_names_of_statistics_are_taken_for_sequences_alone():
    data = drawn(Numbers(0.8), 0)
    check = ppl_vae.predictive_check(
        Numbers(0.8), None, data, num_samples=19, statistics="run length"
    )
    assert check.frame.index.tolist() == [("x", "run length")]
    rows = {"x": torch.zeros(9, 1, 1)}
    with pytest.raises(ValueError, match="run length"):
        ppl_vae.predictive_check(Numbers(0.8), None, rows, num_samples=19, statistics="run length")
