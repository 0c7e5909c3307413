"""Fields of the data that a half needs and does not get are named, and the form that has them."""

import pandas as pd
import pytest
from parts.linter import X, assert_only_finding, guide, model

from ppl_vae import encode, fit, generate, lint, log_likelihood
from ppl_vae.guides.conditional import ConditionalGuide
from ppl_vae.guides.local import LocalGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.conditional import ConditionalModel
from ppl_vae.models.gaussian import GaussianModel

BITS = (X > 0).float()
FORMS = [BITS, (BITS,), {"x": BITS}, pd.DataFrame(BITS.numpy())]


@pytest.mark.parametrize("data", FORMS, ids=["tensor", "tuple", "mapping", "frame"])
def test_a_missing_label_is_named(data):
    pair = ConditionalModel(3, 2), ConditionalGuide(3, 2)
    pieces = "expected data with this field, which the guide reads", '{"x": ..., "y": ...}'
    assert_only_finding(lint(*pair, data), "error", 'field "y"', *pieces)
    for function in (fit, log_likelihood, encode, generate):
        with pytest.raises(
            ValueError, match=r'^field "y": expected data with this field'
        ) as raised:
            function(*pair, data)
        assert "Trace Shapes" not in str(raised.value)


def test_a_missing_index_is_named():
    pair = GaussianModel(3, 2), LocalGuide(len(X), 2)
    assert_only_finding(lint(*pair, X), "error", 'field "index"', '{"x": ..., "index": ...}')


def test_fields_in_excess_are_counted():
    verdict = lint(model, guide, (X, X))
    assert_only_finding(verdict, "error", "data", "no more fields than the arguments ['x']")


def test_a_half_that_does_not_need_the_field_runs_without_it():
    assert encode(ConditionalModel(3, 2), NormalGuide(3, 2), {"x": BITS}).shape == (len(X), 4)


def test_a_type_error_inside_a_half_is_its_own():
    def half(x):
        raise TypeError("no rows today")

    assert_only_finding(lint(half, guide, X), "error", "model", "TypeError: no rows today")
