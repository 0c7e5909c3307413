"""The columns of sequences are known by name: their order changes no number, of any function."""

import copy
import pickle

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

import ppl_vae
from ppl_vae import build, fit, sequences
from ppl_vae.data.rows import Rows
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.state_space import StateSpaceModel
from ppl_vae.nn import seen_cells


def lines(rows=24, seed=0):
    """A frame in long form of three features of different scales, with a missing value."""
    random = np.random.default_rng(seed)
    parts = [
        pd.DataFrame(random.normal(size=(steps, 3)).cumsum(0) * [1, 10, 0.1], columns=[*"abc"])
        for steps in random.integers(3, 8, rows)
    ]
    frame = pd.concat([part.assign(id=f"s{n}", t=range(len(part))) for n, part in enumerate(parts)])
    frame.iloc[2, 1] = np.nan
    return frame.reset_index(drop=True)


LINES = lines()
ASIDE = LINES.assign(other=7.0)[["c", "t", "a", "other", "id", "b"]]
DATA, SWAPPED = (sequences(frame, id="id", step="t") for frame in (LINES, ASIDE))


@pytest.fixture(scope="module")
def pair():
    pyro.set_rng_seed(0)
    made = build(StateSpaceModel, DATA, latents=2), build(SmoothingGuide, DATA, latents=2)
    fit(*made, DATA, epochs=2, progress=False, compile=False)
    return made


def same(found, wanted):
    """Assert that results are equal to the last bit; of data, by the names of their columns."""
    if isinstance(found, pd.DataFrame):
        pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    elif isinstance(found, dict):
        assert found.keys() == wanted.keys()
        order = [found.columns["x"].index(name) for name in wanted.columns["x"]]
        found = {**found, "x": found["x"][..., order], "seen": found["seen"][..., order]}
        for name, values in wanted.items():
            assert np.array_equal(found[name], values, equal_nan=True)
    else:
        assert str(found) == str(wanted)


FUNCTIONS = {
    "encode": {},
    "log_likelihood": {"num_samples": 20},
    "elbo_terms": {},
    "anomaly_scores": {"reference": DATA, "num_samples": 20},
    "reconstruct": {"num_samples": 3},
    "generate": {"num_samples": 3},
    "forecast": {"steps": 2, "num_samples": 20},
    "lint": {},
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *FUNCTIONS.items(),
        ("log_likelihood", {"method": "particle_filter", "num_samples": 20}),
        ("anomaly_scores", {"per_step": True, "num_samples": 20}),
        ("anomaly_scores", {"reference": SWAPPED, "num_samples": 5, "attribution": True}),
    ],
)
@pytest.mark.filterwarnings("ignore")  # few draws count, after a fit of two epochs
def test_swapped_columns_change_no_number(pair, name, options):
    function = getattr(ppl_vae, name)
    same(function(*pair, SWAPPED, **options), function(*pair, DATA, **options))


@pytest.mark.filterwarnings("ignore")
def test_replicates_checks_and_detectors_find_the_columns(pair):
    for data in (DATA, SWAPPED):
        detector = ppl_vae.AnomalyDetector(*pair, data, num_samples=20)
        same(detector(SWAPPED), detector(DATA))
    checks = [ppl_vae.predictive_check(*pair, d, num_samples=20).frame for d in (SWAPPED, DATA)]
    same(*checks)
    assert set(checks[0]["feature"]) <= {*"abc", *(f"{a} & {b}" for a in "abc" for b in "abc")}
    drawn = [
        ppl_vae.posterior_predictive(*pair, d, num_samples=2, progress=False)
        for d in (SWAPPED, DATA)
    ]
    for found, wanted in zip(*(each.values() for each in drawn), strict=True):
        assert torch.equal(torch.as_tensor(found), torch.as_tensor(wanted))


def test_a_fit_goes_on_and_a_run_opens_by_name(tmp_path):
    def made():
        pyro.set_rng_seed(1)
        return build(StateSpaceModel, DATA, latents=2), build(SmoothingGuide, DATA, latents=2)

    how = {"progress": False, "compile": False, "seed": 0}
    run = tmp_path / "run"
    one, two = made(), made()
    fit(*one, DATA, validation=SWAPPED, epochs=2, run=run, **how)
    fit(*two, DATA, validation=DATA, epochs=4, **how)
    history = fit(*one, SWAPPED, validation=DATA, epochs=4, run=run, resume=True, **how)
    assert len(history.frame) == 4
    same(ppl_vae.encode(*one, SWAPPED), ppl_vae.encode(*two, DATA))
    opened = ppl_vae.load(run)
    same(ppl_vae.encode(*opened, SWAPPED), ppl_vae.encode(*one, DATA))
    with pytest.raises(ValueError, match='got none called "b"'):
        ppl_vae.encode(*opened, sequences(LINES.drop(columns="b"), id="id", step="t"))


@pytest.mark.filterwarnings("ignore")
def test_a_detector_that_was_saved_finds_the_columns(pair, tmp_path):
    detector = ppl_vae.AnomalyDetector(*pair, SWAPPED, num_samples=20)
    detector.save(tmp_path / "detector")
    opened = ppl_vae.AnomalyDetector.load(tmp_path / "detector")
    same(opened(SWAPPED), detector(DATA))


def test_a_run_without_names_opens_and_takes_columns_by_position(tmp_path):
    pyro.set_rng_seed(0)
    plain = {**DATA}  # what every run has stored before sequences had names
    made = build(StateSpaceModel, plain, latents=2), build(SmoothingGuide, plain, latents=2)
    ppl_vae.save(*made, tmp_path / "run", data=plain)
    opened = ppl_vae.load(tmp_path / "run")
    renamed = sequences(LINES.rename(columns={"a": "c", "c": "a"}), id="id", step="t")
    same(ppl_vae.encode(*opened, renamed), ppl_vae.encode(*opened, DATA))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_missing_column_is_refused(pair, name):
    less = sequences(LINES.drop(columns="b"), id="id", step="t")
    options = {key: value for key, value in FUNCTIONS[name].items() if key != "reference"}
    with pytest.raises(ValueError, match=r'expected the columns that .* got none called "b"'):
        getattr(ppl_vae, name)(*pair, less, **options)


def test_without_names_columns_are_taken_by_position(pair):
    swapped = sequences(LINES[["id", "t", *"cab"]], id="id", step="t")
    by_name, by_place = (ppl_vae.encode(*pair, data) for data in (swapped, {**swapped}))
    same(by_name, ppl_vae.encode(*pair, {**DATA}))
    assert not by_place.equals(by_name)


def test_values_and_what_is_seen_move_together_also_after_build_alone():
    pyro.set_rng_seed(0)
    made = build(StateSpaceModel, DATA, latents=2), build(SmoothingGuide, DATA, latents=2)
    same(ppl_vae.encode(*made, SWAPPED), ppl_vae.encode(*made, DATA))


def test_results_in_the_data_s_form_have_its_names_and_order(pair):
    swapped = sequences(LINES[["id", "t", *"cab"]], id="id", step="t")
    found = ppl_vae.reconstruct(*pair, swapped)
    assert found.columns == {"x": ["c", "a", "b"]}
    direct = ppl_vae.reconstruct(*pair, DATA)
    assert torch.equal(found["x"], direct["x"][..., [2, 0, 1]])
    same(ppl_vae.encode(*pair, found), ppl_vae.encode(*pair, direct))


@pytest.mark.filterwarnings("ignore")
def test_columns_are_shown_by_their_names(pair):
    frame = ppl_vae.forecast(*pair, SWAPPED, steps=1, num_samples=20)
    assert frame.columns.unique("feature").tolist() == ["a", "b", "c"]
    broken = copy.copy(DATA)
    broken["x"] = DATA["x"].clone()
    broken["x"][3, 1, 2] = torch.inf
    with pytest.raises(ValueError, match='row 3 in step 1, column "c"'):
        ppl_vae.AnomalyDetector(*pair, broken)


class Driven(PyroModule):
    """A code, and values that follow the inputs of each step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]))

    def forward(self, x, lengths, seen, inputs):
        x, mask = seen_cells(x, lengths, seen)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            each = dist.Normal(z[..., None, :] + inputs @ self.weight, 0.1)
            pyro.sample("x", each.mask(mask).to_event(2), obs=x)


def code_guide(x, lengths, seen, inputs):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(inputs[:, :1, 0], 0.1).to_event(1))


def test_inputs_have_names_of_their_own():
    random = np.random.default_rng(0)
    frame = LINES.assign(**{name: random.normal(size=len(LINES)) for name in "pq"}).fillna(0.0)
    data = sequences(frame, id="id", step="t", inputs=["p", "q"])
    swapped = sequences(frame[[*"bac", "id", "t", *"qp"]], id="id", step="t", inputs=["q", "p"])
    assert data.columns == {"x": [*"abc"], "inputs": ["p", "q"]}
    pair = Driven(), code_guide
    fit(*pair, data, epochs=1, progress=False, compile=False)
    for name in ("encode", "elbo_terms"):
        function = getattr(ppl_vae, name)
        same(function(*pair, swapped), function(*pair, data))
    future = random.normal(size=(len(data["x"]), 2, 2))  # in the order of each data's own inputs
    how = {"steps": 2, "num_samples": 20}
    found = ppl_vae.forecast(*pair, swapped, inputs=future[..., ::-1].copy(), **how)
    same(found, ppl_vae.forecast(*pair, data, inputs=future, **how))
    given = {"inputs": data["inputs"][:3]}
    drawn = ppl_vae.generate(*pair, data, given=given, num_samples=3)
    given = {"inputs": data["inputs"][:3].flip(-1)}
    other = ppl_vae.generate(*pair, swapped, given=given, num_samples=3)
    assert torch.equal(other["inputs"], drawn["inputs"].flip(-1))


def test_lists_in_cells_have_the_names_of_their_columns():
    cells = LINES.fillna(0.0).groupby("id", sort=False)[[*"abc"]].agg(list)
    assert sequences(cells).columns == {"x": [*"abc"]}
    whole = pd.DataFrame({"x": [np.ones((2, 3)), np.ones((1, 3))]})
    assert sequences(whole).columns == {}
    both = sequences(whole.assign(y=[[1.0, 2.0], [3.0]]), inputs="y")
    assert both.columns == {"inputs": ["y"]}
    mixed = sequences(whole.assign(y=[[1.0, 2.0], [3.0]]))
    assert mixed.columns == {"x": ["x", "x[1]", "x[2]", "y"]}


def test_names_survive_copies_and_fit_the_columns():
    assert pickle.loads(pickle.dumps(DATA)).columns == copy.deepcopy(DATA).columns == DATA.columns
    assert Rows({**DATA}).columns == {}
    assert Rows(DATA).fingerprint() == Rows({**DATA}).fingerprint()
    cut = copy.copy(DATA)
    cut["x"] = DATA["x"][..., :2]
    with pytest.raises(ValueError, match=r'data\["x"\]: expected the 3 columns .*, a, b, c, got'):
        Rows(cut)


@pytest.mark.filterwarnings("ignore")
def test_sequences_of_other_lengths_than_the_calibration_are_scored(pair):
    detector = ppl_vae.AnomalyDetector(*pair, DATA, num_samples=20)
    few = LINES[LINES["id"].isin(["s0", "s1"])]
    longer = few.iloc[[-1] * 9].assign(id="long", t=range(9))
    short, long = (sequences(f, id="id", step="t") for f in (few, pd.concat([few, longer])))
    for data in (short, long):
        found = ppl_vae.anomaly_scores(*pair, data, reference=DATA, num_samples=20)
        assert detector(data)["score"].equals(found["negative_log_likelihood"].rename("score"))
    with pytest.raises(ValueError, match=r"attribution: expected rows of shapes .* per_step"):
        ppl_vae.anomaly_scores(*pair, long, reference=DATA, num_samples=2, attribution=True)


@pytest.mark.filterwarnings("ignore")
def test_a_graph_of_some_steps_is_not_used_for_others(pair, monkeypatch):
    monkeypatch.setattr("ppl_vae.evaluation.particle_terms.compile_graph", None)  # traced alone
    short = sequences(LINES[LINES["t"] < 3], id="id", step="t")
    traced, eager = (
        ppl_vae.anomaly_scores(*pair, DATA, reference=short, num_samples=20, compile=compiles)
        for compiles in (True, False)
    )
    pd.testing.assert_frame_equal(traced, eager, rtol=1e-3)


def test_copies_of_a_mapping_keep_its_names():
    table = pd.DataFrame({"id": [1, 1, 2], "t": [1, 2, 1], "b": 1.0, "a": 2.0})
    data = sequences(table, id="id", step="t")
    for copied in (data.copy(), data | {}, data | {"more": torch.zeros(2)}):
        assert copied.names_of("x") == ["b", "a"]
    assert not hasattr({**data}, "names_of")
