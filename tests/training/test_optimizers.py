"""Which optimizers' updates become part of the traced step."""

import torch
from torch.optim import Adam, RMSprop

from ppl_vae.training.optimizers import TensorUpdate


def test_an_optimizer_of_some_parameters_is_left_to_torch():
    update_of = TensorUpdate.of
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    assert update_of(Adam(parameters, 0.1), parameters) is not None
    assert update_of(Adam(parameters[:2], 0.1), parameters) is None
    assert update_of(RMSprop(parameters, 0.1, centered=True), parameters) is not None
    for settings in ({}, {"centered": True, "momentum": 0.9}):
        assert update_of(RMSprop(parameters, 0.1, **settings), parameters) is None
