"""A batch in shards: the same gradient as the whole batch, buffers, and what is refused."""

import pytest
import torch
from parts import pairs
from parts.pairs import made
from parts.worlds import weights_of
from torch import nn

from ppl_vae import fit

ROWS_COUPLED = pytest.mark.filterwarnings("ignore:layer .*got BatchNorm1d")  # by lint
QUICK = {"epochs": 3, "batch_size": 15, "progress": False, "compile": False}


def fitted(make, **options):
    model, guide, data = made(make)
    history = fit(model, guide, data, **{**QUICK, **options})
    halves = [half for half in (model, guide) if isinstance(half, nn.Module)]
    return [t for half in halves for t in half.state_dict().values()], history


@pytest.mark.parametrize("shards", [2, 4, 7])
def test_shards_without_noise_give_the_fit_of_whole_batches(shards, double):
    whole, _ = fitted(pairs.enumerated_in_the_guide, optimizer=lambda p: torch.optim.SGD(p, 1e-4))
    cut, history = fitted(
        pairs.enumerated_in_the_guide, optimizer=lambda p: torch.optim.SGD(p, 1e-4), shards=shards
    )
    assert history.shards == shards
    for left, right in zip(cut, whole, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)


def test_one_shard_is_the_fit_as_it_was():
    (plain, history), (one, _) = fitted(pairs.gaussian), fitted(pairs.gaussian, shards=1)
    assert history.shards == 1
    assert all(map(torch.equal, plain, one))


def test_the_state_of_the_global_generators_does_not_matter():
    def draws(*_):
        torch.rand(7)

    (plain, _), (drawn, _) = (
        fitted(pairs.gaussian, shards=2, callbacks=calls) for calls in ([], [draws])
    )
    assert all(map(torch.equal, plain, drawn))


@ROWS_COUPLED
def test_buffers_of_floats_become_the_mean_over_shards_and_counts_those_of_the_first():
    seen = []

    def note(layer, inputs):
        if torch.is_grad_enabled():
            seen.append(inputs[0].detach())

    torch.manual_seed(0)
    model, guide, data = pairs.batch_norm()
    norm = next(layer for layer in guide.modules() if isinstance(layer, nn.BatchNorm1d))
    norm.eval()  # it has seen nothing while the fit is prepared
    norm.register_forward_pre_hook(note)

    def train(row, model, guide):
        if row["epoch"] == 1:
            seen.clear()
            norm.train()

    before = norm.running_mean.clone()
    fit(model, guide, data, **{**QUICK, "epochs": 2, "batch_size": 40}, shards=3, callbacks=[train])
    own = seen[-3:]  # the step is made again once the buffers are found to change
    assert [len(rows) for rows in own] == [14, 13, 13]
    means = [0.9 * before + 0.1 * rows.mean(0) for rows in own]
    expected = sum(len(rows) / 40 * mean for rows, mean in zip(own, means, strict=True))
    torch.testing.assert_close(norm.running_mean, expected)
    assert norm.num_batches_tracked == 1


@ROWS_COUPLED
def test_shards_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="shards: expected a whole number of at least 1, got 0"):
        fitted(pairs.gaussian, shards=0)
    with pytest.raises(ValueError, match="at most the 15 rows of a batch, got 16"):
        fitted(pairs.gaussian, shards=16)
    with pytest.raises(ValueError, match=r"two rows or more in a shard.*pass batch_size=16"):
        fitted(pairs.batch_norm, shards=8)
    fitted(pairs.gaussian, shards=3, run=tmp_path / "run")
    with pytest.raises(ValueError, match="was made with shards=3, got 2"):
        fitted(pairs.gaussian, shards=2, run=tmp_path / "run", resume=True, epochs=4)
    _, history = fitted(pairs.gaussian, run=tmp_path / "run", resume=True, epochs=4)
    assert history.shards == 3


def test_a_fit_from_shards_without_a_seed_resumes_with_the_seed_it_drew(tmp_path):
    def once(epochs, folder, draw_from=1, **options):
        torch.manual_seed(7)
        model, guide, data = pairs.gaussian()
        torch.manual_seed(draw_from)
        options = {"seed": None, "shards": 2, "run": tmp_path / folder, **options}
        fit(model, guide, data, **{**QUICK, "epochs": epochs}, **options)
        return weights_of(model, guide)

    whole = once(5, "whole")
    once(2, "cut")
    assert once(5, "cut", draw_from=2, resume=True) == whole


@ROWS_COUPLED
def test_a_last_batch_whose_shards_have_one_row_joins_the_one_before_under_batch_normalization():
    _, history = fitted(pairs.batch_norm, shards=3, batch_size=18)  # 18, 18 and 4 rows
    assert history.frame["step"].tolist() == [2, 4, 6]


class Steep(pairs.Model):
    """From the second epoch on the gradient of one row is not finite; the loss always is."""

    def __init__(self, row):
        super().__init__()
        self.row, self.late, self.steep = row, False, []
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        if not self.late:
            return super().forward(x + self.shift)
        self.steep.append(bool((x == self.row).all(1).any()))
        return super().forward(x + (self.shift * 0).abs().sqrt() if self.steep[-1] else x)


@pytest.mark.parametrize("row", [3, 5, 30])
def test_the_shard_whose_gradient_is_not_finite_is_named(row):
    data = pairs.reals()
    model = Steep(data[row])

    def then(_, model, guide):
        model.late = True

    quick = {**QUICK, "batch_size": len(data), "shards": 4, "seed": 0, "callbacks": [then]}
    with pytest.raises(ValueError, match=r"gradient.* shard \d of 4") as caught:
        fit(model, pairs.Guide(), data, **quick)
    assert f"shard {model.steep.index(True)} of 4" in str(caught.value)
