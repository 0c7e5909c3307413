"""Grids of vectors and codebooks: leading dimensions, places in order, gradients past a code."""

import pytest
import torch

from ppl_vae.nn import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    GridDecoder,
    GridEncoder,
    make_code_decoder,
    make_code_encoder,
    nearest_code,
    places_of,
    straight_through,
)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 7), (2, 1, 5)])
def test_leading_dimensions_equal_single_images(shape):
    torch.manual_seed(0)
    encoder = GridEncoder(shape, 3, hidden=(4, 5))
    decoder = GridDecoder(3, shape, hidden=(5, 4))
    x = torch.randn(2, 3, *shape)
    z = encoder(x)
    assert encoder.places == places_of(shape)
    assert z.shape == (2, 3, encoder.places * 3)
    torch.testing.assert_close(encoder(x[1, 2]), z[1, 2])
    assert decoder(z).shape == x.shape
    torch.testing.assert_close(decoder(z[1, 2]), decoder(z)[1, 2])


def test_the_vectors_of_an_encoder_follow_each_other_place_after_place():
    torch.manual_seed(0)
    encoder, x = GridEncoder((1, 16, 24), 3), torch.zeros(1, 1, 16, 24)
    moved = x.clone()
    moved[0, 0, 4 * 3 + 1, 4 * 2 + 1] = 5.0  # inside the place of row 3 and column 2 of 4 x 6
    change = (encoder(moved) - encoder(x)).reshape(24, 3).abs().sum(-1)
    assert change.argmax() == 3 * 6 + 2
    assert change[0] == 0


def test_an_image_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\).*resize or crop"):
        GridEncoder((1, 8, 8), 3)(torch.zeros(2, 1, 8, 9))


def test_default_networks_are_grids_where_the_positions_are_the_places_of_an_image():
    sizes = {(1, 8, 8): 4, 16: 8}
    for features, places in sizes.items():
        assert places_of(features) == places
    made = [
        (make_code_encoder((1, 8, 8), 4, 3), GridEncoder),
        (make_code_encoder((1, 8, 8), 5, 3), ConvEncoder),
        (make_code_encoder(16, 5, 3), MLP),
        (make_code_decoder(4, 3, (1, 8, 8)), GridDecoder),
        (make_code_decoder(5, 3, (1, 8, 8)), ConvDecoder),
        (make_code_decoder(5, 3, 16), MLP),
    ]
    assert [type(network) for network, _ in made] == [cls for _, cls in made]


def test_the_nearest_code_is_the_one_of_the_least_distance():
    random = torch.Generator().manual_seed(0)
    z, codebook = torch.randn(7, 4, 5, generator=random), torch.randn(9, 5, generator=random)
    torch.testing.assert_close(nearest_code(z, codebook), torch.cdist(z, codebook).argmin(-1))


def test_the_gradient_goes_past_the_value_to_the_source():
    value = torch.randn(3, requires_grad=True)
    source = torch.randn(3, requires_grad=True)
    result = straight_through(value, source)
    torch.testing.assert_close(result, value)
    result.square().sum().backward()
    torch.testing.assert_close(source.grad, 2 * value.detach())
    assert value.grad is None
