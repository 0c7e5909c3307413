"""A last batch of one row, which batch normalization refuses."""

import warnings

import pytest
import torch
from parts.pairs import FEATURES, LATENTS, Guide, Model, layered, made, reals
from torch import nn

from ppl_vae import fit
from ppl_vae.compat import of_torch

pytestmark = pytest.mark.filterwarnings("ignore:layer .*BatchNorm")
QUICK = {"epochs": 2, "progress": False}


def normalized():
    """40 rows; batches of 13 leave one."""
    return Model(), Guide(layered(nn.BatchNorm1d(8))), reals()


class Watched(Guide):
    """Notes the rows of every call in training."""

    def __init__(self, encoder=None):
        super().__init__(encoder)
        self.calls = []

    def forward(self, x):
        self.calls.append(x.shape[-2])
        super().forward(x)


@pytest.mark.parametrize(
    ("size", "sizes", "requested"),
    [
        (13, [13, 13, 14], False), (39, [40], False), (20, [20, 20], False),
        (13, [13, 13, 14], True), (39, [40], True),
        pytest.param(20, [20, 20], True, marks=pytest.mark.slow),  # no last row
    ],
)  # fmt: skip
def test_the_last_row_joins_the_batch_before_it(size, sizes, requested, monkeypatch):
    monkeypatch.setattr(of_torch, "compile_with_inductor", lambda module, *others: module)
    model, guide, x = made(normalized)
    history = fit(model, guide, x, batch_size=size, compile=requested, **QUICK)
    assert history.frame["step"].tolist() == [len(sizes), 2 * len(sizes)]
    assert history.frame["elbo"].notna().all()


def test_every_row_is_used_once_an_epoch():
    """The second epoch is looked at: the first step of a fit runs the guide on other rows, too."""
    torch.manual_seed(0)
    guide = Watched(layered(nn.BatchNorm1d(8)))
    rows = []
    fit(Model(), guide, reals(), batch_size=13, **QUICK, callbacks=[
        lambda row, model, guide: rows.append(guide.calls[-3:])])  # fmt: skip
    assert rows[1] == [13, 13, 14]


@pytest.mark.parametrize("encoder", ["plain", "evaluated", "image"])
def test_where_one_row_is_no_fault_it_stays_a_batch(encoder):
    class Image(nn.Module):
        """Normalizes each channel over rows and cells."""

        def __init__(self):
            super().__init__()
            self.norm, self.out = nn.BatchNorm2d(1), nn.Linear(FEATURES, 2 * LATENTS)

        def forward(self, x):
            return self.out(self.norm(x.reshape(-1, 1, 1, FEATURES)).reshape(x.shape))

    torch.manual_seed(0)
    made_of = {"plain": None, "image": Image(), "evaluated": layered(nn.BatchNorm1d(8)).eval()}
    guide = Guide(made_of[encoder])
    history = fit(Model(), guide, reals(), batch_size=13, **QUICK)
    assert history.frame["step"].tolist() == [4, 8]


def test_batches_of_one_row_are_refused_by_the_layers_name():
    model, guide, x = made(normalized)
    words = r'layer "encoder.1" \(BatchNorm1d\): expected two rows or more .* got batch_size=1; '
    with pytest.raises(ValueError, match=words + "pass batch_size=2 or more"):
        fit(model, guide, x, batch_size=1, **QUICK)


def test_a_fit_with_a_joined_row_is_resumed(tmp_path):
    def trained(epochs, **settings):
        model, guide, x = made(normalized)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(model, guide, x, epochs=epochs, batch_size=13, progress=False, **settings)
        return [*model.state_dict().values(), *guide.state_dict().values()]

    whole = trained(4)
    trained(2, run=tmp_path / "run")
    resumed = trained(4, run=tmp_path / "run", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
