"""The benchmark of scoring a file runs, and its loop by hand computes the library's numbers."""

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def score_file(imported):
    pytest.importorskip("pyarrow", reason="Parquet files need pyarrow")
    return imported("score_file")


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
