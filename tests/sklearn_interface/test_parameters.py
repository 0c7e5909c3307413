"""Constructor parameters: a wrong value is refused by ``fit``, in an error that names it."""

import inspect
import math
import warnings

import numpy as np
import pytest
from parts.extras import sklearn
from sklearn.base import clone
from test_arguments import ODD

sklearn("base")

from ppl_vae.sklearn import (  # noqa: E402  skipped where scikit-learn is absent
    LatentAnomalyDetector,
    LatentClassifier,
    LatentImputer,
    LatentVariableModel,
)

X = np.random.default_rng(0).normal(size=(30, 3))
Y = (X[:, 0] > 0).astype(int)
QUICK = {"latents": 2, "epochs": 1, "compile": False, "random_state": 0}
ESTIMATORS = {
    "density": LatentVariableModel(num_samples=3, **QUICK),
    "imputer": LatentImputer(num_samples=3, **QUICK),
    "detector": LatentAnomalyDetector("gaussian", num_samples=3, contamination=0.1, **QUICK),
    "detector_auto": LatentAnomalyDetector(updates=1, num_samples=3, random_state=0),
    "classifier": LatentClassifier(**QUICK),
}
ARGUMENTS = [3, ["hidden"], {1: 2}, {"nonsense": 1}]
WRONG = {
    "model": [3, None, "gausian", "", int, lambda data: 3, lambda data, latents: 3],
    "guide": [3, "norml", ""],
    "latents": [0, 2.5, "x", True],
    "model_arguments": ARGUMENTS, "guide_arguments": ARGUMENTS, "table_arguments": ARGUMENTS,
    "epochs": [0, 1.5, "x"], "batch_size": [0, None, 2.5],
    "learning_rate": [0, -1.0, math.nan, "x", None], "kl_weight": [-1, math.nan, "x", None],
    "validation": ["some", 2.0, -0.1, math.nan], "patience": [0, 1.5, "x"],
    "clip_norm": [0, -1, "x"], "elbo": ["x", 3], "optimizer": [3, "adam"], "scheduler": [3, "x"],
    "compile": ["x", 2, None], "num_samples": [0, 2.5, None], "random_state": [-1, 2.5, "x"],
    "verbose": ["x", 2, None], "contamination": [0, 0.7, "x", None, True],
    "false_alarm_rate": [0, 1, math.nan, "x"], "anomaly_score": ["x", 3, "typicality"],
    "updates": [0, 1.5, "x"], "label_share": [-0.1, 1, "x", math.nan],
}  # fmt: skip
CASES = [
    (name, parameter)
    for name, estimator in ESTIMATORS.items()
    for parameter in inspect.signature(type(estimator)).parameters
    if (name, parameter) != ("detector_auto", "model")  # which has updates, of "auto" alone
]


def fit(name, parameter, value):
    """Fit an estimator with one parameter of another value, which stands in the error."""
    estimator = clone(ESTIMATORS[name])
    setattr(estimator, parameter, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(X, Y)


def message_of(name, parameter, value):
    """Return the message with which a value is refused, ``None`` where it is taken."""
    try:
        fit(name, parameter, value)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_a_wrong_value_is_refused_by_its_name(name, parameter):
    for value in WRONG[parameter]:
        with pytest.raises(ValueError, match=f"{parameter}: ") as refused:
            fit(name, parameter, value)
        assert "expected" in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_every_odd_value_ends_in_a_fit_or_is_refused_by_its_name(name, parameter):
    for value in ODD:
        if value is True and parameter == "compile":  # a right value, which takes seconds
            continue
        message = message_of(name, parameter, value)
        # A rate of 2**70 is a right value, with which numbers overflow.
        far = parameter == "learning_rate" and isinstance(value, int)
        assert message is None or parameter in message or far, value


def test_estimators_that_share_parameters_share_their_constructor():
    assert LatentImputer.__init__ is LatentVariableModel.__init__
    shared = LatentVariableModel().get_params()
    for estimator, without, own in [
        (LatentImputer(), set(), set()),
        (LatentAnomalyDetector(), set(),
         {"contamination", "false_alarm_rate", "anomaly_score", "updates"}),
        (LatentClassifier(), {"table_arguments", "num_samples"}, {"label_share"}),
    ]:  # fmt: skip
        found = estimator.get_params()
        assert set(found) == set(shared) - without | own
        assert set(found) <= set(WRONG)
        others = {name for name in set(found) & set(shared) if found[name] != shared[name]}
        assert others == ({"validation", "patience"} if own == {"label_share"} else set())


def test_what_is_not_a_fits_own_is_refused():
    for estimator in ESTIMATORS.values():
        with pytest.raises(ValueError, match="sample_weight: expected None, got weights"):
            clone(estimator).fit(X, Y, sample_weight=np.ones(len(X)))
        with pytest.raises(TypeError, match="unexpected keyword argument 'weights'"):
            clone(estimator).fit(X, Y, weights=3)
