"""Convolutional networks take any leading dimensions and any size of image, and are rebuilt."""

import ast
import inspect
import pkgutil

import pytest
import torch
from torch import nn

import ppl_vae.nn
from ppl_vae import build, fit, load
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.nn import (
    MLP,
    AnyBatch,
    ConvDecoder,
    ConvEncoder,
    ResidualBlock,
    make_decoder,
    make_encoder,
)

SHAPES = [(1, 28, 28), (3, 9, 7), (2, 1, 5), (1, 1, 1)]
SMALL = {"hidden": (4, 6), "residual": 1}


def leading(network, x, row_dims):
    """The network run on one row at a time, for rows with two dimensions in front."""
    lead = x.shape[: x.dim() - row_dims]
    rows = [network(row) for row in x.reshape(-1, *x.shape[x.dim() - row_dims :])]
    return torch.stack(rows).reshape(*lead, *rows[0].shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_leading_dimensions_equal_a_loop_over_the_images(shape):
    encoder, decoder = ConvEncoder(shape, 5, **SMALL), ConvDecoder(5, shape, **SMALL)
    images, codes = torch.randn(2, 3, *shape), torch.randn(2, 3, 5)
    code, image = encoder(images), decoder(codes)
    assert code.shape == (2, 3, 5)
    assert image.shape == (2, 3, *shape)
    torch.testing.assert_close(code, leading(encoder, images, 3))
    torch.testing.assert_close(image, leading(decoder, codes, 1))
    assert encoder(images[0, 0]).shape == (5,)
    assert decoder(codes[0, 0]).shape == shape


@pytest.mark.parametrize("lead", [(), (0,), (4,), (2, 1, 4)])
def test_any_batch_restores_the_dimensions_in_front(lead):
    network = AnyBatch(nn.Conv2d(2, 3, 2), row_dims=3)
    x = torch.randn(*lead, 2, 5, 4)
    assert network(x).shape == (*lead, 3, 4, 3)
    expanded = torch.randn(2, 5, 4).expand(*lead, 2, 5, 4)  # strides of 0 in front
    torch.testing.assert_close(network(expanded), network(expanded.contiguous()))


def test_any_batch_refuses_less_than_one_row():
    with pytest.raises(ValueError, match=r"rows of 3 dimensions, got the shape \(5, 4\)"):
        AnyBatch(nn.Conv2d(2, 3, 2), row_dims=3)(torch.zeros(5, 4))


@pytest.mark.parametrize("hidden", [(), (4,), (4, 5, 6)])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_cell_of_an_image_is_read_and_written(shape, hidden):
    x = torch.randn(1, *shape, requires_grad=True)
    ConvEncoder(shape, 3, hidden)(x).square().sum().backward()
    assert bool((x.grad != 0).all())
    z = torch.randn(4, 3)
    assert bool((ConvDecoder(3, shape, hidden)(z).std(0) > 0).all())


def test_a_residual_block_adds_to_its_input():
    block, x = ResidualBlock(4), torch.randn(5, 4, 6, 6)
    nn.init.zeros_(block.layers[-1].weight)
    nn.init.zeros_(block.layers[-1].bias)
    torch.testing.assert_close(block(x), x)
    kinds = [type(layer) for layer in ResidualBlock(4, nn.ReLU).layers]
    assert kinds == [nn.ReLU, nn.Conv2d, nn.ReLU, nn.Conv2d]


@pytest.mark.parametrize("shape", [(28, 28), (1, 0, 4), (64,), (1, 1, 4, 4)])
def test_the_shape_of_no_image_is_refused(shape):
    for make in (lambda: ConvEncoder(shape, 2), lambda: ConvDecoder(2, shape)):
        with pytest.raises(ValueError, match=r"shape: expected \(channels, height, width\)"):
            make()


def test_images_of_another_size_are_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\).*\(5, 1, 8, 7\)"):
        ConvEncoder((1, 8, 8), 2)(torch.zeros(5, 1, 8, 7))


@pytest.mark.parametrize("cls", [BernoulliModel, GaussianModel])
def test_images_of_another_size_than_the_decoders_are_a_finding(cls):
    x = torch.rand(20, 1, 8, 7).round()
    model, guide = cls((1, 8, 8), 2), build(NormalGuide, x, latents=2)
    with pytest.raises(ValueError, match=r'site "x": .*\(1, 8, 8\).*\(1, 8, 7\)'):
        fit(model, guide, x, epochs=1, progress=False)


def test_networks_and_shapes_as_lists_are_reopened(tmp_path):
    x = torch.rand(20, 1, 5, 7).round()
    shape = [1, 5, 7]  # as JSON has it
    decoder = ConvDecoder(2, shape, hidden=[6, 4], residual=1, activation=nn.ReLU)
    encoder = ConvEncoder(shape, 4, hidden=[4, 6], residual=1, activation=nn.ReLU)
    pair = BernoulliModel(shape, 2, decoder), NormalGuide(shape, 2, encoder)
    fit(*pair, x, epochs=1, progress=False, run=tmp_path / "run")
    opened = load(tmp_path / "run")
    for half, again in zip(pair, opened, strict=True):
        for name, tensor in half.state_dict().items():
            torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)
    torch.testing.assert_close(opened[1].encoder(x), encoder(x))


def test_the_default_of_vectors_is_an_mlp_and_of_images_convolutions():
    assert isinstance(make_encoder(6, 2), MLP)
    assert isinstance(make_decoder(2, 6), MLP)
    assert make_encoder([3, 8, 8], 4)(torch.zeros(2, 3, 8, 8)).shape == (2, 4)
    heads = make_decoder(4, torch.Size([3, 8, 8]), heads=2)(torch.zeros(5, 2, 4))
    assert [head.shape for head in heads.chunk(2, -3)] == [(5, 2, 3, 8, 8)] * 2


def test_no_network_imports_a_distribution():
    for found in pkgutil.iter_modules(ppl_vae.nn.__path__):
        module = __import__(f"ppl_vae.nn.{found.name}", fromlist=["x"])
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module_name, names = getattr(node, "module", None), {a.name for a in node.names}
                if module_name == "torch.distributions" and names <= {"Transform", "constraints"}:
                    continue  # a map of numbers, and no distribution
                everything = [module_name or "", *names]
                assert not any("pyro" in name or "distributions" in name for name in everything)
