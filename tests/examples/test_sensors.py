"""The example of sensors finds the hours of wrong readings, and draws one figure."""

from pathlib import Path

import pytest
from parts.scripts import run_script

pytestmark = pytest.mark.filterwarnings("ignore:anomaly_scores. the particle filter")
FILE = Path(__file__).parents[2] / "examples" / "sensors.py"


@pytest.mark.slow  # half a minute
def test_the_model_finds_the_hour_more_often_than_the_sensors_range(tmp_path):
    out, _ = run_script(FILE, "--run", tmp_path / "run", folder=tmp_path)
    model, plain = (float(line.split()[-1]) for line in out.splitlines()[:2])
    assert model > plain + 0.3


def test_logs_are_fitted_scored_and_drawn(tmp_path):
    out, _ = run_script(FILE, "--epochs", 1, "--run", tmp_path / "run", folder=tmp_path)
    assert (tmp_path / "run" / "sensors.png").stat().st_size > 5000
    assert "state-space model" in out
