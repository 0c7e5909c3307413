"""Fits of sequences: batches of like length, without the padding that no row needs."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import build, fit, sequences
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows
from ppl_vae.data.steps import trimmed
from ppl_vae.guides.recurrent import RecurrentGuide
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.deep_markov import DeepMarkovModel
from ppl_vae.models.sequence import SequenceModel
from ppl_vae.models.state_space import StateSpaceModel
from ppl_vae.training.like_lengths import batches_of_epoch, ignores_padding, rows_to_train_on

PAIRS = [(StateSpaceModel, SmoothingGuide), (DeepMarkovModel, SmoothingGuide),
         (SequenceModel, RecurrentGuide)]  # fmt: skip


def data(rows=12, longest=9):
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, longest + 1, (rows,), generator=draw).tolist()
    return sequences([torch.rand(n, 3, generator=draw).round() for n in (*lengths, longest)])


def padded(rows, steps):
    more = torch.full((len(rows["x"]), steps, 3), 7.0)
    seen = torch.nn.functional.pad(rows["seen"], (0, 0, 0, steps))
    return {**rows, "x": torch.cat([rows["x"], more], 1), "seen": seen}


class MeanOfSteps(PyroModule):
    """Divides by the number of steps with their padding."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.head(x.sum(1) / x.shape[1]), 1.0).to_event(1))


class FixedSteps(PyroModule):
    """Has a weight for each step."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(27, 2)

    def forward(self, x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.head(x.flatten(1)), 1.0).to_event(1))


@pytest.mark.parametrize(("model", "guide"), PAIRS, ids=lambda cls: cls.__name__)
def test_pairs_that_mask_the_padding_are_known(model, guide):
    rows = data()
    pair = Pair.of(build(model, rows, latents=2), build(guide, rows, latents=2), "data")
    assert ignores_padding(pair, Rows(rows))


@pytest.mark.parametrize("guide", [MeanOfSteps, FixedSteps])
def test_pairs_that_read_the_number_of_steps_are_trained_on_all_of_them(guide):
    rows = data()
    pair = build(SequenceModel, rows, latents=2), guide()
    assert not ignores_padding(Pair.of(*pair, "data"), Rows(rows))
    shapes = []
    pair[0].register_forward_pre_hook(
        lambda model, _, fields: shapes.append(fields["x"].shape[1]), with_kwargs=True
    )
    history = fit(*pair, rows, epochs=1, batch_size=4, progress=False)
    assert history.step_reason.startswith("the fit")
    assert set(shapes[-4:]) == {9}


def test_an_epoch_has_every_row_once_in_batches_of_like_length():
    rows = trimmed(Rows(data(rows=200, longest=40)))
    generator = torch.Generator().manual_seed(0)
    batches, others = (batches_of_epoch(rows, 16, False, generator) for _ in range(2))
    assert torch.cat(batches).sort().values.tolist() == list(range(201))
    assert [b.tolist() for b in batches] != [b.tolist() for b in others]
    steps = sum(rows.take(batch)["x"].shape[1] * len(batch) for batch in batches)
    inside = int(rows.fields[rows.names.index("lengths")].array.sum())
    assert steps < 1.3 * inside
    assert rows.take(batches[0])["x"].shape[1] == rows.take(batches[0])["lengths"].max()


@pytest.mark.parametrize(("model", "guide"), PAIRS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("shards", [1, 2])
def test_padding_changes_no_bit_of_a_fit(model, guide, shards):
    rows = data()
    found = []
    for version in (rows, padded(rows, 5)):
        torch.manual_seed(0)
        pair = build(model, rows, latents=2), build(guide, rows, latents=2)
        history = fit(*pair, version, epochs=2, batch_size=5, seed=0, progress=False, shards=shards)
        assert "different numbers of steps" in history.step_reason
        found.append([p.detach().clone() for half in pair for p in half.parameters()])
    for left, right in zip(*found, strict=True):
        assert torch.equal(left, right)


def test_a_fit_that_was_cut_off_goes_on_with_the_same_batches(tmp_path):
    rows = data()
    found = []
    for stop in (None, 1):
        torch.manual_seed(0)
        pair = build(StateSpaceModel, rows, latents=2), build(SmoothingGuide, rows, latents=2)
        how = {"epochs": 3, "batch_size": 5, "seed": 0, "progress": False}
        run = tmp_path / f"{stop}"
        if stop:
            fit(*pair, rows, run=run, callbacks=[lambda *_: True], **how)
        fit(*pair, rows, run=run, resume=True, **how)
        found.append([p.detach().clone() for half in pair for p in half.parameters()])
    for left, right in zip(*found, strict=True):
        assert torch.equal(left, right)


def test_a_compiled_step_has_one_number_of_steps():
    rows = Rows(data())
    pair = Pair.of(
        build(StateSpaceModel, data(), latents=2), build(SmoothingGuide, data(), latents=2), "data"
    )
    assert rows_to_train_on(pair, rows, True).trim is None
    assert rows_to_train_on(pair, rows, "auto").trim is not None
