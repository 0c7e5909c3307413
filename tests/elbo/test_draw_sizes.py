"""What a draw for a row adds to the largest tensor is told from what rows or draws add alone."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae.core.pair import Pair
from ppl_vae.elbo.draw_sizes import numbers_of_a_draw
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP, ConvDecoder, ConvEncoder

FEATURES, HIDDEN, WIDER = 5, 40, 3000


def numbers(model, guide, x):
    pair = Pair.of(model, guide, "data")
    return numbers_of_a_draw(pair, pair.rows(x))


@pytest.mark.parametrize("rows", [1, 2, 30])
def test_the_widest_layer_of_the_decoder_counts_and_those_of_the_encoder_do_not(rows):
    model = BernoulliModel(FEATURES, 2, MLP(2, FEATURES, hidden=(HIDDEN,)))
    guide = NormalGuide(FEATURES, 2, MLP(FEATURES, 4, hidden=(WIDER,)))
    assert numbers(model, guide, torch.ones(rows, FEATURES)) == HIDDEN


def test_channels_of_images_count():
    shape = (1, 8, 8)
    model = BernoulliModel(shape, 2, ConvDecoder(2, shape, hidden=(8, 16)))
    guide = NormalGuide(shape, 2, ConvEncoder(shape, 4, hidden=(64, 8)))
    assert numbers(model, guide, torch.ones(9, *shape)) == 16 * 4 * 4


def test_tensors_that_all_rows_or_all_draws_share_do_not_count():
    def model(x):
        weights = pyro.sample("w", dist.Normal(torch.zeros(WIDER), 1.0).to_event(1))  # by draw
        table = torch.zeros(2 * WIDER).exp()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            layer = z[..., None] * torch.ones(HIDDEN)
            total = weights.mean(-1)
            mean = layer.mean(-1) + total * table[0]
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    assert numbers(model, None, torch.randn(9)) == HIDDEN


def test_pairs_that_do_not_take_several_draws_in_one_run_have_no_number():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            assert z.dim() == 1
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    assert numbers(model, None, torch.randn(9)) == 0


def test_pairs_whose_runs_differ_in_their_operations_have_no_number():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            for _ in range(len(x)):
                z = z * 1.0
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    assert numbers(model, None, torch.randn(9)) == 0
