"""Rows are known by their contents, and a record of rows refuses others at the same indices."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ppl_vae.nn import KnownRows, row_keys


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_every_cell_and_its_place_count(dtype):
    rows = torch.randint(2, (500, 40), generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = rows.unique(dim=0)
    keys = row_keys(rows)
    assert len(keys.unique()) == len(rows)
    assert torch.equal(row_keys(rows[7:9]), keys[7:9])
    for cell in range(40):
        changed = rows.clone()
        changed[:, cell] = ~changed[:, cell] if dtype == torch.bool else changed[:, cell] + 1
        assert not bool((row_keys(changed) == keys).any())


def test_keys_are_spread_over_all_bits():
    keys = row_keys(torch.arange(10_000.0)[:, None])
    ones = torch.stack([(keys >> bit) & 1 for bit in range(1, 64)]).double().mean(1)
    assert (ones - 0.5).abs().max() < 0.025  # five standard errors of 10,000 fair bits
    assert bool((keys != 0).all())


def test_fields_count_in_any_order_and_zero_has_one_sign():
    x, y = torch.randn(5, 2, 3), torch.arange(5)
    assert torch.equal(row_keys(x, y), row_keys(y, x))
    assert not torch.equal(row_keys(x, y), row_keys(x, y + 1))
    assert torch.equal(row_keys(torch.zeros(2, 1)), row_keys(-torch.zeros(2, 1)))


def test_equal_values_of_any_dtype_are_the_same_cells():
    bits = torch.randint(2, (20, 6), generator=torch.Generator().manual_seed(0)).bool()
    for dtype in (torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64):
        assert torch.equal(row_keys(bits), row_keys(bits.to(dtype)))
    large = torch.tensor([[2**60], [2**60 + 1], [2**60 - 1]])  # one number in double precision
    assert len(row_keys(large).unique()) == 3


def test_a_record_takes_the_rows_it_was_trained_on_alone():
    x, index = torch.randn(6, 3), torch.arange(6)
    known = KnownRows(8)
    assert bool(known.eval()(index, x).all())  # nothing is trained yet
    known.train()(index, x)
    known.eval()
    assert bool(known(index[[4, 1]], x[[4, 1]]).all())
    with pytest.raises(ValueError, match="got 5 other rows in a batch of 6, the first at place 0"):
        known(index, torch.cat([x[1:], x[5:]]))
    with pytest.raises(ValueError, match=r"got 1 other rows .* refine\(model, None, data\)"):
        known(torch.tensor([6]), x[:1])  # never trained
    with pytest.raises(ValueError, match="expected indices from 0 to 7"):
        known(torch.tensor([8]), x[:1])
    with pytest.raises(ValueError, match="expected indices from 0 to 7"):
        known(torch.tensor([-1]), x[:1])


def test_a_traced_record_marks_other_rows_instead_of_reading_values():
    x, index = torch.randn(4, 3), torch.arange(4)
    known = KnownRows(4)
    known(index, x)
    graph = make_fx(known.eval())(index, x)
    assert graph(index, x).tolist() == [True] * 4
    assert graph(index, x + (index == 2)[:, None]).tolist() == [True, True, False, True]
