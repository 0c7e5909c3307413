"""Callbacks: TensorBoard's scalars, lines of a CSV file, and the active latents during a fit."""

import importlib.machinery
import importlib.util
import math
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import fit, latent_usage
from ppl_vae.callbacks import CSV, ActiveUnits, CollapseWarning, TensorBoard
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))


def fitted(callback, **settings):
    torch.manual_seed(0)
    pair = GaussianModel(3, 2), NormalGuide(3, 2)
    quick = {"epochs": 3, "batch_size": 20, "progress": False, "compile": False}
    return fit(*pair, X, callbacks=[callback], **{**quick, **settings})


class Writer:
    """Stands for ``SummaryWriter`` and notes the calls."""

    calls: list = []  # noqa: RUF012  emptied by the fixture

    def __init__(self, folder, **settings):
        self.calls.append(("open", folder, settings))

    def add_scalar(self, name, value, step):
        self.calls.append((name, value, step))

    def flush(self):
        pass

    def close(self):
        self.calls.append("closed")


@pytest.fixture
def calls(monkeypatch):
    """The calls that ``TensorBoard`` makes, by a stand-in for the package."""
    package = types.ModuleType("tensorboard")
    package.__spec__ = importlib.machinery.ModuleSpec("tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    writers = types.ModuleType("torch.utils.tensorboard")
    writers.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", writers)
    Writer.calls.clear()
    return Writer.calls


def test_tensorboard_gets_both_elbos_of_every_epoch(calls, tmp_path):
    frame = fitted(TensorBoard(tmp_path), validation=1 / 3, epochs=2).frame
    first, second = frame.to_dict("records")
    assert calls == [
        ("open", str(tmp_path), {"purge_step": 2}),
        ("elbo", first["elbo"], 2),
        ("objective", first["objective"], 2),
        ("validation_elbo", first["validation_elbo"], 2),
        ("elbo", second["elbo"], 4),
        ("objective", second["objective"], 4),
        ("validation_elbo", second["validation_elbo"], 4),
    ]


def test_tensorboard_leaves_out_nan(calls, tmp_path):
    fitted(TensorBoard(tmp_path))
    assert [call[0] for call in calls[1:]] == ["elbo", "objective"] * 3


def test_a_resumed_fit_hides_the_events_that_it_repeats(calls, tmp_path):
    run = tmp_path / "run"
    fitted(TensorBoard(tmp_path), run=run, epochs=1)
    fitted(TensorBoard(tmp_path), run=run, epochs=2, resume=True)
    opened = [call[2] for call in calls if call[0] == "open"]
    assert opened == [{"purge_step": 3}, {"purge_step": 6}]


def test_without_the_package_tensorboard_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else found(name)
    )
    with pytest.raises(ValueError, match=r"expected the package tensorboard.*pip install"):
        TensorBoard("anywhere")


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
def test_tensorboard_writes_events_that_tensorboard_reads(tmp_path):
    fitted(TensorBoard(tmp_path))
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_a_run_directory_gets_no_tensorboard_files_unasked(calls, tmp_path):
    fitted(lambda row, model, guide: None, run=tmp_path / "run")
    assert calls == []
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_csv_holds_the_history(tmp_path):
    path = tmp_path / "new" / "fit.csv"
    history = fitted(CSV(path))
    pd.testing.assert_frame_equal(pd.read_csv(path), history.frame, check_dtype=False)


def test_csv_appends_below_what_a_resumed_fit_had_written(tmp_path):
    path, run = tmp_path / "fit.csv", tmp_path / "run"
    fitted(CSV(path), run=run, epochs=2)
    history = fitted(CSV(path), run=run, epochs=4, resume=True)
    assert pd.read_csv(path)["epoch"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(pd.read_csv(path)["elbo"], history.frame["elbo"], rtol=1e-12)


def test_csv_fills_an_empty_file(tmp_path):
    path = tmp_path / "fit.csv"
    path.touch()
    fitted(CSV(path))
    assert len(pd.read_csv(path)) == 3


def test_csv_refuses_a_file_of_something_else_and_leaves_it_alone(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("age,weight\n3,4\n")
    with pytest.raises(ValueError, match=r"data\.csv to be new .* history.*got .age"):
        CSV(path)
    assert path.read_text() == "age,weight\n3,4\n"


def test_csv_refuses_other_columns_and_leaves_the_file_alone(tmp_path):
    path = tmp_path / "fit.csv"
    path.write_text("epoch,loss\n1,4\n")
    with pytest.raises(ValueError, match="columns epoch, step, elbo"):
        fitted(CSV(path))
    assert path.read_text() == "epoch,loss\n1,4\n"


def test_every_line_of_csv_is_written_in_one_piece(tmp_path, monkeypatch):
    path, writes = tmp_path / "fit.csv", []
    original = type(path).open

    def opened(self, *args, **kwargs):
        file = original(self, *args, **kwargs)
        if self == path and args[:1] == ("a",):
            write = file.write
            monkeypatch.setattr(file, "write", lambda text: (writes.append(text), write(text))[1])
        return file

    monkeypatch.setattr(type(path), "open", opened)
    write = CSV(path)
    for epoch in (1, 2):
        write({"epoch": epoch, "elbo": math.nan}, None, None)
    assert writes == ["epoch,elbo\n1,nan\n", "2,nan\n"]


def watched(make, data=X, **settings):
    """A watch of a fit of the pair that ``make`` returns, and the pair's parameters after it."""
    torch.manual_seed(0)
    watch = ActiveUnits(data, **settings)
    pair = make()
    fit(*pair, X, epochs=6, batch_size=20, progress=False, compile=False, callbacks=[watch])
    return watch, [value.detach() for half in pair for value in half.parameters()]


class Blind(NormalGuide):
    """A guide that does not look at the rows: its posterior has collapsed."""

    def forward(self, x):
        super().forward(torch.zeros_like(x))


def gaussian():
    return GaussianModel(3, 2), NormalGuide(3, 2)


def blind():
    return GaussianModel(3, 2), Blind(3, 2)


def test_active_latents_are_those_of_latent_usage():
    counts = []

    def count(row, model, guide):
        counts.append(len(latent_usage(model, guide, X, num_samples=1).active))

    torch.manual_seed(0)
    watch = ActiveUnits(X)
    quick = {"epochs": 6, "batch_size": 20, "progress": False, "compile": False}
    fit(*gaussian(), X, callbacks=[watch, count], **quick)
    assert watch.frame["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert watch.frame["step"].tolist() == [3, 6, 9, 12, 15, 18]
    assert watch.frame["active"].tolist() == counts
    assert set(watch.frame["latents"]) == {2}
    assert counts[-1] == 2


@pytest.mark.parametrize("make", [gaussian, blind])
@pytest.mark.filterwarnings("ignore::ppl_vae.callbacks.CollapseWarning")
def test_a_fit_is_the_same_with_a_watch_and_without_bit_for_bit(make):
    torch.manual_seed(0)
    pair = make()
    fit(*pair, X, epochs=6, batch_size=20, progress=False, compile=False)
    alone = [value.detach() for half in pair for value in half.parameters()]
    draw = torch.rand(3)
    beside = watched(make)[1]
    assert all(map(torch.equal, alone, beside))
    assert torch.equal(draw, torch.rand(3))


def test_a_collapse_is_warned_of_once_after_the_patience():
    with pytest.warns(CollapseWarning, match='site "z": .* in 3 looks up to epoch 3') as caught:
        watch = watched(blind, patience=3)[0]
    assert len(caught) == 1
    assert "kl_weight=" in str(caught[0].message)
    assert watch.frame["collapsed"].tolist() == [["z"]] * 6
    assert watch.frame["active"].tolist() == [0] * 6


def test_looks_are_apart_and_a_second_fit_begins_anew():
    watch = watched(gaussian, every=2)[0]
    assert watch.frame["epoch"].tolist() == [2, 4, 6]
    fit(*gaussian(), X, epochs=2, progress=False, compile=False, callbacks=[watch])
    assert watch.frame["epoch"].tolist() == [2]


def test_latents_that_wake_in_time_are_not_warned_of():
    watch = watched(blind, patience=7)[0]  # a warning would be an error
    assert len(watch.frame) == 6


@pytest.mark.parametrize("wrong", [{"every": 0}, {"patience": 0}, {"seed": -1}])
def test_wrong_settings_of_the_watch_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        ActiveUnits(X, **wrong)
