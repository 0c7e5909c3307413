"""Data read with a plate's own indices are written back to the cells that they came from."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from ppl_vae import generate, lint, posterior_predictive, predictive_check, reconstruct

WORDS, KINDS = 7, 9
encoder, decoder = nn.Linear(KINDS, 6), nn.Linear(3, KINDS)
DOCUMENTS = torch.randint(0, KINDS, (40, WORDS), generator=torch.Generator().manual_seed(0))


def reading(read):
    def model(docs):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(docs)) as indices:
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            with pyro.plate("words", WORDS):
                logits = 20 * torch.arange(WORDS)[:, None, None].eq(torch.arange(KINDS)).float()
                logits = logits + decoder(z)
                pyro.sample("w", dist.Categorical(logits=logits), obs=read(docs, indices))

    return model


def guide(docs):
    pyro.module("encoder", encoder)
    loc, log_scale = encoder(one_hot(docs, KINDS).float().sum(1)).chunk(2, -1)
    with pyro.plate("data", len(docs)):
        pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


READ = {
    "a view": lambda docs, indices: docs.t(),
    "indices": lambda docs, indices: docs.t()[:, indices],
    "indices of rows": lambda docs, indices: docs[indices].t(),
}


@pytest.mark.parametrize("how", READ)
def test_each_word_is_written_to_its_own_column(how):
    model = reading(READ[how])
    assert not lint(model, guide, DOCUMENTS).errors
    for rows in (generate(model, guide, DOCUMENTS), reconstruct(model, guide, DOCUMENTS)):
        assert (rows.float() == torch.arange(WORDS)).float().mean() > 0.99
    draws = posterior_predictive(model, guide, DOCUMENTS, num_samples=5)
    assert draws["w"].shape == (5, 40, WORDS)
    predictive_check(model, guide, DOCUMENTS, num_samples=20)
