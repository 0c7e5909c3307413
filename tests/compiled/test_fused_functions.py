"""Functions of compiled code are right to a few units in the last place, and keep their limits."""

import numpy as np
import pytest
import torch

from ppl_vae.compiled import fused_functions
from ppl_vae.compiled.graphs import compile_graph


def log_sigmoid(x):
    return fused_functions.log_sigmoid(x)[0]


FUNCTIONS = {
    "tanh": (fused_functions.tanh, torch.tanh, 6),
    "sigmoid": (fused_functions.sigmoid, torch.sigmoid, 3),
    "log_sigmoid": (log_sigmoid, torch.nn.functional.logsigmoid, 4),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


@every_function
def test_it_is_right_to_a_few_units_in_the_last_place(name):
    function, exact, units = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(0)
    sizes = [torch.logspace(-6, 1.9, 200_000), 9 * torch.rand(200_000, generator=generator)]
    x = torch.cat([*sizes, *(-size for size in sizes)])
    right = exact(x.double())
    unit = torch.tensor(np.spacing(right.float().abs().numpy())).double()
    error = (function(x).double() - right).abs() / unit
    assert error.max() < units
    assert error.mean() < 1


@every_function
def test_limits_and_missing_numbers_are_those_of_torch(name):
    function, exact, _ = FUNCTIONS[name]
    x = torch.tensor([0.0, -0.0, 1e-30, -1e30, 1e30, torch.inf, -torch.inf, torch.nan])
    torch.testing.assert_close(function(x), exact(x), equal_nan=True)


def test_tanh_is_odd_and_nowhere_beyond_one():
    x = torch.logspace(-6, 4, 100_000)
    assert torch.equal(fused_functions.tanh(-x), -fused_functions.tanh(x))
    assert fused_functions.tanh(x).max() <= 1


@every_function
def test_compiled_code_uses_it_in_single_precision_alone(name):
    function, exact, _ = FUNCTIONS[name]
    x = torch.linspace(-3, 3, 301)
    single = compile_graph(lambda x: [exact(x)], [], [x])(x)[0]
    assert not torch.equal(single, exact(x))
    torch.testing.assert_close(single, function(x), rtol=5e-7, atol=0)
    double = compile_graph(lambda x: [exact(x)], [], [x.double()])(x.double())[0]
    torch.testing.assert_close(double, exact(x.double()), rtol=1e-15, atol=0)
