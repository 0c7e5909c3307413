"""The example of a curved posterior prints the ELBO of each family and draws one figure."""

from pathlib import Path

import pytest
from parts.scripts import run_script

FILE = Path(__file__).parents[2] / "examples" / "banana.py"


@pytest.mark.filterwarnings("ignore:fit. the ELBO was still rising")
def test_three_families_are_compared_in_one_figure(tmp_path):
    out, _ = run_script(FILE, "--epochs", 1, "--run", tmp_path / "run", folder=tmp_path)
    assert (tmp_path / "run" / "banana.png").stat().st_size > 5000
    lines = {line[:15]: line.split() for line in out.splitlines()}
    for name in ("diagonal normal", "full covariance", "planar flow    "):
        elbo, gap = map(float, lines[name][2:4])
        assert gap > 0  # the ELBO is a bound, and the sum over the grid is log p(x)
        assert abs(elbo + gap - float(out.split()[8])) < 0.01
    assert "Try next" in out
