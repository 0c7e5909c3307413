"""An odd argument of a public function ends in a result or in a ``ValueError`` that names it."""

import importlib.util
import inspect
import itertools
import math
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ppl_vae
from ppl_vae import arguments, schedules
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.state_space import StateSpaceModel

HAS_ANNDATA = importlib.util.find_spec("anndata") is not None
AnnData = importlib.import_module("anndata").AnnData if HAS_ANNDATA else np.asarray

X = (torch.rand(12, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()


class Other:
    """An object that no function expects."""


def nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.zeros(3, 4), 0.1, 0, torch.qint8)


ODD = [
    None, True, False, -1, 0, 1, 3.5, 2**70, -(2**70), math.nan, math.inf, -math.inf, "", "x",
    b"x", [], ["x"], (), {}, {"a": 1}, {1}, Other, Other(), len, lambda x: x, float, slice(None),
    np.int64(3), np.int32(-1), np.float64(2.5), np.array(3), np.array([1, 2]), np.bool_(True),
    torch.tensor(3), torch.tensor([1.0, 2.0]), torch.tensor(math.nan), 1j, range(3),
    pd.Series([1]), pd.DataFrame({"a": [1]}), "\0", "a" * 5000, X[:3].tolist(), X[:0], X[0],
    X[:, :0],
    torch.zeros(3, 4, dtype=torch.complex64), torch.zeros(3, 4, device="meta"), quantized(),
    nested(), np.zeros((3, 4), np.longdouble), np.zeros((3, 4), complex),
    torch.zeros(3, 4).to_sparse(),
    np.zeros((3, 4), "datetime64[s]"), torch.zeros(3, 4).half(), np.zeros((3, 4), ">f4"),
]  # fmt: skip
"""Values of every kind; whole numbers beyond all sizes, but none that only takes forever."""

COUNTER = itertools.count()
PEOPLE = pd.DataFrame({"age": [31.5, 45.0, 28.5, 52.0], "city": ["Rome", "Oslo", "Oslo", "Rome"]})

OF_DATA = {"model", "guide", "data", "like", "cls"}
"""Arguments that the message may name by what they hold: a site, a column, a shape."""


def keywords_of(name, folder):
    """Return a public function, and arguments with which it runs in milliseconds."""
    pair = {"model": BernoulliModel(4, 2), "guide": NormalGuide(4, 2)}
    quick = {"compile": False, "epochs": 1, "progress": False}
    if name in ("IWAE", "RowELBO"):
        cls = getattr(ppl_vae, name)

        def fit_under(**options):
            return ppl_vae.fit(**pair, data=X, elbo=cls(**options), **quick)

        fit_under.__signature__ = inspect.signature(cls)
        return fit_under, {"num_particles": 2}
    if name in ("linear", "cyclical"):
        make = getattr(schedules, name)

        def weights(**options):
            schedule = make(**options)
            return [schedule(step) for step in (0, 1, 100)]

        weights.__signature__ = inspect.signature(make)
        return weights, {"steps" if name == "linear" else "period": 5}
    own = {
        "save": {**pair, "run": folder / f"run {next(COUNTER)}"},
        "load": {"run": folder / "kept"},
        "disentanglement": {
            **pair,
            "data": X,
            "factors": {"a": X[:, 0], "b": X[:, 1]},
            "num_bins": 2,
            "num_bootstrap": 0,
        },
        "build": {"cls": BernoulliModel, "data": X},
        "compare": {"pairs": {"a": tuple(pair.values()), "b": tuple(pair.values())}, "data": X},
        "gradient_estimators": {
            "model": pair["model"],
            "estimators": {"plain": pair["guide"]},
            "data": X,
            "num_draws": 2,
        },
        "forecast": {
            "model": StateSpaceModel(2, 2),
            "guide": None,
            "data": {"x": torch.zeros(3, 4, 2), "lengths": torch.tensor([4, 2, 1])},
            "steps": 2,
        },
        "inference_gap": {**pair, "data": X, "steps": 2, "num_samples": 10},
        "guide_calibration": {**pair, "like": X, "num_rows": 5, "num_draws": 3},
        "impute": {
            "model": StateSpaceModel(2, 2),
            "guide": None,
            "data": {
                "x": torch.zeros(3, 4, 2),
                "lengths": torch.tensor([4, 2, 1]),
                "seen": torch.ones(3, 4, 2).cumsum(1) > 1,
            },
        },
        "prior_predictive": {"model": pair["model"], "like": X, "num_samples": 3},
        "privacy_check": {"generated": PEOPLE.head(3), "data": PEOPLE},
        "read_data": {"path": folder / "rows.csv"},
        "fit_detector": {
            "clean": X.repeat(10, 1),
            "calibration": X.repeat(2, 1),
            "updates": 2,
            "progress": False,
        },
        "from_anndata": {"cells": AnnData(X.numpy())},
        "table": {"data": pd.DataFrame({"a": [1.5, -2, 0.5], "x": list("uvw")})},
        "sequences": {"data": pd.DataFrame({"a": [1, 1, 2], "b": [1, 2, 1], "c": 0.5}), "id": "a"},
    }
    function = getattr(ppl_vae, name)
    options = own.get(name, {**pair, "data": X})
    if name == "fit":
        options |= quick
    if name == "write_report":
        options |= {
            "path": folder / f"report {next(COUNTER)}.html",
            "num_samples": 5,
            "replicates": 3,
        }
    elif "num_samples" in inspect.signature(function).parameters:
        options |= {"num_samples": 3}
    return function, options


LEFT_OUT = () if HAS_ANNDATA else ("from_anndata",)  # it has nothing to read
FUNCTIONS = [
    *(n for n in ppl_vae.__all__ if inspect.isfunction(getattr(ppl_vae, n)) and n not in LEFT_OUT),
    "IWAE", "RowELBO", "linear", "cyclical",
]  # fmt: skip
CASES = [
    (name, argument)
    for name in FUNCTIONS
    for argument in inspect.signature(
        getattr(ppl_vae, name, None) or getattr(schedules, name)
    ).parameters
    if argument not in ("arguments", "compile")  # True compiles for seconds, and is a right value
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with a run and a table."""
    monkeypatch.chdir(tmp_path)
    ppl_vae.save(BernoulliModel(4, 2), NormalGuide(4, 2), tmp_path / "kept", data=X)
    pd.DataFrame(X.numpy(), columns=list("abcd")).to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path


def assert_result_or_clear_error(name, argument, value, folder):
    function, options = keywords_of(name, folder)
    options[argument] = value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = function(**options)
            if isinstance(result, Iterator):
                list(result)
    except ValueError as error:
        text = str(error)
        names = argument in text or str(value)[:20] in text
        assert names or argument in OF_DATA or "gradient is too large" in text, text


def odd_values():
    numbers = st.integers(-(2**80), 2**80).filter(lambda n: abs(n) < 50 or abs(n) > 10**15)
    return st.sampled_from(ODD) | numbers | st.floats() | st.text(max_size=9)


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_an_odd_argument_is_refused_by_its_name(name, argument, folder):
    @settings(
        max_examples=2 if name in ("write_report", "to_arviz") else 5,
        derandomize=True, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(odd_values())
    def holds(value):
        assert_result_or_clear_error(name, argument, value, folder)

    holds()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "argument"), CASES)
def test_every_odd_value_is_refused_by_the_arguments_name(name, argument, folder):
    for value in ODD:
        assert_result_or_clear_error(name, argument, value, folder)


@pytest.mark.parametrize(
    ("argument", "value"), [("num_samples", np.int64(3)), ("seed", np.uint8(3)), ("seed", None)]
)
def test_whole_numbers_of_numpy_are_whole_numbers(argument, value):
    options = {"num_samples": 3, argument: value}
    drawn = ppl_vae.generate(BernoulliModel(4, 2), None, X, **options)
    assert drawn.shape == (3, 4)
    if value is not None:
        again = ppl_vae.generate(BernoulliModel(4, 2), None, X, **options | {argument: int(value)})
        assert again.shape == drawn.shape


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("generate", {"num_samples": 10**12}, "num_samples: .*fits into memory, .* GB"),
        ("interpolate", {"steps": 10**12}, "steps: .*fits into memory"),
        ("traverse", {"steps": 10**12}, "steps: .*fits into memory"),
        ("predictive_check", {"num_samples": 10**12}, "num_samples: .*fits into memory"),
        ("impute", {"num_samples": 10**12}, "num_samples: .*fits into memory"),
        ("generate", {"given": 5}, "given: expected {field: values}, got 5"),
        ("generate", {"seed": True}, "seed: expected a whole number from 0"),
        ("fit", {"epochs": None}, "epochs: expected a whole number of at least 1, got None"),
        ("fit", {"run": 3}, "run: expected a path, got 3"),
        ("fit", {"callbacks": ["x"]}, "callbacks: expected functions, got 'x'"),
        ("fit", {"validation": math.inf}, "validation: expected a finite number, got inf"),
        ("fit", {"plate": [1]}, r"plate: expected a name, got \[1\]"),
        ("fit", {"data": torch.zeros(3, 4, device="meta")}, "data: .*meta device"),
        ("fit", {"data": torch.zeros(3, 4) * 1j}, "data: .*view_as_real"),
        ("fit", {"data": quantized()}, "data: .*dequantize"),
        ("fit", {"data": nested()}, "data: .*one shape, got a nested tensor"),
    ],
)
def test_the_message_says_what_to_do(name, options, words, tmp_path):
    function, right = keywords_of(name, tmp_path)
    with pytest.raises(ValueError, match=words):
        function(**right | options)


def test_every_shared_argument_of_a_public_function_is_checked():
    """A flag, a count or a seed of the same name in all functions has one check."""
    named = {argument for _, argument in CASES}
    assert named - set(arguments._CHECKS) <= {
        "arguments", "audit", "baseline",
        "calibration", "callbacks", "cells", "clean", "clip_norm", "cls",
        "columns", "comparison", "covariates", "data",
        "detector", "drop", "elbo",
        "end", "estimators", "factors", "fields", "index", "free_bits", "generated", "given",
        "held_out", "image_shape", "layer",
        "guide", "history", "id", "ignore", "inputs", "kinds", "kl_weight", "level", "like", "lr",
        "method", "missing", "model",
        "num_bins", "num_bootstrap", "num_draws", "num_rows", "optimizer", "pairs", "patience",
        "period", "ramp",
        "reference", "schema", "shards",
        "scheduler", "site", "sites", "start", "statistics", "step", "steps", "unseen",
        "validation", "width",
    }  # fmt: skip
