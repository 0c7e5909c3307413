"""Every pair of the zoo can be calibrated, or is refused by a message that names what is wrong."""

import numpy as np
import pytest
from parts.zoo import EVERY_TIME, refusal, zoo_names, zoo_pair

from ppl_vae import guide_calibration
from ppl_vae.evaluation.rank_tests import LIKELIHOOD

REFUSED = {
    ("flow", "none"): "expected a latent in the row plate",
    ("gaussian", "delta"): 'site "z": .* a point',
    ("not_missing_at_random", "missing_cells"): 'site "x": .* cannot be simulated',
    ("vector_quantized", "nearest_code"): 'site "k": .* a point',
}
NAMES = [
    pytest.param(
        names, marks=pytest.mark.slow if names[0] not in EVERY_TIME.get(names[1], names) else []
    )
    for names in zoo_names()
]


@pytest.mark.parametrize("names", NAMES, ids="-".join)
def test_a_pair_of_the_zoo_has_ranks_or_is_refused(names):
    if reason := refusal(*names):
        pytest.skip(reason)
    options = {"num_rows": 70, "num_draws": 9, "recalibrate": True}
    wrong = REFUSED.get(names) or ("a point" if names[1] == "delta" else None)
    if wrong:
        with pytest.raises(ValueError, match=wrong):
            guide_calibration(*zoo_pair(*names), **options)
        return
    found = guide_calibration(*zoo_pair(*names), **options)
    assert found.left_out == 0
    assert found.frame["site"].iloc[-1] == LIKELIHOOD
    assert len(found.frame) > 1
    for ranks, frame in (
        (found.ranks, found.frame), (found.weighted_ranks, found.recalibrated)
    ):  # fmt: skip
        assert ranks.shape == (70, len(frame))
        assert np.isfinite(frame["p_value"]).all()
        known = ranks.stack()
        assert known.between(0, 9).all()
        assert known.nunique() > 3
