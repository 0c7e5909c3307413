"""The benchmark of clusters runs, goes on where it was cut off, and counts rows by cluster."""

import json

import numpy as np
import pytest
from parts.extras import sklearn

sklearn("mixture")  # the benchmark's peers


@pytest.fixture(scope="module")
def clusters(imported):
    return imported("deep_mixture")


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_every_row_is_measured_once(clusters, tmp_path):
    out = tmp_path / "rows.jsonl"
    words = ["--tiny", "--out", str(out)]
    lines = clusters.main(words)
    assert [line["row"] for line in lines] == ["shallow", "deep", "unmoved"]
    assert all(0 < line["accuracy"] <= 100 for line in lines[1:])
    assert clusters.main(words) == lines == [json.loads(e) for e in out.read_text().splitlines()]


def test_accuracy_is_that_of_the_best_assignment(clusters):
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    assert clusters.accuracy((labels + 1) % 3, labels) == 100
    assert clusters.accuracy(np.array([3, 3, 1, 0, 0, 2, 2, 1]), labels) == pytest.approx(75)
    assert clusters.accuracy(np.zeros(8, int), labels) == pytest.approx(100 * 3 / 8)
