"""The benchmark of missing cells measures its rows once, on the cells that are missing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from parts.extras import sklearn
from parts.scripts import run_script

from ppl_vae.core.sites import sample_sites

sklearn("datasets")  # the benchmark reads its breast cancer
FILE = Path(__file__).parents[2] / "benchmarks" / "imputation.py"


@pytest.fixture
def folder(tmp_path):
    """A folder with a file in the form of the wines'."""
    table = np.random.default_rng(0).normal(5, 1, (90, 13))
    table[:, 12] = np.where(np.arange(90) % 3 == 0, 1, 2)
    np.savetxt(tmp_path / "wine_quality.csv", table, delimiter=",")
    return tmp_path


def test_every_row_is_measured_once(folder):
    out = folder / "rows.jsonl"
    words = "--data", folder, "--tiny", "--out", out
    shown = run_script(FILE, *words, folder=folder)[0]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["row"] for line in lines] == ["miwae", "not_miwae", "ignores", "wine"]
    assert all(line["error"] > 0 and line["incomplete_rows"] > 0 for line in lines)
    assert "published 0.28699" in shown
    assert f"iterative {lines[3]['error_of_iterative']:.4f}  published 0.0687" in shown
    assert run_script(FILE, *words, folder=folder)[0] == shown
    assert len(out.read_text().splitlines()) == 4


def test_the_cells_are_those_of_the_papers(imported, folder):
    benchmark = imported("imputation")
    x, seen = benchmark.half_missing()
    assert x.shape == (569, 30)
    assert (~seen).sum() == 8535
    means = np.where(seen, x, np.nan)
    means = np.broadcast_to(np.nanmean(means, 0), x.shape)
    assert benchmark.error_of("miwae", means, x, seen) == pytest.approx(1.0275, abs=1e-4)
    x, seen = benchmark.large_missing(folder)
    assert x.shape == (60, 11)
    assert seen[:, 5:].all()
    assert (x[:, :5][~seen[:, :5]] > 0).all()
    assert (x[:, :5][seen[:, :5]] <= 1e-6).all()


def test_the_error_of_wines_is_over_the_range_and_counts_wrong_kinds(imported, folder):
    benchmark = imported("imputation")
    x, seen = benchmark.wines(folder, 0)
    assert x.shape == (90, 13)
    assert (~seen).mean() == pytest.approx(0.2, abs=0.03)
    assert (benchmark.wines(folder, 1)[1] != seen).any()
    filled = np.where(seen, 99.0, x + 0.1 * np.ptp(x, 0))
    filled[:, 12] = np.where(seen[:, 12], 9.0, 1.0)
    wrong = (x[:, 12] == 2)[~seen[:, 12]].mean()
    assert benchmark.error_over_range(filled, x, seen) == pytest.approx((12 * 0.1 + wrong) / 13)
    by_columns = benchmark.filled_by_sklearn(np.where(seen, x, np.nan), 0)
    assert np.allclose(by_columns[seen], x[seen])
    assert set(by_columns[:, 12]) == {1.0, 2.0}


def test_without_its_reason_the_model_is_the_same(imported):
    """The codes and the cells have equal densities, and only the site of the mask is gone."""
    benchmark = imported("imputation")
    torch.manual_seed(0)
    models = [benchmark.pair_of(name, 4)[0] for name in ("not_miwae", "ignores")]
    models[1].load_state_dict(models[0].state_dict())
    x, seen = torch.randn(7, 4), torch.rand(7, 4) > 0.5
    traces = []
    for model in models:
        torch.manual_seed(1)
        trace = benchmark.pyro.poutine.trace(model).get_trace(x, seen)
        trace.compute_log_prob()
        traces.append(trace)
    for name in ("z", "missing", "x"):
        one, other = (trace.nodes[name]["log_prob"] for trace in traces)
        torch.testing.assert_close(one, other)
    sites = [set(sample_sites(trace)) for trace in traces]
    assert sites[0] - sites[1] == {"seen"}
