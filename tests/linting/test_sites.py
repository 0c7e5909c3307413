"""One planted fault a test: in sites, in plates, or under the ELBO.

Each finding names the place and says what was expected, what came and what to change.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import (
    FEATURES,
    LATENTS,
    ROWS,
    X,
    assert_finding,
    assert_only_finding,
    code,
    guide,
    model,
    normal,
    observe,
)
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal

from ppl_vae import lint
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel

# Sites that do not match


def test_latent_missing_from_the_guide():
    def other(x):
        with pyro.plate("data", len(x)):
            code(x, "w")
            observe(x, code(x))

    assert_only_finding(
        lint(other, guide, X), "error", 'site "w"', 'add pyro.sample("w", ...) to the guide'
    )


def test_latent_without_a_guide():
    assert_only_finding(lint(model, None, X), "error", 'site "z"', "expected a draw in the guide")


def test_unobserved_cells_missing_from_the_guide():
    def other(x):
        with pyro.plate("data", len(x)):
            z = code(x)
            pyro.sample("y", dist.Normal(z[..., 0], 1.0), obs=x[:, 0], obs_mask=x[:, 1] > 0)

    assert_only_finding(lint(other, guide, X), "error", 'site "y_unobserved"', "mask=~obs_mask")


def test_latent_that_only_the_guide_draws():
    def other(x):
        with pyro.plate("data", len(x)):
            code(x, "w")
            code(x)

    assert_only_finding(lint(model, other, X), "error", 'site "w"', '("z")', "is_auxiliary")


def test_event_shape_of_the_guide():
    def other(x):
        with pyro.plate("data", len(x)):
            code(x, latents=3)

    assert_only_finding(lint(model, other, X), "error", 'site "z"', "event_shape (2,), got (3,)")


def test_event_shape_that_the_decoder_rejects():
    verdict = lint(BernoulliModel(3, latents=2), NormalGuide(3, latents=4), (X > 0).float())
    assert_only_finding(verdict, "error", 'site "z"', "event_shape (2,), got (4,)")


def test_batch_shape_of_the_guide():
    def other(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x.new_zeros(2, 1, LATENTS)))

    assert_only_finding(
        lint(model, other, X), "error", 'site "z"', "batch_shape (16,), got (2, 16)"
    )


def test_latent_observed_in_the_guide():
    def other(x):
        with pyro.plate("data", len(x)):
            code(x, obs=x[:, :LATENTS])

    assert_only_finding(
        lint(model, other, X), "error", 'site "z"', "got an observed value; remove obs="
    )


def test_site_observed_in_the_model_and_drawn_in_the_guide():
    def other(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(x))
            code(x)

    assert_only_finding(
        lint(model, other, X), "error", 'site "x"', "got obs= in the model and a draw"
    )


@pytest.mark.parametrize("masked", ["model", "guide", "distribution"])
def test_mask_in_one_half_only(masked):
    def masking(half):
        return lambda x: poutine.mask(half, mask=x[:, 0] > 0)(x)

    def by_distribution(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x[:, :LATENTS]).mask(x[:, 0] > 0))

    pairs = {
        "model": (masking(model), guide),
        "guide": (model, masking(guide)),
        "distribution": (model, by_distribution),
    }
    assert_only_finding(
        lint(*pairs[masked], X), "error", 'site "z"', "expected the same mask", "poutine.mask"
    )


def test_model_that_observes_nothing():
    def other(x):
        with pyro.plate("data", len(x)):
            code(x)

    assert_only_finding(
        lint(other, guide, X), "error", "model", "expected an observed site, got none"
    )


# The row plate


def test_row_plate_missing_in_the_model():
    def other(x):
        observe(x, code(x))

    verdict = lint(other, guide, X)
    assert_finding(verdict, "error", 'site "x"', 'the row plate "data" of the model, got no plate')
    assert_finding(verdict, "error", 'site "z"', 'with pyro.plate("data", len(x)):')


def test_row_plate_missing_in_the_guide():
    def other(x):
        pyro.sample("z", normal(x[:, :LATENTS]))

    assert_only_finding(lint(model, other, X), "error", 'site "z"', 'row plate "data" of the guide')


@pytest.mark.parametrize("size", [16, 128], ids=["as lint's batch", "as fit's batch"])
@pytest.mark.parametrize("half", ["model", "guide"])
def test_row_plate_of_constant_size(half, size):
    def fixed(function):
        def inner(x):
            with pyro.plate("data", size):
                function(x)

        return inner

    halves = {
        "model": (fixed(lambda x: observe(x, code(x))), guide),
        "guide": (model, fixed(lambda x: pyro.sample("z", normal(x[:, :LATENTS])))),
    }
    pieces = (half, f"got {size}; ", 'write pyro.plate("data", len(x))')
    assert_only_finding(lint(*halves[half], X), "error", 'plate "data"', *pieces)


def test_row_plate_with_a_subsample_of_its_own():
    def other(x):
        with pyro.plate("data", ROWS, subsample=torch.arange(5)):
            observe(x[:5], code(x[:5]))

    pieces = ("the model to open the row plate for the 16 rows of the batch, got 5",)
    assert_only_finding(lint(other, guide, X), "error", 'plate "data"', *pieces)


@pytest.mark.parametrize(("full", "severity"), [(30, "error"), (50, "warning")])
def test_row_plate_that_stands_for_another_number_of_rows(full, severity):
    def other(x):
        with pyro.plate("data", full, subsample_size=len(x)):
            observe(x, code(x))

    pieces = (f"stand for the 40 rows of the data, got {full} in the model",)
    assert_only_finding(lint(other, guide, X), severity, 'plate "data"', *pieces)


def test_row_plate_at_another_dimension():
    def other(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x[:, :1])

    assert_finding(
        lint(other, None, X),
        "error",
        'plate "data"',
        "expected the row plate at dim -1, got dim -2",
    )


def test_row_plate_of_another_name():
    def named_model(x):
        with pyro.plate("rows", len(x)):
            observe(x, code(x))

    def named_guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", normal(x[:, :LATENTS]))

    verdict = lint(named_model, named_guide, X)
    assert_finding(verdict, "error", 'site "x"', 'got plate "rows"; pass plate="rows"')
    assert not lint(named_model, named_guide, X, plate="rows").findings


def test_other_plates_in_the_guide_than_in_the_model():
    def other(x):
        with pyro.plate("data", len(x)), pyro.plate("views", 1):
            pyro.sample("z", normal(x[:, :LATENTS]))

    def viewed(x):
        rows = pyro.plate("data", len(x))
        with rows, pyro.plate("looks", 1):
            z = code(x)
        with rows:
            observe(x, z[0])

    pieces = ("['data', 'looks'], got ['data', 'views']",)
    assert_only_finding(lint(viewed, other, X), "error", 'site "z"', *pieces)


# The objective


def count_model(x, **how):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(x.new_ones(4)), **how)
        pyro.sample("x", normal(k.unsqueeze(-1).expand(*k.shape, FEATURES)), obs=x)


def count_guide(x, **how):
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Categorical(logits=x.new_zeros(len(x), 4)), **how)


PARALLEL = {"enumerate": "parallel"}


def test_discrete_latent_under_an_elbo_for_reparameterized_ones():
    verdict = lint(count_model, count_guide, X, elbo=TraceMeanField_ELBO())
    pieces = ("expected a reparameterized draw", "TraceMeanField_ELBO", "TraceGraph_ELBO()")
    assert_only_finding(verdict, "error", 'site "k"', *pieces)


def test_enumeration_under_an_elbo_that_draws():
    verdict = lint(lambda x: count_model(x, infer=PARALLEL), None, X, elbo=Trace_ELBO())
    (finding,) = [error for error in verdict.errors if "enumerates" in error.problem]
    assert finding.where == 'site "k"'
    assert "pass TraceEnum_ELBO()" in finding.fix


def test_mean_field_elbo_under_a_bottom_up_guide():
    def hierarchy(x):
        with pyro.plate("data", len(x)):
            top = code(x, "top")
            observe(x, pyro.sample("z", normal(top)))

    def bottom_up(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(x[:, :LATENTS]))
            pyro.sample("top", normal(z))

    verdict = lint(hierarchy, bottom_up, X, elbo=TraceMeanField_ELBO())
    assert_only_finding(
        verdict, "error", "guide", "['top', 'z']", "['z', 'top']", "pass Trace_ELBO()"
    )


@pytest.mark.parametrize("weight", [0.5, lambda step: 1.0], ids=["number", "schedule"])
def test_kl_weight_on_a_site_that_the_model_sums_out(weight):
    def mixture(x):
        count_model(x, infer=PARALLEL)

    verdict = lint(mixture, None, X, kl_weight=weight)
    assert_only_finding(
        verdict, "error", 'site "k"', "KL weight of 1", "enumerate the site in the guide"
    )
    assert not lint(mixture, None, X).findings
    summed_in_guide = lint(
        count_model, lambda x: count_guide(x, infer=PARALLEL), X, kl_weight=weight
    )
    assert not summed_in_guide.findings


def test_elbo_that_is_not_finite():
    def improper(x):
        model(x)
        pyro.factor("penalty", torch.tensor(float("-inf")))

    assert_only_finding(
        lint(improper, guide, X), "error", "model and guide", "expected a finite ELBO", "got -inf"
    )


# Row latents of a guide that is fixed to one batch


@pytest.mark.parametrize("count", [8, 16, ROWS])
def test_autoguide_over_the_latents_of_the_rows(count):
    def schools(x):
        center = pyro.sample("center", dist.Normal(0.0, 5.0))
        with pyro.plate("data", len(x)):
            effect = pyro.sample("effect", dist.Normal(center, 1.0))
            pyro.sample("x", dist.Normal(effect, 1.0), obs=x)

    pieces = ("row latents are fixed to one batch", "amortize them with a network", "row numbers")
    verdict = lint(schools, AutoNormal(schools), X[:count, 0])
    assert_only_finding(verdict, "error", 'plate "data"', *pieces)
    assert "write pyro.plate" not in str(verdict)


def test_autoguide_inside_a_function():
    autoguide = AutoNormal(model)

    def other(x):
        autoguide(x)

    assert_only_finding(lint(model, other, X), "error", 'plate "data"', "amortize them")


def test_guide_with_a_parameter_for_each_row():
    def other(x):
        loc = pyro.param("loc", torch.zeros(16, LATENTS))
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(loc))

    assert_only_finding(
        lint(model, other, X), "error", "guide", "pass row numbers as a field and index"
    )


# Scales


@pytest.mark.parametrize("half", ["model", "guide"])
def test_scale_around_a_latent_in_one_half_only(half):
    def scaled(x):
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=0.5):
                z = code(x) if half == "model" else pyro.sample("z", normal(x[:, :LATENTS]))
            if half == "model":
                observe(x, z)

    pair = (scaled, guide) if half == "model" else (model, scaled)
    numbers = "got 0.5 in the model and 1" if half == "model" else "got 1 in the model and 0.5"
    pieces = (numbers, "same poutine.scale", "kl_weight=")
    assert_only_finding(
        lint(*pair, X), "error", 'site "z"', *pieces, "TraceMeanField_ELBO ignores the model's"
    )
    assert_only_finding(
        lint(*pair, X, elbo=Trace_ELBO()), "warning", 'site "z"', *pieces, "not a bound"
    )
    assert_only_finding(lint(poutine.scale(model, scale=0.5), guide, X), "error", 'site "z"')


def test_scale_around_both_halves():
    weight = torch.linspace(0.1, 1.0, ROWS)[:, None]
    data = {"x": X, "w": weight}

    def weighed(half):
        def inner(x, w):
            with poutine.scale(scale=w[:, 0]):
                half(x)

        return inner

    findings = lint(weighed(model), weighed(guide), data).findings
    assert [(f.severity, f.where) for f in findings] == [
        ("warning", f'site "{name}"') for name in ("z", "x")
    ]
    assert all("got 0.1 to 0.4462, which enters the training loss" in f.problem for f in findings)
    pieces = ("got 0.1 to 0.4462 in the model and 1 in the guide",)
    assert_only_finding(lint(weighed(model), guide, data), "error", 'site "z"', *pieces)
