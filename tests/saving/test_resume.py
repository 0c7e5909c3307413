"""A fit that is killed, interrupted or out of disk resumes to the same numbers, bit for bit."""

import os
import resource
import signal

import pandas as pd
import pytest
import torch
from parts.kills import PLACES, run_and_kill
from parts.runs import SETTINGS, X, outcome, pair, same

from ppl_vae import fit
from ppl_vae.saving import snapshots
from ppl_vae.saving.runs import read_run
from ppl_vae.saving.snapshots import read_snapshot


def test_a_fit_with_a_run_directory_gives_the_same_numbers(uninterrupted, tmp_path, always):
    model, guide = pair()
    history = fit(model, guide, X, run=tmp_path / "run", **SETTINGS)
    assert same(uninterrupted, outcome(model, guide, history))
    written = pd.read_csv(tmp_path / "run" / "metrics.csv")
    pd.testing.assert_frame_equal(written, history.frame, check_dtype=False)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("kills", "epochs"), [(10, 10), pytest.param(50, 50, marks=pytest.mark.slow)]
)
def test_a_fit_killed_within_its_disk_actions_ends_with_the_same_numbers(kills, epochs, tmp_path):
    """Each process resumes the fit of the killed process before; the last process ends it."""
    settings = {**SETTINGS, "epochs": epochs, "patience": None, "compile": False}
    whole = outcome(*(halves := pair()), fit(*halves, X, **settings))
    run, steps = tmp_path / "run", [0]
    for kill in range(kills):
        place, count = PLACES[kill % len(PLACES)], 1 + 5 * kill % 7
        count = min(count, 2) if place == "append" else count  # once an epoch, of five steps
        code = run_and_kill(lambda: fit(*pair(), X, run=run, resume=True, **settings), place, count)
        assert code == -signal.SIGKILL, f"the fit ended before {place} {count} of kill {kill}"
        snapshot = read_snapshot(run) if (run / "run.json").exists() else None
        steps.append(0 if snapshot is None else snapshot[1]["step"])
    assert steps == sorted(steps)
    assert len(set(steps)) > kills // 2
    model, guide = pair()
    history = fit(model, guide, X, run=run, resume=True, **settings)
    assert same(whole, outcome(model, guide, history))
    assert list(run.glob(".*.part")) == []


def test_a_full_disk_at_a_snapshot_costs_a_warning_and_nothing_else(
    uninterrupted, tmp_path, always
):
    """A limit on the size of files stands in for a full disk during two epochs."""
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


def test_a_fit_cut_off_on_a_full_disk_resumes_from_the_last_written_snapshot(
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


def test_a_fit_resumed_after_ctrl_c_within_an_epoch_ends_with_the_same_numbers(
    uninterrupted, tmp_path
):
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


def test_a_disk_that_is_full_at_the_end_leaves_the_fitted_pair_in_memory_with_a_warning(
    tmp_path, monkeypatch
):
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


def test_a_damaged_snapshot_is_replaced_by_the_previous_one(uninterrupted, tmp_path, always):
    settings = {**SETTINGS, "epochs": 3}
    fit(*pair(), X, run=tmp_path / "run", **settings)
    snapshot = tmp_path / "run" / "snapshot.safetensors"
    snapshot.write_bytes(snapshot.read_bytes()[:-7])
    model, guide = pair()
    with pytest.warns(UserWarning, match="resuming from the previous snapshot"):
        history = fit(model, guide, X, run=tmp_path / "run", resume=True, **SETTINGS)
    assert same(uninterrupted, outcome(model, guide, history))


def test_resume_uses_the_thread_count_of_the_run_and_restores_the_callers(tmp_path):
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
