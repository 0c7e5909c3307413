"""A guide that gives a point has no log-likelihood; a class it never leaves is not exact."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta

from ppl_vae import IWAE, RowELBO, elbo_terms, encode, fit, lint, log_likelihood, predictive_check
from ppl_vae.core.pair import Pair
from ppl_vae.elbo.points import point_latents
from ppl_vae.evaluation.summary import ElboSummary
from ppl_vae.plots import elbo_bars

pytestmark = pytest.mark.usefixtures("double")
PARALLEL, AUXILIARY = {"enumerate": "parallel"}, {"is_auxiliary": True}
SD = 0.01


def rows():
    return torch.tensor([0.5, -0.2, 1.3, 0.0, 2.0, -1.0])


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, SD))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def exact(x):
    return dist.Normal(0.0, math.sqrt(1 + SD**2)).log_prob(x)


def drawn(fn_of_rows):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", fn_of_rows(x))

    return guide


def transformed(make):
    """Return a guide whose latent is made of an auxiliary draw."""

    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(torch.zeros(len(x)), 1.0), infer=AUXILIARY)
            pyro.sample("z", make(u, x))

    return guide


def beside_a_draw(x):
    """A point beside auxiliary draws that do not move it."""
    with pyro.plate("data", len(x)):
        pyro.sample("u", dist.Normal(torch.zeros(len(x)), 1.0), infer=AUXILIARY)
        pyro.sample("z", dist.Delta(0 * x))


def on_a_shared_draw(x):
    """A point of each row given an auxiliary draw outside the row plate."""
    u = pyro.sample("u", dist.Normal(0.0, 1.0), infer=AUXILIARY)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(u + 0 * x))


JACOBIAN = -math.log(SD)
POINTS = {
    "a point": drawn(lambda x: dist.Delta(0 * x)),
    "a point of the row": drawn(lambda x: dist.Delta(x / 2, log_density=torch.ones(len(x)))),
    "a masked point": drawn(lambda x: dist.Delta(0 * x).mask(torch.tensor(True))),
    "beside an auxiliary draw": beside_a_draw,
    "on a shared draw": on_a_shared_draw,
    "in some rows": transformed(lambda u, x: dist.Delta(torch.where(x > 0, SD * u, 0 * u))),
}
TRANSFORMS = {
    "a transform": transformed(
        lambda u, x: dist.Delta(SD * u, log_density=JACOBIAN * torch.ones(len(x)))
    ),
    "a draw": drawn(lambda x: dist.Normal(0 * x, SD)),
}


@pytest.mark.parametrize("name", POINTS)
def test_a_point_has_no_log_likelihood_and_its_terms_are_a_log_joint_density(name):
    with pytest.raises(ValueError, match=r'site "z": .* got a point .* elbo_terms'):
        log_likelihood(model, POINTS[name], rows())
    terms = elbo_terms(model, POINTS[name], rows(), num_samples=2)
    assert terms.attrs["measure"] == ElboSummary.of(terms).measure == "log joint density"


def test_the_log_joint_density_of_a_point_is_exact_and_above_the_log_likelihood():
    x = rows()
    terms = elbo_terms(model, POINTS["a point"], x, num_samples=2).sum(axis=1)
    joint = dist.Normal(0.0, SD).log_prob(torch.tensor(0.0)) + dist.Normal(0.0, 1.0).log_prob(x)
    np.testing.assert_allclose(terms, joint, atol=1e-12)
    assert terms[0] == pytest.approx(2.64, abs=0.01)
    assert float(exact(x)[0]) == pytest.approx(-1.04, abs=0.01)


@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_of_auxiliary_draws_is_no_point(name):
    found = log_likelihood(model, TRANSFORMS[name], rows(), num_samples=2000)
    np.testing.assert_allclose(found["log_prob"], exact(rows()), atol=0.01)
    assert elbo_terms(model, TRANSFORMS[name], rows()).attrs["measure"] == "ELBO"


def test_a_transform_with_constant_cells_is_no_point():
    """The first row of a Cholesky factor does not move."""

    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(x.new_zeros(len(x)), 1.0), infer=AUXILIARY)
            z = torch.stack([0 * u, torch.ones_like(u), u], -1)
            pyro.sample("z", dist.Delta(z, event_dim=1))

    pair = Pair.of(model, guide, "data")
    with pair.quiet_run():
        assert point_latents(pair, (rows(),)) == []


def test_a_point_outside_the_row_plate_conditions_the_rows():
    def mean_model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    guide = AutoDelta(mean_model)
    found = log_likelihood(mean_model, guide, rows())
    mean = guide.mean.detach()
    np.testing.assert_allclose(found["log_prob"], dist.Normal(mean, 1.0).log_prob(rows()))


def test_the_history_and_lint_say_that_a_log_joint_density_is_trained():
    def point(x):
        loc = pyro.param("loc", torch.tensor(0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(loc * x))

    verdict = lint(model, point, rows())
    assert not verdict.findings
    assert 'site "z" is a point: a log joint density' in str(verdict)
    history = fit(model, point, rows(), epochs=1, progress=False)
    assert "log joint density" in str(history)


def test_every_number_of_a_point_is_marked():
    x = rows()
    guide = POINTS["a point of the row"]
    check = predictive_check(model, guide, x, num_samples=20)
    assert check.points == ["z"]
    assert 'site "z" is a point of the guide: a flag may be the fault of the guide' in str(check)
    assert "with a chance of" not in str(check)
    assert predictive_check(model, None, x, num_samples=20).points == []
    assert encode(model, guide, x).attrs["points"] == ["z"]
    axes = elbo_bars(elbo_terms(model, guide, x))
    assert axes.get_title(loc="left") + axes.get_title() == "Log joint density by site"
    (estimator,) = (s for s in lint(model, guide, x).sites["estimator"] if "log p" in s)
    assert estimator == "log p at a point"


def test_draws_of_a_transform_are_not_marked():
    x = rows()
    assert predictive_check(model, TRANSFORMS["a transform"], x, num_samples=20).points == []
    assert encode(model, TRANSFORMS["a transform"], x).attrs["points"] == []


def trained_point(x):
    loc = pyro.param("loc", torch.tensor(0.1))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(loc * x))


@pytest.mark.parametrize("elbo", [IWAE(5), RowELBO(free_bits=0.1)])
def test_bounds_that_need_a_distribution_refuse_a_point(elbo):
    (finding,) = lint(model, trained_point, rows(), elbo=elbo).errors
    assert finding.where == 'site "z"'
    assert "got a point" in finding.problem
    assert not lint(model, trained_point, rows(), elbo=RowELBO(2)).errors


def test_another_kl_weight_beside_held_out_rows_is_warned_of():
    settings = {"epochs": 1, "progress": False, "compile": False}
    with pytest.warns(UserWarning, match="kl_weight: expected 1 where rows are held out"):
        fit(model, trained_point, rows(), validation=rows(), kl_weight=0, **settings)
    fit(model, trained_point, rows(), validation=rows(), **settings)
    fit(model, trained_point, rows(), kl_weight=0, **settings)


def coin(chance=0.5):
    def coin_model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(torch.full((len(x),), chance)))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    return coin_model


def coin_guide(chances, infer=None):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(chances(x)), infer=infer or {})

    return guide


def test_a_guide_that_never_leaves_one_class_is_not_exact():
    guide = coin_guide(lambda x: 0 * x + 1e-9)
    found = log_likelihood(coin(), guide, rows())
    assert found["k_hat"].isna().all()
    exact_guide = coin_guide(lambda x: 0 * x + 0.5, PARALLEL)
    summed = log_likelihood(coin(), exact_guide, rows())
    parts = torch.stack([dist.Normal(k, 1.0).log_prob(rows()) for k in (0.0, 1.0)])
    np.testing.assert_allclose(summed["log_prob"], parts.logsumexp(0) - math.log(2))
    assert np.isneginf(summed["k_hat"]).all()


def test_a_prior_that_never_leaves_one_class_is_not_exact():
    assert log_likelihood(coin(1e-9), None, rows())["k_hat"].isna().all()


def test_nothing_drawn_is_exact():
    def nothing(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    assert np.isneginf(log_likelihood(nothing, None, rows())["k_hat"]).all()


def test_equal_weights_of_a_continuous_latent_are_exact():
    posterior = drawn(lambda x: dist.Normal(x * SD**2 / (1 + SD**2), SD / math.sqrt(1 + SD**2)))
    found = log_likelihood(model, posterior, rows())
    np.testing.assert_allclose(found["log_prob"], exact(rows()))
    assert np.isneginf(found["k_hat"]).all()
