"""Fits that are killed, interrupted or out of disk go on as if nothing had been."""

import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from parts.runs import SETTINGS, X, outcome, pair, same

from ppl_vae import fit
from ppl_vae.saving import snapshots
from ppl_vae.saving.runs import read_run
from ppl_vae.saving.snapshots import read_snapshot

LONG = {**SETTINGS, "epochs": 250, "patience": None, "compile": False}


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
    assert len(set(steps)) > 10  # they came at many places, fewer on a busy machine
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


def test_a_broken_snapshot_gives_way_to_the_one_before(uninterrupted, tmp_path, always):
    settings = {**SETTINGS, "epochs": 3}
    fit(*pair(), X, run=tmp_path / "run", **settings)
    snapshot = tmp_path / "run" / "snapshot.safetensors"
    snapshot.write_bytes(snapshot.read_bytes()[:-7])
    model, guide = pair()
    with pytest.warns(UserWarning, match="going on from previous.safetensors"):
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
