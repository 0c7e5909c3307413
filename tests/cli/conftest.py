"""The command run in this process, data files, and a run that several tests share."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from parts.extras import load_digits, load_wine
from typer.testing import CliRunner

from ppl_vae.cli.main import app


class Done:
    """The output and the exit code of a command."""

    def __init__(self, result):
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr
        self.raised = result.exception

    @property
    def json(self):
        return json.loads(self.out, parse_constant=lambda text: pytest.fail(f"{text} in JSON"))


@pytest.fixture
def ppl(tmp_path, monkeypatch):
    """``ppl("fit", "gaussian", ...)`` runs the command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words, code=0):
        done = Done(CliRunner().invoke(app, [str(word) for word in words]))
        if done.raised is not None and not isinstance(done.raised, SystemExit):
            raise done.raised
        assert done.code == code, done.out + done.err
        return done

    return call


@pytest.fixture(scope="session")
def wine_file(tmp_path_factory):
    """A CSV file of 178 wines with 13 columns."""
    path = tmp_path_factory.mktemp("wine") / "wine.csv"
    load_wine(as_frame=True).data.to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory):
    """An npz file with one array: 300 images of 64 pixels, 0 or 1."""
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, images=(load_digits().data[:300] > 7).astype(np.uint8))
    return path


@pytest.fixture(scope="session")
def wine_run(wine_file, tmp_path_factory):
    """A finished run, for tests that do not change it."""
    run = tmp_path_factory.mktemp("runs") / "wine"
    words = ["fit", "gaussian", "normal", wine_file, "--run", run, "--epochs", "3"]
    words += ["--set", "latents=2", "--validation", "0.1", "--quiet"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    return run


@pytest.fixture
def own_run(wine_run, tmp_path):
    """A copy of the finished run, for tests that change it."""
    return Path(shutil.copytree(wine_run, tmp_path / "own"))
