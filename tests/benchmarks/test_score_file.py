"""The benchmark of scoring a file runs, and its loop by hand computes the library's numbers."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def score_file():
    pytest.importorskip("pyarrow", reason="Parquet files need pyarrow")
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("score_file")
    sys.path.remove(str(FOLDER))
    sys.modules.pop("score_file", None)


def test_both_score_every_row_alike(score_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(score_file, "memory_of", lambda *arguments: 0.0)
    score_file.main(["--tiny"])
    assert "median ratio" in capsys.readouterr().out
    detector = score_file.detector_of(2000)
    rows, found = tmp_path / "rows.parquet", []
    score_file.write_rows(rows, 20)
    for contestant in (score_file.by_library, score_file.by_loop):
        contestant(detector, rows, tmp_path / "out.parquet")
        found.append(pd.read_parquet(tmp_path / "out.parquet")["score"])
    np.testing.assert_allclose(found[0], found[1], atol=0.3)
