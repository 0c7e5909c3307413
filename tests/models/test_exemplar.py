"""The exemplar model: its density, its floor, and rows that it must call strange."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from ppl_vae import build, fit, load, log_likelihood, save
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.exemplar import ExemplarModel

pytestmark = pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")


def clusters(rows=400):
    """Two clusters at -20 and 20 in three columns, and a fourth column that is always 7."""
    draws = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0))
    centers = torch.where(torch.arange(rows) % 2 == 0, 20.0, -20.0)[:, None]
    return torch.cat([centers + draws, torch.full((rows, 1), 7.0)], 1)


def pair_of(x, **settings):
    torch.manual_seed(0)
    guide = build(NormalGuide, x, latents=2)
    return build(ExemplarModel, x, guide=guide, latents=2, **settings), guide


@pytest.fixture(scope="module")
def fitted():
    x = clusters()
    pair = pair_of(x)
    fit(
        *pair, x, epochs=60, batch_size=64, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    )  # fmt: skip
    return pair


def scores(pair, rows):
    return log_likelihood(*pair, rows, num_samples=100)["log_prob"].to_numpy()


@pytest.mark.usefixtures("double")
def test_the_density_is_the_formula():
    x = clusters(30).double()
    model, guide = pair_of(x)
    with torch.no_grad():
        model.log_spread.copy_(torch.tensor([0.3, -0.7]))
    z = torch.randn(30, 2)
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x)
    trace.compute_log_prob()
    codes = guide.encoder(guide.standardize(model.exemplars)).chunk(2, -1)[0]
    each = dist.Normal(codes, torch.tensor([0.3, -0.7]).exp()).log_prob(z[:, None]).sum(-1)
    torch.testing.assert_close(
        trace.nodes["z"]["log_prob"], each.logsumexp(1) - math.log(len(codes))
    )
    m, v = model.decoder(z)[:, :4], model.decoder(z)[:, 4:]
    t = v.exp().log1p() + model.floor
    right = dist.Normal(model.loc + model.scale * m, model.scale * t).log_prob(x).sum(-1)
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], right)


def test_the_floor_is_half_the_distance_between_nearest_exemplars():
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 0.0], [5.0, 1.0]])
    model = ExemplarModel(2, NormalGuide(2, 2), corners, latents=2, scale=torch.tensor([1.0, 2.0]))
    assert float(model.floor) == pytest.approx(0.5 / math.sqrt(2) / 2)
    same = ExemplarModel(2, NormalGuide(2, 2), torch.zeros(9, 2), latents=2)
    assert float(same.floor) == pytest.approx(0.005)  # equal rows: no noise of size 0


def test_the_hole_between_two_clusters_is_stranger_than_every_row(fitted):
    middle = torch.tensor([[0.0, 0.0, 0.0, 7.0]])
    assert scores(fitted, middle)[0] < scores(fitted, clusters()).min() - 5


def test_a_constant_column_decides_nothing_until_it_changes(fitted):
    moved = clusters(4)
    moved[:, 3] = 12
    assert scores(fitted, moved).max() < scores(fitted, clusters()).min()


def test_a_row_far_from_everything_is_finite_and_changes_no_other_row(fitted):
    rows = clusters(6)
    rows[2] = 1e6 * 20
    found = scores(fitted, rows)
    assert np.isfinite(found).all()
    assert found[2] < np.delete(found, 2).min() - 1e6
    others = np.delete(scores(fitted, clusters(6)), 2)
    np.testing.assert_allclose(np.delete(found, 2), others, rtol=1e-5)


def test_exemplars_are_kept_in_a_run(fitted, tmp_path):
    save(*fitted, tmp_path / "run")
    model, _ = load(tmp_path / "run")
    assert torch.equal(model.exemplars, fitted[0].exemplars)
    assert torch.equal(model.floor, fitted[0].floor)


@pytest.mark.parametrize(
    "exemplars", [torch.ones(1, 4), torch.ones(5, 3), torch.full((5, 4), torch.nan)]
)
def test_exemplars_that_are_no_rows_are_refused(exemplars):
    with pytest.raises(ValueError, match=r"^exemplars: expected two rows.*\(rows, 4\)"):
        ExemplarModel(4, nn.Sequential(NormalGuide(4, 2)), exemplars)
