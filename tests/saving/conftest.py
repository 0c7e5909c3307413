"""An uninterrupted fit to compare resumed fits with, and snapshots after every step."""

import pytest
from parts.runs import SETTINGS, X, outcome, pair

from ppl_vae import fit
from ppl_vae.saving import snapshots


@pytest.fixture(scope="module")
def uninterrupted():
    model, guide = pair()
    return outcome(model, guide, fit(model, guide, X, **SETTINGS))


@pytest.fixture
def always(monkeypatch):
    """Take a snapshot after every step, however long writing takes."""
    monkeypatch.setattr(snapshots, "SOONEST", 0.0)
    monkeypatch.setattr(snapshots, "SHARE", 0)
