"""``compare`` gives no verdict that rests on rows whose log-likelihood is not reliable."""

import math

import pytest
from parts.known_densities import W, linear, normal, posterior, rows

from ppl_vae import compare
from ppl_vae.evaluation.summary import UnreliableWarning

pytestmark = pytest.mark.usefixtures("double")


def broken(share, weight=W):
    return linear(weight), posterior(weight, bad=share)


def test_a_lead_over_a_broken_guide_is_no_verdict():
    pairs = {"broken": broken(1.0), "sound": (linear(), posterior())}
    with pytest.warns(UnreliableWarning, match=r'compare: pairs\["broken"\]: k-hat is') as seen:
        found = compare(pairs, rows())
    assert seen[0].filename == __file__
    line = found.frame.loc["broken"]
    assert line["upper"] < 0
    assert line["k_hat_above"] > 0.8
    assert found.best is None
    assert repr(found).startswith("no verdict: sound is ahead of broken by ")
    assert "in which the log-likelihood of broken is not reliable" in repr(found)


def test_a_lead_that_comes_from_unreliable_rows_alone_is_no_verdict():
    """The guide is broken in half of the rows; in the other half the pairs are equal."""
    pairs = {"broken": broken(0.5), "sound": (linear(), posterior())}
    with pytest.warns(UnreliableWarning):
        found = compare(pairs, rows(200))
    assert found.frame.loc["broken", "upper"] < 0
    assert 0.3 < found.frame.loc["broken", "unreliable"] < 0.6
    assert found.best is None


def test_a_lead_in_the_reliable_rows_is_a_verdict_that_says_what_it_rests_on():
    far = 0.2 * W
    pairs = {"far": broken(0.1, far), "true": (linear(), posterior())}
    with pytest.warns(UnreliableWarning):
        found = compare(pairs, rows(200))
    assert found.best == "true"
    count = round(found.frame.loc["far", "unreliable"] * 200)
    assert 10 <= count <= 30
    nats = -found.frame.loc["far", "upper"] * 200 / count
    assert repr(found).endswith(
        f", unless the log-likelihood of far is too low by more than {nats:.3g} nats a row in the "
        f"{count} of 200 rows in which it is not reliable"
    )


def test_a_third_pair_with_unreliable_rows_is_not_called_worse_in_silence():
    far = 0.05 * W
    pairs = {"far": broken(0.1, far), "near": (normal(1.5), None), "true": (linear(), posterior())}
    with pytest.warns(UnreliableWarning):
        found = compare(pairs, rows(200))
    assert list(found.frame.index) == ["true", "near", "far"]
    assert found.best == "true"
    second, third = found.sentences()
    assert second.startswith("true explains the rows better than near by")
    assert "unless the log-likelihood of far is too low by more than" in third


def test_unreliable_rows_of_the_winner_leave_the_verdict():
    far = 0.05 * W
    pairs = {"far": (linear(far), posterior(far)), "true": broken(0.1)}
    with pytest.warns(UnreliableWarning):
        found = compare(pairs, rows(200))
    assert found.best == "true"
    assert "the log-likelihood of true is not reliable in 20 of 200 rows" in repr(found)
    assert "its lead may be larger" in repr(found)


def test_too_few_draws_for_a_k_hat_are_said_and_trusted_only_where_most_count():
    pairs = {"wide": (normal(9.0), None), "rough": (linear(), posterior(spread=2.5))}
    found = compare(pairs, rows(), num_samples=20)
    assert "k-hat of rough is not known in 40 of 40 rows" in repr(found)
    assert found.frame.loc["rough", "unreliable"] > 0.5
    assert math.isnan(found.frame.loc["rough", "k_hat_above"])
    flipped = {"narrow": (normal(0.05), None), **pairs}
    assert compare(flipped, rows(), num_samples=20).frame.index[0] == "rough"
