"""``build`` reads sizes and scales from the data."""

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import build
from ppl_vae.guides.mean_field import MeanFieldGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.guides.top_down import TopDownGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.hmm import HMMModel
from ppl_vae.models.poisson import PoissonModel
from ppl_vae.models.vampprior import VampPriorModel

X = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 10, 0.1]) + 5


class WithRate:
    def __init__(self, rate):
        self.rate = rate


class Everything:
    def __init__(self, features, categories, rows, loc, scale, other=3):
        self.got = (features, categories, rows, loc, scale, other)


def test_sizes_and_scales_come_from_the_data():
    codes = torch.tensor([[0, 2], [1, 4], [0, 0]])
    features, categories, rows, loc, scale, other = build(Everything, codes).got
    assert (features, categories, rows, other) == (2, (2, 5), 3, 3)
    assert torch.allclose(loc, codes.float().mean(0))
    assert torch.allclose(scale, codes.float().std(0, correction=0))


@pytest.mark.parametrize("form", [X, X.numpy(), pd.DataFrame(X.numpy()), (X,), {"x": X}])
def test_every_form_of_data_builds_the_same(form):
    model, guide = build(GaussianModel, form, latents=2), build(NormalGuide, form, latents=2)
    assert torch.allclose(model.loc, X.mean(0), rtol=1e-4)
    assert torch.allclose(guide.standardize.scale, X.std(0, correction=0), rtol=1e-4)


def test_large_offsets_do_not_spoil_the_scale():
    data = 1e6 + torch.randn(5000, 1, dtype=torch.float64).numpy()
    scale = build(Everything, np.hstack([data, data]), categories=0).got[4]
    assert scale.numpy() == pytest.approx(data.std(), rel=0.05)


def test_constant_columns_have_a_scale_of_one():
    data = torch.cat([X, torch.full((200, 1), 7.3)], 1)
    assert float(build(GaussianModel, data).scale[3]) == 1.0


def test_the_rate_is_the_mean_by_unit_of_size_and_never_zero():
    counts, size = torch.tensor([[4, 0], [0, 0], [8, 0]]), torch.tensor([1.0, 2.0, 3.0])
    assert build(PoissonModel, counts).rate.tolist() == pytest.approx([4, 1 / 6])
    rate = build(PoissonModel, {"x": counts, "size": size}).rate
    assert rate.tolist() == pytest.approx([2, 1 / 12])


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_a_size_that_is_not_positive_is_named_with_its_row(bad):
    size = torch.ones(5)
    size[3] = bad
    with pytest.raises(ValueError, match=f"size.*: expected positive.*got {bad:g} in row 3"):
        build(PoissonModel, {"x": torch.ones(5, 2), "size": size})


def test_given_arguments_take_precedence_over_the_data():
    model = build(GaussianModel, X, loc=0.0, latents=5)
    assert model.latents == 5
    assert model.loc.tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build(BernoulliModel, X, latent=3), r"arguments among \['features'.*\['latent'\]"),
        (lambda: build(BernoulliModel, torch.zeros(5, 8, 8)), r"data of shape \(rows, features\)"),
        (lambda: build(Everything, X), "categories: expected integer codes"),
    ],
)
def test_what_the_data_cannot_give_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_missing_values_do_not_spoil_the_scale():
    data = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)) + 100
    data[:500] = torch.nan
    model = build(GaussianModel, data)
    assert model.loc.item() == pytest.approx(100, abs=0.2)
    assert model.scale.item() == pytest.approx(1, abs=0.1)


def test_a_feature_that_is_always_zero_has_a_rate_above_zero():
    counts = torch.tensor([[0, 3], [0, 1]])
    rates = build(WithRate, {"x": counts, "size": torch.tensor([1.0, 3.0])}).rate
    assert rates.tolist() == [0.125, 1.0]


def test_center_and_spread_are_not_moved_by_outliers():
    class Robust:
        def __init__(self, features, center, spread):
            self.center, self.spread = center, spread

    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)) * 3 + 5
    x[:20, 0] = 1e6
    made = build(Robust, torch.cat([x, torch.zeros(2000, 1)], 1))
    assert torch.allclose(made.center, torch.tensor([5.0, 5.0, 0.0]), atol=0.3)
    assert torch.allclose(made.spread, torch.tensor([3.0, 3.0, 1.0]), atol=0.3)


class Conditioned:
    def __init__(self, conditions):
        self.conditions = conditions


@pytest.mark.parametrize(
    ("y", "conditions"),
    [
        (torch.tensor([0, 4, 2]), 5),
        (np.array([[0], [200], [2]], dtype=np.uint8), 201),
        (torch.tensor([True, False, False]), 2),
        (torch.tensor([False, False, False]), 1),
        (torch.tensor([0.5, 4.0, 2.0]), 1),
        (torch.zeros(3, 7), 7),
    ],
)
def test_conditions_are_labels_where_y_holds_integers_and_columns_where_it_holds_floats(
    y, conditions
):
    assert build(Conditioned, {"x": torch.zeros(3, 2), "y": y}).conditions == conditions


def test_labels_that_were_read_as_floats_are_one_covariate_and_a_warning_says_so():
    data = {"x": torch.zeros(3, 2), "y": torch.tensor([0.0, 1.0, 2.0])}
    with pytest.warns(UserWarning, match=r"y has whole numbers as floats.*y\.long\(\)") as caught:
        assert build(Conditioned, data).conditions == 1
    assert caught[0].filename == __file__
    assert build(Conditioned, data, conditions=1).conditions == 1  # said, so no warning


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, r"expected a field y .*got fields .*pass \{\"x\": rows, \"y\": labels\}"),
        ((X, torch.zeros(200).long()), "expected a field y"),
        (
            {"x": X, "y": torch.arange(200) - 1},
            r"expected labels 0, 1, 2.*field y, got -1 in row 0 \(1 of 200 rows\)",
        ),
        (
            {"x": X, "y": torch.zeros(200, 3).long()},
            "one label a row in the field y, got 3 integers a row",
        ),
    ],
)
def test_conditions_that_the_data_cannot_give_are_an_error(data, message):
    with pytest.raises(ValueError, match=f"Conditioned: conditions: .*{message}"):
        build(Conditioned, data)


@pytest.mark.parametrize(
    ("cls", "partner"),
    [(VampPriorModel, "guide"), (TopDownGuide, "model"), (MeanFieldGuide, "model")],
)
def test_a_partner_that_is_not_passed_is_named(cls, partner):
    message = f"{cls.__name__}: {partner}: expected a value.*{partner}=.*, the {partner} that it is"
    with pytest.raises(ValueError, match=message):
        build(cls, torch.ones(5, 3))


class Diffusion(torch.nn.Module):
    def __init__(self, features, steps=5):
        super().__init__()
        self.features, self.steps = features, steps


def test_steps_share_what_a_feature_has():
    x = torch.randn(50, 7, 2) * torch.tensor([1.0, 10.0]) + 5
    model = build(HMMModel, x, states=3)
    cells = x.flatten(0, 1)
    assert (model.steps, model.features, model.states) == (7, 2, 3)
    assert torch.allclose(model.loc, cells.mean(0), rtol=1e-5)
    assert torch.allclose(model.scale, cells.std(0, correction=0), rtol=1e-5)
    with pytest.raises(ValueError, match=r"expected sequences.*got data of shape \(50, 2\)"):
        build(HMMModel, x[:, 0])
    assert build(Diffusion, x[:, 0]).steps == 5  # not of a sequence: it has a default


class Exemplars(torch.nn.Module):
    def __init__(self, exemplars):
        super().__init__()
        self.exemplars = exemplars


def test_exemplars_are_rows_from_all_over_the_data_without_missing_cells():
    x = torch.arange(3000.0).reshape(1500, 2)
    x[0, 1] = torch.nan
    found = build(Exemplars, x).exemplars
    assert found.shape == (500, 2)
    assert found[0].tolist() == [0.0, pytest.approx(1501.0)]  # the mean of the column
    assert found[-1].tolist() == [2998.0, 2999.0]
    assert found[:, 0].diff().min() >= 4
    assert torch.equal(build(Exemplars, x[1:40]).exemplars, x[1:40])
    assert build(Exemplars, torch.randn(300, 1000)).exemplars.shape == (100, 1000)
