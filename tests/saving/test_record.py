"""What a run directory records, and when ``fit`` refuses to resume one."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from parts.runs import SETTINGS, X, pair, users_class

import ppl_vae
from ppl_vae import fit, load, save
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.saving.sources import in_library
from ppl_vae.zoo.catalog import find_class


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 32}, "made with batch_size=48, got 32"),
        ({"clip_norm": None}, "made with clip_norm=50.0, got None"),
        ({"seed": 1}, "seed=0, got 1"),
        ({"optimizer": lambda p: torch.optim.Adam(p, 1e-2)}, "optimizer_defaults"),
        ({"optimizer": lambda p: torch.optim.SGD(p, 1e-2)}, "optimizer"),
        ({"validation": 0.1}, "made with other data"),
        ({"kl_weight": 1.0}, "kl_weight"),
    ],
)
def test_resume_refuses_other_settings_than_the_run_began_with(changed, message, tmp_path):
    fit(*pair(), X, run=tmp_path / "run", **{**SETTINGS, "epochs": 1})
    with pytest.raises(ValueError, match=message):
        fit(*pair(), X, run=tmp_path / "run", resume=True, **{**SETTINGS, **changed})


def test_resume_refuses_other_data_or_another_pair_than_the_run_began_with(tmp_path):
    fit(*pair(), X, run=tmp_path / "run", **{**SETTINGS, "epochs": 1})
    with pytest.raises(ValueError, match="was made with other data"):
        fit(*pair(), 1 - X, run=tmp_path / "run", resume=True, **SETTINGS)
    other = BernoulliModel(12, 3), NormalGuide(12, 3)
    with pytest.raises(ValueError, match=r"trained=\[.*, got \["):
        fit(*other, X, run=tmp_path / "run", resume=True, **SETTINGS)


def test_resume_refuses_a_model_file_that_was_edited(tmp_path):
    mine = tmp_path / "mine.py"
    model = users_class(mine, tmp_path / "flag")(12)
    fit(model, None, X, epochs=1, progress=False, run=tmp_path / "run")
    mine.write_text(mine.read_text() + "\n# an edit beside the class\n")
    model = find_class(f"{mine}:Mine", "models")(12)
    fit(model, None, X, epochs=1, progress=False, run=tmp_path / "run", resume=True)
    mine.write_text(mine.read_text().replace("zeros", "ones"))
    model = find_class(f"{mine}:Mine", "models")(12)
    with pytest.raises(ValueError, match=r"mine\.py is not as it was when"):
        fit(model, None, X, epochs=2, progress=False, run=tmp_path / "run", resume=True)


def test_files_of_all_folders_are_the_librarys_and_no_others(tmp_path):
    library = Path(ppl_vae.__file__).parent
    for file in (*library.rglob("*.py"), Path(inspect.getfile(BernoulliModel))):
        assert in_library(file)
    for file in (Path(__file__), tmp_path / "ppl_vae" / "mine.py"):
        assert not in_library(file)


def test_an_existing_run_is_never_overwritten(tmp_path):
    fit(*pair(), X, run=tmp_path / "run", epochs=1, progress=False)
    before = (tmp_path / "run" / "weights.safetensors").read_bytes()
    with pytest.raises(ValueError, match="exists; resume=True continues it"):
        fit(*pair(), X, run=tmp_path / "run", epochs=1, progress=False)
    with pytest.raises(ValueError, match="exists"):
        save(*pair(), tmp_path / "run")
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not lose")
    with pytest.raises(ValueError, match="exists"):
        fit(*pair(), X, run=tmp_path / "mine", epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"no run.json in it"):
        fit(*pair(), X, run=tmp_path / "mine", resume=True, epochs=1, progress=False)
    with pytest.raises(ValueError, match="resume: needs the directory"):
        fit(*pair(), X, resume=True, epochs=1, progress=False)


def test_a_fit_that_is_refused_leaves_no_directory(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        fit(*pair(), X * torch.nan, run=tmp_path / "runs" / "x", epochs=1, progress=False)
    assert list(tmp_path.rglob("*")) == []


def test_run_json_records_what_was_fitted_and_why_this_objective(tmp_path):
    fit(*pair(), X, run=tmp_path / "run", **SETTINGS)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["objective"] == "TraceMeanField_ELBO"
    assert "closed-form KL" in info["reason"]
    assert info["versions"]["torch"].startswith("2.")
    assert (info["status"], info["seed"], info["rows"]) == ("finished", 0, 240)
    assert info["history"]["epochs"] == 5
    assert "class BernoulliModel" in (tmp_path / "run" / "source" / "model.py").read_text()


def test_an_empty_directory_may_be_there_and_be_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(*pair(), X, epochs=1, progress=False, run=".")
    assert (tmp_path / "run.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == []


def test_resume_refuses_one_changed_cell_and_one_changed_argument(tmp_path):
    fit(*pair(), X, run=tmp_path / "run", epochs=1, progress=False)
    other = X.clone()
    other[17, 3] = 1 - other[17, 3]
    with pytest.raises(ValueError, match="made with other data"):
        fit(*pair(), other, run=tmp_path / "run", resume=True, epochs=2, progress=False)
    run = tmp_path / "tempered"
    fit(Tempered(12, 1.0), NormalGuide(12), X, run=run, epochs=1, progress=False)
    with pytest.raises(ValueError, match="other constructor arguments"):
        fit(Tempered(12, 2.0), NormalGuide(12), X, run=run, resume=True, epochs=2, progress=False)


class Tempered(BernoulliModel):
    """A model with a Python number that a callback changes."""

    def __init__(self, features, temperature=1.0):
        super().__init__(features)
        self.temperature = temperature


def test_an_attribute_that_changed_during_the_fit_removes_the_recipe(tmp_path):
    def cool(row, model, guide):
        model.temperature *= 0.5

    with pytest.warns(UserWarning, match="changed during the fit"):
        fit(
            Tempered(12),
            NormalGuide(12),
            X,
            run=tmp_path / "run",
            epochs=1,
            progress=False,
            callbacks=[cool],
        )
    with pytest.raises(ValueError, match="store such a number in a buffer"):
        load(tmp_path / "run", trust_code=True)


def test_two_processes_cannot_fit_into_one_run(tmp_path):
    from ppl_vae.saving.snapshots import Recorder

    fit(*pair(), X, run=tmp_path / "run", epochs=1, progress=False)
    other = Recorder(tmp_path / "run", {})
    with pytest.raises(ValueError, match="another process is fitting into"):
        fit(*pair(), X, run=tmp_path / "run", resume=True, epochs=2, progress=False)
    other.close()
    fit(*pair(), X, run=tmp_path / "run", resume=True, epochs=2, progress=False)


def test_a_run_that_cannot_be_written_and_a_split_without_a_seed_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"run: .*file/x cannot be written"):
        fit(*pair(), X, run=tmp_path / "file" / "x", epochs=1, progress=False)
    with pytest.raises(ValueError, match="needs a seed to split off"):
        fit(*pair(), X, run=tmp_path / "y", seed=None, validation=0.1, epochs=1, progress=False)
