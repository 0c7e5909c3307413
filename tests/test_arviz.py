"""``to_arviz``: its groups against the library's own results, and against densities by hand."""

import re
import sys

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.discrete import CLASSES, FEATURES, LATENTS, ROWS, normal
from parts.extras import arviz
from parts.pairs import PAIRS, Guide, Model, made, reals

from ppl_vae import arviz as arviz_module
from ppl_vae import elbo_terms, posterior_predictive, prior_predictive
from ppl_vae.arviz import GIVEN_LATENTS
from ppl_vae.core import blocks
from ppl_vae.guides.delta import DeltaGuide
from ppl_vae.models.bernoulli import BernoulliModel

SAMPLES = 70  # more than one run of the pair draws
GROUPS = {
    "posterior", "posterior_predictive", GIVEN_LATENTS, "prior", "prior_predictive",
    "observed_data",
}  # fmt: skip


@pytest.fixture(scope="module")
def az():
    return arviz()


@pytest.fixture
def to_arviz(az):
    return arviz_module.to_arviz


def names(draws):
    """Return the names of the groups of an InferenceData (0.x) or a DataTree (1.x)."""
    return set(draws.children if hasattr(draws, "children") else draws.groups())


def values(draws, group, site):
    return torch.as_tensor(draws[group][site].values)


def largest_difference(draws, loc, scale, x):
    """Return the largest difference from log Normal(x; loc, scale), summed over a row's cells."""
    wanted = dist.Normal(loc, scale).log_prob(x).sum(-1)
    return float((values(draws, GIVEN_LATENTS, "x")[0] - wanted).abs().max())


# Groups


def test_the_container_is_that_of_the_installed_version(az, to_arviz):
    model, guide, x = made(PAIRS["gaussian"])
    draws = to_arviz(model, guide, x, num_samples=3)
    kind = "DataTree" if int(az.__version__.split(".")[0]) else "InferenceData"
    assert type(draws).__name__ == kind
    assert names(draws) == GROUPS


def test_dimensions_have_names_and_the_labels_of_the_frame(to_arviz):
    model, guide, x = made(PAIRS["gaussian"])
    frame = pd.DataFrame(x.numpy(), columns=list("abcde"), index=[f"r{i}" for i in range(ROWS)])
    draws = to_arviz(model, guide, frame, num_samples=SAMPLES)
    for group in ("posterior", "prior"):
        assert draws[group]["z"].dims == ("chain", "draw", "row", "z_dim")
        assert draws[group]["z"].shape == (1, SAMPLES, ROWS, LATENTS)
    for group in ("posterior_predictive", "prior_predictive"):
        assert draws[group]["x"].dims == ("chain", "draw", "row", "x_dim")
    assert draws[GIVEN_LATENTS]["x"].dims == ("chain", "draw", "row")
    assert draws["observed_data"]["x"].dims == ("row", "x_dim")
    for group in GROUPS:
        assert list(draws[group]["row"].values) == list(frame.index)
    cell = draws["observed_data"]["x"].sel(row="r7", x_dim="c")
    assert float(cell) == pytest.approx(frame.loc["r7", "c"])


@pytest.mark.parametrize(
    ("index", "wanted"),
    [
        (pd.MultiIndex.from_arrays([[0, 0, 1], list("aba")]), [0, 1, 2]),
        (pd.Index([3, 3, 1]), [3, 3, 1]),
        (pd.Index([1, "b", None], dtype=object), ["1", "b", "None"]),
        (pd.date_range("2024-01-01", periods=3), pd.date_range("2024-01-01", periods=3)),
        (pd.period_range("2024", periods=3, freq="Y"), ["2024", "2025", "2026"]),
    ],
)
def test_an_index_of_any_kind_becomes_a_coordinate(to_arviz, index, wanted):
    model, guide, x = made(PAIRS["gaussian"])
    frame = pd.DataFrame(x[:3].numpy(), index=index)
    draws = to_arviz(model, guide, frame, num_samples=2)
    assert list(draws["posterior"]["row"].values) == list(np.asarray(wanted))


def test_data_without_names_are_labelled_by_position(to_arviz):
    model, guide, x = made(PAIRS["gaussian"])
    observed = to_arviz(model, guide, x, num_samples=2)["observed_data"]
    assert observed["row"].values.tolist() == list(range(ROWS))
    assert observed["x_dim"].values.tolist() == list(range(FEATURES))
    assert torch.equal(torch.as_tensor(observed["x"].values), x)


def test_replicates_are_those_of_the_library_and_never_the_data(to_arviz):
    model, guide, x = made(PAIRS["gaussian"])
    draws = to_arviz(model, guide, x, num_samples=SAMPLES, seed=3)
    after = posterior_predictive(model, guide, x, num_samples=SAMPLES, seed=3)["x"]
    before = prior_predictive(model, x, num_samples=SAMPLES, seed=3)["x"]
    assert torch.equal(values(draws, "posterior_predictive", "x")[0], after)
    assert torch.equal(values(draws, "prior_predictive", "x")[0], before)
    assert not bool((values(draws, "posterior_predictive", "x") == x).any())


def test_replicates_are_drawn_from_the_latents_beside_them(to_arviz):
    """Replicates minus the decoded latents have the likelihood's scale, 0.5."""
    model, guide, x = made(PAIRS["gaussian"])
    draws = to_arviz(model, guide, x, num_samples=SAMPLES)
    for group in ("posterior", "prior"):
        with torch.no_grad():
            loc = model.decoder(values(draws, group, "z"))
        residuals = values(draws, f"{group}_predictive", "x") - loc
        assert float(residuals.std()) == pytest.approx(0.5, abs=0.02)


def test_latents_of_the_posterior_have_the_guides_moments(to_arviz):
    model, guide, x = made(PAIRS["gaussian"])
    z = values(to_arviz(model, guide, x, num_samples=2000), "posterior", "z")[0]
    with torch.no_grad():
        loc, log_scale = guide.encoder(x).chunk(2, -1)
    scale = (0.3 * log_scale).exp()
    assert float(((z.mean(0) - loc) / scale).abs().max()) < 5 / 2000**0.5
    assert torch.allclose(z.std(0), scale, rtol=0.1)


def test_the_seed_decides_the_draws_and_the_generators_are_restored(to_arviz):
    model, guide, x = made(PAIRS["obs_masked"])
    before = torch.get_rng_state()
    first = to_arviz(model, guide, x, num_samples=5, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    again = to_arviz(model, guide, x, num_samples=5, seed=1)
    other = to_arviz(model, guide, x, num_samples=5, seed=2)
    for group in GROUPS:
        assert first[group].equals(again[group])
    assert not first["posterior"].equals(other["posterior"])
    to_arviz(model, guide, x, num_samples=5, seed=None)
    assert not torch.equal(torch.get_rng_state(), before)


# Log-likelihoods


def test_arviz_does_not_compare_models_by_log_likelihoods_given_latents(az, to_arviz):
    """They are of latents that the guide has inferred from the very row that is left out."""
    draws = to_arviz(*made(PAIRS["gaussian"]), num_samples=SAMPLES)
    with pytest.raises(Exception, match=r"(?i)log.likelihood"):
        az.loo(draws)
    with pytest.raises(Exception, match=r"(?i)log.likelihood|ELPD"):
        az.compare({"a": draws, "b": draws})


@pytest.mark.parametrize("elements", [blocks.ELEMENTS, 1000])  # all rows in one block, or 5 each
def test_log_likelihood_is_the_density_of_the_row_given_the_draw(
    double, to_arviz, monkeypatch, elements
):
    monkeypatch.setattr(blocks, "ELEMENTS", elements)
    model, guide, x = made(PAIRS["gaussian"])
    draws = to_arviz(model, guide, x, num_samples=SAMPLES)
    with torch.no_grad():
        loc = model.decoder(values(draws, "posterior", "z")[0])
    assert largest_difference(draws, loc, 0.5, x) < 1e-10


@pytest.mark.parametrize("name", [n for n in PAIRS if n != "enumerated_in_the_model"])
def test_mean_log_likelihood_over_draws_is_the_elbo_term_of_the_site(name, to_arviz):
    model, guide, data = made(PAIRS[name])
    draws = to_arviz(model, guide, data, num_samples=400)
    terms = elbo_terms(model, guide, data, num_samples=400, seed=1)
    for site in draws[GIVEN_LATENTS].data_vars:
        found = draws[GIVEN_LATENTS][site].values[0].astype(float)
        error = found.std(0) * (2 / 400) ** 0.5 + 1e-4
        distance = np.abs(found.mean(0) - terms[site].to_numpy()) / error
        assert distance.max() < 6, site


def test_a_latent_outside_the_row_plate_has_one_draw_for_all_rows(double, to_arviz):
    model, guide, x = made(PAIRS["with_global"])
    draws = to_arviz(model, guide, x, num_samples=SAMPLES)
    for group in ("posterior", "prior"):
        assert draws[group]["loc"].dims == ("chain", "draw", "loc_dim")
        assert draws[group]["loc"].shape == (1, SAMPLES, FEATURES)
    loc = values(draws, "posterior", "loc")[0]
    assert largest_difference(draws, loc[:, None], 1.0, x) < 1e-10
    assert float(loc.std(0).mean()) == pytest.approx(0.3, abs=0.05)
    assert float(values(draws, "prior", "loc").std()) == pytest.approx(3.0, abs=0.4)


def test_an_enumerated_latent_is_drawn_from_its_posterior(double, to_arviz):
    """Two components far apart: a row's posterior draws are its own component, prior draws both."""
    centers = torch.tensor([-50.0, 50.0])

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
            pyro.sample("x", normal(centers[k][..., None] + torch.zeros(1)), obs=x)

    x = centers[torch.arange(6) % 2, None] + 0.1
    draws = to_arviz(model, None, x, num_samples=SAMPLES)
    assert bool((values(draws, "posterior", "k")[0] == torch.arange(6) % 2).all())
    assert float(values(draws, "prior", "k").double().mean()) == pytest.approx(0.5, abs=0.1)
    assert largest_difference(draws, centers[torch.arange(6) % 2, None], 1.0, x) < 1e-10


def test_log_likelihood_is_conditional_on_an_enumerated_latent(double, to_arviz):
    model, guide, x = made(PAIRS["enumerated_in_the_model"])
    draws = to_arviz(model, guide, x, num_samples=SAMPLES)
    assert draws["posterior"]["k"].shape == (1, SAMPLES, ROWS)
    with torch.no_grad():
        loc = model.decoder(values(draws, "posterior", "z")[0])
    assert largest_difference(draws, loc, 1.0, x) < 1e-10


class OneByOne(Model):
    """A decoder that takes rows and features only, so that each draw needs a run of its own."""

    def forward(self, x):
        level = pyro.sample("level", normal(x.new_zeros(FEATURES)))
        with pyro.plate("data", len(x)):
            z = self.code(x).view(-1, LATENTS)
            pyro.sample("x", self.likelihood(level + self.decoder(z)), obs=x)


class LevelGuide(Guide):
    def forward(self, x):
        pyro.sample("level", normal(x.new_full((FEATURES,), 0.5), 0.1))
        super().forward(x)


def test_a_pair_that_runs_once_for_each_draw_has_the_same_groups(double, to_arviz):
    model, guide, x = OneByOne(), LevelGuide(), reals()
    draws = to_arviz(model, guide, x, num_samples=SAMPLES)
    assert draws["posterior"]["level"].shape == (1, SAMPLES, FEATURES)
    with torch.no_grad():
        loc = model.decoder(values(draws, "posterior", "z")[0])
    loc = loc + values(draws, "posterior", "level")[0][:, None]
    assert largest_difference(draws, loc, 0.5, x) < 1e-10


STEPS = 3


def stepwise(x):
    """A latent and an observation for each step, in a plate inside the rows, and a global mean."""
    with pyro.plate("parts", 2):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)), pyro.plate("steps", STEPS, dim=-2):
        z = pyro.sample("z", normal(x.new_zeros(2)))
        mean = mean if mean.ndim == 1 else mean.reshape(-1, 1, 1, 2)
        pyro.sample("x", normal(mean + z, 0.5), obs=x.movedim(1, 0))


def stepwise_guide(x):
    with pyro.plate("parts", 2):
        pyro.sample("mean", dist.Normal(1.0, 0.2))
    with pyro.plate("data", len(x)), pyro.plate("steps", STEPS, dim=-2):
        pyro.sample("z", normal(x.movedim(1, 0), 0.3))


def test_plates_inside_the_rows_and_beside_them(double, to_arviz):
    x = torch.randn(ROWS, STEPS, 2)
    draws = to_arviz(stepwise, stepwise_guide, x, num_samples=SAMPLES)
    assert draws["posterior"]["mean"].shape == (1, SAMPLES, 2)
    assert draws["posterior"]["z"].dims == ("chain", "draw", "row", "z_dim_0", "z_dim_1")
    assert draws["observed_data"]["x"].shape == (ROWS, STEPS, 2)
    assert torch.equal(values(draws, "observed_data", "x"), x)
    z, mean = values(draws, "posterior", "z")[0], values(draws, "posterior", "mean")[0]
    wanted = dist.Normal(mean[:, None, None] + z, 0.5).log_prob(x).sum((-1, -2))
    assert torch.allclose(values(draws, GIVEN_LATENTS, "x")[0], wanted)


# Masks and sites


def test_masked_cells_are_nan_and_add_nothing(double, to_arviz):
    model, guide, data = made(PAIRS["masked"])
    draws = to_arviz(model, guide, data, num_samples=SAMPLES)
    unmasked = data["seen"] & data["seen"][:, :1]
    assert torch.equal(values(draws, "observed_data", "x").isnan(), ~unmasked)
    for group in ("posterior_predictive", "prior_predictive"):
        cells = values(draws, group, "x")[0]
        assert torch.equal(cells.isnan(), (~unmasked).expand_as(cells))
    with torch.no_grad():
        loc = model.decoder(values(draws, "posterior", "z")[0])
    wanted = (dist.Normal(loc, 1.0).log_prob(data["x"]) * unmasked).sum(-1)
    assert torch.allclose(values(draws, GIVEN_LATENTS, "x")[0], wanted)
    hidden = ~data["seen"][:, 0]
    assert bool((values(draws, GIVEN_LATENTS, "x")[0][:, hidden] == 0).all())


def test_whole_numbers_under_a_mask_become_floats_with_nan(to_arviz, monkeypatch):
    monkeypatch.setattr(blocks, "ELEMENTS", 1)  # one row in each block: one block has a mask

    def model(count, seen):
        with pyro.plate("data", len(count)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
            with pyro.poutine.mask(mask=seen):
                pyro.sample("count", dist.Poisson(rate), obs=count)

    data = {"count": torch.arange(6), "seen": torch.arange(6) != 2}
    draws = to_arviz(model, None, data, num_samples=4)
    assert draws["observed_data"]["count"].dtype.kind == "f"
    assert values(draws, "observed_data", "count").isnan().nonzero().flatten().tolist() == [2]
    whole = to_arviz(model, None, {**data, "seen": torch.ones(6).bool()}, num_samples=4)
    assert whole["observed_data"]["count"].dtype.kind == "i"


def test_all_observed_sites_or_the_named_ones_are_returned(to_arviz):
    model, guide, data = made(PAIRS["mapping"])
    draws = to_arviz(model, guide, data, num_samples=SAMPLES)
    observations = ("posterior_predictive", GIVEN_LATENTS, "prior_predictive", "observed_data")
    for group in observations:
        assert set(draws[group].data_vars) == {"x", "label"}
    assert draws["posterior_predictive"]["label"].dims == ("chain", "draw", "row")
    with torch.no_grad():
        logits = model.labels(values(draws, "posterior", "z")[0])
    wanted = dist.Categorical(logits=logits).log_prob(torch.arange(ROWS) % CLASSES)
    assert torch.allclose(values(draws, GIVEN_LATENTS, "label")[0], wanted, atol=1e-5)
    alone = to_arviz(model, guide, data, num_samples=SAMPLES, sites="label")
    for group in observations:
        assert set(alone[group].data_vars) == {"label"}
    with pytest.raises(ValueError, match=r"sites: expected some of \['x', 'label'\], got \['y'\]"):
        to_arviz(model, guide, data, sites="y")


def test_a_point_is_warned_of(to_arviz):
    pair = BernoulliModel(4, 2), DeltaGuide(4, 2)
    with pytest.warns(UserWarning, match='to_arviz: site "z" is a point of the guide'):
        draws = to_arviz(*pair, torch.ones(5, 4), num_samples=3)
    assert float(values(draws, "posterior", "z").std(1).max()) == 0


def test_a_model_without_latents_has_no_posterior(to_arviz):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(x.new_zeros(FEATURES)), obs=x)

    draws = to_arviz(model, None, reals(), num_samples=3)
    assert names(draws) == GROUPS - {"posterior", "prior"}
    assert largest_difference(draws, torch.zeros(FEATURES), 1.0, reals()) < 1e-4


# Refusals


def test_a_site_with_the_name_of_a_dimension_is_refused(to_arviz):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("row", dist.Normal(0.0, 1.0))
            pyro.sample("x", normal(x.new_zeros(FEATURES)), obs=x)

    with pytest.raises(
        ValueError, match=r'site "row": expected a name that no dimension in ArviZ has'
    ):
        to_arviz(model, None, reals(), num_samples=3)


def test_the_error_without_arviz_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    model, guide, x = made(PAIRS["gaussian"])
    with pytest.raises(ImportError, match=re.escape("pip install 'ppl-vae[arviz]'")):
        arviz_module.to_arviz(model, guide, x)


# Plots of ArviZ


@pytest.mark.filterwarnings(
    "ignore:Passing a dict or None as alias_mapping"
)  # a warning of ArviZ 0.23
@pytest.mark.parametrize("name", ["gaussian", "masked", "with_global"])
def test_arviz_plots_predictive_checks_from_the_container(az, to_arviz, name):
    draws = to_arviz(*made(PAIRS[name]), num_samples=100)
    for group in ("posterior", "prior"):
        if hasattr(az, "plot_ppc_dist"):
            az.plot_ppc_dist(draws, group=f"{group}_predictive", backend="matplotlib")
        else:
            az.plot_ppc(draws, group=group)
    assert len(az.summary(draws)) > 0
