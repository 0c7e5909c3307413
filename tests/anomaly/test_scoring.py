"""How far a score can be trusted."""

import pytest
import torch

from ppl_vae import AnomalyDetector
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.ppca import PPCAModel


@pytest.mark.parametrize("num_samples", [1, 2, 24])
def test_draws_too_few_to_tell_are_reliable_of_an_exact_likelihood_alone(num_samples):
    rows, few = torch.randn(20, 4), {"num_samples": num_samples}
    drawn = AnomalyDetector(GaussianModel(4), NormalGuide(4), rows, **few)(rows)
    assert not drawn["reliable"].any()
    exact = AnomalyDetector(PPCAModel(4, latents=2).marginal, None, rows, **few)(rows)
    assert exact["reliable"].all()
