"""The benchmark of deep Markov models runs, and goes on where it was cut off."""

import json

import pytest


@pytest.fixture(scope="module")
def music(imported):
    return imported("sequences")


def test_a_fit_has_a_line_and_is_not_computed_again(music, tmp_path):
    out = tmp_path / "rows.jsonl"
    words = ["bound", "--tiny", "--out", str(out), "--runs", str(tmp_path / "runs")]
    (line,) = music.main(words)
    assert line["finite"]
    assert line["negative_elbo"] > 0
    assert music.main(words) == [json.loads(out.read_text())]
    music.main(["--draw", str(out), str(tmp_path / "figure.png")])
    assert (tmp_path / "figure.png").stat().st_size > 10000


def test_both_contestants_have_a_time(music):
    table = music.main(["speed", "--tiny", "--rounds", "1"])
    assert (table > 0).all(axis=None)


def test_memory_is_measured(music, capsys):
    music.main(["memory", "--tiny"])
    assert "'rows': 40" in capsys.readouterr().out
