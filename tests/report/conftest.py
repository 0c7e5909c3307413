"""Reports that several tests share."""

import pandas as pd
import pytest
import torch
from parts.extras import load_wine
from parts.pages import FEW, HOSTILE, Page

import ppl_vae
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.report.page import write_report


@pytest.fixture(scope="module")
def wine():
    return load_wine(as_frame=True).data


@pytest.fixture(scope="module")
def run(wine, tmp_path_factory):
    """A finished fit with held-out rows."""
    torch.manual_seed(0)
    model, guide = (ppl_vae.build(cls, wine, latents=2) for cls in (GaussianModel, NormalGuide))
    path = tmp_path_factory.mktemp("runs") / "wine"
    ppl_vae.fit(model, guide, wine, validation=0.2, epochs=20, run=path, progress=False)
    return path


@pytest.fixture(scope="module")
def file(wine, run, tmp_path_factory):
    """The report of the fit."""
    path = tmp_path_factory.mktemp("reports") / "report.html"
    return write_report(*ppl_vae.load(run), wine, path, run=run, **FEW)


@pytest.fixture(scope="module")
def page(file):
    return Page(file.read_text())


@pytest.fixture(scope="module")
def hostile_file(tmp_path_factory):
    """The report of a pair whose data have malicious column names."""
    x = pd.DataFrame(torch.randn(60, 4).numpy() ** 2, columns=HOSTILE)
    model, guide = (ppl_vae.build(cls, x, latents=2) for cls in (GaussianModel, NormalGuide))
    return write_report(model, guide, x, tmp_path_factory.mktemp("ill") / "r.html", **FEW)
