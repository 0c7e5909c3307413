"""A second plate beside the rows that subsamples: guide, model and all blocks see one subsample."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppl_vae
from ppl_vae import IWAE, RowELBO

ROWS, GENES, DRAWN = 30, 6, 3
X = torch.randn(ROWS, GENES, generator=torch.Generator().manual_seed(0))
SAME = X[:, :1].expand(ROWS, GENES).contiguous()  # all genes alike: any subsample tells the same


def genes(size):
    return pyro.plate("genes", GENES, size, dim=-2)


def likelihood_of_genes(size=DRAWN):
    """Return a pair whose latent is the row's, and whose likelihood subsamples."""

    def model(x):
        slopes = pyro.param("slopes", torch.ones(GENES))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with genes(size) as index:
                loc = z * slopes[index, None]
                pyro.sample("x", dist.Normal(loc, 1.0), obs=x[:, index].T)

    def guide(x):
        weights = pyro.param("weights", torch.ones(GENES) / GENES)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ weights, 0.5))

    return model, guide


def latent_of_each_gene(size=DRAWN):
    """Return a pair with a latent for each gene of each row; the guide subsamples too."""

    def model(x):
        with pyro.plate("data", len(x)), genes(size) as index:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, index].T)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("data", len(x)), genes(size) as index:
            pyro.sample("z", dist.Normal(slope * x[:, index].T, 0.7))

    return model, guide


def global_latent_of_each_gene(size=DRAWN):
    """Return a pair with a latent for each gene outside the rows."""

    def model(x):
        plate = genes(size)
        with plate as index:
            shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)), plate:
            pyro.sample("x", dist.Normal(shift, 1.0), obs=x[:, index].T)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(GENES))
        with genes(size) as index:
            pyro.sample("shift", dist.Normal(loc[index, None], 0.1))

    return model, guide


PAIRS = [likelihood_of_genes, latent_of_each_gene, global_latent_of_each_gene]
pairs = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.__name__)


@pairs
def test_lint_has_no_finding(pair):
    assert not ppl_vae.lint(*pair(), X).findings


@pairs
@pytest.mark.parametrize("elbo", [None, IWAE(3), RowELBO()], ids=["chosen", "IWAE", "RowELBO"])
def test_it_fits(pair, elbo):
    history = ppl_vae.fit(*pair(), X, elbo=elbo, epochs=2, progress=False, compile=False)
    assert history.frame["elbo"].lt(0).all()


@pairs
def test_drawn_places_stand_for_all_places(pair):
    """Where all genes are alike, a subsample has the ELBO of all genes, up to the draws."""

    def mean_elbo(size):
        frame = ppl_vae.elbo_terms(*pair(size), SAME, num_samples=400)
        return frame["x"].mean()

    assert mean_elbo(DRAWN) == pytest.approx(mean_elbo(None), rel=0.03)


def test_the_closed_form_of_a_kl_divergence_stands_for_all_places_too():
    found, expected = (
        ppl_vae.elbo_terms(*latent_of_each_gene(size), SAME)["z"] for size in (DRAWN, None)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_history_has_the_elbo_that_elbo_terms_have():
    pair = latent_of_each_gene()
    frame = ppl_vae.fit(
        *pair, SAME, epochs=1, batch_size=ROWS, progress=False, compile=False,
        optimizer=lambda p: torch.optim.SGD(p, 0.0), elbo=RowELBO(500),
    ).frame  # fmt: skip
    terms = ppl_vae.elbo_terms(*pair, SAME, num_samples=500).sum(axis=1).mean()
    assert frame["elbo"].iloc[-1] == pytest.approx(terms, rel=0.02)


def test_all_blocks_of_rows_see_the_same_places():
    levels = 10.0 * torch.arange(GENES)

    def model(x):
        with pyro.plate("data", len(x)), genes(DRAWN) as index:
            pyro.sample("x", dist.Normal(levels[index, None], 0.01), obs=x[:, index].T)

    x = levels + 0.01 * torch.randn(9000, GENES)  # more rows than a block has
    drawn = ppl_vae.posterior_predictive(model, None, x, num_samples=3)["x"]
    assert drawn.shape == (3, 9000, DRAWN)
    assert float(drawn.std((0, 1)).max()) < 0.1


def test_an_enumerated_latent_beside_a_subsampling_plate_is_refused_by_name():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            with genes(DRAWN) as index:
                pyro.sample("x", dist.Normal(k, 1.0), obs=x[:, index].T)

    with pytest.raises(ValueError, match='site "x": expected no subsampling plate'):
        ppl_vae.elbo_terms(model, None, X)
