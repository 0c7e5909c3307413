"""The tanh of compiled code is right to a few units in the last place, and keeps its limits."""

import numpy as np
import torch

from ppl_vae.compiled.graphs import compile_graph
from ppl_vae.compiled.rational_tanh import rational_tanh


def test_it_is_right_to_five_units_in_the_last_place():
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.logspace(-6, 1.2, 200_000), 9 * torch.rand(200_000, generator=generator)])
    exact = x.double().tanh()
    unit = torch.tensor(np.spacing(exact.float().numpy())).double()
    error = (rational_tanh(x).double() - exact).abs() / unit
    assert error.max() < 5
    assert error.mean() < 0.8
    assert torch.equal(rational_tanh(-x), -rational_tanh(x))


def test_limits_and_missing_numbers_are_those_of_tanh():
    x = torch.tensor([0.0, -0.0, 1e-30, torch.inf, -torch.inf, torch.nan])
    torch.testing.assert_close(rational_tanh(x), x.tanh(), equal_nan=True)
    assert rational_tanh(torch.full((1000,), 1e4)).abs().max() <= 1
    assert rational_tanh(x.double()) is NotImplemented


def test_compiled_code_uses_it_in_single_precision_alone():
    x = torch.linspace(-3, 3, 301)
    single = compile_graph(lambda x: [x.tanh()], [], [x])(x)[0]
    assert not torch.equal(single, x.tanh())
    torch.testing.assert_close(single, rational_tanh(x), rtol=5e-7, atol=0)
    double = compile_graph(lambda x: [x.tanh()], [], [x.double()])(x.double())[0]
    torch.testing.assert_close(double, x.double().tanh(), rtol=1e-15, atol=0)
