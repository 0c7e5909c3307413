"""Runs survive kills, full disks and flipped bytes, and open again without a pickle."""

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch.optim import lr_scheduler

from ppl_vae import build, encode, fit, generate, load, save, snapshots
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.nn import MLP
from ppl_vae.runs import read_run
from ppl_vae.schedules import linear
from ppl_vae.snapshots import read_snapshot

X = torch.rand(300, 12, generator=torch.Generator().manual_seed(0)).bernoulli()
SETTINGS = {
    "validation": 0.2,
    "epochs": 5,
    "batch_size": 48,
    "progress": False,
    "patience": 4,
    "clip_norm": 50.0,
    "kl_weight": linear(20),
    "scheduler": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
}


def pair():
    torch.manual_seed(0)
    dropout = torch.nn.Sequential(torch.nn.Dropout(0.2), MLP(3, 12, (16,)))
    return BernoulliModel(12, 3, dropout), NormalGuide(12, 3, MLP(12, 6, (16,)))


def outcome(model, guide, history):
    weights = [*model.state_dict().values(), *guide.state_dict().values()]
    return [w.clone() for w in weights], history.frame.drop(columns="seconds")


def same(left, right):
    pd.testing.assert_frame_equal(left[1], right[1], check_exact=True)
    return all(torch.equal(a, b) for a, b in zip(left[0], right[0], strict=True))


@pytest.fixture(scope="module")
def uninterrupted():
    model, guide = pair()
    return outcome(model, guide, fit(model, guide, X, **SETTINGS))


@pytest.fixture
def always(monkeypatch):
    """A snapshot after every step."""
    monkeypatch.setattr(snapshots, "SOONEST", 0.0)
    monkeypatch.setattr(snapshots, "SHARE", 0)


LONG = {**SETTINGS, "epochs": 250, "patience": None}


def work(run):
    """What the killed processes do."""
    torch.set_num_threads(1)
    fit(*pair(), X, run=run, resume=True, **LONG)


def test_a_recorded_fit_is_the_fit(uninterrupted, tmp_path, always):
    model, guide = pair()
    history = fit(model, guide, X, run=tmp_path / "run", **SETTINGS)
    assert same(uninterrupted, outcome(model, guide, history))
    written = pd.read_csv(tmp_path / "run" / "metrics.csv")
    pd.testing.assert_frame_equal(written, history.frame, check_dtype=False)


def test_a_fit_killed_at_fifty_random_moments_ends_as_if_it_had_not_been(tmp_path, always):
    """SIGKILL, mostly inside a snapshot, for one is taken after every step."""
    model, guide = pair()
    whole = outcome(model, guide, fit(model, guide, X, **LONG))
    context = multiprocessing.get_context("fork")
    chance = random.Random(0)
    run, kills, steps = tmp_path / "run0", 0, []
    while kills < 50:
        process = context.Process(target=work, args=(run,))
        process.start()
        time.sleep(chance.uniform(0.02, 0.25))
        process.kill()
        process.join()
        if process.exitcode == 0:  # done before its time: the other kills are of a new run
            run = tmp_path / f"run{kills}"
        else:
            kills += 1
            found = read_snapshot(run) if (run / "run.json").exists() else None
            steps.append(0 if found is None else found[1]["step"])
    assert len(set(steps)) > 20  # they came at many places
    model, guide = pair()
    history = fit(model, guide, X, run=run, resume=True, **LONG)
    assert same(whole, outcome(model, guide, history))


@pytest.mark.parametrize("moment", ["write_tensors", "replace", "link"])
def test_a_kill_inside_a_snapshot_keeps_a_sound_one(
    moment, uninterrupted, tmp_path, always, monkeypatch
):
    """Dies between any two actions on the disk, without a chance to tidy up."""
    run = tmp_path / "run"
    model, guide = pair()

    class Killed(BaseException):
        pass

    count = 0

    def dying(original):
        def action(*args, **kwargs):
            nonlocal count
            count += 1
            if count == 9:
                raise Killed
            return original(*args, **kwargs)

        return action

    with monkeypatch.context() as patch:
        if moment == "write_tensors":
            patch.setattr(snapshots, "write_tensors", dying(snapshots.write_tensors))
        elif moment == "replace":
            patch.setattr(Path, "replace", dying(Path.replace))
        else:
            patch.setattr(os, "link", dying(os.link))
        with pytest.raises(Killed):
            fit(model, guide, X, run=run, **SETTINGS)
    assert read_snapshot(run) is not None
    model, guide = pair()
    history = fit(model, guide, X, run=run, resume=True, **SETTINGS)
    assert same(uninterrupted, outcome(model, guide, history))


def test_a_full_disk_at_a_snapshot_costs_a_warning_and_nothing_else(
    uninterrupted, tmp_path, always
):
    """A quota on the size of files stands in for the disk; the epoch's end lifts it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    quiet = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    model, guide = pair()

    def fill(row, model, guide):
        full = row["epoch"] in (2, 3)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048 if full else before[0], before[1]))

    try:
        with pytest.warns(UserWarning, match="no snapshot could be written"):
            history = fit(model, guide, X, run=tmp_path / "run", callbacks=[fill], **SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, quiet)
    assert same(uninterrupted, outcome(model, guide, history))
    assert list((tmp_path / "run").glob(".*.part")) == []


def test_a_fit_cut_off_by_a_full_disk_goes_on_from_the_snapshot_before(
    uninterrupted, tmp_path, always
):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    quiet = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    model, guide = pair()

    class PowerCutError(Exception):
        pass

    def fill(row, model, guide):
        if row["epoch"] == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
        if row["epoch"] == 3:
            raise PowerCutError

    try:
        with pytest.warns(UserWarning, match="no snapshot"), pytest.raises(PowerCutError):
            fit(model, guide, X, run=tmp_path / "run", callbacks=[fill], **SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, quiet)
    model, guide = pair()
    history = fit(model, guide, X, run=tmp_path / "run", resume=True, **SETTINGS)
    assert same(uninterrupted, outcome(model, guide, history))
    assert list((tmp_path / "run").glob(".*")) == []


def test_ctrl_c_within_an_epoch_and_resume_end_as_if_nothing_had_been(uninterrupted, tmp_path):
    class Adam(torch.optim.Adam):
        count = 0

        def step(self, closure=None):
            Adam.count += 1
            if Adam.count == 8:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(closure)

    model, guide = pair()
    cut = fit(
        model, guide, X, run=tmp_path / "run", optimizer=lambda p: Adam(p, fused=True), **SETTINGS
    )
    assert (cut.stopped, cut.frame["step"].tolist()) == ("interrupted", [5, 8])
    model, guide = pair()
    history = fit(model, guide, X, run=tmp_path / "run", resume=True, **SETTINGS)
    assert same(uninterrupted, outcome(model, guide, history))


def test_a_disk_that_is_full_at_the_end_leaves_the_fitted_pair_and_says_so(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots, "write_weights", full)
    with pytest.warns(UserWarning, match="the pair in memory is fitted: save it elsewhere"):
        history = fit(*pair(), X, run=tmp_path / "run", **SETTINGS)
    assert history.stopped == "epochs"
    assert read_run(tmp_path / "run").info["status"] == "running"


def test_more_epochs_continue_a_finished_fit(tmp_path):
    settings = {**SETTINGS, "patience": None}
    model, guide = pair()
    whole = outcome(model, guide, fit(model, guide, X, **{**settings, "epochs": 6}))
    model, guide = pair()
    fit(model, guide, X, run=tmp_path / "run", **{**settings, "epochs": 2})
    model, guide = pair()
    history = fit(model, guide, X, run=tmp_path / "run", resume=True, **{**settings, "epochs": 6})
    assert same(whole, outcome(model, guide, history))


def test_a_finished_fit_resumed_changes_nothing(uninterrupted, tmp_path):
    for _ in range(2):
        model, guide = pair()
        history = fit(model, guide, X, run=tmp_path / "run", resume=True, **SETTINGS)
        assert same(uninterrupted, outcome(model, guide, history))


def test_the_thread_count_of_the_run_is_used_and_put_back(tmp_path):
    quick = {"epochs": 1, "progress": False}
    fit(*pair(), X, run=tmp_path / "run", **quick)
    seen = []
    torch.set_num_threads(2)
    try:
        fit(
            *pair(),
            X,
            run=tmp_path / "run",
            resume=True,
            epochs=2,
            progress=False,
            callbacks=[lambda *_: seen.append(torch.get_num_threads())],
        )
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 32}, "made with batch_size=48, got 32"),
        ({"clip_norm": None}, "made with clip_norm=50.0, got None"),
        ({"seed": 1}, "seed=0, got 1"),
        ({"optimizer": lambda p: torch.optim.Adam(p, 1e-2)}, "optimizer_defaults"),
        ({"optimizer": lambda p: torch.optim.SGD(p, 1e-2)}, "optimizer"),
        ({"validation": 0.1}, "made with other data"),
        ({"kl_weight": 1.0}, "kl_weight"),
    ],
)
def test_resume_asks_for_the_settings_it_began_with(changed, message, tmp_path):
    fit(*pair(), X, run=tmp_path / "run", **{**SETTINGS, "epochs": 1})
    with pytest.raises(ValueError, match=message):
        fit(*pair(), X, run=tmp_path / "run", resume=True, **{**SETTINGS, **changed})


def test_resume_asks_for_the_data_and_the_pair_it_began_with(tmp_path):
    fit(*pair(), X, run=tmp_path / "run", **{**SETTINGS, "epochs": 1})
    with pytest.raises(ValueError, match="was made with other data"):
        fit(*pair(), 1 - X, run=tmp_path / "run", resume=True, **SETTINGS)
    other = BernoulliModel(12, 3), NormalGuide(12, 3)
    with pytest.raises(ValueError, match=r"trained=\[.*, got \["):
        fit(*other, X, run=tmp_path / "run", resume=True, **SETTINGS)


def test_an_existing_run_is_never_overwritten(tmp_path):
    fit(*pair(), X, run=tmp_path / "run", epochs=1, progress=False)
    before = (tmp_path / "run" / "weights.safetensors").read_bytes()
    with pytest.raises(ValueError, match="exists; resume=True continues it"):
        fit(*pair(), X, run=tmp_path / "run", epochs=1, progress=False)
    with pytest.raises(ValueError, match="exists"):
        save(*pair(), tmp_path / "run")
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not lose")
    with pytest.raises(ValueError, match="exists"):
        fit(*pair(), X, run=tmp_path / "mine", epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"no run.json in it"):
        fit(*pair(), X, run=tmp_path / "mine", resume=True, epochs=1, progress=False)
    with pytest.raises(ValueError, match="resume: needs the directory"):
        fit(*pair(), X, resume=True, epochs=1, progress=False)


# Save and load


@pytest.mark.parametrize("form", ["tensor", "frame", "mapping"])
def test_a_loaded_pair_gives_the_same_numbers(form, tmp_path):
    data = {"tensor": X, "frame": pd.DataFrame(X.numpy(), columns=list("abcdefghijkl")),
            "mapping": {"x": X}}[form]  # fmt: skip
    model = build(GaussianModel, data, latents=2, decoder=MLP(2, 24, (9, 9), torch.nn.ReLU))
    guide = build(NormalGuide, data, latents=2)
    fit(model, guide, data, epochs=2, progress=False, run=tmp_path / "run")
    again = load(tmp_path / "run")
    assert [type(half) for half in again] == [GaussianModel, NormalGuide]
    pd.testing.assert_frame_equal(encode(model, guide, data), encode(*again, data))
    example = read_run(tmp_path / "run").example()
    assert type(example) is type(data)
    assert type(generate(*again, example, num_samples=4)) is type(data)


def test_loading_costs_the_caller_no_draws(tmp_path):
    save(BernoulliModel(4), NormalGuide(4), tmp_path)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_double_precision_survives(tmp_path):
    model, guide = BernoulliModel(4).double(), NormalGuide(4).double()
    save(model, guide, tmp_path)
    again = load(tmp_path)
    assert next(again[0].parameters()).dtype == torch.float64
    assert torch.equal(model.decoder[0].weight, again[0].decoder[0].weight)


def test_an_argument_that_is_no_attribute_gives_weights_alone(tmp_path):
    model, guide = pair()  # its decoder is a torch Sequential: no recipe tells its layers
    save(model, guide, tmp_path, data=X)
    with pytest.raises(ValueError, match=r"weights without a recipe.*load\(run, model=..., guide"):
        load(tmp_path)
    fresh = pair()
    with torch.no_grad():
        fresh[0].decoder[1][0].weight.zero_()
    again = load(tmp_path, model=fresh[0], guide=fresh[1])
    assert torch.equal(again[0].decoder[1][0].weight, model.decoder[1][0].weight)
    with pytest.raises(ValueError, match=r"weights: expected .* of shape"):
        load(tmp_path, model=pair()[0], guide=NormalGuide(12, 3, MLP(12, 6, (5,))))


def test_shared_parameters_are_stored_once(tmp_path):
    model, guide = BernoulliModel(4, 2), NormalGuide(4, 2)
    guide.tied = model.decoder
    save(model, guide, tmp_path)
    separate = tmp_path / "separate"
    save(BernoulliModel(4, 2), NormalGuide(4, 2), separate)
    sizes = [os.path.getsize(folder / "weights.safetensors") for folder in (tmp_path, separate)]
    assert sizes[0] == pytest.approx(sizes[1], abs=200)


def test_parameters_of_plain_functions_are_kept(tmp_path):
    def make():
        def model(x):
            loc = pyro.param("loc", torch.zeros(12))
            scale = pyro.param("scale", torch.ones(()), constraint=dist.constraints.positive)
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)

        return model

    model = make()
    fit(
        model,
        None,
        X,
        epochs=3,
        progress=False,
        run=tmp_path / "run",
        optimizer=lambda p: torch.optim.Adam(p, 0.1),
    )
    fresh = make()
    again, guide = load(tmp_path / "run", model=fresh)
    assert guide is None
    histories = [
        fit(m, None, X, epochs=1, progress=False, optimizer=lambda p: torch.optim.SGD(p, 0.0))
        for m in (model, again)
    ]
    elbos = [history.frame["elbo"].item() for history in histories]
    assert elbos[0] == elbos[1]


USERS_FILE = """
import pyro, pyro.distributions as dist, torch
from pyro.nn import PyroModule
__import__("pathlib").Path({flag!r}).write_text("executed")

class Mine(PyroModule):
    def __init__(self, features):
        super().__init__()
        self.features = features
        self.logits = torch.nn.Parameter(torch.zeros(features))
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=self.logits).to_event(1), obs=x)
"""


def test_a_users_file_is_executed_only_on_trust(tmp_path):
    from ppl_vae.zoo import find_class

    flag = tmp_path / "flag"
    (tmp_path / "mine.py").write_text(textwrap.dedent(USERS_FILE.format(flag=str(flag))))
    model = find_class(f"{tmp_path / 'mine.py'}:Mine", "models")(12)
    fit(model, None, X, epochs=1, progress=False, run=tmp_path / "run")
    flag.unlink()
    (tmp_path / "mine.py").unlink()
    with pytest.raises(ValueError, match=r"copied to source/model\.py; read them, then"):
        load(tmp_path / "run")
    assert not flag.exists()
    again, guide = load(tmp_path / "run", trust_code=True)
    assert flag.exists()
    assert guide is None
    assert torch.equal(again.logits, model.logits)
    copy = tmp_path / "run" / "source" / "model.py"
    copy.write_text(copy.read_text() + "\nraise SystemExit\n")
    flag.unlink()
    with pytest.raises(ValueError, match="changed since the run was made"):
        load(tmp_path / "run", trust_code=True)
    assert not flag.exists()


def test_a_recipe_names_library_classes_only(tmp_path):
    """Even with its checksum put right, a recipe cannot reach for other code."""
    from ppl_vae.storage import read_json, write_json

    save(BernoulliModel(4), NormalGuide(4), tmp_path)
    info = read_json(tmp_path / "run.json")
    for name in (
        "os:system",
        "subprocess:Popen",
        "ppl_vae.nn.mlp:pairwise",
        "ppl_vae.nn.os:x",
        "ppl_vae.models.bernoulli:torch",
    ):
        info["recipe"]["model"] = {"class": name, "arguments": {}}
        write_json(tmp_path / "run.json", info)
        with pytest.raises(ValueError, match=r"recipe does not build"):
            load(tmp_path)


def test_no_pickle_is_ever_read(tmp_path, monkeypatch):
    import pickle

    def refuse(*args, **kwargs):
        raise AssertionError("a pickle was read")

    fit(*pair(), X, epochs=1, progress=False)  # what torch loads lazily is loaded by now
    for name in ("load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    fit(*pair(), X, run=tmp_path / "run", **{**SETTINGS, "epochs": 1})
    fit(*pair(), X, run=tmp_path / "run", resume=True, **SETTINGS)
    load(tmp_path / "run", model=pair()[0], guide=pair()[1])


def test_flipped_and_cut_bytes_never_give_a_wrong_pair(tmp_path):
    """Four hundred times: the same pair or a ValueError, nothing else, and nothing executed."""
    model, guide = build(GaussianModel, X, latents=2), build(NormalGuide, X, latents=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant columns
        fit(model, guide, X, epochs=2, progress=False, run=tmp_path / "run", validation=0.1)
    truth = [*model.state_dict().values(), *guide.state_dict().values()]
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"run.json", "weights.safetensors", "model.py",
                                             "snapshot.safetensors", "metrics.csv"}  # fmt: skip
    chance = random.Random(0)
    refused = told = 0
    for _ in range(400):
        path = chance.choice(files)
        whole = path.read_bytes()
        broken = bytearray(whole)
        if chance.random() < 0.6:
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        else:
            del broken[chance.randrange(len(broken)) :]
        path.write_bytes(broken)
        try:
            again = load(tmp_path / "run")
        except ValueError as error:
            refused += 1
            told += str(path) in str(error)
        else:
            got = [*again[0].state_dict().values(), *again[1].state_dict().values()]
            assert all(torch.equal(a, b) for a, b in zip(truth, got, strict=True))
        path.write_bytes(whole)
    assert told == refused > 100


def test_a_broken_snapshot_gives_way_to_the_one_before(uninterrupted, tmp_path, always):
    settings = {**SETTINGS, "epochs": 3}
    fit(*pair(), X, run=tmp_path / "run", **settings)
    snapshot = tmp_path / "run" / "snapshot.safetensors"
    snapshot.write_bytes(snapshot.read_bytes()[:-7])
    model, guide = pair()
    with pytest.warns(UserWarning, match="going on from previous.safetensors"):
        history = fit(model, guide, X, run=tmp_path / "run", resume=True, **SETTINGS)
    assert same(uninterrupted, outcome(model, guide, history))


def test_broken_weights_offer_the_snapshot(tmp_path):
    fit(*pair(), X, run=tmp_path / "run", **SETTINGS)
    weights = tmp_path / "run" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    model, guide = pair()
    with pytest.raises(ValueError, match=r'snapshot.safetensors is sound: load\("') as caught:
        load(tmp_path / "run", model=model, guide=guide)
    file = str(caught.value).split('load("')[1].split('"')[0]
    load(file, model=model, guide=guide)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x80\x04K\x01.", b"{}", b"[1, 2]", b"\xff" * 99]
)
@pytest.mark.parametrize("name", ["run.json", "weights.safetensors"])
def test_foreign_files_have_a_clear_error(content, name, tmp_path):
    save(BernoulliModel(4), NormalGuide(4), tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="not a file of ppl_vae, or damaged"):
        load(tmp_path)


def test_weights_of_another_run_are_refused(tmp_path):
    for name in ("a", "b"):
        save(BernoulliModel(4), NormalGuide(4), tmp_path / name)
    (tmp_path / "a" / "weights.safetensors").write_bytes(
        (tmp_path / "b" / "weights.safetensors").read_bytes()
    )
    with pytest.raises(ValueError, match="belongs to another run"):
        load(tmp_path / "a")


@pytest.mark.parametrize("path", ["absent", "file"])
def test_what_is_no_run_is_said_so(path, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="no such run directory"):
        load(tmp_path / path)


def test_run_json_says_what_was_fitted_and_why(tmp_path):
    fit(*pair(), X, run=tmp_path / "run", **SETTINGS)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["objective"] == "TraceMeanField_ELBO"
    assert "closed-form KL" in info["reason"]
    assert info["versions"]["torch"].startswith("2.")
    assert (info["status"], info["seed"], info["rows"]) == ("finished", 0, 240)
    assert info["history"]["epochs"] == 5
    assert "class BernoulliModel" in (tmp_path / "run" / "source" / "model.py").read_text()


def test_a_loaded_pair_agrees_in_another_process_with_other_threads(tmp_path):
    model, guide = build(GaussianModel, X, latents=2), build(NormalGuide, X, latents=2)
    save(model, guide, tmp_path / "run", data=X)
    torch_file = tmp_path / "x.npy"
    import numpy as np

    np.save(torch_file, X.numpy())
    code = (
        "import sys, numpy, torch; torch.set_num_threads(2); from ppl_vae import load, encode;"
        "codes = encode(*load(sys.argv[1]), numpy.load(sys.argv[2]));"
        "numpy.save(sys.argv[3], codes.to_numpy())"
    )
    arguments = [str(tmp_path / "run"), str(torch_file), str(tmp_path / "codes.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    codes = encode(model, guide, X).to_numpy()
    assert np.load(tmp_path / "codes.npy") == pytest.approx(codes, rel=1e-5, abs=1e-6)


class Partner(PyroModule):
    """A guide whose encoder is its model's: it takes the model as an argument."""

    def __init__(self, model, width):
        super().__init__()
        self.model, self.width = model, width
        self.encoder = torch.nn.Linear(12, 2 * width)

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def test_a_partner_argument_is_told_as_such(tmp_path):
    model = BernoulliModel(12, 3)
    guide = Partner(model, 3)
    save(model, guide, tmp_path / "run", data=X)
    again = load(tmp_path / "run", trust_code=True)
    assert again[1].model is again[0]
    assert torch.equal(again[1].encoder.weight, guide.encoder.weight)


def test_resume_refuses_a_model_file_that_was_edited(tmp_path):
    from ppl_vae.zoo import find_class

    mine = tmp_path / "mine.py"
    mine.write_text(textwrap.dedent(USERS_FILE.format(flag=str(tmp_path / "flag"))))
    model = find_class(f"{mine}:Mine", "models")(12)
    fit(model, None, X, epochs=1, progress=False, run=tmp_path / "run")
    mine.write_text(mine.read_text().replace("zeros", "ones"))
    model = find_class(f"{mine}:Mine", "models")(12)
    with pytest.raises(ValueError, match=r"mine\.py is not as it was when"):
        fit(model, None, X, epochs=2, progress=False, run=tmp_path / "run", resume=True)


def test_a_fit_that_is_refused_leaves_no_directory(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        fit(*pair(), X * torch.nan, run=tmp_path / "runs" / "x", epochs=1, progress=False)
    assert list(tmp_path.rglob("*")) == []


def test_a_run_names_no_file_outside_itself(tmp_path):
    from ppl_vae.storage import read_json, write_json
    from ppl_vae.zoo import find_class

    mine = tmp_path / "mine.py"
    mine.write_text(textwrap.dedent(USERS_FILE.format(flag=str(tmp_path / "flag"))))
    save(find_class(f"{mine}:Mine", "models")(12), None, tmp_path / "run", data=X)
    info = read_json(tmp_path / "run" / "run.json")
    info["recipe"]["model"]["file"] = "source/../../mine.py"
    write_json(tmp_path / "run" / "run.json", info)
    with pytest.raises(ValueError, match="expected a file in source/"):
        load(tmp_path / "run", trust_code=True)


def test_tensorboard_gets_the_elbos_where_it_is_installed(tmp_path, monkeypatch):
    """A stand-in for the package, which is optional: it notes what it is told."""
    import importlib.machinery
    import types

    told = []

    class SummaryWriter:
        def __init__(self, folder, **settings):
            told.append((Path(folder).name, settings))

        def add_scalar(self, name, value, step):
            told.append((name, value, step))

        def close(self):
            told.append("closed")

    module = types.ModuleType("tensorboard")
    module.__spec__ = importlib.machinery.ModuleSpec("tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", module)
    stand_in = types.ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    settings = {**SETTINGS, "patience": None}
    for epochs in (1, 2):
        history = fit(
            *pair(), X, run=tmp_path / "run", resume=True, **{**settings, "epochs": epochs}
        )
    first, second = history.frame.to_dict("records")
    assert told == [
        ("tensorboard", {}),
        ("elbo", first["elbo"], 5),
        ("validation_elbo", first["validation_elbo"], 5),
        "closed",
        ("tensorboard", {"purge_step": 6}),
        ("elbo", second["elbo"], 10),
        ("validation_elbo", second["validation_elbo"], 10),
        "closed",
    ]
