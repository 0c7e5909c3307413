"""``PyodDetector`` keeps pyod's contract, which is not scikit-learn's."""

import math

import numpy as np
import pytest
from parts.extras import sklearn
from sklearn.base import clone
from sklearn.preprocessing import MinMaxScaler

sklearn("base")

from ppl_vae.sklearn import LatentAnomalyDetector  # noqa: E402  skipped without scikit-learn
from ppl_vae.sklearn.pyod import PyodDetector  # noqa: E402

RANDOM = np.random.default_rng(0)
CLEAN = RANDOM.normal(size=(180, 1)) * [1.0, 2.0, -1.0] + 0.1 * RANDOM.normal(size=(180, 3))
X = np.concatenate([CLEAN, 3 * RANDOM.normal(size=(20, 3))])
NEW = np.array([[1.0, 2.0, -1.0], [2.0, -4.0, 2.0]])
QUICK = LatentAnomalyDetector(updates=100, num_samples=30, random_state=0)


@pytest.fixture(scope="module")
def fitted():
    return PyodDetector(contamination=0.1, detector=QUICK).fit(X)


def test_scores_labels_and_threshold_are_those_of_the_rows_of_the_fit(fitted):
    assert (fitted.decision_scores_ == fitted.decision_function(X)).all()
    assert fitted.threshold_ == pytest.approx(np.percentile(fitted.decision_scores_, 90))
    assert fitted.labels_.tolist() == (fitted.decision_scores_ > fitted.threshold_).tolist()
    assert fitted.labels_.sum() == 20
    assert fitted.labels_[180:].mean() > 0.5
    assert (fitted.predict(X) == fitted.labels_).all()


def test_higher_is_stranger_and_one_is_an_outlier(fitted):
    scores = fitted.decision_function(NEW)
    assert scores[1] > fitted.threshold_ > scores[0]
    assert fitted.predict(NEW).tolist() == [0, 1]
    assert (fitted.detector_.predict(NEW) == [1, -1]).all()  # scikit-learn's words


def test_probabilities_are_pyods(fitted):
    scaler = MinMaxScaler(clip=True).fit(fitted.decision_scores_[:, None])
    linear = fitted.predict_proba(X)
    np.testing.assert_allclose(linear[:, 1:], scaler.transform(fitted.decision_scores_[:, None]))
    assert fitted.predict_proba(NEW)[0, 1] < 0.5
    unified = fitted.predict_proba(X, method="unify")
    known = fitted.decision_scores_
    below = known <= known.mean()
    assert (unified[below, 1] == 0).all()
    one = np.abs((known - known.mean()) / known.std() - 1).argmin()  # about one deviation above
    assert unified[one, 1] == pytest.approx(0.68, abs=0.1)
    for found in (linear, unified):
        np.testing.assert_allclose(found.sum(1), 1)
    with pytest.raises(ValueError, match='method: expected "linear" or "unify", got \'rank\''):
        fitted.predict_proba(X, method="rank")


def test_confidence_is_the_chance_that_a_row_stays_on_its_side(fitted):
    """By the sum of the binomial distribution; near the threshold a row may fall on either side."""
    scores, rows = fitted.decision_scores_, len(X)
    confidence = fitted.predict_confidence(NEW)
    for score, sure, label in zip(
        fitted.decision_function(NEW), confidence, fitted.predict(NEW), strict=True
    ):
        below = (1 + (scores <= score).sum()) / (2 + rows)
        strange = sum(
            math.comb(rows, k) * below**k * (1 - below) ** (rows - k)
            for k in range(rows - 20 + 1, rows + 1)
        )
        assert sure == pytest.approx(strange if label else 1 - strange)
    near = np.argsort(abs(scores - fitted.threshold_))[0]
    assert confidence.min() > 0.99
    assert 0.3 < fitted.predict_confidence(X)[near] < 0.7
    labels, beside = fitted.predict(NEW, return_confidence=True)
    assert labels.tolist() == [0, 1]
    assert (beside == confidence).all()
    assert (fitted.predict_proba(NEW, return_confidence=True)[1] == confidence).all()


def test_the_contamination_is_the_adapters(fitted):
    other = clone(fitted).set_params(contamination=0.25)
    assert other.fit_predict(X).sum() == 50
    assert QUICK.contamination == "auto"  # the given detector is left alone
    for wrong in ("auto", 0.7, None):
        with pytest.raises(ValueError, match="contamination: expected"):
            PyodDetector(contamination=wrong, detector=QUICK).fit(X)
    with pytest.raises(ValueError, match="detector: expected a LatentAnomalyDetector"):
        PyodDetector(detector=PyodDetector()).fit(X)
