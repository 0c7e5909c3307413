"""The pass over blocks of rows: errors that speak of the data, seeds, one result for any size."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae.core.blocks import blocks, collect, errors_naming_rows, quiet_look
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows

X = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))


def model(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(x.new_zeros(2), 1.0).to_event(1), obs=x)


PAIR = Pair.of(model, None, "data")


def fail_in_torch(x):
    dist.Normal(x.sum(), torch.tensor(-1.0), validate_args=True)


def test_an_error_of_torch_names_the_shapes_of_the_rows():
    with (
        pytest.raises(ValueError, match=r"data: .* shapes \[\(30, 2\)\]: ValueError: Expected par"),
        errors_naming_rows(PAIR, (X,), torch.arange(30), Rows(X)),
    ):
        fail_in_torch(X)


def test_an_error_of_torch_names_the_first_row_that_is_not_finite():
    bad = X.clone()
    bad[[7, 9], 1] = torch.nan
    with (
        pytest.raises(
            ValueError, match="got NaN or infinity, first in row 107 in column 1; impute or drop"
        ),
        errors_naming_rows(PAIR, (bad,), torch.arange(100, 130), Rows(bad)),
    ):
        fail_in_torch(bad)


@pytest.mark.parametrize("words", ["Expected a positive number", "no such thing"])
def test_an_error_of_the_users_code_passes_unchanged_whatever_its_words(words):
    with (
        pytest.raises(ValueError, match=f"^{words}$"),
        errors_naming_rows(PAIR, (X,), torch.arange(30), Rows(X)),
    ):
        raise ValueError(words)


def test_an_error_without_a_message_is_still_explained():
    with (
        pytest.raises(
            ValueError, match=r"RuntimeError: raise RuntimeError \(.*test_blocks.py, line"
        ),
        errors_naming_rows(PAIR, (X,), torch.arange(30), Rows(X)),
    ):
        raise RuntimeError


@pytest.mark.parametrize("rows_in_a_block", [1, 7, 30])
def test_a_result_has_every_row_in_its_place_for_any_block_size(monkeypatch, rows_in_a_block):
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", rows_in_a_block)
    doubled = collect(PAIR, Rows(X), lambda batch, index: {"x": 2 * batch[0]}, seed=0)
    assert torch.equal(doubled["x"], 2 * X)


def test_the_draws_of_a_block_depend_on_its_index_alone(monkeypatch):
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", 10)

    def draws(rows):
        return [value for _, value in blocks(PAIR, rows, lambda *_: torch.rand(2), seed=3)]

    whole, first_part = draws(Rows(X)), draws(Rows(X[:20]))
    assert len(whole) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole, first_part, strict=False))
    assert not torch.equal(whole[0], whole[1])


def test_a_quiet_look_takes_the_first_rows_or_rows_spread_over_the_data():
    with quiet_look(PAIR, Rows(X), 3) as (first,):
        assert torch.equal(first, X[:3])
    with quiet_look(PAIR, Rows(X), 3, spread=True) as (spread,):
        assert torch.equal(spread, X[[0, 14, 29]])
