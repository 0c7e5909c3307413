"""The columns of a table inside a model and a guide: what an encoder reads, ordered categories."""

import pytest
import torch
from scipy import stats
from torch import nn

from ppl_vae.nn import ColumnGroup, TableInputs, cells_there, column_groups, with_covariates


def column(kind, loc=0.0, scale=1.0, categories=0, atoms=()):
    return {
        "kind": kind,
        "loc": loc,
        "scale": scale,
        "categories": categories,
        "atoms": list(atoms),
    }


def ordered(*categories):
    group = ColumnGroup("ordinal", 0, [column("ordinal", categories=c) for c in categories])
    with torch.no_grad():
        for parameter in group.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return group.double()


def test_ordered_categories_are_pieces_of_a_logistic_variable():
    group = ordered(3, 5)
    center = torch.tensor([[0.3, -1.0], [2.0, 4.0]], dtype=torch.double)
    found = group.ordered_logits(center)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones_like(center))
    for place, count in enumerate((3, 5)):
        steps = group.steps[place].exp()[: count - 2].detach()
        cuts = group.start[place].detach() + torch.cat([torch.zeros(1), steps.cumsum(0)])
        bounds = torch.cat([torch.tensor([-torch.inf]), cuts, torch.tensor([torch.inf])])
        cdf = torch.as_tensor(stats.logistic.cdf(bounds[None] - center[:, place, None]))
        torch.testing.assert_close(found[:, place, :count].exp(), cdf.diff(dim=-1))
        assert (found[:, place, count:] == -torch.inf).all()


@pytest.mark.parametrize("center", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("step", [-200.0, 0.0, 200.0])
def test_gradients_of_ordered_categories_are_finite_everywhere(center, step):
    group = ordered(2, 4).float()
    nn.init.constant_(group.steps, step)
    given = torch.full((1, 2), center, requires_grad=True)
    found = group.ordered_logits(given)
    kept = found[found > -torch.inf]
    assert len(kept) == 6
    assert kept.isfinite().all()
    for number in kept:
        gradients = torch.autograd.grad(number, [given, *group.parameters()], retain_graph=True)
        assert all(g.isfinite().all() for g in gradients)


def test_an_encoder_reads_numbers_of_unit_size_and_indicators():
    inputs = TableInputs([
        column("real", 100.0, 10.0, atoms=[95.0]), column("positive", 2.0, 0.5, atoms=[0.0]),
        column("categorical", categories=3), column("categorical", categories=2),
    ])  # fmt: skip
    x = torch.tensor([[120.0, 2.5**2, 2.0, 1.0], [95.0, 0.0, 0.0, 0.0]])
    read = inputs(x, torch.ones_like(x, dtype=torch.bool))
    assert read.shape == (2, inputs.size)
    log = (torch.tensor(2.5**2).log() - 2).item() / 0.5
    assert read[0].tolist() == pytest.approx([2, 0, log, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1], abs=1e-6)
    assert read[1].tolist() == [0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1]


def test_a_cell_that_is_not_there_is_zero_whatever_it_holds():
    inputs = TableInputs([column("real", atoms=[1.0]), column("binary", categories=2)])
    seen = torch.tensor([[False, False]])
    for values in ([1.0, 1.0], [1e15, 0.0], [torch.nan, torch.nan], [torch.inf, -1.0]):
        assert (inputs(torch.tensor([values]), seen) == 0).all()
    far = inputs(torch.tensor([[1e15, 0.0]]), torch.tensor([[True, True]]))
    assert far.abs().max() <= 10


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e15])
def test_the_standard_deviation_of_any_scale_is_positive(scale):
    group = ColumnGroup("real", 0, [column("real", scale=scale)])
    ratio = group.deviation(torch.tensor([[-1e3], [0.0]])) / scale
    torch.testing.assert_close(ratio, torch.tensor([[0.01], [1.00005]]))


def test_logits_of_categories_a_column_does_not_have_are_minus_infinity():
    group = ColumnGroup("categorical", 0, [column("c", categories=n) for n in (2, 4, 1)])
    assert group.outputs(0) == 7
    (logits,) = group.parameters_of(torch.arange(7.0)[None], 0)
    assert logits[0].tolist() == [
        [0, 1, *[-torch.inf] * 2], [2, 3, 4, 5], [6, *[-torch.inf] * 3],
    ]  # fmt: skip


def test_parameters_of_columns_stand_before_those_of_atoms():
    group = ColumnGroup("real", 0, [column("real", atoms=[1.0, 2.0]), column("real")])
    assert group.outputs(2) == 4 + 4
    first, second = group.parameters_of(torch.arange(8.0)[None], 2)
    assert first.tolist() == [[0, 1]]
    assert second.tolist() == [[2, 3]]


WRONG = {
    "nothing": ([], "expected the columns of a table"),
    "text": ("real", "expected the columns of a table"),
    "a number": (3, "expected the columns of a table"),
    "keys": ([{"kind": "real"}], "expected a mapping with atoms, categories"),
    "kind": ([column("integer")], "expected kinds among real, binary, got 'integer'"),
    "scale": ([column("real", scale=0.0)], "expected a number loc and a scale above 0"),
    "loc": ([column("real", loc=torch.nan)], "expected a number loc"),
    "categories": ([column("real", categories=-1)], "expected a number of categories, got -1"),
    "atoms": ([column("real", atoms=["a"])], "expected a list of numbers as atoms"),
    "order": ([column("real"), column("binary"), column("real")], "side by side"),
}


@pytest.mark.parametrize("name", WRONG)
def test_columns_that_are_told_in_another_way_are_refused(name):
    columns, message = WRONG[name]
    with pytest.raises(ValueError, match=f"^columns: {message}" if name != "order" else message):
        column_groups(columns, ["real", "binary"])


def test_fields_of_other_columns_are_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"x: expected rows of shape \(3,\)"):
        cells_there(x, None, 3)
    with pytest.raises(ValueError, match=r"seen: expected rows of shape \(2,\)"):
        cells_there(x, torch.ones(3, 3).bool(), 2)
    with pytest.raises(ValueError, match=r"y: expected 1 covariates.*got none"):
        with_covariates(x, None, 1)
    with pytest.raises(ValueError, match=r"y: expected 0 covariates.*got some"):
        with_covariates(x, x, 0)
