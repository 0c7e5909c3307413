"""Facts read from ``run.json``, in words."""

import numpy as np
import pandas as pd
import pytest

from ppl_vae import table
from ppl_vae.data.rows import Rows
from ppl_vae.report.run_facts import (
    ending,
    form_of_rows,
    half_as_call,
    read_history,
    recipe_as_call,
)


def test_a_recipe_is_shown_as_a_constructor_call():
    network = {"class": "nets:MLP", "arguments": {"hidden": {"list": [64, 32]}}}
    arguments = {"latents": 2, "decoder": {"object": network}, "loc": {"tensor": [0.0, 1.0]}}
    recipe = {"class": "file:Model", "arguments": arguments}
    call = "Model(latents=2, decoder=MLP(hidden=(64, 32)), loc=tensor of 2)"
    assert recipe_as_call(recipe) == call
    assert half_as_call({"recipe": {"model": recipe}, "model": "Model"}, "model") == call
    assert half_as_call({"recipe": None, "model": "Model"}, "model") == "Model"


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (np.zeros((5, 1)), "1 feature"),
        (np.zeros((5, 3)), "3 features"),
        (np.zeros((5, 8, 8)), "8 \N{MULTIPLICATION SIGN} 8 numbers each"),
        ({"x": np.zeros((5, 2)), "label": np.zeros(5)}, "x: 2 features; label: one number each"),
    ],
    ids=["column", "matrix", "images", "mapping"],
)
def test_the_form_of_rows_is_said_in_words(data, form):
    assert form_of_rows(Rows(data).template()) == form


def test_a_table_has_each_column_once_and_covariates_by_name():
    frame = pd.DataFrame({"age": [1.5, -2.0, None], "city": list("aba"), "sex": list("mfm")})
    template = Rows(table(frame, covariates="sex")).template()
    assert form_of_rows(template) == "2 features: age, city; covariates: 1 feature: sex"


def test_a_run_without_a_record_has_no_history(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,elbo,objective,validation_elbo,seconds\n")
    assert read_history(tmp_path, {"objective": "Trace_ELBO", "reason": "sampled"}) is None


def test_the_ending_of_an_unfinished_fit_is_known_without_a_history():
    assert "cut off" in ending({"status": "running"}, None)
    assert ending({"status": "saved"}, None).startswith("saved")
    error = {"status": "not finite", "history": {"error": 'site "z"'}}
    assert ending(error, None).endswith('not finite: site "z"')
    assert ending({}, None) == ""
