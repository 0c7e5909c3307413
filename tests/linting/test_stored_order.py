"""Rows that files hold in an order are found where training mixes some row groups at a time."""

import numpy as np
import pandas as pd
from parts.extras import pyarrow

from ppl_vae import lint, read_data
from ppl_vae.data import row_groups
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

pyarrow()
FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(4000, 3)), columns=list("abc"))


def findings(frame, folder):
    folder.mkdir()
    frame.to_parquet(folder / "rows.parquet", row_group_size=100, index=False)
    found = lint(GaussianModel(3, 2), NormalGuide(3, 2), read_data(folder)).warnings
    return [str(finding) for finding in found if "in no order" in str(finding)]


def test_sorted_rows_are_found_by_their_column_and_rows_in_any_order_are_not(tmp_path, monkeypatch):
    assert findings(FRAME.sort_values("b"), tmp_path / "in memory") == []
    monkeypatch.setattr(row_groups, "MEMORY", 1)
    (found,) = findings(FRAME.sort_values("b"), tmp_path / "sorted")
    assert 'column "b"' in found
    assert "mixes 2 of 40 row groups" in found
    assert "by 0.7" in found  # one standard deviation over the root of 2
    assert findings(FRAME, tmp_path / "random") == []
    drift = FRAME.assign(c=FRAME["c"] + np.linspace(0, 2, 4000))
    (found,) = findings(drift, tmp_path / "drift")
    assert 'column "c"' in found
