"""A linear Gaussian model with missing cells, written in five ways; its exact posterior is known.

z ~ Normal(0, I),  x ~ Normal(W z, sd)        a cell is missing where ``seen`` is false
"""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from parts.known_densities import FEATURES, LATENTS, SD, W, covariance


def weight(x):
    return W.to(x.dtype)


def code(x):
    return pyro.sample("z", dist.Normal(x.new_zeros(LATENTS), 1.0).to_event(1))


def masked(x, seen):
    """A mask inside the distribution."""
    with pyro.plate("data", len(x)):
        fn = dist.Normal(code(x) @ weight(x).T, SD)
        pyro.sample("x", fn.mask(seen).to_event(1), obs=x)


def nan_cells(x):
    """Missing cells are NaN."""
    masked(x.nan_to_num(), ~x.isnan())


def around(x, seen):
    """A mask around the site, whose features are a plate left of the rows."""
    with pyro.plate("data", len(x), dim=-1):
        loc = code(x) @ weight(x).T
        with pyro.plate("features", FEATURES, dim=-2), poutine.mask(mask=seen.T):
            pyro.sample("x", dist.Normal(loc.transpose(-1, -2), SD), obs=x.T)


def obs_mask(x, seen):
    """Pyro's ``obs_mask``, which makes the missing cells a latent."""
    with pyro.plate("data", len(x), dim=-1):
        loc = code(x) @ weight(x).T
        with pyro.plate("features", FEATURES, dim=-2):
            fn = dist.Normal(loc.transpose(-1, -2), SD)
            pyro.sample("x", fn, obs=x.T, obs_mask=seen.T)


def complement(x, seen):
    """A latent with the opposite mask holds the missing cells."""
    with pyro.plate("data", len(x)):
        fn = dist.Normal(code(x) @ weight(x).T, SD)
        pyro.sample("rest", fn.mask(~seen).to_event(1))
        pyro.sample("x", fn.mask(seen).to_event(1), obs=x)


def near_posterior(x, seen):
    """The posterior of z, a little wider than it is and off its place."""
    x, w = torch.where(seen, x.nan_to_num(), 0.0), weight(x)
    precision = torch.eye(LATENTS) + torch.einsum("rf,fk,fl->rkl", seen.to(x.dtype), w, w) / SD**2
    loc = torch.linalg.solve(precision, (x @ w / SD**2)[..., None])[..., 0]
    tril = torch.linalg.cholesky(torch.linalg.inv(precision))
    return dist.MultivariateNormal(loc + 0.1, scale_tril=1.3 * tril)


def guide(x, seen=None):
    """The code alone; missing cells that the model has as a latent come from the model."""
    seen = ~x.isnan() if seen is None else seen
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", near_posterior(x, seen))


def guide_of_cells(x, seen):
    """The code, and the missing cells from a vague distribution of the guide's own."""
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", near_posterior(x, seen))
        fn = dist.Normal(torch.zeros_like(x), 2.0)
        pyro.sample("rest", fn.mask(~seen).to_event(1))


def drawn_rows(count, seed=0, share=0.4):
    """Rows of the model, and which of their cells are seen."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, LATENTS, generator=generator)
    x = z @ W.to(z.dtype).T + SD * torch.randn(count, FEATURES, generator=generator)
    seen = torch.rand(count, FEATURES, generator=generator) > share
    seen[0], seen[1] = False, True
    return x, seen


def exact(x, seen):
    """Mean and covariance of a row's missing cells given its observed ones."""
    full = covariance().to(x.dtype)
    gain = full[~seen][:, seen] @ torch.linalg.inv(full[seen][:, seen])
    return gain @ x[seen], full[~seen][:, ~seen] - gain @ full[seen][:, ~seen]
