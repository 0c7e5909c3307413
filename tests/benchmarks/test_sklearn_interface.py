"""The benchmark of scikit-learn's interface runs, and goes on where it was cut off."""

import json

import numpy as np
import pandas as pd
import pytest
from parts.extras import load_digits


@pytest.fixture
def folder(tmp_path):
    """Random data in the form of adult.csv and of one set of ADBench."""
    random = np.random.default_rng(0)
    text = random.choice(["a", "b"], 700)
    income = np.where((text == "a") & (random.random(700) < 0.8), ">50K", "<=50K")
    frame = pd.DataFrame({"age": random.normal(size=700), "work": text, "income-per-year": income})
    frame.to_csv(tmp_path / "adult.csv", index=False)
    (tmp_path / "adbench").mkdir()
    x = np.concatenate([random.normal(size=(220, 3)), random.normal(size=(20, 3)) + 6])
    np.savez(tmp_path / "adbench" / "1_some.npz", X=x, y=np.repeat([0, 1], [220, 20]))
    return tmp_path


def test_every_task_has_its_line_and_is_not_computed_again(imported, folder):
    load_digits()
    benchmark = imported("sklearn_interface")
    out = folder / "rows.jsonl"
    words = ["--tiny", "--data", str(folder), "--out", str(out), "--draws", "1"]
    table = benchmark.main(words)
    assert sorted(table["task"]) == ["anomaly", "census", "digits"]
    (some,) = table[table["task"] == "anomaly"].to_dict("records")
    assert some["held_detector"] == some["fit_detector"]
    assert some["estimator"] == pytest.approx(some["fit_detector"], abs=0.02)  # other draws
    assert some["other_draws"] == pytest.approx(some["fit_detector"], abs=0.02)
    assert some["estimator_all_rows"] == pytest.approx(some["benchmark"], abs=0.02)
    lines = out.read_text()
    assert len(list(map(json.loads, lines.splitlines()))) == 3
    benchmark.main(words)
    assert out.read_text() == lines
