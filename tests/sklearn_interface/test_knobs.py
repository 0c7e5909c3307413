"""Constructor parameters reach what they are for: the fit, the pair, the draws, the threshold."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from parts.extras import sklearn
from sklearn.base import clone

sklearn("base")

from ppl_vae import IWAE  # noqa: E402  skipped where scikit-learn is absent
from ppl_vae.sklearn import (  # noqa: E402
    LatentAnomalyDetector,
    LatentClassifier,
    LatentImputer,
    LatentVariableModel,
    base,
)
from ppl_vae.sklearn.pairs import GUIDES  # noqa: E402
from ppl_vae.zoo.catalog import zoo  # noqa: E402

X = np.random.default_rng(0).normal(size=(120, 3))
Y = np.where(np.arange(120) < 10, X[:, 0] > 0, -1)
QUICK = {"latents": 2, "epochs": 2, "compile": False, "random_state": 0}


def adam(parameters):
    return torch.optim.Adam(parameters, 0.01)


def halved(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


KNOBS = {
    "epochs": 3, "batch_size": 17, "kl_weight": 0.5, "validation": 0.25, "patience": 2,
    "clip_norm": 1.5, "elbo": IWAE(2), "optimizer": adam, "scheduler": halved, "compile": False,
}  # fmt: skip


@pytest.fixture
def options(monkeypatch):
    """The keywords of the last call of ``fit``."""
    seen, fit = {}, base.fit

    def watched(*pair, **keywords):
        seen.clear()
        seen.update(keywords)
        return fit(*pair, **keywords)

    monkeypatch.setattr(base, "fit", watched)
    return seen


@pytest.mark.filterwarnings("ignore:fit. ")
@pytest.mark.parametrize(
    "estimator",
    [
        LatentVariableModel(latents=2),
        LatentImputer(latents=2),
        LatentAnomalyDetector("gaussian", latents=2, contamination=0.1),
        LatentClassifier(latents=2),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_every_knob_of_a_fit_reaches_it(estimator, options):
    objective = {"elbo": None} if isinstance(estimator, LatentClassifier) else {}
    knobs = KNOBS | objective
    clone(estimator).set_params(**knobs, random_state=7, verbose=True).fit(X, Y)
    assert {name: options[name] for name in knobs} == knobs
    assert options["seed"] == 7
    assert options["progress"] is True
    assert set(options) == {*KNOBS, "seed", "progress"}


def test_what_is_not_given_is_chosen_by_the_rows(options):
    density = LatentVariableModel("ppca", latents=1, compile=False, random_state=0)
    density.fit(X)
    assert (options["validation"], options["patience"], options["progress"]) == (0.1, 50, False)
    assert options["epochs"] == base.default_epochs(120, 128) == 600
    parameter = torch.nn.Parameter(torch.zeros(1))
    assert options["optimizer"]([parameter]).param_groups[0]["lr"] == 3e-3
    clone(density).set_params(learning_rate=0.02).fit(X[:60])
    assert options["validation"] is options["patience"] is None
    assert options["optimizer"]([parameter]).param_groups[0]["lr"] == 0.02


def test_the_rate_of_a_classifier_falls_over_its_second_half(options):
    LatentClassifier(**QUICK | {"epochs": 100}).fit(X, Y)
    assert options["validation"] is options["patience"] is None
    optimizer = options["optimizer"]([torch.nn.Parameter(torch.zeros(1))])
    scheduler, rates = options["scheduler"](optimizer), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:50] == [3e-3] * 50
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert 0 < rates[-1] < 0.05 * rates[0]


def test_labelled_rows_are_repeated_until_they_have_their_share(monkeypatch):
    seen = {}

    def remembered(data, *pair, **keywords):
        seen.update(data)
        raise InterruptedError

    monkeypatch.setattr(base, "make_pair", remembered)
    for share, copies in [(0.0, 1), (0.15, 2), (0.5, 11)]:
        with pytest.raises(InterruptedError):
            LatentClassifier(label_share=share, **QUICK).fit(X, Y)
        assert (seen["y"] >= 0).sum() == 10 * copies
        assert (seen["y"] == -1).sum() == 110
        for start in range(120, len(seen["y"]), 10):
            assert (seen["x"][start : start + 10] == X[:10]).all()


@pytest.mark.parametrize("names", [["b", "a"], [7, 3]])
def test_classes_are_in_their_order_whichever_label_comes_first(names):
    x = np.repeat([[-3.0, 0.0], [3.0, 0.0]], 60, 0) + 0.3 * X[:, :2]
    y = np.repeat(np.array(names), 60)
    fitted = LatentClassifier(**QUICK | {"epochs": 40, "latents": 1}).fit(x, y)
    assert fitted.classes_.tolist() == sorted(names)
    assert (fitted.predict(x) == y).all()
    probabilities = fitted.predict_proba(x)
    assert (probabilities[:60, 1] > 0.5).all()
    assert (probabilities[60:, 0] > 0.5).all()


def test_states_of_random_numbers_seed_a_fit():
    def codes(state):
        return clone(LatentVariableModel("ppca", **QUICK)).set_params(random_state=state).fit(X)

    whole, again = (codes(np.random.RandomState(3)) for _ in range(2))
    assert (whole.transform(X) == again.transform(X)).all()
    first, second = codes(None), codes(None)
    assert first.seed_ != second.seed_
    assert (first.transform(X) != second.transform(X)).any()


@pytest.mark.filterwarnings("ignore:(score_samples|transform)")
def test_more_draws_make_a_score_surer():
    fitted = LatentVariableModel(**QUICK | {"epochs": 30}).fit(X)
    exact = fitted.set_params(num_samples=5000).score_samples(X)
    few, more = (
        np.abs(fitted.set_params(num_samples=count).score_samples(X) - exact).mean()
        for count in (2, 200)
    )
    assert more < 0.3 * few  # the square root of 100 would make it a tenth


def test_the_rate_of_false_alarms_and_the_score_are_those_asked_for():
    given = {"updates": 30, "num_samples": 10, "random_state": 0}
    strict, loose = (
        LatentAnomalyDetector(false_alarm_rate=rate, **given).fit(X) for rate in (0.05, 0.4)
    )
    for fitted, rate in [(strict, 0.05), (loose, 0.4)]:
        assert fitted.offset_ == -fitted.detector_.threshold(rate)
        assert ((fitted.p_values(X) <= rate) == (fitted.predict(X) == -1)).all()
    assert (strict.predict(X) == -1).sum() < (loose.predict(X) == -1).sum()
    other = LatentAnomalyDetector(anomaly_score="divergence", **given).fit(X)
    assert other.detector_.scoring.score == "divergence"
    assert (other.score_samples(X) != strict.score_samples(X)).all()


def test_every_guide_of_its_own_is_in_the_zoo():
    assert set(GUIDES) <= set(zoo("models"))
    assert set(GUIDES.values()) <= set(zoo("guides"))
    assert all(zoo("models")[name].needs_guide for name in GUIDES)


def test_a_model_of_the_users_own_file(tmp_path):
    source = Path(importlib.util.find_spec("ppl_vae.models.gaussian").origin).read_text()
    (tmp_path / "mine.py").write_text(source.replace("GaussianModel", "MineModel"))
    fitted = LatentVariableModel(f"{tmp_path / 'mine.py'}:MineModel", **QUICK).fit(X)
    assert type(fitted.model_).__name__ == "MineModel"
    assert fitted.transform(X).shape == (120, 2)


def test_table_arguments_make_a_table_and_are_refused_beside_numbers():
    frame = pd.DataFrame({"a": np.arange(120) % 3, "b": X[:, 0]})
    kinds = {"kinds": {"a": "categorical"}}
    fitted = LatentVariableModel(table_arguments=kinds, **QUICK).fit(frame)
    assert {column.kind for column in fitted.schema_.columns} == {"categorical", "real"}
    for estimator in (LatentVariableModel, LatentAnomalyDetector):
        with pytest.raises(ValueError, match="table_arguments: expected None for a model of num"):
            estimator("gaussian", table_arguments=kinds, **QUICK).fit(frame)


def test_a_classifier_takes_numbers_alone():
    with pytest.raises(ValueError, match="could not convert string to float"):
        LatentClassifier(**QUICK).fit(pd.DataFrame({"a": ["x", "y"] * 60}), Y)
    with pytest.raises(ValueError, match="NaN"):
        LatentClassifier(**QUICK).fit(np.where(X > 2, np.nan, X), Y)


def test_polars_frames_are_frames():
    polars = pytest.importorskip("polars")
    frame = pd.DataFrame(X, columns=list("abc"))
    fitted = LatentVariableModel("ppca", **QUICK).fit(polars.DataFrame(frame.to_dict("list")))
    assert fitted.feature_names_in_.tolist() == ["a", "b", "c"]
    assert (fitted.transform(frame) == clone(fitted).fit(frame).transform(frame)).all()
