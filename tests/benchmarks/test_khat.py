"""The benchmark of k-hat runs: both pairs, a refined guide, another guide, and a long run."""

import pytest
from benchmarks.test_mnist import command
from parts.extras import sklearn

sklearn("datasets")  # the benchmark reads its digits


@pytest.mark.parametrize(("pair", "guide"), [("digits", "linear"), ("counts", "normal")])
def test_each_guide_is_counted_and_compared_with_a_long_run(pair, guide, tmp_path):
    words = ["--pairs", pair, "--guides", "refine", guide, "--long", "200", "--tiny"]
    shown = command("khat.py", *words, folder=tmp_path)
    assert "held-out rows, 100 draws a row" in shown
    names = [line.split()[0] for line in shown.splitlines() if " of " in line and "%" in line]
    assert names == list(dict.fromkeys(["normal", "refine", guide]))
    assert "refine, in" in shown
