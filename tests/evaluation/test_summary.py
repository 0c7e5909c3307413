"""Summaries of log-likelihoods and ELBO terms: numbers, and sentences on reliability."""

import numpy as np
import pandas as pd
import pytest

from ppl_vae.evaluation.summary import ElboSummary, LikelihoodSummary, quantiles

INF, NAN = np.inf, np.nan


def summary(log_prob, k_hat, *, num_samples=100, has_guide=True):
    log_prob = np.array(log_prob)
    frame = pd.DataFrame({"log_prob": log_prob, "elbo": log_prob, "ess": 9.0, "k_hat": k_hat})
    return LikelihoodSummary.of(frame, num_samples, has_guide=has_guide)


def test_impossible_rows_exact_rows_and_ties_are_counted_apart():
    scores = pd.DataFrame(
        {
            "log_prob": [-1.0, -INF, -2, -3],
            "elbo": [-2.0, -INF, -3, -4],
            "ess": [9.0, NAN, 5, 4],
            "k_hat": [0.9, NAN, NAN, -INF],
        }
    )
    found = LikelihoodSummary.of(scores, 100, has_guide=True)
    assert (found.unreliable, found.exact, found.impossible, found.without_k_hat) == (1, 1, 1, 2)
    assert found.log_prob.mean == -INF
    assert np.isnan(found.gap.mean)
    assert (found.k_hat[0.05], found.k_hat[0.95]) == (-INF, 0.9)
    assert [sentence.split(":")[0] for sentence in found.sentences()] == [
        "k-hat is above 0.5 in 1 of 4 rows",
        "k-hat is -inf in 1 of 4 rows",
        "The log-likelihood is -inf in 1 of 4 rows",
        "k-hat is not known in 1 of 4 rows",
    ]


def test_reliable_rows_are_said_to_be_reliable():
    assert summary([-1.0, -2.0], [0.1, 0.7], num_samples=5000).sentences() == [
        "k-hat is at most 0.7 in every row that has a k-hat: their log-likelihood is reliable."
    ]


@pytest.mark.parametrize(("num_samples", "threshold"), [(100, 0.5), (1000, 0.667), (10_000, 0.7)])
def test_the_threshold_is_the_source_s(num_samples, threshold):
    """min(1 - 1/log10(S), 0.7), Vehtari et al. (2024)."""
    k_hat = [threshold - 0.01, threshold + 0.01]
    found = summary([-1.0, -2.0], k_hat, num_samples=num_samples)
    assert (found.above, found.threshold) == (1, pytest.approx(threshold, abs=1e-3))


def test_the_verdict_weighs_the_effective_number_of_draws_and_the_standard_error():
    scores = {"log_prob": [-1.0, -2.0], "elbo": [-1.1, -2.1], "k_hat": [0.9, 0.2]}
    frames = [pd.DataFrame({**scores, "ess": [ess, 5000.0]}) for ess in (4646.0, 3.1)]
    heavy, bad = (LikelihoodSummary.of(frame, 5000, has_guide=True) for frame in frames)
    assert (heavy.above, heavy.unreliable) == (1, 0)
    (sentence,) = heavy.sentences()
    assert "4,646 of 5,000 effective draws (a standard error of 0.004 nats)" in sentence
    assert "too low" not in sentence
    assert (bad.above, bad.unreliable) == (1, 1)
    (sentence,) = bad.sentences()
    assert "their log-likelihood is not reliable" in sentence
    assert "3.1 of 5,000 effective draws (a standard error of 0.6 nats)" in sentence
    assert "may be far too low" in sentence


def test_advice_depends_on_the_guide_and_names_the_caller_s_option():
    unreliable = [0.9, 0.1]
    advice = summary([-1.0, -2], unreliable).advice()
    assert "refine the guide for these rows, refine(model, guide, data)" in advice
    assert advice.endswith("or raise num_samples.")
    without = summary([-1.0, -2], unreliable, has_guide=False).advice("--num-samples")
    assert "fit a guide, let refine(model, None, data) find one for these rows" in without
    assert without.endswith("or raise --num-samples.")


def test_without_any_k_hat_there_is_no_verdict():
    few = summary([-1.0], [NAN], num_samples=10)
    assert few.verdict() == ""
    assert few.sentences() == [
        "k-hat is not known: it needs at least 25 draws for each row; raise num_samples."
    ]
    assert np.isnan(few.log_prob.standard_error)
    assert all(map(np.isnan, few.k_hat.values()))


def test_means_and_standard_errors_are_those_of_pandas():
    values = pd.Series(np.random.default_rng(0).normal(size=40))
    found = summary(values, np.zeros(40)).log_prob
    assert found.mean == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.sem())


def test_a_quantile_is_the_value_of_a_row():
    assert quantiles(np.array([-INF, 1.0]))[0.5] in (-INF, 1.0)


def test_sites_outside_the_row_plate_are_shared_by_all_rows():
    terms = pd.DataFrame({"z": [-1.0, -3.0], "x": [-9.0, -7.0]})
    terms.attrs["global"] = {"level": -4.0}
    found = ElboSummary.of(terms)
    assert found.sites["z"].mean == -2.0
    assert found.outside == {"level": -4.0}
    assert found.together.mean == -12.0
