"""How far a score can be trusted."""

import pandas as pd
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


def test_columns_of_a_reference_for_typicality_are_found_by_their_names():
    frame = pd.DataFrame(torch.randn(40, 4).numpy() * [1, 5, 25, 125], columns=list("abcd"))
    pair, settings = (GaussianModel(4), NormalGuide(4)), {"score": "typicality", "num_samples": 5}
    right = AnomalyDetector(*pair, frame, reference=frame, **settings).scoring.center
    swapped = AnomalyDetector(*pair, frame, reference=frame[list("dcba")], **settings)
    assert swapped.scoring.center == right
    with pytest.raises(ValueError, match="reference: expected the columns"):
        AnomalyDetector(*pair, frame, reference=frame[list("abc")], **settings)
