"""A half that was built around another instance of the other half, and halves that are swapped."""

import pytest
import torch
from parts.linter import assert_only_finding, guide, model

import ppl_vae
from ppl_vae import lint
from ppl_vae.guides.denoising import DenoisingGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.guides.top_down import TopDownGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.hierarchical import HierarchicalModel
from ppl_vae.models.vampprior import VampPriorModel

BITS = (torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def vampprior(partner):
    return VampPriorModel(3, partner, latents=2, pseudo_inputs=4)


def test_a_model_that_was_built_with_another_guide_is_a_warning():
    verdict = lint(vampprior(NormalGuide(3, 2)), NormalGuide(3, 2), BITS)
    pieces = "expected the guide that was passed, got another NormalGuide", "guide=guide"
    assert_only_finding(verdict, "warning", 'module "model.guide"', *pieces)


def test_a_guide_that_was_built_with_another_model_is_an_error():
    of_another = TopDownGuide(3, HierarchicalModel(3, (3, 2)))
    verdict = lint(HierarchicalModel(3, (3, 2)), of_another, BITS)
    pieces = "expected the model that was passed, got another HierarchicalModel", "model=model"
    assert_only_finding(verdict, "error", 'module "guide.model"', *pieces)


def test_partners_of_each_other_and_frozen_ones_are_sound():
    inside, frozen = NormalGuide(3, 2), NormalGuide(3, 2).requires_grad_(False)
    layers = HierarchicalModel(3, (3, 2))
    for pair in (
        (vampprior(inside), inside),
        (vampprior(inside), DenoisingGuide(3, guide=inside)),
        (vampprior(frozen), NormalGuide(3, 2)),
        (layers, TopDownGuide(3, layers)),
    ):
        assert lint(*pair, BITS).findings == ()


def test_a_partner_with_a_code_of_another_size_is_named_by_latents():
    partner = NormalGuide(3, 3)
    verdict = lint(vampprior(partner), partner, BITS)
    pieces = "latents: expected 3, the size of the guide's code, got 2", "the same latents="
    assert_only_finding(verdict, "error", "model", *pieces)
    assert "make the model take" not in str(verdict)


@pytest.mark.parametrize(
    "function", ["log_likelihood", "elbo_terms", "encode", "refine", "reconstruct", "interpolate"]
)
def test_swapped_halves_are_refused(function):
    for pair in ((guide, model), (NormalGuide(3, 2), BernoulliModel(3, 2))):
        with pytest.raises(ValueError, match="model and guide are swapped: pass the model first"):
            getattr(ppl_vae, function)(*pair, BITS)


def test_swapped_halves_are_one_finding():
    for pair in ((guide, model), (NormalGuide(3, 2), BernoulliModel(3, 2))):
        verdict = lint(*pair, BITS)
        assert_only_finding(verdict, "error", "model and guide", "['x'] in the guide", "swapped")
