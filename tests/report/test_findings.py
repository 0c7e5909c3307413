"""The lines at the top of a report: what was found, and what to do next."""

import importlib.util
import re
from types import SimpleNamespace

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppl_vae
from ppl_vae.report.check_section import flagged_names
from ppl_vae.report.findings import ADVICE, FIT_ON, OF_KIND, PRIOR, findings


def found(prior, posterior=None, *, unreliable=0, history=None, summaries=True, schema=None):
    """Return the findings of checks, each with its advice."""
    summary = SimpleNamespace(unreliable=unreliable)
    measured = SimpleNamespace(
        prior_check=prior, posterior_check=posterior, has_guide=posterior is not None,
        summaries=lambda: {"all rows": summary} if summaries else {},
        rows=SimpleNamespace(schema=schema),
    )  # fmt: skip
    return list(findings(SimpleNamespace(history=history, ending=""), measured))


def poisson(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Poisson(x.new_full((2,), 3.0)).to_event(1), obs=x)


@pytest.fixture(scope="module")
def check():
    """A check in which the zero fraction lies farthest out."""
    x = dist.Poisson(torch.full((300, 2), 3.0)).sample()
    x[:60, 0] = 0.0
    return ppl_vae.predictive_check(
        poisson, None, x, statistics=["zero fraction", "mean"], num_samples=60
    )


@pytest.fixture(scope="module")
def clean_check():
    torch.manual_seed(0)
    x = dist.Poisson(torch.full((300, 2), 3.0)).sample()
    return ppl_vae.predictive_check(poisson, None, x, statistics=["maximum"], num_samples=60)


def test_a_flag_has_the_advice_of_its_statistic(check):
    first, *rest = found(check)
    assert first.text == f"The model alone misses {', '.join(flagged_names(check))}."
    assert check.frame.index[0][1] in ("zero fraction", "mean")
    assert first.next == ADVICE.get(check.frame.index[0][1], FIT_ON)
    assert not rest


def test_advice_on_a_table_is_about_kinds_of_columns():
    zeros = dist.Poisson(torch.full((300, 2), 3.0)).sample()
    zeros[:90, 0] = 0.0
    check = ppl_vae.predictive_check(
        poisson, None, zeros, statistics=["zero fraction"], num_samples=60
    )
    (of_table,) = found(check, schema="any")
    assert of_table.next == OF_KIND
    assert "models/zero_inflated.py" in found(check)[0].next


def test_a_statistic_is_named_once_and_the_prior_is_blamed_for_what_it_adds(check, clean_check):
    assert len(found(check, check)) == 1, "the model alone adds nothing"
    (only,) = found(check, clean_check)
    assert only.text.startswith("The model alone misses")
    assert only.next == PRIOR


def test_agreement_is_no_proof_and_says_what_to_check(clean_check):
    (only,) = found(clean_check)
    assert only.text.startswith("The model alone agrees with the data")
    assert "does not prove that it is right" in only.text
    assert "statistics=" in only.next


def test_what_failed_or_is_not_reliable_is_a_finding(clean_check):
    texts = [finding.text for finding in found(ValueError("x"), clean_check, unreliable=3)]
    assert "A predictive check could not be made." in texts
    assert "The log-likelihood of some rows is not reliable." in texts
    (*_, last) = found(clean_check, summaries=False)
    assert last.text == "The log-likelihood could not be measured."


def test_a_fit_that_still_rises_is_the_first_finding(clean_check):
    history = SimpleNamespace(frame=pd.DataFrame({"elbo": [1.0]}), converged=False, measure="ELBO")
    first, *_ = found(clean_check, history=history)
    assert first.text == "The fit has not converged: the ELBO still rises."
    history.converged = None
    assert "converged" not in found(clean_check, history=history)[0].text


def test_advice_names_files_that_exist():
    for text in (*ADVICE.values(), PRIOR, OF_KIND):
        for name in re.findall(r"models/(\w+)\.py", text):
            assert importlib.util.find_spec(f"ppl_vae.models.{name}")
