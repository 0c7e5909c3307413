"""The benchmark of the zoo runs, goes on where it was cut off, and its own likelihood is right."""

import json
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.stats import norm


@pytest.fixture(scope="module")
def zoo(imported):
    return imported("zoo")


def test_every_contest_is_fitted_scored_and_compared(zoo, tmp_path, capsys):
    out = tmp_path / "new" / "zoo.jsonl"
    table = zoo.main(["--tiny", "--seeds", "1", "--out", str(out)])
    expected = {(title, name) for title, c in zoo.CONTESTS.items() for name in c.models}
    assert set(zip(table["contest"], table["model"], strict=True)) == expected
    assert np.isfinite(table["log_prob"]).all()
    assert (table["log_prob"] >= table["elbo"]).all()
    assert table["k_hat above 0.7"].between(0, 1).all()
    assert [json.loads(line) for line in out.read_text().splitlines()] == table.to_dict("records")
    assert "negative binomial - poisson" in capsys.readouterr().out


def test_rows_in_the_file_are_not_computed_again(zoo, tmp_path):
    out = tmp_path / "zoo.jsonl"
    words = ["--tiny", "--seeds", "1", "--contests", "categories", "--out", str(out)]
    first = zoo.main(words)
    lines = out.read_text().splitlines()
    out.write_text(lines[0] + "\n" + lines[1][:20])  # cut off in the second row
    with patch.object(zoo, "measure", side_effect=zoo.measure) as measure:
        again = zoo.main(words)
        assert [call.args[1] for call in measure.call_args_list] == ["cell normal"]
        zoo.main(words)
        assert measure.call_count == 1
        zoo.main([*words, "--epochs", "1"])  # other settings are other rows
        assert measure.call_count == 3
    assert again["log_prob"].tolist() == first["log_prob"].tolist()


def test_differences_are_between_models_of_the_same_seed(zoo):
    scores = {("right", 0): 5.0, ("wrong", 0): 3.0, ("right", 1): 1.0, ("wrong", 1): 0.0}
    rows = [
        {"contest": "one", "model": name, "seed": seed, "log_prob": value}
        for (name, seed), value in scores.items()
    ]
    (found,) = zoo.differences(zoo.pd.DataFrame(rows)).to_dict("records")
    assert (found["mean"], found["least"], found["most"]) == (1.5, 1.0, 2.0)


def test_cells_of_a_normal_have_its_mass_and_add_up_to_one(zoo):
    loc = torch.tensor([0.3, -8.0, 2.0, 40.0], dtype=torch.float64)
    scale = torch.tensor([0.7, 2.0, 1e-2, 1.0], dtype=torch.float64)
    codes = torch.arange(6)[:, None].expand(6, 4)
    cell = zoo.CellNormal(loc, scale, torch.tensor([6, 6, 6, 6]))
    found = cell.log_prob(codes)
    assert torch.allclose(found.exp().sum(0), torch.ones(4, dtype=torch.float64))
    for column in (0, 1):
        edges = norm.cdf(np.arange(-0.5, 6), loc[column], scale[column])
        edges[[0, -1]] = 0, 1
        np.testing.assert_allclose(found[:, column].exp(), np.diff(edges), rtol=1e-9, atol=1e-15)
    leaf = loc.clone().requires_grad_()
    zoo.CellNormal(leaf, scale, torch.tensor([6, 6, 6, 6])).log_prob(codes).sum().backward()
    assert leaf.grad.isfinite().all()


def test_far_cells_are_planted_in_all_rows(zoo, tmp_path):
    (tmp_path / "adbench").mkdir()
    x = np.random.default_rng(0).integers(30, 150, (2000, 5))
    np.savez(tmp_path / "adbench" / "30_satellite.npz", X=x.astype(np.uint8))
    planted = zoo.satellite(tmp_path, 0, far=0.02)["x"].numpy()
    clean = zoo.satellite(tmp_path, 0)["x"].numpy()
    assert ((clean >= x) & (clean < x + 1.001)).all()
    changed = planted != clean
    assert changed.mean() == pytest.approx(0.02, abs=0.005)
    distance = np.abs(planted - clean.mean(0)) / clean.std(0)
    assert (distance[changed] >= 4.99).all()
