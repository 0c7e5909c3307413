"""``lint`` and ``fit``: findings, run directories that are never overwritten, exit codes."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import ppl_vae
from ppl_vae.saving.locks import RunLock

FIT = ["fit", "gaussian", "normal"]
SHORT = ["--epochs", "2", "--set", "latents=2"]
LONG = [*FIT, "--set", "latents=2", "--batch-size", "16", "--validation", "0.1"]
LONG += ["--no-compile", "--run", "run"]  # whatever the number of epochs, one kind of step
MODEL = """
import pyro, pyro.distributions as dist
from pyro.nn import PyroModule
from ppl_vae.nn import MLP

class Mine(PyroModule):
    def __init__(self, features, latents=2, depth=None):
        super().__init__()
        self.features, self.latents, self.depth = features, latents, depth
        self.decoder = MLP(latents, features)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            pyro.sample("x", dist.StudentT(4.0, self.decoder(z), 100.0).to_event(1), obs=x)
"""


def weights(run):
    return {
        name: value.tolist() for name, value in load_file(Path(run, "weights.safetensors")).items()
    }


SIGNALLED = """
import os, signal, sys
from ppl_vae.cli.main import main
from ppl_vae.saving.snapshots import Recorder

original = getattr(Recorder, {method!r})

def signal_itself(*arguments):
    original(*arguments)
    if (arguments[0].path / "metrics.csv").exists():  # an epoch has ended
        Recorder.{method} = original
        os.kill(os.getpid(), signal.{name})

Recorder.{method} = signal_itself
main()
"""


def signalled(name, method, *words):
    """The command in a process that sends itself a signal once ``Recorder.method`` has run."""
    script = SIGNALLED.format(name=name, method=method)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_lint_prints_sites_objective_and_findings(ppl, wine_file):
    done = ppl("lint", "gaussian", "normal", wine_file)
    assert "closed-form KL" in done.out
    assert "no findings" in done.out
    told = ppl("lint", "gaussian", "normal", wine_file, "--set", "latents=3", "--json").json
    assert told["ok"]
    assert told["objective"] == "TraceMeanField_ELBO"
    assert {site["site"]: site["event_shape"] for site in told["sites"]} == {"z": [3], "x": [13]}


def test_lint_errors_exit_with_1_and_are_in_json(ppl, wine_file):
    words = ("lint", "bernoulli", "normal", wine_file)
    done = ppl(*words, "--quiet", code=1)
    assert done.out == ""
    assert 'error: site "x": expected data in the likelihood\'s support' in done.err
    told = ppl(*words, "--json", code=1).json
    assert not told["ok"]
    assert told["findings"][0]["severity"] == "error"
    assert told["findings"][0]["where"] == 'site "x"'


def test_latents_of_different_width_exit_with_1(ppl, wine_file):
    done = ppl("lint", "gaussian", "normal", wine_file, "--set", "guide.latents=3", code=1)
    assert "expected the model's event_shape (8,), got (3,)" in done.err


def test_fit_prints_the_history_and_writes_the_run(ppl, wine_file):
    told = ppl(*FIT, wine_file, *SHORT, "--run", "run", "--json").json
    assert (told["epochs"], told["steps"], told["stopped"]) == (2, 4, "epochs")
    assert told["validation_elbo"] is None
    model, guide = ppl_vae.load("run")
    assert (model.latents, guide.latents) == (2, 2)


def test_quiet_prints_nothing(ppl, wine_file):
    done = ppl(*FIT, wine_file, *SHORT, "--run", "run", "--quiet")
    assert done.out + done.err == ""


def test_options_reach_the_fit(ppl, wine_file):
    words = ["--learning-rate", "0.05", "--kl-weight", "0.5", "--clip-norm", "3", "--seed", "7"]
    words += ["--batch-size", "50", "--validation", wine_file, "--patience", "1"]
    ppl(*FIT, wine_file, *SHORT, *words, "--run", "run", "--quiet")
    settings = ppl("show", "run", "--json").json["settings"]
    assert settings["optimizer_defaults"]["lr"] == "0.05"
    assert settings["validation"] is not None
    given = {key: settings[key] for key in ("kl_weight", "clip_norm", "seed", "batch_size")}
    assert given == {"kl_weight": 0.5, "clip_norm": 3.0, "seed": 7, "batch_size": 50}


def test_the_same_seed_gives_the_same_weights(ppl, wine_file):
    for run in ("a", "b"):
        ppl(*FIT, wine_file, *SHORT, "--run", run, "--quiet")
    ppl(*FIT, wine_file, *SHORT, "--run", "c", "--seed", "1", "--quiet")
    assert weights("a") == weights("b") != weights("c")


def test_digits_of_an_npz_file_are_fitted(ppl, digits_file):
    told = ppl("fit", "bernoulli", "normal", digits_file, *SHORT, "--run", "run", "--json").json
    assert told["elbo"] < 0


def test_a_users_own_file_is_fitted(ppl, wine_file):
    Path("mine.py").write_text(MODEL)
    ppl("fit", "mine.py:Mine", "normal", wine_file, *SHORT, "--run", "run", "--set", "depth=deep")
    assert ppl("show", "run", "--json").json["recipe"]["model"]["arguments"]["depth"] == "deep"


def test_a_run_is_never_overwritten_without_force(ppl, wine_file, own_run):
    before = weights(own_run)
    done = ppl(*FIT, wine_file, *SHORT, "--run", own_run, code=2)
    assert "--resume continues it, --force begins anew" in done.err
    assert weights(own_run) == before
    done = ppl(*FIT, wine_file, *SHORT, "--run", own_run, "--force")
    assert f"the older run is now {own_run}.old" in done.err
    assert weights(f"{own_run}.old") == before != weights(own_run)


def test_force_with_a_refused_pair_leaves_the_old_run(ppl, wine_file, own_run):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in own_run.iterdir())
    ppl("fit", "bernoulli", "normal", wine_file, "--run", own_run, "--force", code=1)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in own_run.iterdir()) == before
    assert not Path(f"{own_run}.old").exists()


def test_force_is_refused_where_another_process_fits_into_the_run(ppl, wine_file, own_run):
    before = weights(own_run)
    with contextlib.closing(RunLock(own_run)):
        done = ppl(*FIT, wine_file, *SHORT, "--run", own_run, "--force", code=1)
    assert f"another process is fitting into {own_run}" in done.err
    assert weights(own_run) == before
    assert not Path(f"{own_run}.old").exists()


def test_force_leaves_what_another_process_put_in_the_place_of_the_old_run(
    ppl, wine_file, own_run, monkeypatch
):
    def put_files_there(*arguments, **options):
        own_run.mkdir()
        (own_run / "thesis.txt").write_text("years of work")
        raise ValueError("refused")

    before = weights(own_run)
    monkeypatch.setattr(ppl_vae, "fit", put_files_there)
    done = ppl(*FIT, wine_file, *SHORT, "--run", own_run, "--force", code=1)
    assert [path.name for path in own_run.iterdir()] == ["thesis.txt"]
    assert f"the older run is now {own_run}.old" in done.err
    assert weights(f"{own_run}.old") == before


def test_a_folder_that_is_not_a_run_is_never_changed(ppl, wine_file):
    Path("notes").mkdir()
    Path("notes/thesis.txt").write_text("years of work")
    for more in ([], ["--force"], ["--resume"]):
        ppl(*FIT, wine_file, *SHORT, "--run", "notes", *more, code=2)
    assert [path.name for path in Path("notes").iterdir()] == ["thesis.txt"]


def test_resume_continues_a_run_or_begins_a_new_one(ppl, wine_file):
    for epochs in ("1", "2"):
        ppl(*LONG, wine_file, "--epochs", epochs, "--resume", "--quiet")
    ppl(*LONG[:-1], "whole", wine_file, "--epochs", "2", "--quiet")
    assert weights("run") == weights("whole")
    done = ppl(*LONG, wine_file, "--epochs", "2", "--resume", "--batch-size", "8", code=1)
    assert "batch_size=16, got 8" in done.err


def test_a_killed_fit_goes_on_to_the_same_weights(ppl, wine_file):
    killed = signalled("SIGKILL", "snapshot", *LONG, wine_file, "--epochs", "5000")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = int(ppl("show", "run", "--json").json["last_epoch"]["epoch"]) + 3
    told = ppl(*LONG, wine_file, "--epochs", last, "--resume", "--json").json
    assert told["epochs"] == last
    ppl(*LONG[:-1], "whole", wine_file, "--epochs", last, "--quiet")
    assert weights("run") == weights("whole")


def test_ctrl_c_ends_with_130_and_a_run_that_opens(ppl, wine_file):
    done = signalled("SIGINT", "epoch", *LONG, wine_file, "--epochs", "5000", "--json")
    assert done.returncode == 130
    assert "--resume continues" in done.stderr
    assert "Traceback" not in done.stderr
    assert ppl("generate", "run", "--num-samples", "2", "--json").json["rows"] == 2


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--patience", "3"], 2, "--patience needs held-out rows"),
        (["--resume", "--force"], 2, "give one of them"),
        (["--learning-rate", "0"], 2, "--learning-rate: expected a positive number"),
        (["--validation", "0.001"], 1, "validation: expected a fraction"),
        (["--validation", "tset.csv"], 2, "tset.csv: no such file"),
        (
            ["--set", "latents=wide"],
            1,
            "latents: expected a whole number of at least 1, got 'wide'",
        ),
        (["--set", "latents=-1"], 1, "latents: expected a whole number of at least 1, got -1"),
        (["--set", "guide.encoder=Blur(2)"], 2, "expected a network among MLP"),
        (["--set", "guide.encoder=MaskingNoise(2)"], 2, "share: expected a probability"),
        (["--plate", "rows"], 1, 'row plate "rows"'),
        (["--clip-norm", "-1"], 1, "clip_norm: expected a positive number"),
    ],
)
def test_bad_settings_give_one_message_and_leave_no_run(ppl, wine_file, more, code, message):
    done = ppl(*FIT, wine_file, "--run", "run", *more, code=code)
    assert message in done.err
    assert "Traceback" not in done.err
    assert not Path("run").exists() or not any(Path("run").iterdir())


def test_a_setting_may_be_a_network(ppl, wine_file):
    words = "--set", "guide.corruption=GaussianNoise(sd=0.25)", "--epochs", "1", "--run", "run"
    ppl("fit", "gaussian", "denoising", wine_file, *words)
    assert ppl_vae.load("run")[1].corruption.sd == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nonexistent_package", "ModuleNotFoundError: No module named"),
        ("class Mine(:", "mine.py, line 1: SyntaxError"),
        ("class Mime: pass", "did you mean Mime?"),
        ("class Mine:\n    def __init__(self, features, depth): pass", "depth"),
        (
            "class Mine:\n    def __init__(self): raise KeyError('width')",
            "Mine(): KeyError: 'width'",
        ),
    ],
)
def test_errors_in_a_users_file_exit_with_1(ppl, wine_file, text, message):
    Path("mine.py").write_text(text)
    done = ppl("lint", "mine.py:Mine", "normal", wine_file, code=1)
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.filterwarnings("default")
def test_missing_cells_are_counted_by_column_with_quiet_as_well(ppl, wine_file, tmp_path):
    text = wine_file.read_text().splitlines()
    text[5] = text[5].replace(text[5].split(",")[1], "", 1)
    (tmp_path / "gaps.csv").write_text("\n".join(text))
    done = ppl(*FIT, "gaps.csv", *SHORT, "--run", "run", "--quiet", code=1)
    assert 'column "malic_acid" has 1 missing values, the first in line 6' in done.err
    assert "got NaN or infinity in 1 of 178 rows" in done.err
