"""The detector, the imputer and the classifier: the library's numbers in scikit-learn's words."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ppl_vae import anomaly_scores, fit_detector
from ppl_vae.sklearn import (
    LatentAnomalyDetector,
    LatentClassifier,
    LatentImputer,
    LatentVariableModel,
)

pytestmark = pytest.mark.filterwarnings("ignore:transform")  # few epochs leave rows unreliable
QUICK = {"epochs": 3, "random_state": 0, "compile": False}


@pytest.fixture(scope="module")
def plane():
    """(400, 3) rows near a plane, and 100 that are off it."""
    random = np.random.default_rng(0)
    clean = random.normal(size=(400, 2)) @ [[1.0, 2, 0], [0, 1, -1]]
    strange = 3 * random.normal(size=(100, 3)) * clean.std(0)
    return clean + 0.1 * random.normal(size=clean.shape), strange


def test_the_detector_is_the_librarys_own(plane):
    clean, strange = plane
    rows = np.concatenate([clean[300:], strange])
    detector = LatentAnomalyDetector(updates=150, random_state=3).fit(clean[:300])
    library = fit_detector(clean[:300], updates=150, seed=3, progress=False)
    weights = detector.model_.state_dict()
    assert all((weights[name] == value).all() for name, value in library.model.state_dict().items())
    assert detector.offset_ == -library.threshold()
    plain = library(rows, progress=False)
    pd.testing.assert_frame_equal(detector.detector_(rows, progress=False), plain)
    # The estimator's own draws are others, one set for each row: as good as those of any seed.
    scores, labels = -detector.score_samples(rows), np.repeat([0, 1], 100)
    drawn = np.stack([
        anomaly_scores(library.model, library.guide, rows, num_samples=100, seed=seed)[
            "negative_log_likelihood"
        ]
        for seed in range(8)
    ])  # fmt: skip
    error = np.sqrt(1 + 1 / len(drawn))  # of one draw beside the mean of eight
    surprise = (scores - drawn.mean(0)) / (error * drawn.std(0, ddof=1))
    assert np.sqrt((surprise**2).mean()) < 2  # 1.0 to 1.2 where a seed of the library is tried
    areas = [roc_auc_score(labels, each) for each in drawn]  # with a deviation of 0.0008
    assert abs(roc_auc_score(labels, scores) - np.mean(areas)) < 4 * error * np.std(areas, ddof=1)
    assert min(areas) > 0.95
    flagged = detector.predict(rows) == -1
    assert ((detector.p_values(rows) <= 0.05) == flagged).all()
    assert flagged[labels == 0].mean() < 0.12
    assert detector.calibrated_


def test_contamination_flags_that_share_of_the_rows_of_the_fit(plane):
    rows = np.concatenate([plane[0], plane[1][:20]])
    detector = LatentAnomalyDetector(contamination=0.1, updates=100, random_state=0).fit(rows)
    assert (detector.predict(rows) == -1).sum() == 42
    assert not detector.calibrated_
    with pytest.raises(ValueError, match='contamination: expected "auto"'):
        detector.p_values(rows)
    with pytest.raises(ValueError, match="contamination: expected"):
        clone(detector).set_params(contamination=0.7).fit(rows)


def test_too_few_rows_to_calibrate_are_told(plane):
    with pytest.warns(UserWarning, match="X: expected at least 95 rows, a fifth of which"):
        LatentAnomalyDetector(updates=20, random_state=0).fit(plane[0][:60])


def test_parameters_of_other_models_are_refused_beside_the_detectors_own(plane):
    with pytest.raises(ValueError, match='latents: expected None for the model "auto"'):
        LatentAnomalyDetector(latents=3).fit(plane[0])
    with pytest.raises(ValueError, match="updates: expected None for another model"):
        LatentAnomalyDetector("gaussian", updates=3).fit(plane[0])
    other = LatentAnomalyDetector(
        "ppca", latents=2, epochs=200, learning_rate=0.02, random_state=0
    ).fit(plane[0])
    assert (other.predict(plane[1]) == -1).mean() > 0.5


def test_the_imputer_knows_columns_from_each_other_and_keeps_what_is_there(plane):
    x = plane[0].copy()
    gone = np.random.default_rng(1).random(x.shape) < 0.2
    x[gone] = np.nan
    imputer = LatentImputer(latents=2, epochs=150, learning_rate=0.01, random_state=0).fit(x)
    filled = imputer.transform(x)
    assert (filled[~gone] == x[~gone]).all()
    single = gone & (gone.sum(1, keepdims=True) == 1)  # two other columns tell the third
    error = np.sqrt(((filled - plane[0])[single] ** 2).mean())
    means = np.sqrt(((np.nanmean(x, 0) - plane[0])[single] ** 2).mean())
    assert error < 0.4 * means  # 0.31 of it, with a deviation of 0.024 over seeds of the fit
    order = np.random.default_rng(2).permutation(len(x))
    np.testing.assert_allclose(imputer.transform(x[order]), filled[order], rtol=1e-12)
    np.testing.assert_allclose(imputer.transform(x[:7]), filled[:7], rtol=1e-12)
    names = imputer.set_output(transform="pandas").transform(x).columns
    assert list(names) == ["x0", "x1", "x2"]


def test_the_imputer_fills_frames_with_text():
    random = np.random.default_rng(0)
    city = random.choice(["Oslo", "Rome"], 300)
    people = pd.DataFrame({"city": city, "pay": np.where(city == "Oslo", 20.5, -20.5)})
    people["pay"] += random.normal(size=300)
    holes = people.copy()
    holes.index = holes.index + 1000
    holes.iloc[:20, 0] = None
    holes.iloc[20:40, 1] = np.nan
    imputer = LatentImputer(latents=1, epochs=60, learning_rate=0.02, random_state=0).fit(holes)
    filled = imputer.transform(holes)
    assert list(filled.columns) == ["city", "pay"]
    assert filled.index.equals(holes.index)
    assert (filled["city"].to_numpy()[:20] == city[:20]).mean() > 0.9
    assert (np.sign(filled["pay"].to_numpy()[20:40]) == np.sign(people["pay"][20:40])).all()
    assert (filled.iloc[40:] == holes.iloc[40:]).all(axis=None)


@pytest.mark.slow
def test_the_classifier_learns_from_rows_without_a_label():
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 2)) * [0.4, 3.0] + np.repeat([[-1.5, 0.0], [1.5, 0.0]], 200, 0)
    truth = np.repeat(["left", "right"], 200)
    known = truth.astype(object)
    known[:] = -1
    for place in (0, 1, 398, 399):
        known[place] = truth[place]
    fitted = LatentClassifier(latents=1, random_state=0).fit(x, known)
    assert fitted.classes_.tolist() == ["left", "right"]
    assert fitted.score(x, truth) > 0.97
    alone = LogisticRegression().fit(x[[0, 1, 398, 399]], truth[[0, 1, 398, 399]])
    assert alone.score(x, truth) < fitted.score(x, truth)
    np.testing.assert_allclose(fitted.predict_proba(x).sum(1), 1)
    assert (fitted.predict_proba(x[5:9]) == fitted.predict_proba(x)[5:9]).all()


def test_the_likelihood_of_the_classifier_is_that_of_the_rows():
    random = np.random.default_rng(0)
    bits, y = (random.random((60, 5)) < 0.5).astype(float), np.arange(60) % 2
    names = [type(LatentClassifier(**QUICK).fit(x, y).model_).__name__ for x in (bits, bits + 0.5)]
    assert names == ["SemisupervisedModel", "SemisupervisedGaussianModel"]


def test_labels_are_checked(plane):
    rows = plane[0]
    for labels, words in [
        (np.zeros(400), "two classes or more, got 1 class"),
        (np.full(400, -1), "got 0 class"),
        (np.linspace(0, 1, 400), "Unknown label type"),
        (None, "requires y to be passed"),
        (np.zeros(3), "inconsistent numbers of samples"),
    ]:
        with pytest.raises(ValueError, match=words):
            LatentClassifier(**QUICK).fit(rows, labels)


def test_codes_of_a_column_transformer_go_into_a_classifier():
    random = np.random.default_rng(0)
    city = random.choice(["Oslo", "Rome"], 200)
    people = pd.DataFrame({"city": city, "pay": random.normal(size=200), "age": random.random(200)})
    y = (city == "Oslo").astype(int)
    codes = make_column_transformer(
        (LatentVariableModel("table", latents=2, **{**QUICK, "epochs": 60}), ["city", "pay"]),
        remainder="passthrough",
    )
    scores = cross_val_score(
        make_pipeline(codes, StandardScaler(), LogisticRegression()), people, y
    )
    assert scores.mean() > 0.9
