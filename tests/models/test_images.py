"""Pairs whose rows are images (channels, height, width), through every function."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from parts.steps import Sides, alike, learn
from pyro.infer import Trace_ELBO

from ppl_vae import (
    IWAE,
    build,
    elbo_terms,
    encode,
    fit,
    generate,
    interpolate,
    lint,
    load,
    log_likelihood,
    posterior_predictive,
    predictive_check,
    reconstruct,
    traverse,
    write_report,
)
from ppl_vae.guides.linear import LinearGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.nn import ConvDecoder, ConvEncoder

ROWS, SHAPE = 24, (2, 5, 4)
LEVELS = np.random.default_rng(0).integers(0, 256, (ROWS, *SHAPE), dtype=np.uint8)
BITS = LEVELS > 128
FORMS = {
    "uint8": lambda x: x.astype(np.uint8),
    "tensor": lambda x: torch.tensor(x).float(),
    "mapping": lambda x: {"x": x.astype(np.float32)},
}
CASES = {"bernoulli": (BernoulliModel, BITS, 1), "gaussian": (GaussianModel, LEVELS, 2)}


@pytest.fixture(params=CASES)
def case(request):
    """A model and a guide with small convolutions, and images as an array."""
    cls, x, heads = CASES[request.param]
    torch.manual_seed(0)
    decoder = ConvDecoder(2, (heads * SHAPE[0], *SHAPE[1:]), hidden=(4,))
    encoder = ConvEncoder(SHAPE, 4, hidden=(4,))
    model = build(cls, x, latents=2, decoder=decoder)
    return model, build(NormalGuide, x, latents=2, encoder=encoder), x


def array(rows):
    """Rows in any of the forms as an array."""
    return np.asarray(rows["x"] if isinstance(rows, dict) else rows)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
def test_every_function_takes_images_in_any_form(case, form):
    model, guide, x = case
    data = FORMS[form](x)
    assert lint(model, guide, data).findings == ()
    assert np.isfinite(fit(model, guide, data, epochs=2, progress=False).frame["elbo"]).all()
    scores = log_likelihood(model, guide, data, num_samples=20)
    assert np.isfinite(scores["log_prob"]).all()
    assert elbo_terms(model, guide, data).shape == (ROWS, 2)
    draws = posterior_predictive(model, guide, data, num_samples=3)["x"]
    assert draws.shape == (3, ROWS, *SHAPE)
    assert encode(model, guide, data)["z"].shape[0] == ROWS
    made = {
        4: generate(model, None, data, num_samples=4),
        5: generate(model, None, data, num_samples=5, expected=True),
        ROWS: reconstruct(model, guide, data),
        14: traverse(model, guide, data),
        4 * (ROWS - 1): interpolate(model, guide, data, steps=4),
    }
    for count, rows in made.items():
        assert type(rows) is type(data)
        assert array(rows).shape == (count, *SHAPE)


def test_forms_of_one_data_set_score_alike(case):
    model, guide, x = case
    found = [elbo_terms(model, guide, FORMS[form](x))["x"].to_numpy() for form in FORMS]
    for terms in found[1:]:
        np.testing.assert_allclose(terms, found[0], rtol=1e-5)


def test_a_traced_step_of_images_equals_an_eager_one(case):
    Sides(*case).compare()


@pytest.mark.slow
def test_a_compiled_fit_of_images_equals_an_eager_one(case):
    fits = [learn((*map(copy.deepcopy, case[:2]), case[2]), how) for how in (True, False)]
    assert fits[0][0].step == "compiled"
    alike(*fits)


@pytest.mark.parametrize(
    "elbo", [IWAE(num_particles=3), Trace_ELBO(num_particles=3, vectorize_particles=True)],
    ids=["IWAE", "Trace_ELBO"],
)  # fmt: skip
def test_particles_may_lead_images(case, elbo):
    model, guide, x = case
    history = fit(model, guide, x, elbo=elbo, epochs=2, progress=False)
    assert np.isfinite(history.frame["elbo"]).all()


def test_a_run_of_images_is_reopened_with_the_same_numbers(case, tmp_path):
    model, guide, x = case
    fit(model, guide, x, epochs=1, progress=False, run=tmp_path / "run")
    opened = elbo_terms(*load(tmp_path / "run"), x)
    np.testing.assert_array_equal(opened, elbo_terms(model, guide, x))


def test_a_check_of_images_names_pixels_and_draws_them(case):
    model, guide, x = case
    check = predictive_check(model, guide, x, num_samples=20)
    names = set(check.features.loc["x"].index.get_level_values("feature"))
    assert {"0,0,0", "1,4,3"} <= names
    assert "x" in str(check)
    plt.close(check.plot().figure)


def test_a_report_of_images_is_written(case, tmp_path):
    model, guide, x = case
    path = write_report(model, guide, x, tmp_path / "report.html", num_samples=20)
    assert "2 x 5 x 4" in path.read_text() or "(2, 5, 4)" in path.read_text()


def test_a_guide_of_vectors_refuses_images_and_says_how_to_pass_them():
    with pytest.raises(ValueError, match=r"expected data of shape \(rows, features\).*reshape"):
        build(LinearGuide, LEVELS, latents=2)
