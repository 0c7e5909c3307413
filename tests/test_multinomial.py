"""Multinomial counts of rows that differ in their total: density, draws and moments."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ppl_vae.distributions import Multinomial

LOGITS = torch.tensor([[0.3, -1.0, 2.0, 0.0, -0.5], [0.0, 0.0, 0.0, 4.0, -30.0]])


@pytest.mark.usefixtures("double")
def test_the_log_probability_is_scipys_for_rows_of_different_totals():
    logits = LOGITS.double()
    for total in (0, 1, 7, 400):
        probs = logits.softmax(-1).numpy()
        x = np.random.default_rng(total).multinomial(total, probs)
        right = [stats.multinomial.logpmf(row, total, p) for row, p in zip(x, probs, strict=True)]
        found = Multinomial(total, logits + 5).log_prob(torch.as_tensor(x).double())
        np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-9)


def test_probabilities_of_all_counts_of_a_total_sum_to_one():
    grid = torch.cartesian_prod(*[torch.arange(5.0)] * 3)
    counts = grid[grid.sum(-1) == 4]
    total = Multinomial(4, torch.tensor([0.5, -1.0, 0.0])).log_prob(counts).logsumexp(0)
    assert total.item() == pytest.approx(0.0, abs=1e-5)


def test_draws_have_the_total_of_their_row_and_the_moments_of_the_formula():
    total = torch.tensor([12.0, 3.0])
    words = Multinomial(total, LOGITS)
    torch.manual_seed(0)
    x = words.sample((40_000,))
    assert x.shape == (40_000, 2, 5)
    assert torch.equal(x, x.round())
    assert torch.equal(x.sum(-1), total.expand(40_000, 2))
    error = (words.variance / 40_000).sqrt()
    assert ((x.mean(0) - words.mean).abs() <= 5 * error + 1e-6).all()
    p = LOGITS.softmax(-1)
    for row in range(2):  # Cov[x_i, x_j] = -n p_i p_j
        right = total[row] * (p[row].diag() - p[row][:, None] * p[row])
        torch.testing.assert_close(torch.cov(x[:, row].T), right, rtol=0, atol=0.06)


def test_a_row_without_counts_is_certain_and_is_drawn_without_counts():
    words = Multinomial(torch.zeros(2), LOGITS)
    assert words.log_prob(torch.zeros(2, 5)).tolist() == [0.0, 0.0]
    assert words.sample().sum().item() == 0


def test_one_category_takes_the_whole_total():
    assert Multinomial(torch.tensor([5.0]), torch.zeros(1, 1)).sample().tolist() == [[5.0]]


def test_a_count_of_a_category_without_probability_is_impossible():
    words = Multinomial(3, torch.tensor([0.0, -math.inf]), validate_args=False)
    assert words.log_prob(torch.tensor([2.0, 1.0])).item() == -math.inf
    assert words.log_prob(torch.tensor([3.0, 0.0])).item() == 0.0
