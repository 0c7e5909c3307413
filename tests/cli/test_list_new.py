"""``list`` shows the zoo; ``new`` copies a pair from the zoo, ready to run and to edit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from parts.zoo import needs_guide

from ppl_vae.cli import new
from ppl_vae.zoo.catalog import Entry, zoo

LATENT = [name for name, entry in zoo("models").items() if entry.needs_guide]
EVERY_FILE = [(model, "normal") for model in LATENT]
EVERY_FILE += [("gaussian", guide) for guide in zoo("guides") if guide != "normal"]


def test_list_shows_models_by_the_rows_they_are_for(ppl):
    shown, told = ppl("list").out, ppl("list", "--json").json
    for kind in ("models", "guides"):
        assert list(told[kind]) == list(zoo(kind))
        for name, entry in told[kind].items():
            assert name in shown
            assert entry["title"].removesuffix(".") in shown
            assert any("~" in line for line in entry["equations"])
            assert Path(entry["path"]).is_file()
    for name, entry in told["models"].items():
        assert entry["rows"].endswith("."), f"models/{name}.py says of no rows: Rows: ..."
        assert entry["rows"].removesuffix(".") in shown


def test_a_name_or_equations_shows_equations(ppl):
    one, every = ppl("list", "bernoulli", "normal").out, ppl("list", "--equations").out
    for name, kind in (("bernoulli", "models"), ("normal", "guides")):
        entry = zoo(kind)[name]
        for text in (one, every):
            assert all(line.strip() in text for line in entry.equations.splitlines())
            assert entry.class_name in text
    assert "GaussianModel" in every
    assert "GaussianModel" not in one
    assert list(ppl("list", "bernoulli", "--json").json["models"]) == ["bernoulli"]
    assert "did you mean gaussian?" in ppl("list", "gausian", code=2).err


@pytest.mark.parametrize("model", [name for name in zoo("models") if name not in LATENT])
def test_new_copies_a_model_that_needs_no_guide(ppl, model):
    told = ppl("new", model, "none", "--into", "mine", "--json").json
    assert told["files"] == [f"mine/models/{model}.py", "mine/fit.py"]
    assert told["pair"] == [f"mine/models/{model}.py:{zoo('models')[model].class_name}", "none"]
    script = Path("mine/fit.py").read_text()
    compile(script, "fit.py", "exec")
    assert "guide = None" in script
    assert "guides" not in script


def test_new_refuses_a_pair_that_does_not_fit_together(ppl):
    told = ppl("new", "flow", "normal", code=2).err
    assert "flow has nothing latent for a guide to draw: expected none as GUIDE" in told
    told = ppl("new", "gaussian", "none", code=2).err
    guides = " or ".join(zoo("guides"))
    assert f"gaussian has latents, which a guide draws: expected {guides} as GUIDE" in told
    assert not list(Path().iterdir())


def test_the_catalog_knows_from_the_text_which_models_need_a_guide():
    for name, entry in zoo("models").items():
        assert entry.needs_guide is needs_guide(name)


@pytest.mark.parametrize(("model", "guide"), EVERY_FILE)
def test_new_copies_files_unchanged_and_writes_a_script_that_compiles(ppl, model, guide):
    written = ppl("new", model, guide, "--into", "mine", "--json").json["files"]
    assert written == [f"mine/models/{model}.py", f"mine/guides/{guide}.py", "mine/fit.py"]
    assert Path(written[0]).read_text() == zoo("models")[model].path.read_text()
    assert Path(written[1]).read_text() == zoo("guides")[guide].path.read_text()
    compile(Path(written[2]).read_text(), "fit.py", "exec")


def test_new_never_overwrites_an_edited_file_without_force(ppl):
    ppl("new", "gaussian", "normal")
    Path("models/gaussian.py").write_text("# mine\n")
    Path("models/__init__.py").write_text("# mine too\n")
    done = ppl("new", "gaussian", "normal", code=2)
    assert "models/gaussian.py" in done.err
    assert Path("models/gaussian.py").read_text() == "# mine\n"
    ppl("new", "gaussian", "normal", "--force")
    assert "GaussianModel" in Path("models/gaussian.py").read_text()
    assert Path("models/__init__.py").read_text() == "# mine too\n"


def test_the_script_runs_unchanged(ppl, wine_file):
    ppl("new", "gaussian", "normal", "--quiet")
    script = Path("fit.py")
    script.write_text(script.read_text().replace("epochs=200", "epochs=2"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "fit.py", str(wine_file)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "TraceMeanField_ELBO" in done.stdout
    (run,) = Path("runs").iterdir()
    shown = ppl("show", run, "--json").json
    assert shown["history"]["epochs"] == 2
    assert shown["recipe"]["model"]["class"].endswith(":GaussianModel")


def test_copied_files_are_accepted_by_the_command(ppl, wine_file):
    pair = ppl("new", "gaussian", "normal", "--json").json["pair"]
    assert ppl("lint", *pair, wine_file, "--json").json["ok"]


PARTNER = """
class Prior(Module):
    def __init__(self, features, latents=4, *, guide): ...
"""


def test_the_script_builds_a_partner_first(tmp_path):
    (tmp_path / "vamp.py").write_text(PARTNER)
    vamp = Entry("vamp", tmp_path / "vamp.py", "Prior", "", "")
    built = new._built(vamp, zoo("guides")["normal"])
    assert built.splitlines()[1:] == [
        "guide = build(NormalGuide, data, latents=latents)",
        "model = build(Prior, data, latents=latents, guide=guide)",
    ]


def test_the_script_gives_a_pair_the_fields_and_the_latents_that_it_takes(ppl):
    def script(*pair):
        ppl("new", *pair, "--into", "mine", "--force")
        return Path("mine/fit.py").read_text()

    local = script("bernoulli", "local")
    assert '"index": torch.arange(len(data))' in local
    assert "validation" not in local  # rows that are held out have no parameters
    assert 'fields={"y": "label"}' in script("conditional", "conditional")
    sparse = script("sparse", "normal")  # its number of latents comes from the data
    assert "build(SparseModel, data)" in sparse
    assert "build(NormalGuide, data, latents=model.latents)" in sparse
