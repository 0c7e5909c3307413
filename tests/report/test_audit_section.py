"""The section of a report on its guide."""

import pytest
import torch
from parts.pages import report

import ppl_vae
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel


def test_each_verdict_has_its_text_and_its_figure(tmp_path):
    torch.manual_seed(0)
    pair, x = (GaussianModel(3, 2), NormalGuide(3, 2)), torch.randn(20, 3)
    gap = ppl_vae.inference_gap(*pair, x, steps=2, num_samples=20)
    usage = ppl_vae.latent_usage(*pair, x)
    page = report(tmp_path, *pair, x, audit=[gap, usage])
    assert "audit" in [attributes["id"] for attributes in page.all("section")]
    assert gap.advice() in page.text
    assert "latents active" in page.text
    for title in ("How far the guide is from the posterior", "Which latents tell of the rows"):
        assert any(alt.startswith(title) for alt in page.figures)
    assert "Whether the guide's draws" not in page.text


def test_without_verdicts_there_is_no_section_and_other_objects_are_refused(tmp_path):
    pair, x = (GaussianModel(3, 2), NormalGuide(3, 2)), torch.randn(9, 3)
    plain = report(tmp_path, *pair, x)
    assert "audit" not in [attributes["id"] for attributes in plain.all("section")]
    for wrong in (["gap"], 3, "gap"):
        with pytest.raises(ValueError, match="audit: expected a list of what inference_gap"):
            report(tmp_path, *pair, x, audit=wrong)
