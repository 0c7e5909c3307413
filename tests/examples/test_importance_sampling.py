"""In the example of importance sampling, the posterior is exact and the prior far off."""

import re
from pathlib import Path

from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
EXAMPLE = Path(__file__).parents[2] / "examples" / "importance_sampling.py"


def test_the_posterior_is_exact_and_the_prior_far_off(tmp_path):
    small = EXAMPLE.read_text().replace(
        "HELD_OUT, REPEATS = 10, 50, 5", "HELD_OUT, REPEATS = 10, 10, 2"
    )
    (tmp_path / "small.py").write_text(small.replace("1000, 10_000)", "300)"))
    out, _ = run_script(tmp_path / "small.py", "--epochs", 1, "--run", "run", folder=tmp_path)
    (figure,) = (tmp_path / "run").glob("*.png")
    assert figure.stat().st_size > 5000
    errors = re.findall(r"^ *(?:\w+)? +\d+ +(-?\d+\.\d+)", out, re.MULTILINE)
    prior, posterior = map(float, (errors[3], errors[-1]))
    assert prior < -10
    assert abs(posterior) < 0.005
    assert "Try next" in out
