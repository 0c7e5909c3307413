"""The example on Ray scores files by two workers, with the bits of one."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from parts.extras import REASON, pyarrow, sklearn

sklearn("datasets")
pyarrow()
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason=REASON.format("Ray", "ray")
)
FILE = Path(__file__).parents[2] / "examples" / "ray_scores.py"


def test_two_workers_score_the_files_with_the_bits_of_one(tmp_path):
    words = [sys.executable, str(FILE), "--epochs", "5", "--run", str(tmp_path / "run")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the bits of one worker: True" in done.stdout
    assert "malignant   212" in done.stdout
