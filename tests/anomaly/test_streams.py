"""Rows that come in parts have the numbers of one call on all of them."""

import itertools

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import AnomalyDetector
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel


def rows_of(count, seed=0):
    """Return correlated rows, (count, 4)."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return x + x[:, :1]


@pytest.mark.parametrize("cuts", [[0, 300], [0, 1, 2, 200, 300]])
def test_rows_in_parts_have_the_numbers_of_one_call_bit_for_bit(cuts, monkeypatch):
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", 16)
    monkeypatch.setattr("ppl_vae.anomaly.scoring.PART", 50)
    x = rows_of(300, seed=7)
    columns = x.shape[1]
    pair = GaussianModel(columns, 2), NormalGuide(columns, 2)
    detector = AnomalyDetector(*pair, rows_of(60), num_samples=10)
    whole = detector(x)
    frames = list(detector.parts(x[a:b] for a, b in itertools.pairwise(cuts)))
    found = pd.concat(frames, ignore_index=True)
    counts = np.bincount(found["level"] - 1, minlength=61)
    decided = detector.decision()(found, counts)
    pd.testing.assert_frame_equal(decided, whole, check_exact=True)
    explained = pd.concat(detector.parts([x], reference=rows_of(60)), ignore_index=True)
    assert list(explained.columns[4:]) == [f"attribution:{i}" for i in range(columns)]
    assert list(detector.parts([])) == []


@pytest.mark.parametrize("cuts", [[0, 300], [0, 1, 140, 300]])
def test_strange_rows_alone_are_explained_however_the_rows_are_cut(cuts, monkeypatch):
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", 16)
    monkeypatch.setattr("ppl_vae.anomaly.scoring.PART", 50)
    x, clean = rows_of(300, seed=7), rows_of(60)
    detector = AnomalyDetector(GaussianModel(4, 2), NormalGuide(4, 2), clean, num_samples=10)

    def explained(cuts):
        parts = (x[a:b] for a, b in itertools.pairwise(cuts))
        frames = detector.parts(parts, reference=clean, explained_rate=0.1)
        return pd.concat(frames, ignore_index=True)

    found = explained(cuts)
    pd.testing.assert_frame_equal(found, explained([0, 77, 300]), check_exact=True)
    shares = found.filter(like="attribution:")
    strange = detector(x)["p_value"] <= 0.1
    assert 0 < strange.sum() < 150
    assert shares.notna().all(axis=1).tolist() == strange.tolist()
    assert shares.isna().all(axis=1).tolist() == (~strange).tolist()


@pytest.mark.parametrize("first", [0, 1])
def test_parts_of_whole_numbers_have_the_numbers_of_one_call(first, monkeypatch):
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", 16)
    monkeypatch.setattr("ppl_vae.anomaly.scoring.PART", 32)
    for limit in ("TRACED_FROM", "COMPILED_FROM"):
        monkeypatch.setattr(f"ppl_vae.evaluation.particle_terms.{limit}", 1)
    frame = pd.DataFrame(5 * rows_of(128).numpy(), columns=list("abcd"))
    whole_numbers = frame[:64].round().astype(int)
    parts = [whole_numbers, frame[64:]] if first == 0 else [frame[64:], whole_numbers]
    detector = AnomalyDetector(GaussianModel(4, 2), NormalGuide(4, 2), frame, num_samples=8)
    found = pd.concat(detector.parts(parts), ignore_index=True)["score"]
    right = detector(pd.concat(parts, ignore_index=True))["score"]
    pd.testing.assert_series_equal(found, right, check_exact=True)


def test_a_part_that_lacks_a_column_is_refused_where_missing_values_would_be_masked():
    """Put together with other parts, the column would be missing in some rows alone."""

    def model(x):
        known = ~x.isnan()
        with pyro.plate("data", len(x)):
            likelihood = dist.Normal(0.0, torch.ones_like(x)).mask(known).to_event(1)
            pyro.sample("x", likelihood, obs=x.nan_to_num())

    frame = pd.DataFrame(rows_of(60).numpy(), columns=list("abcd"))
    detector = AnomalyDetector(model, None, frame)
    for other in (frame[20:].drop(columns="b"), frame[20:].assign(e=1.0), frame[20:].to_numpy()):
        with pytest.raises(ValueError, match="data: expected parts with the same fields and col"):
            list(detector.parts([frame[:20], other]))
