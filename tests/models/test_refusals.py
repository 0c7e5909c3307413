"""Every model of the zoo refuses rows that it cannot take, in every function over rows.

One cell of one row is made impossible, or every row gets a column too many. Each function must name
the row and the column, or both shapes.
"""

import functools

import numpy as np
import pytest
import torch
from parts.zoo import SEQUENCES, refusal, zoo_data, zoo_names, zoo_pair

import ppl_vae
from ppl_vae.cli.pairs import NO_GUIDE
from ppl_vae.core.pair import Pair
from ppl_vae.core.sites import traces, with_role
from ppl_vae.core.supports import support_of
from ppl_vae.zoo.catalog import zoo

ROW, COLUMN = 37, 2

FUNCTIONS = {
    "lint": lambda *pair: ppl_vae.lint(*pair).raise_if_failed(),
    "fit": functools.partial(ppl_vae.fit, epochs=1, compile=False, progress=False),
    "log_likelihood": functools.partial(ppl_vae.log_likelihood, num_samples=2),
    "elbo_terms": functools.partial(ppl_vae.elbo_terms, num_samples=2),
    "encode": functools.partial(ppl_vae.encode, num_samples=2),
    "reconstruct": functools.partial(ppl_vae.reconstruct, num_samples=2),
    "interpolate": functools.partial(ppl_vae.interpolate, steps=2),
    "posterior_predictive": functools.partial(ppl_vae.posterior_predictive, num_samples=1),
    "predictive_check": functools.partial(ppl_vae.predictive_check, num_samples=2),
}
OF_CODES = {"encode", "interpolate", "reconstruct"}  # functions that need a guide


@functools.cache
def made(names):
    """The pair of the names, and its rows."""
    return zoo_pair(*names)


SITES = {"table": "real"}  # where the observed site is not x: real columns are one of the sites
CHECKS_COLUMNS = {"table"}  # models that refuse other columns themselves, by the field's name

# One model of each kind of likelihood and guide; the others run with the slow tests.
EVERY_TIME = {
    "bayesian_decoder", "bernoulli", "categorical", "conditional", "discretized_logistic", "flow",
    "full_covariance", "gaussian", "hierarchical", "mixture", "poisson", "ppca",
}  # fmt: skip
every_model = pytest.mark.parametrize(
    "model",
    [
        pytest.param(m, marks=[] if m in EVERY_TIME else pytest.mark.slow)
        for m in zoo("models")
        if m not in SEQUENCES
    ],
)


@functools.cache
def names_of(model):
    """The model with the last of its guides that fits; the simple guides come late in the list."""
    pairs = [names for names in zoo_names() if names[0] == model]
    return next(names for names in reversed(pairs) if not refusal(*names))


def functions_of(names):
    """The functions over rows that take the pair."""
    return {n: FUNCTIONS[n] for n in FUNCTIONS if names[1] != NO_GUIDE or n not in OF_CODES}


def with_x(data, x):
    """The data with other values of what the model observes."""
    return {**data, "x": x} if isinstance(data, dict) else x


def values_outside(names):
    """Values that the cell (ROW, COLUMN) cannot have; none where all numbers are possible."""
    model, guide, data = made(names)
    pair = Pair.of(model, guide, "data")
    rows = pair.rows(data)
    with pair.quiet_run():
        model_trace, _ = traces(pair, rows.take(torch.arange(len(rows))))
    site = with_role(model_trace, "data")[SITES.get(names[0], "x")]
    support = support_of(site["fn"])
    tried = [torch.full_like(site["value"], value) for value in (-1, 300, 0.5)]
    return [v[0, 0].item() for v in tried if not bool(support.check(v)[ROW].all())]


def refusals(names, data):
    """What each function over rows says of the data, by the function's name."""
    model, guide, _ = made(names)
    messages = {}
    for name, function in functions_of(names).items():
        with pytest.raises(ValueError, match="expected") as raised:
            function(model, guide, data)
        messages[name] = str(raised.value)
    return messages


@every_model
def test_a_value_outside_the_support_is_refused_with_its_row_column_and_mend(model):
    names = names_of(model)
    data = zoo_data(names[0])
    x = data["x"] if isinstance(data, dict) else data
    for value in values_outside(names)[:1]:
        bad = x.clone()
        bad[ROW, COLUMN] = value
        for function, message in refusals(names, with_x(data, bad)).items():
            assert f'site "{SITES.get(model, "x")}": expected ' in message, function
            assert f"row {ROW}" in message, function
            assert f"{value:g}" in message, function
            assert f"column {COLUMN}; " in message, function


@every_model
def test_rows_with_a_column_too_many_are_refused_with_both_shapes(model):
    if model == "not_missing_at_random":
        pytest.skip("a mask of another width fails before the site: the message has both fields")
    names = names_of(model)
    data = zoo_data(names[0])
    x = data["x"] if isinstance(data, dict) else data
    wide = torch.cat([x, x[:, :1]], 1)
    for function, message in refusals(names, with_x(data, wide)).items():
        field = "x: " if model in CHECKS_COLUMNS else 'site "x": '
        assert f"{field}expected rows of shape (4,), which the model" in message, function
        assert "got rows of shape (5,); " in message, function


@every_model
def test_rows_of_bool_are_rows_of_0_and_1(model):
    """The same numbers come out, and counts above 1 are not made True."""
    names = names_of(model)
    data = zoo_data(names[0])
    bits = torch.rand(60, 4, generator=torch.Generator().manual_seed(3)) > 0.5
    numbers = bits.to((data["x"] if isinstance(data, dict) else data).dtype)
    pair = zoo_pair(*names, with_x(data, numbers))[:2]
    results = [
        [
            ppl_vae.elbo_terms(*pair, rows, num_samples=2).to_numpy(),
            ppl_vae.generate(*pair, rows, num_samples=9),
            ppl_vae.posterior_predictive(*pair, rows, num_samples=2)[SITES.get(model, "x")],
            *([] if pair[1] is None else [ppl_vae.encode(*pair, rows).to_numpy()]),
            *([] if pair[1] is None else [ppl_vae.reconstruct(*pair, rows, num_samples=2)]),
        ]
        for rows in (with_x(data, numbers), with_x(data, bits))
    ]
    for pairs in zip(*results, strict=True):
        right, found = (np.asarray(r["x"] if isinstance(r, dict) else r, float) for r in pairs)
        np.testing.assert_allclose(found, right, rtol=1e-5)
    ppl_vae.lint(*pair, with_x(data, bits)).raise_if_failed()
