"""A linear pair, whose codes and expected rows are known exactly."""

import pyro
import pyro.distributions as dist
import torch

W = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]])
X = torch.randn(40, 3, generator=torch.Generator().manual_seed(2))


def linear_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W, 0.1).to_event(1), obs=x)


def linear_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, :2], 0.3).to_event(1))
