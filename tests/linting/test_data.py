"""One planted fault a test: in the data, or in how a pair treats rows."""

import numpy as np
import pandas as pd
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
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import build, lint
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.categorical import CategoricalModel
from ppl_vae.models.gaussian import GaussianModel

# The data


def test_data_outside_the_support_in_a_late_row():
    x = (X[:1].repeat(20000, 1) > 0).float()
    x[[12345, 19999], 1] = 0.5
    pieces = ("support (0 or 1)", "2 of 20000 rows, the first is row 12345 with 0.5 in column 1;")
    verdict = lint(BernoulliModel(FEATURES), NormalGuide(FEATURES), x)
    assert_only_finding(verdict, "error", 'site "x"', *pieces)


def test_data_outside_the_support_in_a_row_with_a_label():
    frame = pd.DataFrame((X > 0).float().numpy(), index=[f"row-{i}" for i in range(ROWS)])
    frame.iloc[33, 2] = -1.0
    verdict = lint(BernoulliModel(FEATURES), NormalGuide(FEATURES), frame)
    assert_only_finding(
        verdict,
        "error",
        'site "x"',
        "1 of 40 rows, the first is row 33 (index 'row-33') with -1 in column 2; threshold",
    )


def test_a_category_of_another_column_is_named_with_its_column_and_the_number_of_categories():
    x = torch.stack([torch.arange(40) % 3, torch.arange(40) % 2], 1)
    model = CategoricalModel(2, 2, categories=(3, 2))
    x[33, 1] = 2  # a category of the other column
    pieces = ("(whole numbers from 0 to 1)", "the first is row 33 with 2 in column 1; code the")
    assert_only_finding(lint(model, NormalGuide(2, 2), x), "error", 'site "x"', *pieces)


def test_a_value_of_probability_zero_is_named_with_its_column():
    class Impossible(CategoricalModel):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                logits = self.decoder(z).reshape(*z.shape[:-1], 2, 3)
                logits = logits + torch.tensor([[0.0, 0.0, -torch.inf], [0.0, 0.0, 0.0]])
                pyro.sample("x", dist.Categorical(logits=logits).to_event(1), obs=x)

    x = torch.stack([torch.arange(40) % 2, torch.arange(40) % 3], 1)
    x[33, 0] = 2
    pieces = ("the first is row 33 with 2 in column 0;", "gives probability 0")
    verdict = lint(Impossible(2, 2, categories=3), NormalGuide(2, 2), x)
    assert_only_finding(verdict, "error", 'site "x"', *pieces)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_data_that_are_not_finite(bad):
    x = X.clone()
    x[[21, 30, 30], [0, 1, 2]] = bad
    verdict = lint(GaussianModel(FEATURES), NormalGuide(FEATURES), x)
    assert_only_finding(
        verdict, "error", "data field 0", "NaN or infinity in 2 of 40 rows, the first is row 21"
    )


def test_data_that_are_never_finite():
    x = X.clone()
    x[:, 0] = float("nan")
    verdict = lint(GaussianModel(FEATURES), NormalGuide(FEATURES), x)
    assert_only_finding(verdict, "error", "data field 0", "40 of 40 rows, the first is row 0")


def test_nan_that_only_the_likelihood_reads():
    x = X.clone()
    x[21, 0] = float("nan")
    verdict = lint(model, lambda x: guide(x.nan_to_num()), x)
    assert_only_finding(verdict, "error", "data field 0", "1 of 40 rows, the first is row 21")


def test_field_of_a_mapping_that_is_not_finite():
    x = X.clone()
    x[21, 0] = float("nan")
    assert_only_finding(
        lint(model, guide, {"x": x}), "error", 'field "x"', "NaN or infinity in 1 of 40 rows"
    )


def test_masked_nan_that_reaches_the_gradient():
    x = X.clone()
    x[21, 0] = float("nan")

    class Missing(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(FEATURES))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.loc, 1.0).mask(~x.isnan()).to_event(1), obs=x)

    pieces = ("1 of 40 rows, the first is row 21", "x.nan_to_num()", "under a mask")
    assert_only_finding(lint(Missing(), None, x), "error", "data field 0", *pieces)


def test_latent_that_overflows():
    def other(x):
        with pyro.plate("data", len(x)):
            z = x[:, :LATENTS]
            pyro.sample("z", normal(z, torch.where(z > 5, z**100, 1.0)))

    large = X.clone()
    large[25] = 10.0
    assert_only_finding(
        lint(model, other, large), "error", 'site "z"', "1 of 40 rows, the first is row 25"
    )


def test_guide_that_leaves_the_support_of_the_prior():
    def positive(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.HalfNormal(x.new_ones(LATENTS)).to_event(1))
            observe(x, z)

    verdict = lint(positive, guide, X)
    assert_only_finding(
        verdict,
        "error",
        'site "z"',
        "support of the model's prior (numbers from 0)",
        "draws real numbers",
    )


def test_constant_columns_under_a_continuous_likelihood():
    x = X.clone()
    x[:, 1] = 3.0
    verdict = lint(GaussianModel(FEATURES, floor=0.0), NormalGuide(FEATURES), x)
    assert_only_finding(verdict, "warning", 'site "x"', "1 with one value (column 1)")


def test_constant_columns_are_named_as_the_data_name_them():
    frame = pd.DataFrame(X.numpy(), columns=["a", "b", "c"]).assign(b=3.0, c=1.0)
    verdict = lint(GaussianModel(FEATURES, floor=0.0), NormalGuide(FEATURES), frame)
    pieces = '2 with one value (column "b", column "c")'
    assert_only_finding(verdict, "warning", 'site "x"', pieces)
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images[:, 0, 2, 5] = 0.5
    model = build(GaussianModel, images, floor=0.0)
    verdict = lint(model, build(NormalGuide, images), images)
    pixel = "1 with one value (channel 0, row 2, column 5 of the image)"
    assert_only_finding(verdict, "warning", 'site "x"', pixel)


def test_field_that_nobody_reads():
    data = {"x": X, "weight": torch.ones(ROWS)}
    assert_only_finding(
        lint(model, guide, data), "error", 'field "weight"', "expected an argument of this name"
    )


def test_mapping_without_the_fields_of_the_model():
    verdict = lint(model, guide, {"image": X})
    assert_finding(verdict, "error", 'field "image"', "rename the field or the argument")
    assert_finding(verdict, "error", 'field "x"', "which the guide reads", "got fields ['image']")


def test_guide_for_another_model():
    verdict = lint(GaussianModel(FEATURES), NormalGuide(FEATURES + 1), X)
    assert_only_finding(
        verdict, "error", "guide", "batch of shapes [(16, 3)]", "cannot be multiplied"
    )
    assert verdict.objective is None
    assert len(verdict.sites) == 0


def test_model_for_other_data():
    class Wide(PyroModule):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                observe(x, code(x) + x @ torch.ones(5, LATENTS))

    assert_only_finding(lint(Wide(), guide, X), "error", "model", "cannot be multiplied")


# Rows that depend on each other, and observed values that leak


def teacher_forced(x, *, argument):
    with pyro.plate("data", len(x)):
        z = code(x)
        x1 = pyro.sample("x1", dist.Normal(z[..., 0], 1.0), obs=x[:, 0])
        pyro.sample("x2", dist.Normal(x[:, 0] if argument else x1, 1.0), obs=x[:, 1])


def test_site_that_reads_the_argument_after_it_was_observed():
    verdict = lint(lambda x: teacher_forced(x, argument=True), guide, X)
    assert_only_finding(
        verdict, "error", 'site "x2"', 'pyro.sample("x1", ...) returned', "leak the data"
    )
    assert not lint(lambda x: teacher_forced(x, argument=False), guide, X).findings


def test_leak_names_the_site_that_was_read():
    def chain(x):
        with pyro.plate("data", len(x)):
            z = code(x)
            pyro.sample("first", dist.Normal(z[..., 0], 1.0), obs=x[:, 0])
            pyro.sample("second", dist.Normal(z[..., 0], 1.0), obs=x[:, 1])
            pyro.sample("third", dist.Normal(x[:, 1], 1.0), obs=x[:, 2])

    assert_only_finding(
        lint(chain, guide, X), "error", 'site "third"', 'pyro.sample("second", ...) returned'
    )


def test_rows_that_are_coupled_by_code():
    def other(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal((x - x.mean(0))[:, :LATENTS]))

    assert_only_finding(
        lint(model, other, X), "error", 'site "z"', "in the guide", "a mean over dim 0"
    )


def test_random_numbers_from_outside_pyro():
    generator = np.random.default_rng(0)

    def other(x):
        with pyro.plate("data", len(x)):
            observe(x, code(x) + generator.normal())

    assert_only_finding(
        lint(other, guide, X), "error", 'site "x"', "in the model", "pyro.sample alone"
    )


def test_rows_that_are_coupled_by_a_layer():
    encoder = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, 2 * LATENTS))
    verdict = lint(GaussianModel(FEATURES, LATENTS), NormalGuide(FEATURES, LATENTS, encoder), X)
    assert_only_finding(verdict, "warning", 'layer "encoder.1"', "BatchNorm1d", "use nn.LayerNorm")


def test_rows_that_are_coupled_by_a_layer_of_a_function():
    encoder = nn.Sequential(nn.Linear(FEATURES, LATENTS), nn.BatchNorm1d(LATENTS))

    def other(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(encoder(x)))

    assert_only_finding(lint(model, other, X), "warning", 'layer "BatchNorm1d"', "use nn.LayerNorm")


def test_model_that_runs_on_one_batch_size_only():
    def other(x):
        with pyro.plate("data", len(x)):
            observe(x, code(x) + torch.zeros(16, 1))

    assert_only_finding(lint(other, guide, X), "error", "model", "(9, 3)", "whatever their number")


@pytest.mark.parametrize("where", ["error", "warning"])
def test_errors_come_before_warnings(where):
    x = (X > 0).float()
    x[:, 1] = 1.0
    encoder = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4))
    x[3, 0] = 2.0
    verdict = lint(BernoulliModel(FEATURES, 2), NormalGuide(FEATURES, 2, encoder), x)
    assert [finding.severity for finding in verdict.findings] == ["error", "warning"]
    assert len(getattr(verdict, f"{where}s")) == 1


@pytest.mark.parametrize("leaks", [True, False])
def test_a_leak_through_a_converted_column(leaks):
    """The data are integers, and the sites observe converted copies of their columns."""
    codes = torch.randint(0, 9, (ROWS, 2), generator=torch.Generator().manual_seed(1))

    def model(x):
        with pyro.plate("data", len(x)):
            first = pyro.sample("first", dist.Normal(0.0, 9.0), obs=x[:, 0].float())
            read = x[:, 0].float() if leaks else first
            pyro.sample("second", dist.Normal(read, 9.0), obs=x[:, 1].float())

    verdict = lint(model, None, codes)
    found = [finding.where for finding in verdict.errors]
    assert found == (['site "second"'] if leaks else [])
