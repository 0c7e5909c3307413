"""Linear Gaussian pairs, whose log-likelihood and posterior are known."""

import pyro
import pyro.distributions as dist
import torch

FEATURES, LATENTS, ROWS = 5, 2, 40
W = torch.randn(FEATURES, LATENTS, generator=torch.Generator().manual_seed(1)).double()
SD = 0.6


def normal(scale, loc=0.0):
    """A model without latents."""

    def model(x):
        with pyro.plate("data", len(x)):
            each = dist.Normal(loc, scale).expand(x.shape[1:])
            pyro.sample("x", each.to_event(1), obs=x)

    return model


def linear(weight=W, sd=SD):
    """A linear-Gaussian model, x = W z + noise."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, sd).to_event(1), obs=x)

    return model


def posterior(weight=W, sd=SD, *, shift=0.0, spread=1.0, bad=0.0):
    """The exact posterior, moved and stretched; narrow and off in a share of the rows."""
    precision = torch.eye(LATENTS) + weight.T @ weight / sd**2
    cholesky = torch.linalg.cholesky(torch.linalg.inv(precision))

    def guide(x):
        loc = torch.linalg.solve(precision, (x @ weight / sd**2).T).T
        broken = (torch.arange(len(x)) < bad * len(x)).double()
        width = (spread * (1 - broken) + 0.2 * broken)[:, None, None]
        with pyro.plate("data", len(x)):
            tril = width * cholesky
            pyro.sample(
                "z", dist.MultivariateNormal(loc + shift + broken[:, None], scale_tril=tril)
            )

    return guide


def covariance(weight=W, sd=SD):
    return weight @ weight.T + sd**2 * torch.eye(FEATURES)


def marginal(weight=W, sd=SD):
    return dist.MultivariateNormal(torch.zeros(FEATURES), covariance(weight, sd))


def rows(count=ROWS, seed=2):
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(count, LATENTS, generator=random)
    return z @ W.T + SD * torch.randn(count, FEATURES, generator=random)
