"""What one row needs where latents are summed is told from what all rows share."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import log_likelihood
from ppl_vae.core.pair import Pair
from ppl_vae.elbo.sum_memory import TooManyConfigurationsError, numbers_of_a_row

SUM = {"enumerate": "parallel"}
WORDS, TOPICS, WIDTH = 300, 8, 200


def topics(x):
    """A table of words by topics, which is there once for all rows."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.ones(TOPICS)), infer=SUM)
        table = torch.zeros(TOPICS, WORDS).log_softmax(-1)
        pyro.sample("x", dist.Categorical(logits=table[k]), obs=x)


def wide(x):
    """A layer of many numbers for every row and every value of the latent."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.ones(TOPICS)), infer=SUM)
        layer = torch.ones(len(x), WIDTH) * k[..., None]  # (values, rows, width)
        pyro.sample("x", dist.Normal(layer.mean(-1), 1.0), obs=x)


def numbers(model, x):
    pair = Pair.of(model, None, "data")
    return numbers_of_a_row(pair, pair.rows(x))


def test_a_table_that_all_rows_share_does_not_count(monkeypatch):
    monkeypatch.setattr("ppl_vae.elbo.sum_memory.LARGEST", TOPICS * WORDS * 4 // 2)
    words = torch.randint(0, WORDS, (20,))
    assert numbers(topics, words) < TOPICS * WORDS
    assert len(log_likelihood(topics, None, words)) == 20


def test_the_widest_layer_of_a_row_counts(monkeypatch):
    assert numbers(wide, torch.randn(20)) == TOPICS * WIDTH
    monkeypatch.setattr("ppl_vae.elbo.sum_memory.LARGEST", TOPICS * WIDTH * 4 - 1)
    with pytest.raises(TooManyConfigurationsError, match=r'site "k": .* 8 joint values of k'):
        numbers(wide, torch.randn(20))
