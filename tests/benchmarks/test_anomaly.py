"""The benchmark of anomaly detection runs, goes on where it was cut off, and splits as it says."""

import importlib
import json
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:clean. column 2 holds one value")


@pytest.fixture(scope="module")
def anomaly(imported):
    return imported("anomaly")


@pytest.fixture
def folder(tmp_path):
    """Two sets of 120 rows: three columns, one of which is constant; 20 rows are far away."""
    draws = np.random.default_rng(0)
    y = (np.arange(120) % 6 == 0).astype(int)
    for number, name in ((6, "cardio"), (43, "WDBC")):
        x = draws.normal(size=(120, 1)) + 0.1 * draws.normal(size=(120, 3))
        x = x * [1, 100, 0] + 8.0 * y[:, None] * [1, -100, 0] + 3
        np.savez(tmp_path / f"{number}_{name}.npz", X=x, y=y)
    return tmp_path


def run(anomaly, folder, *words):
    out = folder / "new" / "rows.jsonl"
    return anomaly.main(["--data", str(folder), "--out", str(out), "--tiny", *words]), out


def test_every_method_finds_anomalies_far_from_everything(anomaly, folder, capsys):
    table, out = run(anomaly, folder, "--seeds", "1")
    methods = [name for name in anomaly.METHODS if name != "pyod vae" or anomaly.has_pyod()]
    assert table.groupby("set")["method"].agg(list).tolist() == [methods] * 2
    assert (table["auroc"] > 0.9).all()
    assert (table["average_precision"] > 0.8).all()
    assert [json.loads(line) for line in out.read_text().splitlines()] == table.to_dict("records")
    printed = capsys.readouterr().out
    assert "choosing  confirming" in printed
    assert anomaly.has_pyod() or "PyOD is not installed" in printed


def test_rows_in_the_file_are_not_computed_again(anomaly, folder):
    words = ["--methods", "forest", "neighbours", "--sets", "WDBC", "--seeds", "1"]
    first, out = run(anomaly, folder, *words)
    lines = out.read_text().splitlines()
    out.write_text(lines[0] + "\n" + lines[1][:20])  # cut off in the second row
    with patch.object(anomaly, "measure", side_effect=anomaly.measure) as measure:
        again, _ = run(anomaly, folder, *words)
        assert [call.args[1] for call in measure.call_args_list] == ["neighbours"]
        run(anomaly, folder, *words[:-1], "2")  # another seed is another row
        assert measure.call_count == 3
    assert again["auroc"].tolist() == first["auroc"].tolist()


def test_training_rows_are_half_the_normal_ones_and_no_test_rows(anomaly):
    x, y = np.arange(100.0)[:, None], (np.arange(100) < 20).astype(int)
    train, test, labels = anomaly.split(x, y, seed=0, most=6000)
    assert len(train) == 40
    assert train.min() >= 20
    assert sorted([*train[:, 0], *test[:, 0]]) == list(range(100))
    assert (labels == (test[:, 0] < 20)).all()
    assert len(anomaly.split(x, y, seed=0, most=30)[0]) == 30


def test_a_set_that_is_not_there_is_named(anomaly, folder, capsys):
    with pytest.raises(SystemExit):
        run(anomaly, folder, "--sets", "wine")
    assert "expected names among ['WDBC', 'cardio'], got ['wine']" in capsys.readouterr().err


def test_stand_ins_have_anomalies_inside_the_range_of_normal_rows(anomaly, tmp_path):
    wines = np.random.default_rng(0).uniform(0, 9, (900, 13)).round(1)
    wines[:, 11], wines[:, 12] = np.arange(900) % 7 + 3, np.arange(900) // 450 + 1
    np.savetxt(tmp_path / "wine_quality.csv", wines, delimiter=",")
    stand_ins = importlib.import_module("anomaly_stand_ins")
    people = pd.DataFrame(wines[:, :6], columns=stand_ins.NUMBERS)
    people["income-per-year"] = np.where(np.arange(900) % 3, "<=50K", ">50K")
    people.to_csv(tmp_path / "adult.csv", index=False)
    stand_ins.main(["--data", str(tmp_path), "--out", str(tmp_path / "sets")])
    files = {path.stem.partition("_")[2]: path for path in (tmp_path / "sets").glob("*.npz")}
    assert len(files) == 12
    for name, path in files.items():
        with np.load(path) as file:
            x, is_normal = file["X"], file["y"] == 0
        assert 0 < (~is_normal).sum() < is_normal.sum()
        low, high = x[is_normal].min(0), x[is_normal].max(0)
        inside = ((x >= low) & (x <= high)).mean(1)[~is_normal].mean()
        assert inside > 0.85, name


@pytest.mark.parametrize("what", ["selection", "attribution"])
def test_decisions_are_measured_and_those_of_the_file_are_kept(imported, folder, what, capsys):
    decisions, out = imported("anomaly_decisions"), folder / "decisions.jsonl"
    words = [what, "cardio", "WDBC", "--data", str(folder), "--out", str(out), "--tiny"]
    table = decisions.main([*words, "--seeds", "1"])
    assert table.index.tolist() == ["cardio", "WDBC"]
    shares = table.drop(columns="seconds", level=0).xs("mean", axis=1, level=1)
    assert shares.to_numpy().min() >= 0
    assert shares.to_numpy().max() <= 1
    with patch.dict(decisions.WHAT, {what: None}):
        decisions.main([*words, "--seeds", "1"])
    assert len(out.read_text().splitlines()) == 2
