"""A run as a function of a batch: the numbers of the public functions, however rows are cut."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
import torch
from parts.extras import polars, pyarrow

import ppl_vae
from ppl_vae import AnomalyDetector, Scorer, build, sequences
from ppl_vae.anomaly.scorer import GROUP
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.guides.recurrent import RecurrentGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.poisson import PoissonModel
from ppl_vae.models.sequence import SequenceModel

RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(RANDOM.normal(size=(50, 3)), columns=["a", "b", "c"])
CLEAN = pd.DataFrame(RANDOM.normal(size=(40, 3)), columns=["a", "b", "c"])
NUMBERED = FRAME.assign(id=RANDOM.permutation(1000)[:50] - 100, name="text")
VERBS = ["score", "evaluate", "encode"]
DRAWS = {"score": {}, "evaluate": {"num_samples": 20}, "encode": {"num_samples": 5}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a frame, with a detector."""
    torch.manual_seed(0)
    pair = build(GaussianModel, FRAME, latents=2), build(NormalGuide, FRAME, latents=2)
    path = tmp_path_factory.mktemp("runs") / "run"
    AnomalyDetector(*pair, CLEAN, num_samples=20).save(path)
    return path


def direct(run, verb, rows):
    """The results of the public functions."""
    if verb == "score":
        return AnomalyDetector.load(run)(rows).drop(columns="q_value")
    pair = ppl_vae.load(run)
    if verb == "encode":
        codes = ppl_vae.encode(*pair, rows, num_samples=5)
        return codes.set_axis([".".join(map(str, name)) for name in codes], axis=1)
    scores = ppl_vae.log_likelihood(*pair, rows, num_samples=20)
    terms = ppl_vae.elbo_terms(*pair, rows, num_samples=20)
    return pd.concat([scores, terms.add_prefix("elbo.")], axis=1)


@pytest.mark.filterwarnings("ignore:log_likelihood")
@pytest.mark.parametrize("verb", VERBS)
def test_results_are_those_of_the_public_functions(verb, run):
    scorer = Scorer(run, verb=verb, **DRAWS[verb])
    rows = NUMBERED.set_index("name", drop=False).set_axis(range(50, 100))
    found = scorer(rows)
    pd.testing.assert_frame_equal(found, direct(run, verb, FRAME.set_axis(range(50, 100))))
    plain = FRAME[["c", "a", "b"]]
    wanted = scorer(FRAME)
    for batch in (
        polars().DataFrame(plain.to_dict("list")),
        {name: plain[name].to_numpy() for name in plain},
        pickle.loads(pickle.dumps(plain)),
    ):
        pd.testing.assert_frame_equal(scorer(batch), wanted)
    table = scorer(pyarrow().Table.from_pandas(plain))
    pd.testing.assert_frame_equal(table.to_pandas(), wanted)


@pytest.mark.parametrize("verb", VERBS)
def test_with_numbers_results_do_not_depend_on_how_the_rows_are_cut(verb, run):
    scorer = Scorer(run, verb=verb, row="id", **DRAWS[verb])
    whole = scorer(NUMBERED)
    assert whole.columns[0] == "id"
    assert whole["id"].tolist() == NUMBERED["id"].tolist()
    order = np.random.default_rng(1).permutation(50)
    for cuts in ([50], [1, 7, 20, 50], range(1, 51)):
        pieces = [scorer(piece) for piece in np_split(NUMBERED.iloc[order], cuts)]
        assert pd.concat(pieces).sort_index().equals(whole)


def np_split(frame, cuts):
    """Pieces of a frame that end at some rows."""
    starts = [0, *list(cuts)[:-1]]
    return [frame.iloc[start:end] for start, end in zip(starts, cuts, strict=True)]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("row", [None, "id"])
def test_an_empty_batch_has_the_columns_and_types_of_any_other(verb, row, run):
    scorer = Scorer(run, verb=verb, row=row, **DRAWS[verb])
    found, wanted = scorer(NUMBERED[:0]), scorer(NUMBERED[:2])
    assert len(found) == 0
    assert found.dtypes.equals(wanted.dtypes)


def test_draws_come_from_the_number_and_not_from_the_place(run):
    scorer = Scorer(run, verb="evaluate", row="id", num_samples=5)
    same = pd.concat([FRAME.iloc[[0]]] * 4).assign(id=[3, 3 + GROUP, 4, 3])
    found = scorer(same)["log_prob"].to_numpy()
    assert found[0] == pytest.approx(found[3], abs=1e-5)
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert abs(found[0] - found[2]) > 1e-3


def test_a_worker_is_sent_no_weights_and_gives_the_same_bytes(run):
    scorer = Scorer(run, verb="encode")
    sent = pickle.dumps(scorer)
    assert len(sent) < 2000
    assert scorer(FRAME).equals(pickle.loads(sent)(FRAME))


def test_two_processes_give_the_bytes_of_one(run):
    scorer = Scorer(run)
    files = [FRAME.iloc[start : start + 10] for start in range(0, 50, 10)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert all(map(pd.DataFrame.equals, pool.map(scorer, files), map(scorer, files)))


def test_runs_of_arrays_take_named_columns_and_runs_of_fields_their_fields(tmp_path):
    torch.manual_seed(0)
    ppl_vae.save(GaussianModel(2), NormalGuide(2), tmp_path / "array", data=torch.randn(5, 2))
    scorer = Scorer(tmp_path / "array", verb="encode", columns=["c", "a"])
    wanted = Scorer(tmp_path / "array", verb="encode")(FRAME[["c", "a"]])
    pd.testing.assert_frame_equal(scorer(NUMBERED), wanted)
    with pytest.raises(ValueError, match=r"batch: expected rows of shape \(2,\), got \(3,\)"):
        Scorer(tmp_path / "array", verb="encode")(FRAME)
    fields = {"x": np.ones((5, 2)), "size": np.arange(1.0, 6.0)}
    ppl_vae.save(PoissonModel(2), NormalGuide(2), tmp_path / "fields", data=fields)
    counts = Scorer(tmp_path / "fields", verb="evaluate", num_samples=10)
    pair = ppl_vae.load(tmp_path / "fields")
    right = ppl_vae.log_likelihood(*pair, fields, num_samples=10)["log_prob"]
    assert counts(fields)["log_prob"].equals(right)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda run: Scorer(run, verb="judge"), "verb: expected one of score, evaluate, encode"),
        (lambda run: Scorer(run, num_samples=5), "num_samples: expected None for score"),
        (lambda run: Scorer(run, verb="encode", num_samples=0), "num_samples: expected"),
        (lambda run: Scorer(run, verb="encode", false_alarm_rate=0.1), "false_alarm_rate: expec"),
        (lambda run: Scorer(run / "none"), "none: no such run directory|none: not a run"),
        (lambda run: Scorer(run, row="id")(FRAME), "row: expected a column of the batch, got 'id'"),
        (lambda run: Scorer(run, row="a")(FRAME), 'row: expected whole numbers in the column "a"'),
        (lambda run: Scorer(run)(FRAME[["a", "b"]]), 'the run.s columns, got none called "c"'),
        (lambda run: Scorer(run)(FRAME[["a", "b"]][:0]), 'the run.s columns, got none called "c"'),
        (lambda run: Scorer(run)(FRAME.to_numpy()), "batch: expected a frame, a table or a mapp"),
        (lambda run: Scorer(run)(None), "batch: expected a frame, a table or a mapping of arrays"),
        (lambda run: Scorer(run)(FRAME.assign(c="text")), 'expected numeric columns, got "c"'),
    ],
)
def test_what_is_wrong_is_said_with_its_name(make, message, run):
    with pytest.raises(ValueError, match=message):
        make(run)


def test_a_run_without_a_detector_and_one_of_sequences_are_refused_at_once(tmp_path):
    ppl_vae.save(GaussianModel(2), NormalGuide(2), tmp_path / "plain", data=torch.randn(5, 2))
    with pytest.raises(ValueError, match=r"no detector\.safetensors in it"):
        Scorer(tmp_path / "plain")
    rows = sequences([torch.randn(3, 2), torch.randn(5, 2)])
    pair = build(SequenceModel, rows, latents=2), build(RecurrentGuide, rows, latents=2)
    ppl_vae.save(*pair, tmp_path / "steps", data=rows)
    with pytest.raises(ValueError, match="whose rows are sequences; use ppl-vae score"):
        Scorer(tmp_path / "steps", verb="encode")
