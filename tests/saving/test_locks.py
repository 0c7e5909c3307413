"""One process at a time writes into a run directory, and each writes into its own alone."""

import multiprocessing
import os
import shutil
import subprocess

import pytest
import torch
from parts.runs import SETTINGS, X, outcome, pair, same

from ppl_vae import fit, load, save
from ppl_vae.saving import locks, snapshots
from ppl_vae.saving.locks import RunLock
from ppl_vae.saving.runs import read_run
from ppl_vae.training import svi

SHORT = {"epochs": 2, "progress": False}
STARTERS = 10


def start_at_once(work, *, one_first):
    """Call ``work(number, answers, wait)`` in ten processes at once; return the ten answers.

    The fits wait for each other after their first look at the directory, and ``save`` by ``wait``.

    Args:
        work: Fits or saves, and puts one answer.
        one_first: Whether process 0 ends before the others, which have looked, begin their runs.
    """
    context = multiprocessing.get_context("fork")
    barrier, ended, answers = context.Barrier(STARTERS), context.Event(), context.SimpleQueue()
    original = svi.fit_settings

    def child(number):
        def wait():
            barrier.wait(60)
            if one_first and number:
                ended.wait(60)

        def wait_after_the_look(*args, **kwargs):
            wait()
            return original(*args, **kwargs)

        torch.set_num_threads(1)
        svi.fit_settings = wait_after_the_look
        work(number, answers, wait)
        if number == 0:
            ended.set()

    processes = [context.Process(target=child, args=(number,)) for number in range(STARTERS)]
    for process in processes:
        process.start()
    told = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return told


@pytest.mark.parametrize("begin", ["absent", "empty", "mixed"])
def test_of_ten_fits_that_begin_one_run_at_once_one_goes_on_and_nine_are_refused(begin, tmp_path):
    run = tmp_path / "run"
    if begin == "empty":
        run.mkdir()
    fit(*pair(), X, **SHORT)  # what is imported late is imported here, and not in each process

    def work(seed, answers, wait):
        model, guide = pair()
        try:
            if begin == "mixed" and seed % 3 == 0:
                wait()
                save(model, guide, run)
            else:
                resume = begin == "mixed" and seed % 3 == 1
                fit(model, guide, X, run=run, seed=seed, resume=resume, **SHORT)
        except Exception as error:  # the test says which errors are right
            answers.put((seed, f"{type(error).__name__}: {error}", None))
        else:
            answers.put((seed, "", [w.tolist() for w in model.state_dict().values()]))

    told = start_at_once(work, one_first=begin == "empty")
    ended = [answer for answer in told if not answer[1]]
    refused = [message for _, message, _ in told if message]
    assert len(ended) == 1
    assert len(refused) == STARTERS - 1
    assert all(m.startswith("ValueError: r") and str(run) in m for m in refused), refused
    model, _ = load(run, model=pair()[0], guide=pair()[1])
    assert [w.tolist() for w in model.state_dict().values()] == ended[0][2]
    assert read_run(run).info.get("seed", ended[0][0]) == ended[0][0]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert list(run.glob(".*")) == []


def test_a_run_that_is_replaced_during_a_fit_is_not_written_into(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "SOONEST", 0.0)
    run, other = tmp_path / "run", tmp_path / "other"
    save(*pair(), other)
    before = {path.name: path.read_bytes() for path in other.iterdir() if path.is_file()}
    whole = outcome(*(halves := pair()), fit(*halves, X, **SETTINGS))

    def replace(row, model, guide):
        if row["epoch"] == 2:
            run.rename(tmp_path / "moved")
            shutil.copytree(other, run)

    halves = pair()
    with pytest.warns(UserWarning, match="run was moved, deleted or replaced") as caught:
        history = fit(*halves, X, run=run, callbacks=[replace], **SETTINGS)
    assert len(caught) == 1
    assert same(whole, outcome(*halves, history))
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    halves = pair()
    resumed = fit(*halves, X, run=tmp_path / "moved", resume=True, **SETTINGS)
    assert same(whole, outcome(*halves, resumed))


def test_a_callback_that_changes_the_current_directory_does_not_move_the_run(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    step_aside = [lambda *_: os.chdir(tmp_path / "elsewhere")]
    fit(*pair(), X, run="run", callbacks=step_aside, **SHORT)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert read_run(tmp_path / "run").info["status"] == "finished"


def test_a_process_that_a_callback_forks_neither_writes_into_the_run_nor_keeps_it_locked(tmp_path):
    run, context = tmp_path / "run", multiprocessing.get_context("fork")
    done, children = context.Event(), []

    def fork(row, model, guide):
        children.append(context.Process(target=done.wait, args=(60,)))
        children[-1].start()

    fit(*pair(), X, run=run, callbacks=[fork], **{**SHORT, "epochs": 1})
    try:
        fit(*pair(), X, run=run, resume=True, **SHORT)
    finally:
        done.set()
        for child in children:
            child.join()
    lock = RunLock(run)
    child = context.Process(target=lambda: os._exit(lock.is_own()))
    child.start()
    child.join()
    assert (child.exitcode, lock.is_own()) == (0, True)
    lock.close()


def test_files_like_half_written_ones_stay_unless_their_process_is_gone(tmp_path):
    run = tmp_path / "run"
    fit(*pair(), X, run=run, **SHORT)
    gone = subprocess.Popen(["true"])
    gone.wait()
    stay = [f".run.json.{os.getppid()}.part", ".thesis.part", f".thesis.txt.{gone.pid}.part"]
    for name in stay:
        (run / name).write_text("not ours")
    (run / f".metrics.csv.{gone.pid}.part").mkdir()  # a folder that is named like a part
    (run / f".run.json.{gone.pid}.part").write_text("half")
    fit(*pair(), X, run=run, resume=True, **{**SHORT, "epochs": 3})
    left = sorted(path.name for path in run.glob(".*"))
    assert left == sorted([*stay, f".metrics.csv.{gone.pid}.part"])


def test_a_process_killed_while_it_begins_leaves_room_for_the_next(tmp_path):
    from parts.kills import run_and_kill

    for name, place in (("absent", "write"), ("absent", "rename"), ("empty", "write")):
        run = tmp_path / name
        if name == "empty":
            run.mkdir()
        assert run_and_kill(lambda run=run: fit(*pair(), X, run=run, **SHORT), place, 1) < 0
    for name in ("absent", "empty"):
        shutil.rmtree(tmp_path / name / "source", ignore_errors=True)  # where the kill left it
        fit(*pair(), X, run=tmp_path / name, **SHORT)
        assert list((tmp_path / name).glob(".*")) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["absent", "empty"]


def test_a_disk_without_locks_gives_a_warning_that_says_what_is_not_checked(tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with pytest.warns(UserWarning, match="has no locks"):
        fit(*pair(), X, run=tmp_path / "run", **SHORT)


def test_a_saved_pair_that_is_resumed_as_a_fit_is_refused_and_gets_no_lock(tmp_path):
    save(*pair(), tmp_path / "run")
    (tmp_path / "run" / "lock").unlink()
    with pytest.raises(ValueError, match="holds a saved pair, not a fit"):
        fit(*pair(), X, run=tmp_path / "run", resume=True, **SHORT)
    assert not (tmp_path / "run" / "lock").exists()


def test_a_lock_that_was_taken_away_between_opening_and_locking_is_refused(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    original = locks.fcntl.flock

    def moved(*arguments):
        (tmp_path / "run").rename(tmp_path / "aside")
        original(*arguments)

    monkeypatch.setattr(locks.fcntl, "flock", moved)
    with pytest.raises(ValueError, match="another process is fitting into"):
        RunLock(tmp_path / "run")


def test_a_directory_that_was_set_aside_a_moment_ago_is_refused(tmp_path):
    with pytest.raises(ValueError, match="another process is fitting into"):
        RunLock(tmp_path / "run")
