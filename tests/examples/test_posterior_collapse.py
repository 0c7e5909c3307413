"""The example of a collapsed posterior prints the usage of latents and draws one figure."""

from pathlib import Path

import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
EXAMPLE = Path(__file__).parents[2] / "examples" / "posterior_collapse.py"


@pytest.mark.slow
def test_the_collapse_is_named_while_fitting_and_afterwards(tmp_path):
    options = "--epochs", 10, "--run", tmp_path / "run"
    out, _ = run_script(EXAMPLE, *options, folder=tmp_path)
    for words in ("While fitting: site", "posterior collapse at site", "free bits", "Try next"):
        assert words in out
    (figure,) = (tmp_path / "run").glob("*.png")
    assert figure.stat().st_size > 5000
