"""The benchmark of census data measures its rows once, on cells and rows that no fit has seen."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("ensemble")  # its classifiers and imputers
FILE = Path(__file__).parents[2] / "benchmarks" / "tables.py"
TEXTS = {
    "workclass": ["Private", "State-gov", "?"], "education": ["HS-grad", "Masters", "11th"],
    "marital-status": ["Married", "Divorced"], "occupation": ["Sales", "Tech", "?"],
    "relationship": ["Wife", "Husband", "Own-child"], "race": ["White", "Black"],
    "sex": ["Male", "Female"], "native-country": ["Cuba", "Peru", "?"],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A folder with a file in the form of the census data, whose incomes follow the age."""
    random = np.random.default_rng(0)
    count = 420
    age = random.integers(17, 90, count)
    frame = pd.DataFrame({
        "age": age, "fnlwgt": random.integers(20_000, 400_000, count),
        "education-num": random.integers(1, 17, count),
        "capital-gain": np.where(random.random(count) < 0.1, random.integers(1, 9999, count), 0),
        "capital-loss": np.where(random.random(count) < 0.1, random.integers(1, 2000, count), 0),
        "hours-per-week": random.integers(10, 60, count),
        **{name: random.choice(values, count) for name, values in TEXTS.items()},
        "income-per-year": np.where(age + random.normal(0, 9, count) > 50, ">50K", "<=50K"),
    })  # fmt: skip
    frame.to_csv(tmp_path / "adult.csv", index=False)
    return tmp_path


def test_every_row_is_measured_once(folder):
    out = folder / "rows.jsonl"
    words = "--data", folder, "--tiny", "--seeds", "1", "--out", out
    shown = run_script(FILE, *words, folder=folder)[0]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    by_method = {(line["row"], line["method"]): line for line in lines}
    by_method.pop(("synthetic", "tvae"), None)  # where ctgan is installed
    methods = ["ours", "means", "iterative", "knn"]
    assert list(by_method) == [*(("imputation", m) for m in methods), ("synthetic", "ours")]
    assert by_method["imputation", "means"]["rmse"] == pytest.approx(1, abs=0.2)
    filled, made = by_method["imputation", "ours"], by_method["synthetic", "ours"]
    assert 0.5 < filled["rmse"] < 2
    assert len(filled["coverage"]) == 6
    assert filled["log_prob"] < 0
    assert 0.5 < made["real"] <= 1
    assert made["ratio"] == pytest.approx(made["auroc"] / made["real"])
    assert run_script(FILE, *words, folder=folder)[0] == shown
    assert len(out.read_text().splitlines()) == len(lines)


def test_a_fifth_of_the_cells_that_are_there_are_hidden(imported, folder):
    benchmark = imported("tables")
    frame = pd.read_csv(folder / "adult.csv").replace("?", np.nan)
    hidden, mask = benchmark.hidden(frame, 0)
    assert mask.mean() == pytest.approx(0.2, abs=0.02)
    assert not mask[frame.isna().to_numpy()].any()
    assert hidden.isna().to_numpy()[mask].all()
    assert (hidden.isna() == (frame.isna() | mask)).all().all()
    assert benchmark.numbers_of(frame) == list(frame.columns[:6])
    assert (benchmark.hidden(frame, 1)[1] != mask).any()


def test_the_memory_of_many_rows_is_measured(tmp_path):
    out = tmp_path / "rows.jsonl"
    run_script(FILE, "--rows", "million", "--tiny", "--out", out, folder=tmp_path)
    (line,) = [json.loads(text) for text in out.read_text().splitlines()]
    assert (line["row"], line["count"]) == ("million", 2000)
    assert line["MiB_table"] <= line["MiB_epoch"] <= line["MiB_log_likelihood"]
    assert line["seconds_epoch"] > 0


def test_random_rows_have_both_sorts_of_columns_and_gaps(imported):
    frame = imported("tables").random_rows(3000, 0)
    assert frame.shape == (3000, 30)
    assert len(frame.select_dtypes("number").columns) == 15
    assert frame.isna().to_numpy().mean() == pytest.approx(0.05, abs=0.005)
    assert [frame[f"text {i}"].nunique() for i in range(15)] == list(range(2, 17))


def test_the_folder_of_the_census_is_asked_for(tmp_path):
    with pytest.raises(SystemExit):
        run_script(FILE, "--tiny", folder=tmp_path)
