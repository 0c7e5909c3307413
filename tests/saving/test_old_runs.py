"""Runs that an earlier layout of the library wrote still open and still resume.

``fixtures/before_folders`` holds two runs of one small fit, made when every file of the library
stood in one flat folder: ``finished``, and ``cut_off``, which ended after its ninth snapshot.
``expected.json`` holds the rows, the log-likelihood of each row and the ELBO of each epoch.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from parts.runs import users_class

from ppl_vae import fit, load, log_likelihood
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP
from ppl_vae.saving import snapshots
from ppl_vae.saving.storage import read_json, write_json
from ppl_vae.zoo.catalog import find_class

FIXTURE = Path(__file__).parent / "fixtures" / "before_folders"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
ROWS = torch.tensor(EXPECTED["rows"]).float()


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore::UserWarning")  # two rows have a high k-hat
def test_a_finished_run_opens_without_arguments_and_gives_the_same_log_likelihood(tmp_path):
    run = shutil.copytree(FIXTURE / "finished", tmp_path / "run")
    model, guide = load(run)
    scores = log_likelihood(model, guide, ROWS, num_samples=50, seed=0, progress=False)
    assert scores["log_prob"].to_numpy() == pytest.approx(EXPECTED["log_prob"], rel=1e-4)


@pytest.mark.usefixtures("one_thread")
def test_a_run_that_was_cut_off_resumes_and_ends_with_the_same_elbos(tmp_path):
    run = shutil.copytree(FIXTURE / "cut_off", tmp_path / "run")
    step = snapshots.read_snapshot(run)[1]["step"]
    torch.manual_seed(0)
    model = BernoulliModel(6, 2, MLP(2, 6, (8,)))
    guide = NormalGuide(6, 2, MLP(6, 4, (8,)))
    history = fit(
        model,
        guide,
        ROWS,
        run=run,
        resume=True,
        validation=0.2,
        epochs=6,
        batch_size=16,
        progress=False,
        clip_norm=50.0,
    )
    assert 0 < step < history.frame["step"].iloc[-1]
    assert history.frame["elbo"].to_numpy() == pytest.approx(EXPECTED["elbo"], abs=1e-6)


def test_a_run_without_a_list_of_its_modules_opens_and_resumes(tmp_path):
    """Before runs held what their files import, a run held the files of the two halves alone."""
    mine = tmp_path / "mine.py"
    model, run = users_class(mine, tmp_path / "flag")(6), tmp_path / "run"
    fit(model, None, ROWS, epochs=1, progress=False, run=run)
    info = read_json(run / "run.json")
    write_json(run / "run.json", {k: v for k, v in info.items() if k not in ("modules", "roots")})
    assert torch.equal(load(run, trust_code=True)[0].logits, model.logits)
    model = find_class(f"{mine}:Mine", "models")(6)
    fit(model, None, ROWS, epochs=2, progress=False, run=run, resume=True)
    mine.write_text(mine.read_text().replace("zeros", "ones"))
    model = find_class(f"{mine}:Mine", "models")(6)
    with pytest.raises(ValueError, match=r"mine\.py is not as it was when"):
        fit(model, None, ROWS, epochs=3, progress=False, run=run, resume=True)
