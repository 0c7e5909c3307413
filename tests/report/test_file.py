"""The file of a report: written whole or not at all, and never over another file unasked."""

from pathlib import Path

import pytest
import torch
from parts.pages import report

from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.report import html
from ppl_vae.report.page import write_report


def test_an_existing_file_is_overwritten_only_on_request(tmp_path):
    file = tmp_path / "report.html"
    file.write_text("years of work")
    pair = BernoulliModel(4), NormalGuide(4), torch.ones(9, 4)
    with pytest.raises(ValueError, match="exists; overwrite=True replaces it"):
        report(tmp_path, *pair)
    assert file.read_text() == "years of work"
    assert "BernoulliModel" in report(tmp_path, *pair, overwrite=True).text


def test_a_file_that_appears_while_the_report_is_made_is_not_overwritten(tmp_path, monkeypatch):
    file = tmp_path / "report.html"
    plain = html.page

    def page(*parts, **named):
        file.write_text("other")
        return plain(*parts, **named)

    monkeypatch.setattr(html, "page", page)
    with pytest.raises(ValueError, match="exists"):
        report(tmp_path, BernoulliModel(4), NormalGuide(4), torch.ones(9, 4))
    assert file.read_text() == "other"


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    def broken(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(ValueError, match="cannot be written: No space left"):
        report(tmp_path, BernoulliModel(4), NormalGuide(4), torch.ones(9, 4))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "message"),
    [("away/report.html", "a folder that exists"), ("report.csv", "a file name that ends in .html"),
     ("folder.html", "a folder that exists")],
)  # fmt: skip
def test_a_bad_path_is_refused_before_the_model_runs(path, message, tmp_path):
    (tmp_path / "folder.html").mkdir()

    def model(x):
        pytest.fail("the model ran")

    with pytest.raises(ValueError, match=f"path: .*{message}"):
        write_report(model, None, torch.ones(9, 4), tmp_path / path)


def test_errors_name_the_bad_argument(tmp_path):
    pair = BernoulliModel(4), NormalGuide(4)
    with pytest.raises(ValueError, match="model: expected a model, got None"):
        report(tmp_path, None, None, None)
    with pytest.raises(ValueError, match="model: expected a model, got None"):
        report(tmp_path, None, None, torch.ones(9, 4), run="run")
    with pytest.raises(ValueError, match="num_samples: expected"):
        report(tmp_path, *pair, torch.ones(9, 4), num_samples=0)
    with pytest.raises(ValueError, match="replicates: expected"):
        report(tmp_path, *pair, torch.ones(9, 4), replicates=0)
    with pytest.raises(ValueError, match="no such run directory"):
        report(tmp_path, *pair, None, run=tmp_path / "none")
    assert not list(tmp_path.iterdir())
