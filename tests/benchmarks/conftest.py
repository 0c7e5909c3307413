"""The scripts of benchmarks/, called in this process: another one would import torch anew."""

import runpy
import sys
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """``command("mnist.py", "vae", ...)`` runs a script in an empty folder; returns its output."""
    monkeypatch.chdir(tmp_path)

    def call(script, *words):
        with monkeypatch.context() as patch, warnings.catch_warnings():
            patch.setattr(sys, "argv", [script, *map(str, words)])
            warnings.simplefilter("ignore")
            runpy.run_path(str(FOLDER / script), run_name="__main__")
        return capsys.readouterr().out

    return call
