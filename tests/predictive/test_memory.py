"""A set of replicates that memory cannot hold is refused, with the way to get them part by part."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import arguments, posterior_predictive, prior_predictive

X = torch.zeros(1000, 8)


def model(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(x.new_zeros(8), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("function", [posterior_predictive, prior_predictive])
def test_replicates_larger_than_memory_are_refused_and_streamed(function):
    half = (None,) if function is posterior_predictive else ()
    with pytest.raises(ValueError, match="got 10000000, 320 GB"):
        function(model, *half, X, num_samples=10**7)
    with pytest.raises(ValueError, match="pass stream=True, which returns them part by part"):
        function(model, *half, X, num_samples=10**7)
    part = next(function(model, *half, X, num_samples=10**7, stream=True))
    assert part.values["x"].shape[2:] == (8,)


def test_memory_that_the_system_refuses_is_told_in_the_same_words(monkeypatch):
    monkeypatch.setattr(arguments, "machine_memory", lambda: float("inf"))
    with pytest.raises(ValueError, match="num_samples: expected a result that fits into memory"):
        posterior_predictive(model, None, X, num_samples=10**7)
