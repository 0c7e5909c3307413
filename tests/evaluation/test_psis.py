"""k-hat and the sums over weights: against their formulas, and where the shape is known."""

import math

import numpy as np
import pytest
import torch

from ppl_vae.evaluation.psis import WeightSums, pareto_k, tail_length


def k_by_loops(tail):
    """Return Zhang and Stephens' estimate of k for one sorted tail, in NumPy, in plain loops."""
    n = len(tail)
    m = 30 + int(math.sqrt(n))
    b = np.array([1 / tail[-1] + (1 - math.sqrt(m / (j - 0.5))) / (3 * tail[int(n / 4 + 0.5) - 1])
                  for j in range(1, m + 1)])  # fmt: skip
    k = np.array([np.log1p(-v * tail).mean() for v in b])
    profile = n * (np.log(-b / k) - k - 1)
    weights = 1 / np.exp(profile[None] - profile[:, None]).sum(1)
    best = (b * weights).sum()
    return (np.log1p(-best * tail).mean() * n + 5) / (n + 10)


@pytest.mark.parametrize("count", [25, 100, 1000, 5000])
def test_k_hat_matches_its_formula_written_as_loops(count):
    generator = np.random.default_rng(count)
    log_weights = generator.normal(size=(count, 3)) * [0.5, 1.0, 3.0] - [0, 50, 700]
    length = tail_length(count)
    largest = -np.sort(-log_weights, axis=0)[: length + 1]
    found = pareto_k(torch.as_tensor(largest))
    for row in range(3):
        weights = np.exp(largest[:, row] - largest[0, row])
        right = k_by_loops(np.sort(weights[:-1] - weights[-1]))
        assert found[row].item() == pytest.approx(right, rel=1e-9)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_k_hat_estimates_a_known_shape(shape):
    generator = np.random.default_rng(0)
    uniform = generator.uniform(size=(20_000, 20))
    log_weights = np.log1p(((1 - uniform) ** -shape - 1) / shape)
    sums = WeightSums(20_000, 20)
    for part in np.split(log_weights, 10):
        sums.add(torch.as_tensor(part), torch.as_tensor(part))
    found = sums.result()["k_hat"]
    assert found.mean().item() == pytest.approx(shape, abs=0.06)


def test_sums_over_parts_equal_the_sums_over_all_weights():
    weights = 3 * torch.randn(700, 5, dtype=torch.double)
    whole, parts = WeightSums(700, 5), WeightSums(700, 5)
    whole.add(weights, weights)
    for part in weights.split(64):
        parts.add(part, part)
    for name, value in whole.result().items():
        torch.testing.assert_close(parts.result()[name], value)
    right = weights.logsumexp(0) - math.log(700)
    torch.testing.assert_close(whole.result()["log_prob"], right)
    shares = weights.softmax(0)
    torch.testing.assert_close(whole.result()["ess"], 1 / shares.square().sum(0))


def test_weights_of_zero_add_nothing():
    weights = torch.randn(200, 2)
    weights[50:, 0] = -math.inf
    sums = WeightSums(200, 2)
    sums.add(weights, weights)
    found = sums.result()
    assert found["log_prob"][0].item() == pytest.approx(
        (weights[:50, 0].logsumexp(0) - math.log(200)).item(), rel=1e-5
    )
    assert found["k_hat"].isfinite().all()
    assert found["ess"][0] <= 50


def test_k_hat_tells_ties_and_rounding_from_a_tail():
    generator = torch.Generator().manual_seed(0)
    two = (torch.rand(1000, 1, generator=generator) < 0.05).double() * 3  # two values: bounded
    far = 6 * torch.rand(1000, 1, generator=generator) - 60_000  # floats, 6 nats apart
    same = torch.full((1000, 1), -60_000.0) + 1e-3 * torch.rand(1000, 1, generator=generator)
    never = torch.full((1000, 1), -math.inf)
    shapes = []
    many = (torch.rand(1000, 1, generator=generator) < 0.5).double()  # more ties than a tail
    for weights in (two, far, same, never, many):
        sums = WeightSums(1000, 1)
        sums.add(weights, weights)
        shapes.append(sums.result()["k_hat"].item())
    assert math.isfinite(shapes[0])
    assert shapes[0] < 0.5
    assert math.isfinite(shapes[1])
    assert shapes[2] == -math.inf
    assert math.isnan(shapes[3])
    assert math.isnan(shapes[4])
