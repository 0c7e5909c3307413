"""``fit_detector`` needs no settings: any table of numbers, in any units."""

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import AnomalyDetector, fit_detector
from ppl_vae.data.rows import Rows

pytestmark = pytest.mark.filterwarnings("ignore:clean. column .kind. holds one value")


def table(count, seed=0):
    """Return rows near a ring, a constant column among them, in units from 1e-3 to 1e6."""
    draws = np.random.default_rng(seed)
    angle = draws.uniform(0, 2 * np.pi, count)
    columns = {
        "width": 1e6 + 1e5 * np.cos(angle),
        "height": 1e-3 * np.sin(angle),
        "kind": np.ones(count),
    }
    return pd.DataFrame(columns) + draws.normal(size=(count, 3)) * [2e3, 2e-5, 0]


@pytest.fixture(scope="module")
def detector():
    return fit_detector(table(400), updates=300, progress=False)


def test_strange_rows_are_found_inside_a_hole_and_far_away(detector):
    strange = pd.DataFrame({"width": [1e6, 3e6], "height": [0.0, 0.0], "kind": [1.0, 1.0]})
    assert detector(strange)["flagged"].tolist() == [True, True]
    assert detector(table(1000, seed=1))["flagged"].mean() < 0.15


def test_a_detector_is_the_same_in_other_units_and_for_the_same_seed(detector):
    rows = table(400)
    again = fit_detector(rows, updates=300, progress=False)
    np.testing.assert_array_equal(again.scores, detector.scores)
    scaled = fit_detector(rows * [1e3, 1e-2, 1], updates=300, progress=False)
    same = scaled.scores - np.log(1e3) - np.log(1e-2)
    assert np.corrcoef(same, detector.scores)[0, 1] > 0.9


def test_the_calibration_rows_have_no_part_in_the_fit(monkeypatch):
    seen = {}
    plain = AnomalyDetector.__init__

    def watch(self, model, guide, calibration, **settings):
        seen["calibration"] = (
            Rows(calibration) if not isinstance(calibration, Rows) else calibration
        )
        plain(self, model, guide, calibration, **settings)

    monkeypatch.setattr(AnomalyDetector, "__init__", watch)
    frame = table(200)
    found = fit_detector(frame, updates=2, progress=False)
    taken = seen["calibration"].index
    assert len(taken) == 40
    exemplars = found.model.exemplars.numpy()[:, 0]
    rest = frame.drop(index=taken)["width"].to_numpy(np.float32)
    assert np.isin(exemplars, rest).all()
    assert not np.isin(frame.loc[taken, "width"].to_numpy(np.float32), exemplars).any()


def test_a_detector_goes_into_a_run_and_back(detector, tmp_path):
    detector.save(tmp_path / "run")
    again = AnomalyDetector.load(tmp_path / "run")
    rows = table(30, seed=2)
    pd.testing.assert_frame_equal(again(rows), detector(rows))


def test_a_column_of_one_value_is_told_of():
    with pytest.warns(UserWarning, match='clean: column "kind" holds one value in all rows'):
        fit_detector(table(100), updates=1, progress=False)
    with pytest.warns(UserWarning, match=r"clean: columns 0, 2 hold one value in all rows"):
        fit_detector(torch.randn(100, 3) * torch.tensor([0.0, 1, 0]), updates=1, progress=False)


def test_bad_tables_are_refused_by_name():
    with pytest.raises(ValueError, match="clean: expected at least 95 rows"):
        fit_detector(torch.randn(94, 3))
    with pytest.raises(ValueError, match="clean: expected one table"):
        fit_detector(torch.randn(100, 1, 4, 4))
    with pytest.raises(ValueError, match="clean: expected one table"):
        fit_detector({"x": torch.randn(100, 3), "y": torch.randn(100)})
    with pytest.raises(ValueError, match="clean: expected at least 4 rows"):
        fit_detector(torch.randn(3, 3), calibration=torch.randn(30, 3))
    bad = table(100)
    bad.loc[7, "width"] = np.inf
    with pytest.raises(ValueError, match=r"clean: .*got inf in row 7, column \"width\""):
        fit_detector(bad, progress=False)
