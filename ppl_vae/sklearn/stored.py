"""Estimators in folders, without a pickle.

folder/estimator.json    class, parameters, what the fit found beside the weights
folder/pair/             the run directory of the pair, with the detector where there is one
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sklearn

from ppl_vae.anomaly.detector import AnomalyDetector
from ppl_vae.anomaly.scoring import Scoring
from ppl_vae.arguments import check_path, shown
from ppl_vae.data.schema import Schema
from ppl_vae.saving import storage
from ppl_vae.saving.loading import load
from ppl_vae.saving.locks import check_new
from ppl_vae.saving.runs import save
from ppl_vae.sklearn.pairs import FittedPair

FORMAT = 1
INFO, PAIR = "estimator.json", "pair"
PLAIN = ("seed_", "n_features_in_", "reads_table_", "offset_", "calibrated_", "codes_")
ARRAYS = ("feature_names_in_", "classes_")


def write(estimator: Any, path: Path) -> None:
    """Store a fitted estimator in a new folder; see ``PairEstimator.save``."""
    check_path("path", str(path))
    check_new(path)
    parameters, left_out = {}, []
    for name, value in estimator.get_params(deep=False).items():
        if is_plain(value):
            parameters[name] = value
        else:
            left_out.append(name)
    if left_out:
        warnings.warn(
            f"save: {', '.join(left_out)}: expected numbers, texts, lists and dictionaries, which "
            "JSON can hold, got others; they are left out: give them to load, "
            f"{type(estimator).__name__}.load(path, {left_out[0]}=...)",
            UserWarning,
            stacklevel=3,
        )
    known = vars(estimator)
    info: dict[str, Any] = {
        "format": FORMAT,
        "class": type(estimator).__name__,
        "versions": {"scikit-learn": sklearn.__version__},
        "parameters": parameters,
        "left_out": left_out,
        "fitted": {name: known[name] for name in PLAIN if name in known},
        "arrays": {name: _listed(known[name]) for name in ARRAYS if name in known},
        "schema": known["schema_"].to_json() if "schema_" in known else None,
        "form": estimator.pair_.form,
        "of_zoo": estimator.pair_.of_zoo,
        "anomaly_score": getattr(estimator, "anomaly_score", None),
    }
    path.mkdir(parents=True, exist_ok=True)
    detector = known.get("detector_")
    if isinstance(detector, AnomalyDetector):
        detector.save(path / PAIR)
    else:
        pair = estimator.pair_
        save(pair.model, pair.guide, path / PAIR, data=pair.example)
    storage.write_json(path / INFO, info)


def read(cls: type[Any], path: Path, parameters: dict[str, Any], *, trust_code: bool) -> Any:
    """Return the estimator of a folder; see ``PairEstimator.load``."""
    check_path("path", str(path))
    if not (path / INFO).exists():
        raise ValueError(f"path: expected a folder of {cls.__name__}.save, got {path}")
    info = storage.read_json(path / INFO)
    if info.get("format") != FORMAT or info.get("class") != cls.__name__:
        raise ValueError(
            f"path: expected a {cls.__name__} of format {FORMAT}, got {info.get('class')} of "
            f"format {info.get('format')}"
        )
    missing = [name for name in info["left_out"] if name not in parameters]
    if missing:
        raise ValueError(
            f"{missing[0]}: expected its value, which the folder could not hold; "
            f"{cls.__name__}.load(path, {missing[0]}=...)"
        )
    if odd := [name for name in parameters if name not in info["left_out"]]:
        raise ValueError(
            f"{odd[0]}: expected none of what the folder holds, got {shown(parameters[odd[0]])}"
        )
    estimator = cls(**{**info["parameters"], **parameters})
    for name, value in info["fitted"].items():
        setattr(estimator, name, value)
    for name, (values, dtype) in info["arrays"].items():
        setattr(estimator, name, np.array(values, dtype=dtype))
    if info["schema"] is not None:
        estimator.schema_ = Schema.of_json(info["schema"])
    _restore_pair(estimator, path / PAIR, info, trust_code=trust_code)
    return estimator


def _restore_pair(estimator: Any, run: Path, info: dict[str, Any], *, trust_code: bool) -> None:
    """Give an estimator the pair of a folder, and the detector where there is one."""
    if info["fitted"].get("calibrated_"):
        detector = AnomalyDetector.load(run, trust_code=trust_code)
        estimator.detector_, estimator.scoring_ = detector, detector.scoring
        made: tuple[Any, Any] = (detector.model, detector.guide)
    else:
        made = load(run, trust_code=trust_code)
        if "calibrated_" in info["fitted"]:
            estimator.detector_ = None
            estimator.scoring_ = Scoring(
                info["anomaly_score"], estimator.num_samples, estimator.seed_, "data"
            )
    estimator.history_ = None
    estimator.pair_ = FittedPair(*made, info["form"], of_zoo=info["of_zoo"])


def is_plain(value: Any) -> bool:
    """Return whether JSON holds a value and gives it back unchanged.

    Example:
        >>> is_plain({"components": 3}), is_plain((1, 2)), is_plain(len)
        (True, False, False)
    """
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(is_plain, value.values()))
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _listed(values: Any) -> tuple[list[Any], str]:
    """Return an array as a list and its dtype."""
    array = np.asarray(values)
    return array.tolist(), array.dtype.str if array.dtype.kind != "O" else "object"
