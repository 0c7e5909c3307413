"""The example of music prints its table, draws one figure, and makes tunes by its own rules."""

import runpy
from pathlib import Path

import numpy as np
from parts.scripts import run_script

FILE = Path(__file__).parents[2] / "examples" / "music.py"


def test_tunes_are_fitted_measured_and_drawn(tmp_path):
    out, _ = run_script(FILE, "--epochs", 1, "--run", tmp_path / "run", folder=tmp_path)
    assert (tmp_path / "run" / "music.png").stat().st_size > 5000
    for words in ("nats per step", "deep Markov model", "keys one by one", "Try next"):
        assert words in out


def test_a_tune_keeps_to_its_chords():
    music = runpy.run_path(str(FILE))
    tunes = [music["tune"](np.random.default_rng(seed), 6) for seed in range(20)]
    assert all(12 <= len(roll) <= 24 and set(np.unique(roll)) == {0, 1} for roll in tunes)
    found = music["measured"](tunes)
    assert found["steps of one chord"] == 1
    assert found["share that sound on"] > 0.6
    mixed = [np.random.default_rng(0).permuted(roll, axis=1) for roll in tunes]
    assert music["measured"](mixed)["steps of one chord"] < 0.3
