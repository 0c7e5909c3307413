"""Transposed convolutions to few channels give torch's numbers, and are not convolutions then."""

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from ppl_vae.compiled.few_channels import MOST, FewChannels
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.evaluation.particle_terms import ParticleTerms
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import ConvDecoder, ConvEncoder

LAYERS = {
    "stride": {"kernel_size": 4, "stride": 2, "padding": 1},
    "plain": {"kernel_size": 3},
    "added": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "no bias": {"kernel_size": 5, "stride": 3, "bias": False},
    "apart": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "uneven": {
        "kernel_size": (2, 5),
        "stride": (1, 2),
        "padding": (0, 2),
        "output_padding": (0, 1),
        "dilation": (3, 1),
    },
}


def called(layer, x):
    with FewChannels():
        return layer(x)


def operations(layer, x):
    graph = make_fx(lambda x: called(layer, x))(x).graph
    return {str(node.target) for node in graph.nodes}


@pytest.mark.parametrize("channels", [1, MOST, MOST + 1])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_the_numbers_and_gradients_of_torch(name, channels):
    layer = nn.ConvTranspose2d(6, channels, **LAYERS[name])
    x = torch.randn(3, 6, 5, 4, requires_grad=True)
    right, found = layer(x), called(layer, x)
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)
    weights = torch.randn(right.shape)
    by_torch, ours = (
        torch.autograd.grad((weights * each).sum(), [x, *layer.parameters()])
        for each in (right, found)
    )
    torch.testing.assert_close(ours, by_torch, rtol=1e-4, atol=1e-5)
    assert ("aten.convolution.default" in operations(layer, x)) == (channels > MOST)


def test_other_layers_are_left_to_torch():
    x = torch.randn(3, 6, 5, 4)
    for layer, rows in (
        (nn.ConvTranspose2d(6, 2, 3, groups=2), x),
        (nn.ConvTranspose2d(6, 1, 3).double(), x.double()),
        (nn.ConvTranspose2d(6, 1, 3), x[0]),  # one image without a dimension for images
        (nn.Conv2d(6, 1, 3), x),
    ):
        assert "aten.convolution.default" in operations(layer, rows)
        torch.testing.assert_close(called(layer, rows), layer(rows))
    for wrong in (torch.randn(3, 5, 5, 4), x[:, :, 0]):
        with pytest.raises(RuntimeError):
            called(nn.ConvTranspose2d(6, 1, 3), wrong)


def images(channels):
    """A convolutional pair, and rows of 0 and 1."""
    torch.manual_seed(0)
    shape = (channels, 8, 8)
    decoder = ConvDecoder(3, shape, hidden=(8, 4))
    encoder = ConvEncoder(shape, 6, hidden=(4, 8))
    pair = Pair.of(BernoulliModel(shape, 3, decoder), NormalGuide(shape, 3, encoder), "data")
    return pair, pair.rows(torch.rand(20, *shape).round())


@pytest.mark.parametrize("channels", [1, MOST])
def test_graphs_of_convolutional_pairs_use_products_and_give_the_weights_of_the_pair(channels):
    pair, data = images(channels)
    terms = ParticleTerms(pair, data, 7)
    terms.prepare(4, 400, "auto")
    assert terms.kind == "traced"
    # the folded layer is the decoder's last; the others, and those of the encoder, are torch's
    folds = [n for n in terms.function.graph.nodes if "col2im" in str(n.target)]
    assert len(folds) == 1
    batch = data.take(torch.arange(4))
    with forked(0):
        found = terms(batch)["log_weights"]
    with forked(0):
        right = terms.eager(batch)["log_weights"]
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-4)


def test_a_graph_with_wrong_products_is_not_used(monkeypatch):
    def wrong(*arguments, **named):
        return 2 * nn.functional.conv_transpose2d(*arguments, **named)

    monkeypatch.setattr("ppl_vae.compiled.few_channels._conv_transpose2d", wrong)
    pair, data = images(1)
    terms = ParticleTerms(pair, data, 7)
    terms.prepare(4, 400, "auto")
    assert terms.kind == "eager"
