"""The example of a small encoder prints the gap of each encoder, and the small one is at fault."""

from pathlib import Path

import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
FILE = Path(__file__).parents[2] / "examples" / "small_encoder.py"


@pytest.mark.filterwarnings("ignore:fit. the ELBO was still rising")
def test_more_hidden_units_lessen_what_the_network_loses_and_not_what_the_family_does(tmp_path):
    words = "--epochs", 15, "--hidden", 2, 64, "--rows", 10, "--run", tmp_path / "run"
    out, _ = run_script(FILE, *words, folder=tmp_path)
    assert (tmp_path / "run" / "small_encoder.png").stat().st_size > 5000
    lines = [line.split() for line in out.splitlines()]
    small, large = (next(line for line in lines if line[:1] == [n]) for n in ("2", "64"))
    gaps, families, networks = ([float(line[k]) for line in (small, large)] for k in (1, 2, 3))
    assert gaps == pytest.approx([a + b for a, b in zip(families, networks, strict=True)], abs=2e-3)
    assert networks[0] > 3 * networks[1]
    assert abs(families[0] - families[1]) < 0.1 * networks[0]
    assert small[5] == "encoder"
    assert f"2 hidden units: the network makes {networks[0] / gaps[0]:.0%}" in out
    assert "enlarge the encoder" in out.split("\n64 hidden units")[0]
    assert "Try next" in out
