"""A frame is read by the names of its columns once a pair was fitted to it."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from ppl_vae import (
    build,
    elbo_terms,
    encode,
    fit,
    generate,
    interpolate,
    lint,
    load,
    log_likelihood,
    posterior_predictive,
    predictive_check,
    prior_predictive,
    reconstruct,
    save,
    traverse,
)
from ppl_vae.data.columns import column_order
from ppl_vae.data.rows import Rows
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel


def table(rows=40):
    rng = np.random.default_rng(0)
    height = rng.normal(170, 10, rows)
    weight = rng.normal(70, 12, rows) + 0.8 * (height - 170)
    return pd.DataFrame({"height": height, "weight": weight, "age": rng.normal(40, 9, rows)})


FRAME = table()
ORDERS = {
    "reordered": FRAME[["weight", "age", "height"]],
    "with more columns": FRAME.assign(city="Bern")[["age", "city", "weight", "height"]],
}


def fitted(data=FRAME, **settings):
    pyro.set_rng_seed(0)
    model, guide = build(GaussianModel, data, latents=1), build(NormalGuide, data, latents=1)
    fit(model, guide, data, epochs=1, batch_size=20, progress=False, **settings)
    return model, guide


FUNCTIONS = {
    "encode": encode,
    "log_likelihood": lambda *pair: log_likelihood(*pair, num_samples=20),
    "elbo_terms": elbo_terms,
    "reconstruct": reconstruct,
    "generate": lambda *pair: generate(*pair, num_samples=9),
    "interpolate": lambda m, g, data: interpolate(m, g, data.iloc[:3], steps=3),
    "traverse": lambda *pair: traverse(*pair, steps=3),
    "predictive_check": lambda *pair: predictive_check(*pair, num_samples=10).frame,
    "posterior_predictive": lambda *pair: posterior_predictive(*pair, num_samples=2),
    "prior_predictive": lambda m, g, data: prior_predictive(m, data, num_samples=2),
    "lint": lambda *pair: str(lint(*pair)),
}


@pytest.mark.filterwarnings("ignore::ppl_vae.evaluation.summary.UnreliableWarning")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_finds_the_columns_by_name(name, order):
    pair = fitted()
    expected, got = (FUNCTIONS[name](*pair, data) for data in (FRAME, ORDERS[order]))
    if isinstance(expected, dict):
        assert all(torch.equal(expected[site], got[site]) for site in expected)
    elif isinstance(expected, pd.DataFrame):
        same = ["height", "weight", "age"] if "height" in got.columns else list(got.columns)
        pd.testing.assert_frame_equal(got[same], expected[same])
    else:
        assert got == expected


def test_rows_come_back_in_the_order_of_the_given_frame():
    back = reconstruct(*fitted(), ORDERS["with more columns"])
    assert list(back.columns) == ["age", "weight", "height"]
    assert back["height"].mean() > 150


def test_rows_that_were_read_before_are_put_in_order_too():
    model, guide = fitted()
    got = encode(model, guide, Rows(ORDERS["reordered"]))
    pd.testing.assert_frame_equal(got, encode(model, guide, FRAME))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_missing_column_is_refused_by_name(name):
    pair = fitted()
    renamed = FRAME.rename(columns={"weight": "weights"})
    with pytest.raises(ValueError, match=r'none called "weight" .did you mean weights'):
        FUNCTIONS[name](*pair, renamed)


def test_arrays_and_names_of_another_kind_are_taken_by_position():
    model, guide = fitted()
    expected = encode(model, guide, FRAME)
    for data in (
        FRAME.to_numpy(),
        FRAME.set_axis(["a", "b", "c"], axis=1),
        pd.DataFrame(FRAME.to_numpy()),
    ):
        pd.testing.assert_frame_equal(encode(model, guide, data), expected)


def test_held_out_rows_and_a_second_fit_are_put_in_the_order_of_the_first():
    histories = []
    for other in (FRAME, ORDERS["reordered"]):
        model, _ = fitted(validation=other)
        model.requires_grad_(False)
        guide = NormalGuide(3, latents=1)
        histories.append(fit(model, guide, other, validation=other, epochs=1, progress=False))
    first, second = (history.frame.drop(columns="seconds") for history in histories)
    pd.testing.assert_frame_equal(first, second)


def test_a_run_knows_its_columns(tmp_path):
    model, guide = fitted(run=tmp_path / "run")
    expected = elbo_terms(model, guide, FRAME)
    loaded = load(tmp_path / "run")
    pd.testing.assert_frame_equal(elbo_terms(*loaded, ORDERS["reordered"]), expected)
    save(*loaded, tmp_path / "copy", data=ORDERS["reordered"])
    pd.testing.assert_frame_equal(elbo_terms(*load(tmp_path / "copy"), FRAME), expected)
    again, guide = build(GaussianModel, FRAME, latents=1), build(NormalGuide, FRAME, latents=1)
    swapped = ORDERS["reordered"]
    more = fit(
        again,
        guide,
        swapped,
        epochs=2,
        batch_size=20,
        progress=False,
        run=tmp_path / "run",
        resume=True,
    )
    assert list(more.frame["epoch"]) == [1, 2]


def test_what_build_reads_of_columns_belongs_to_their_names():
    model, guide = build(GaussianModel, FRAME, latents=1), build(NormalGuide, FRAME, latents=1)
    torch.testing.assert_close(model.loc, torch.tensor(FRAME.mean().to_numpy()).float())
    expected = elbo_terms(model, guide, FRAME)
    pd.testing.assert_frame_equal(elbo_terms(model, guide, ORDERS["reordered"]), expected)


def test_each_field_has_its_own_columns():
    def model(x, y):
        with pyro.plate("data", len(x)):
            mean = x @ pyro.param("slope", torch.tensor([1.0, 10.0]))
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y.squeeze(-1))

    x, y = FRAME[["height", "weight"]], FRAME[["age"]]
    fit(model, None, {"x": x, "y": y}, epochs=1, progress=False)
    expected = elbo_terms(model, None, {"x": x, "y": y})
    swapped = elbo_terms(model, None, {"y": y, "x": x[["weight", "height"]]})
    pd.testing.assert_frame_equal(swapped, expected)


def test_a_model_without_weights_may_be_fitted_to_other_columns():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 100.0).expand([2]).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 10.0).to_event(1), obs=x)

    for columns in (["height", "weight"], ["weight", "age"]):
        fit(model, AutoNormal(model), FRAME[columns], epochs=1, progress=False)


def test_halves_fitted_to_different_orders_are_refused_together():
    model, _ = fitted(FRAME)
    _, guide = fitted(ORDERS["reordered"])
    with pytest.raises(ValueError, match="fitted to the same columns in one order"):
        encode(model, guide, FRAME)


def test_columns_of_one_name_in_another_order_are_refused():
    with pytest.raises(ValueError, match='several called "a"'):
        column_order(pd.Index(["b", "a", "a"]), [["a", "a", "b"]])
    assert column_order(pd.Index(["a", "a", "b"]), [["a", "a", "b"]]) is None


def test_a_covariate_given_as_a_frame_is_found_by_name():
    def model(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample(
                "y", dist.Normal(x @ pyro.param("w", torch.tensor([1.0, 0.0])), 1e-3), obs=y
            )

    data = {"x": FRAME[["height", "weight"]], "y": FRAME["age"]}
    fit(model, None, data, epochs=1, progress=False)
    given = {"x": FRAME[["weight", "height"]].iloc[:4]}
    new = generate(model, None, data, given=given, num_samples=4)
    np.testing.assert_allclose(new["x"]["height"], FRAME["height"].iloc[:4], rtol=1e-5)
