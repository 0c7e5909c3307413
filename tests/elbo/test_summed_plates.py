"""A site that depends on a summed latent must stand in all plates of that latent."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import assert_finding

from ppl_vae import IWAE, RowELBO, elbo_terms, fit, lint, log_likelihood
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows

PARALLEL, SEQUENTIAL = {"enumerate": "parallel"}, {"enumerate": "sequential"}
pytestmark = pytest.mark.usefixtures("double")


def rows():
    return torch.randn(50, generator=torch.Generator().manual_seed(0)).double() + 1.5


def coins(x, infer, count=3, **how):
    """Draw the coins of each row, (coins, rows), and return their sum, (1, rows)."""
    with pyro.plate("coins", count, dim=-2):
        k = pyro.sample("k", dist.Bernoulli(torch.full((count, len(x)), 0.5)), infer=infer, **how)
    return k.sum(-2, keepdim=True)


def outside_a_plate_of_coins(x, infer=PARALLEL):
    shift = pyro.param("shift", x.new_zeros(()))
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("x", dist.Normal(shift + coins(x, infer), 1.0), obs=x)


def guide_of_coins(infer):
    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            coins(x, infer)

    return guide


def outside_the_row_plate(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(torch.full((len(x),), 0.5)), infer=PARALLEL)
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)
    pyro.factor("level", -k.sum(-1, keepdim=True).square())


def latent_outside(x):
    with pyro.plate("data", len(x), dim=-1):
        total = coins(x, PARALLEL)
        z = pyro.sample("z", dist.Normal(total, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def latent_guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(pyro.param("m", x.new_zeros(())) + 0 * x[None], 1.0))


OUTSIDE = {
    "in the model": (outside_a_plate_of_coins, None, "x", "coins"),
    "one by one": (lambda x: outside_a_plate_of_coins(x, SEQUENTIAL), None, "x", "coins"),
    "in the guide": (
        lambda x: outside_a_plate_of_coins(x, None), guide_of_coins(PARALLEL), "x", "coins"
    ),
    "a latent": (latent_outside, latent_guide, "z", "coins"),
    "outside the rows": (outside_the_row_plate, None, "level", "data"),
}  # fmt: skip
outside = pytest.mark.parametrize("name", OUTSIDE)


@outside
def test_the_weights_refuse_a_site_outside_the_plates_of_a_summed_latent(name):
    model, guide, site, plate = OUTSIDE[name]
    message = f'site "{site}": expected .* summed latent "k".* got none of "{plate}"'
    for function in (log_likelihood, elbo_terms):
        with pytest.raises(ValueError, match=message):
            function(model, guide, rows(), num_samples=30)
    pair, batch = Pair.of(model, guide, "data"), as_rows(rows()).take(torch.arange(20))
    for bound in (IWAE(2), RowELBO(2), RowELBO(vectorize_particles=False)):
        with pytest.raises(ValueError, match=message):
            bound.losses_and_surrogate(pair, batch, 50, None)


@outside
def test_lint_and_fit_refuse_it(name):
    model, guide, site, plate = OUTSIDE[name]
    verdict = lint(model, guide, rows())
    assert_finding(verdict, "error", f'site "{site}"', 'summed latent "k"', f'none of "{plate}"')
    with pytest.raises(ValueError, match=f'site "{site}"'):
        fit(model, guide, rows(), epochs=1, progress=False)


def exact(x):
    """log p(x), x ~ Normal(k, 1), k ~ Binomial(3, 1/2)."""
    k = torch.arange(4.0)
    parts = dist.Binomial(3, torch.tensor(0.5)).log_prob(k)
    return (parts + dist.Normal(k, 1.0).log_prob(x[:, None])).logsumexp(-1)


def test_coins_with_a_site_each_have_the_exact_log_likelihood():
    def model(x):
        with pyro.plate("data", len(x)):
            coin = dist.Bernoulli(torch.full((len(x),), 0.5))
            k = [pyro.sample(f"k_{i}", coin, infer=PARALLEL) for i in range(3)]
            pyro.sample("x", dist.Normal(k[0] + k[1] + k[2], 1.0), obs=x)

    found = log_likelihood(model, None, rows())["log_prob"]
    torch.testing.assert_close(torch.tensor(found.tolist()), exact(rows()))
    assert not lint(model, None, rows()).findings


def test_a_plate_of_one_coin_is_sound():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(coins(x, PARALLEL, 1), 1.0), obs=x)

    x = rows()
    parts = torch.stack([dist.Normal(k, 1.0).log_prob(x) for k in (0.0, 1.0)])
    found = log_likelihood(model, None, x)["log_prob"]
    right = parts.logsumexp(0) - torch.tensor(2.0).log()
    torch.testing.assert_close(torch.tensor(found.tolist()), right)


def test_what_pyro_warns_of_under_the_elbo_is_a_finding():
    """Pyro warns of a site after an enumerated one in a plate; it does not depend on that one."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("coins", 3, dim=-2):
                coin = dist.Bernoulli(x.new_full((3, len(x)), 0.5))
                k = pyro.sample("k", coin)
                pyro.sample("y", dist.Normal(k, 1.0), obs=x.expand(3, -1))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    guide = guide_of_coins(PARALLEL)
    verdict = lint(model, guide, rows())
    assert_finding(verdict, "warning", "model and guide", 'site "x", possibly invalid dependency')
    found = log_likelihood(model, guide, rows())["log_prob"]
    x = rows()
    parts = torch.stack([dist.Normal(k, 1.0).log_prob(x) for k in (0.0, 1.0)])
    right = 3 * (parts.logsumexp(0) - torch.tensor(2.0).log()) + dist.Normal(0.0, 1.0).log_prob(x)
    torch.testing.assert_close(torch.tensor(found.tolist()), right)
