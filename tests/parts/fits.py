"""A fit by one kind of step, and two fits compared."""

import pandas as pd
import torch

from parts.pairs import made
from ppl_vae import fit
from ppl_vae.training import stepper

STEPS = ["eager", "traced", "compiled"]


def learn(make, step, monkeypatch, **settings):
    """Fit a new pair by one kind of step; returns its weights, its history and the pair."""
    settings = {"epochs": 4, "batch_size": 16, "progress": False, **settings}
    monkeypatch.setattr(stepper, "TRACED_FROM", 1)
    most = settings["epochs"] + 1 if step == "compiled" else 10**9  # the last batches stay traced
    monkeypatch.setattr(stepper, "COMPILED_FROM", most)
    model, guide, data = made(make) if callable(make) else make
    history = fit(model, guide, data, compile=False if step == "eager" else "auto", **settings)
    assert history.step == step, history.step_reason
    halves = [half for half in (model, guide) if isinstance(half, torch.nn.Module)]
    weights = [t.clone() for half in halves for t in half.state_dict().values()]
    return weights, history.frame.drop(columns="seconds"), (model, guide, data)


def alike(left, right, tolerance=2e-4):
    """Equal up to rounding, which some dozens of updates have magnified."""
    pd.testing.assert_frame_equal(left[1], right[1], check_exact=False, rtol=tolerance)
    for value, expected in zip(left[0], right[0], strict=True):
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)
