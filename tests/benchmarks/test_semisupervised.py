"""The benchmark of few labels runs, and goes on where it was cut off."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def few(imported):
    return imported("semisupervised")


def test_a_fit_has_a_line_and_is_not_computed_again(few, tmp_path):
    out = tmp_path / "rows.jsonl"
    words = ["--tiny", "--quiet", "--out", str(out)]
    (line,) = few.main(words)
    assert 0 <= line["accuracy"] <= 100
    assert few.main(words) == [json.loads(out.read_text())]
    few.main(["--draw", str(out), str(tmp_path / "figure.png")])
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_labels_are_drawn_alike_for_every_digit(few):
    _, y = few.digits(None)["train"]
    rows = few.labelled_rows(y, 20, 1)
    assert np.bincount(y[rows]).tolist() == [2] * 10
    assert len(set(rows.tolist())) == 20


def test_calibration_is_the_distance_of_confidence_and_accuracy(few):
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    assert few.calibration_error(sure, np.array([0, 0, 0, 1])) == pytest.approx(
        abs(0.9 * 3 - 2) / 4 + 0.4 / 4
    )
