"""``evaluate``: the numbers of the public functions, and sentences on their reliability."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from parts.extras import PARQUET

import ppl_vae
from ppl_vae.data.files import read_data
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.flow import FlowModel

PAIR = """
import pyro, pyro.distributions as dist, torch
from pyro.nn import PyroModule
from torch import nn

class Shared(PyroModule):
    def forward(self, x):
        level = pyro.sample("level", dist.Normal(0.0, 100.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(level[..., None] + 0 * x, 300.0).to_event(1), obs=x)

class SharedGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(60.0))

    def forward(self, x):
        pyro.sample("level", dist.Normal(self.loc, 7.0))
"""


@pytest.fixture(scope="module")
def digits_run(digits_file, tmp_path_factory):
    """A run with a pair that was saved with the form of its data, and never fitted."""
    images = read_data(digits_file)
    torch.manual_seed(0)
    run = tmp_path_factory.mktemp("runs") / "digits"
    ppl_vae.save(BernoulliModel(64), NormalGuide(64), run, data=images)
    return run


def direct(run, rows, num_samples, **more):
    """Return the frames of ``log_likelihood`` and ``elbo_terms`` for the pair of a run."""
    pair = ppl_vae.load(run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = ppl_vae.log_likelihood(*pair, rows, num_samples=num_samples, **more)
    return scores, ppl_vae.elbo_terms(*pair, rows, num_samples=min(num_samples, 100), **more)


def test_numbers_equal_those_of_the_public_functions(ppl, wine_run, wine_file):
    told = ppl("evaluate", wine_run, wine_file, "--num-samples", "200", "--json").json
    scores, terms = direct(wine_run, read_data(wine_file), 200)
    assert (told["rows"], told["samples"], told["out"]) == (178, 200, None)
    expected = {
        "log_likelihood": scores["log_prob"],
        "elbo": scores["elbo"],
        "gap": scores["log_prob"] - scores["elbo"],
    }
    for name, values in expected.items():
        assert told[name]["mean"] == pytest.approx(values.mean())
        assert told[name]["standard_error"] == pytest.approx(values.sem())
    for name in ("ess", "k_hat"):
        got = [told[name][share] for share in ("5%", "50%", "95%")]
        assert got == scores[name].quantile([0.05, 0.5, 0.95], interpolation="nearest").tolist()
    assert told["k_hat"]["above"] == (scores["k_hat"] > told["k_hat"]["threshold"]).sum()
    by_site = told["elbo_by_site"]
    assert (by_site["samples"], by_site["global"]) == (100, {})
    assert list(by_site["sites"]) == ["z", "x"]
    for name, values in by_site["sites"].items():
        assert values["mean"] == pytest.approx(terms[name].mean())
        assert values["standard_error"] == pytest.approx(terms[name].sem())
    assert by_site["together"]["mean"] == pytest.approx(terms.sum(axis=1).mean())


def test_printed_numbers_equal_those_in_json(ppl, wine_run, wine_file):
    words = ("evaluate", wine_run, wine_file, "--num-samples", "30", "--seed", "3")
    told, shown = ppl(*words, "--json").json, ppl(*words).out
    assert "178 rows, 30 draws" in shown
    lines = [
        ("log-likelihood", *told["log_likelihood"].values()),
        ("ELBO", *told["elbo"].values()),
        ("log-likelihood minus ELBO", *told["gap"].values()),
        ("z", *told["elbo_by_site"]["sites"]["z"].values()),
        ("x", *told["elbo_by_site"]["sites"]["x"].values()),
        ("together", *told["elbo_by_site"]["together"].values()),
    ]
    printed = [line.split() for line in shown.splitlines()]
    for name, mean, error in lines:
        assert [*name.split(), f"{mean:.3f}", f"{error:.3f}"] in printed, name
    assert f"k-hat is above 0.32 in {told['k_hat']['above']} of 178 rows" in shown


def test_the_seed_reaches_both_functions(ppl, wine_run, wine_file):
    words = ("evaluate", wine_run, wine_file, "--num-samples", "5", "--json")
    first, again = ppl(*words).json, ppl(*words).json
    other = ppl(*words, "--seed", "1").json
    assert first == again
    for name in ("log_likelihood", "elbo_by_site"):
        assert first[name] != other[name]


@pytest.mark.parametrize("kind", ["csv", "tsv", PARQUET, "npy", "npz"])
def test_out_has_a_line_for_each_row(ppl, wine_run, wine_file, kind):
    words = ("evaluate", wine_run, wine_file, "--num-samples", "30", "--out", f"table.{kind}")
    assert ppl(*words, "--json").json["out"] == f"table.{kind}"
    scores, terms = direct(wine_run, read_data(wine_file), 30)
    table = read_data(f"table.{kind}")
    assert np.allclose(np.asarray(table), np.hstack([scores, terms]))
    if kind in ("csv", "tsv", "parquet"):
        assert list(table.columns) == ["log_prob", "elbo", "ess", "k_hat", "elbo.z", "elbo.x"]


def test_repeated_row_labels_stay_with_their_rows(ppl, wine_run, wine_file):
    pd.read_csv(wine_file).iloc[:3].set_axis(["u", "v", "u"]).to_csv("named.csv")
    ppl("evaluate", wine_run, "named.csv", "--num-samples", "30", "--out", "table.csv", "--quiet")
    table = read_data("table.csv")
    assert list(table.index) == ["u", "v", "u"]
    assert np.allclose(table["elbo.z"], direct(wine_run, read_data("named.csv"), 30)[1]["z"])


def test_out_never_overwrites_a_file_without_force(ppl, wine_run, wine_file):
    Path("table.csv").write_text("years of work")
    words = ("evaluate", wine_run, wine_file, "--num-samples", "2", "--out", "table.csv")
    assert "is there already; --force replaces it" in ppl(*words, code=2).err
    assert Path("table.csv").read_text() == "years of work"
    assert "178 rows in table.csv" in ppl(*words, "--force").out
    assert Path("table.csv").read_text().startswith("log_prob,")


def test_the_warning_names_the_option_of_the_command(ppl, digits_run, digits_file):
    words = ("evaluate", digits_run, digits_file, "--num-samples", "50")
    done = ppl(*words)
    above = ppl(*words, "--json").json["k_hat"]["above"]
    assert above > 0
    assert done.err.startswith(f"warning: k-hat is above 0.41 in {above} of 300 rows: the")
    assert done.err.count("\n") == 1
    assert "--num-samples" in done.err
    assert "log_likelihood" not in done.err
    assert ppl(*words, "--quiet").err == ""


def test_a_pair_without_a_guide_draws_from_the_prior(ppl):
    images = np.ones((5, 4), np.uint8)
    ppl_vae.save(BernoulliModel(4, 2), None, "run", data=images)
    np.save("x.npy", images)
    done = ppl("evaluate", "run", "x.npy", "--num-samples", "200", "--json").json
    scores, _ = direct("run", images, 200)
    assert not done["guide"]
    assert done["log_likelihood"]["mean"] == pytest.approx(scores["log_prob"].mean())
    assert list(done["elbo_by_site"]["sites"]) == ["x"]
    assert "no guide" in ppl("evaluate", "run", "x.npy", "--num-samples", "200").out


def test_a_model_with_nothing_latent_has_an_exact_log_likelihood_and_no_codes(ppl):
    ppl_vae.save(FlowModel(4), None, "run")
    np.save("x.npy", np.ones((5, 4)))
    for draws in ("20", "200"):
        shown = ppl("evaluate", "run", "x.npy", "--num-samples", draws).out
        assert "No latent is drawn: the log-likelihood is exact." in shown
        assert "from the prior" not in shown
        assert "no draws of the latents" in shown
    assert "encode" not in ppl("show", "run").out
    assert "rows have no codes" in ppl("encode", "run", "x.npy", code=1).err


def test_exact_rows_are_counted(ppl):
    model = BernoulliModel(4, 2)
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)  # x no longer depends on z
    ppl_vae.save(model, None, "run")
    np.save("x.npy", np.ones((5, 4)))
    told = ppl("evaluate", "run", "x.npy", "--num-samples", "30", "--json").json
    assert (told["k_hat"]["exact"], told["k_hat"]["50%"]) == (5, None)
    assert told["log_likelihood"]["mean"] == pytest.approx(4 * np.log(0.5), rel=1e-6)
    assert (
        "k-hat is -inf in 5 of 5 rows: all draws have the same importance weight"
        in ppl("evaluate", "run", "x.npy", "--num-samples", "30").out
    )


def test_few_draws_and_a_single_row_give_null_in_json(ppl, wine_run, wine_file):
    pd.read_csv(wine_file).iloc[:1].to_csv("one.csv", index=False)
    words = ("evaluate", wine_run, "one.csv", "--num-samples", "10")
    told = ppl(*words, "--json").json
    assert told["elbo"]["standard_error"] is None
    assert told["k_hat"] | {"threshold": 0} == {
        "5%": None, "50%": None, "95%": None, "threshold": 0, "above": 0, "exact": 0, "unknown": 1,
    }  # fmt: skip
    shown = ppl(*words).out
    assert "it needs at least 25 draws for each row; raise --num-samples" in shown
    assert "k-hat is above" not in shown
    assert "nan" not in shown


def test_sites_outside_the_row_plate_are_divided_by_the_rows(ppl, wine_file):
    Path("model.py").write_text(PAIR)
    Path("guide.py").write_text(PAIR)
    fit = ("fit", "model.py:Shared", "guide.py:SharedGuide", wine_file, "--run", "run")
    ppl(*fit, "--epochs", "1", "--quiet")
    words = ("evaluate", "run", wine_file, "--num-samples", "50")
    assert "--trust-code" in ppl(*words, code=1).err
    told = ppl(*words, "--trust-code", "--json").json["elbo_by_site"]
    level = told["global"]["level"]
    assert list(told["sites"]) == ["x"]
    assert level["per_row"] == pytest.approx(level["total"] / 178)
    sum_of_both = told["sites"]["x"]["mean"] + level["per_row"]
    assert told["together"]["mean"] == pytest.approx(sum_of_both)
    shown = ppl(*words, "--trust-code").out
    assert f"total {level['total']:.3f}, divided by 178 rows" in shown
    assert "conditional on draws of level, which lie outside the row plate" in shown


@pytest.mark.parametrize("count", ["0", "-3", "many", "2.5"])
def test_a_bad_number_of_draws_exits_with_2(ppl, wine_run, wine_file, count):
    done = ppl("evaluate", wine_run, wine_file, "--num-samples", count, code=2)
    assert "--num-samples" in done.err
    assert done.out == ""


def test_a_missing_run_or_file_exits_with_2(ppl, wine_run, wine_file):
    assert "no such run directory" in ppl("evaluate", "runs/none", wine_file, code=2).err
    assert "no such file" in ppl("evaluate", wine_run, "none.csv", code=2).err
