"""The example of a grid search prints both tables and draws one figure."""

import re
from pathlib import Path

import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its wines
FILE = Path(__file__).parents[2] / "examples" / "scikit_learn.py"


@pytest.mark.filterwarnings("ignore:fit. the ELBO was still rising")
def test_a_search_over_models_and_latents_is_printed_and_drawn(tmp_path):
    words = "--epochs", 2, "--latents", 1, 2, "--run", tmp_path / "run"
    out, _ = run_script(FILE, *words, folder=tmp_path)
    scores = {
        line.split()[0]: [float(score) for score in line.split()[1:]]
        for line in out.splitlines()
        if re.match(r"\w+( +-\d+\.\d+){2}$", line)
    }
    assert set(scores) == {"ppca", "factor_analysis", "gaussian", "student"}
    best = max(scores, key=lambda name: max(scores[name]))
    latents = 1 + scores[best].index(max(scores[best]))
    assert f"{latents} codes of {best} " in out
    assert f"{latents} principal components" in out
    assert (tmp_path / "run" / "scikit_learn.png").stat().st_size > 5000
    assert "Try next" in out
