"""Networks act on the last dimension only, and save their scales with the weights."""

import pytest
import torch
from torch import nn

from ppl_vae.nn import MLP, GaussianNoise, MaskingNoise, SaltAndPepperNoise, Standardize


@pytest.mark.parametrize("shape", [(3,), (7, 3), (5, 7, 3), (2, 5, 7, 3)])
def test_leading_dimensions_pass_through(shape):
    x = torch.randn(shape)
    network = nn.Sequential(Standardize(1.0, 2.0), MLP(3, 4, hidden=(6, 5)))
    assert network(x).shape == (*shape[:-1], 4)
    assert torch.allclose(network(x.reshape(-1, 3)).reshape(*shape[:-1], 4), network(x), atol=1e-6)


def test_layers_and_activations_alternate():
    kinds = [type(layer) for layer in MLP(3, 4, hidden=(6, 5), activation=nn.ReLU)]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in MLP(3, 4, hidden=())] == [nn.Linear]


def test_standardize_takes_integers_and_booleans_and_saves_its_buffers():
    assert Standardize(0.0, 2.0)(torch.tensor([True, False])).tolist() == [0.5, 0.0]
    scaling = Standardize(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
    assert scaling(torch.tensor([[3, 10]])).tolist() == [[1.0, 2.0]]
    assert set(scaling.state_dict()) == {"loc", "scale"}


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(ValueError, match="positive numbers"):
        Standardize(0.0, scale)


def test_the_representation_of_a_corruption_has_its_arguments():
    assert repr(MaskingNoise()) == "MaskingNoise(share=0.25)"
    assert repr(GaussianNoise(2)) == "GaussianNoise(sd=2)"
    expected = "SaltAndPepperNoise(share=0.25, low=-2, high=1.5)"
    assert repr(SaltAndPepperNoise(high=1.5)) == expected
