"""The record of a fit is the checked one; ``metrics.csv`` is a copy that nothing believes."""

import math
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import torch
from parts.runs import SETTINGS, X, outcome, pair, same

from ppl_vae import fit
from ppl_vae.report.run_facts import read_history
from ppl_vae.saving import snapshots
from ppl_vae.saving.metrics import COLUMNS, Metrics
from ppl_vae.saving.runs import read_run
from ppl_vae.saving.snapshots import read_metrics, read_snapshot
from ppl_vae.saving.storage import read_json, write_json
from ppl_vae.training.diagnosis import NotFiniteError

FORGED = ["epoch,step,elbo,objective,validation_elbo,seconds\n1,5,99.0,99.0,99.0,0.1\n", "", "x\0"]


def history_of(run):
    return read_history(run, read_run(run).info)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and the history that its fit returned."""
    run = tmp_path_factory.mktemp("finished") / "run"
    return run, fit(*pair(), X, run=run, **SETTINGS)


@pytest.mark.parametrize("text", FORGED)
def test_a_forged_metrics_csv_changes_nothing_and_is_rewritten_whole(text, finished, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run")
    whole = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(text)
    told = history_of(run)
    pd.testing.assert_frame_equal(told.frame, finished[1].frame, check_exact=True)
    assert told.convergence() == finished[1].convergence()
    halves = pair()
    resumed = fit(*halves, X, run=run, resume=True, **SETTINGS)
    pd.testing.assert_frame_equal(resumed.frame, finished[1].frame, check_exact=True)
    assert (run / "metrics.csv").read_text() == whole


def test_a_metrics_csv_that_is_forged_during_the_fit_is_whole_at_its_end(finished, tmp_path):
    run = tmp_path / "run"

    def forge(row, model, guide):
        (run / "metrics.csv").write_text(FORGED[row["epoch"] % 2])

    history = fit(*pair(), X, run=run, callbacks=[forge], **SETTINGS)
    written = pd.read_csv(run / "metrics.csv")
    pd.testing.assert_frame_equal(written, history.frame, check_dtype=False)


def test_the_record_of_a_fit_that_was_cut_off_is_the_one_of_its_snapshot(tmp_path, always):
    run = tmp_path / "run"

    class PowerCutError(Exception):
        pass

    def cut(row, model, guide):
        if row["epoch"] == 3:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        fit(*pair(), X, run=run, callbacks=[cut], **SETTINGS)
    assert len(pd.read_csv(run / "metrics.csv")) == 3
    assert len(history_of(run).frame) == len(read_snapshot(run)[1]["records"]) == 2


def test_a_fit_that_ends_by_an_error_has_all_its_lines_in_metrics_csv(tmp_path):
    def cut(row, model, guide):
        if row["epoch"] == 4:
            raise KeyError("a fault of the user's")

    with pytest.raises(KeyError):
        fit(*pair(), X, run=tmp_path / "run", callbacks=[cut], **SETTINGS)
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["epoch"].tolist() == [1, 2, 3, 4]


def test_a_fit_that_stopped_being_finite_has_its_record(tmp_path):
    def blow_up(row, model, guide):
        if row["epoch"] == 3:
            torch.nn.init.constant_(next(model.parameters()), math.nan)

    settings = {**SETTINGS, "compile": False}
    with pytest.raises(NotFiniteError):
        fit(*pair(), X, run=tmp_path / "run", callbacks=[blow_up], **settings)
    assert history_of(tmp_path / "run").frame["epoch"].tolist() == [1, 2, 3]


def test_a_damaged_record_is_read_from_the_snapshot_and_a_lost_one_is_said(finished, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run")
    for name in ("history.safetensors", "snapshot.safetensors", "previous.safetensors"):
        if (run / name).exists():
            (run / name).write_bytes((run / name).read_bytes()[:-9])
        if name == "history.safetensors":
            with pytest.warns(UserWarning, match=r"damaged.*; the history is read from another"):
                told = history_of(run)
            pd.testing.assert_frame_equal(told.frame, finished[1].frame, check_exact=True)
    with pytest.warns(UserWarning, match="the history of the fit cannot be read"):
        assert history_of(run) is None


def test_records_of_older_versions_are_read():
    rows = [{"epoch": 1, "step": 2, "elbo": -3.0, "validation_elbo": -4.0, "seconds": 0.5}]
    frame = Metrics(rows).frame()
    assert frame["epoch"].tolist() == [1]
    assert frame["objective"].isna().all()


def test_a_record_survives_as_a_tensor_and_as_lines():
    metrics = Metrics()
    for epoch, elbo in enumerate((-1 / 3, 1e-300, -1e22, math.inf, 12345.678), 1):
        row = (epoch, 7 * epoch, elbo, elbo, math.nan, 0.1)
        metrics.append(dict(zip(COLUMNS, row, strict=True)))
    assert metrics.lines(3) == "4,28,inf,inf,,0.1\n5,35,12345.678,12345.678,,0.1\n"
    assert metrics.lines(5) == ""
    assert metrics.lines() == metrics.frame().to_csv(index=False, header=False, lineterminator="\n")
    again = Metrics(metrics.tensor())
    pd.testing.assert_frame_equal(again.frame(), metrics.frame(), check_exact=True)
    with pytest.raises(ValueError, match="expected a tensor of 6 columns"):
        Metrics(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="expected numbers of epochs, got NaN"):
        Metrics(torch.full((3, 6), math.nan))


def test_a_record_of_a_million_epochs_fits_into_a_snapshot(tmp_path):
    """As a text in the header of the file, 610,000 epochs were too many."""
    fit(*pair(), X, run=tmp_path / "run", **SETTINGS)
    info = read_run(tmp_path / "run").info
    records = Metrics(torch.arange(6_000_000.0).reshape(-1, 6))
    recorder = snapshots.Recorder(tmp_path / "run", info)
    recorder.snapshot({}, lambda: {"records": records.tensor()})
    recorder.close()
    write_json(tmp_path / "run" / "run.json", {**info, "status": "running"})
    assert len(read_metrics(tmp_path / "run", read_json(tmp_path / "run" / "run.json"))) == 10**6


def test_an_epoch_is_recorded_in_less_than_a_tenth_of_a_millisecond(finished, tmp_path):
    run, metrics = shutil.copytree(finished[0], tmp_path / "run"), Metrics()
    recorder = snapshots.Recorder(run, read_run(run).info)
    start = time.process_time()
    for epoch in range(2000):
        metrics.append(dict.fromkeys(COLUMNS, epoch))
        recorder.epoch(metrics)
    recorder.close()
    assert (time.process_time() - start) / 2000 < 1e-4


class Unpicklable(torch.optim.Adam):
    """An optimizer whose state is no number, text or tensor."""

    def state_dict(self):
        return {**super().state_dict(), "lock": object()}


class Broken(torch.optim.Adam):
    """An optimizer whose state cannot be read."""

    def state_dict(self):
        raise RuntimeError("no state here")


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [(Unpicklable, "holds a object, which cannot be stored without"), (Broken, "no state here")],
)
def test_a_state_that_cannot_be_stored_costs_a_warning_and_not_the_fit(
    optimizer, reason, tmp_path, always
):
    halves = pair()
    whole = outcome(*halves, fit(*halves, X, **SETTINGS))
    halves = pair()
    with pytest.warns(UserWarning, match=reason) as caught:
        history = fit(*halves, X, run=tmp_path / "run",
                      optimizer=lambda p: optimizer(p, fused=True), **SETTINGS)  # fmt: skip
    assert len(caught) == 1
    assert same(whole, outcome(*halves, history))
    assert len(history_of(tmp_path / "run").frame) == len(history.frame)


def test_whatever_fails_while_a_snapshot_is_written_is_a_warning(tmp_path, monkeypatch, always):
    def fail(*arguments):
        raise MemoryError

    halves = pair()
    whole = outcome(*halves, fit(*halves, X, **SETTINGS))
    monkeypatch.setattr(snapshots.storage, "write_tensors", fail)
    halves = pair()
    with pytest.warns(UserWarning, match="MemoryError"):
        history = fit(*halves, X, run=tmp_path / "run", **SETTINGS)
    assert same(whole, outcome(*halves, history))
    assert np.isfinite(history.frame["elbo"]).all()
