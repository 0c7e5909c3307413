"""The section of a report on other pairs."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pages import report

import ppl_vae
from ppl_vae.report.numbers import decimal


def normal(scale):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, scale), obs=x)

    return model


def test_a_comparison_has_a_section_with_its_verdict_and_its_numbers(tmp_path):
    pairs = {"wide": (normal(9.0), None), "<unit>": (normal(1.0), None)}
    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    found = ppl_vae.compare(pairs, x)
    page = report(tmp_path, *pairs["<unit>"], x, comparison=found)
    assert "compared" in [attributes["id"] for attributes in page.all("section")]
    section = page.text.partition("The best pair")[0].rpartition("Compared with other pairs")[2]
    assert found.sentences()[0][1:] in section
    for name in pairs:
        assert decimal(found.frame.loc[name, "log_prob"]).text in section
    assert any("Differences from the best pair" in alt for alt in page.figures)


def test_what_is_no_comparison_is_refused(tmp_path):
    with pytest.raises(ValueError, match="comparison: expected what compare returned"):
        report(tmp_path, normal(1.0), None, torch.randn(9), comparison={"a": (normal(1.0), None)})
