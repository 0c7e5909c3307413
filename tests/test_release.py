"""What a release says of itself: one version, a source archive with all files, promises kept."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ppl_vae
from ppl_vae.cli.main import app

yaml = pytest.importorskip("yaml", reason="needs pyyaml, which pre-commit brings: '.[dev]'")
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_SHIPPED = (".ci/", ".github/", ".gitignore")
MADE_BY_THE_BUILD = {"PKG-INFO", "setup.cfg"}


def tracked():
    """The files that the repository keeps."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of the repository")
    command = ["git", "ls-files"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in said.splitlines() if (ROOT / name).exists()}


def test_the_version_stands_in_one_place_and_is_told_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert ppl_vae.__version__ == PROJECT["version"] == citation["version"]
    assert CliRunner().invoke(app, ["--version"]).output.strip() == PROJECT["version"]
    assert f"\n## {PROJECT['version']}" in text("CHANGELOG.md")


def test_the_citation_has_what_its_format_asks_for():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert set(citation) >= {"authors", "cff-version", "message", "title"}  # the required keys
    assert citation["authors"]
    for author in citation["authors"]:  # an entity, or a person
        assert set(author) == {"name"} or set(author) >= {"family-names", "given-names"}
    assert citation["type"] == "software"
    assert citation["license"] == PROJECT["license"]
    assert isinstance(citation["version"], str)
    assert all(isinstance(word, str) for word in citation["keywords"])


def test_the_source_archive_holds_what_the_repository_keeps_and_nothing_else(tmp_path):
    here = tmp_path / "here"
    for name in tracked():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, here / name)
    kept = {name for name in tracked() if not name.startswith(NOT_SHIPPED)}
    for junk in (".venv/lib/x.py", "build/tree/x.py", "runs/x/run.json", "tests/x.pyc", "notes.txt",
                 "models/__pycache__/normal.cpython-311.pyc", ".env", "dist/x.whl",
                 "docs/zoo/x.md", "docs/_generated/errors.md", "docs/gallery/x.rst"):  # fmt: skip
        (here / junk).parent.mkdir(parents=True, exist_ok=True)
        (here / junk).write_text("")
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, cwd=here, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {member.name.partition("/")[2] for member in opened if member.isfile()}
    names = {name for name in names if not name.startswith("ppl_vae.egg-info/")} - MADE_BY_THE_BUILD
    assert not kept - names, f"MANIFEST.in leaves out {sorted(kept - names)}"
    assert not names - kept, f"MANIFEST.in takes in {sorted(names - kept)}"


def test_forms_for_issues_ask_for_version_pair_and_lint():
    folder = ROOT / ".github/ISSUE_TEMPLATE"
    if not folder.exists():
        pytest.skip("a source archive has no forms")
    form = yaml.safe_load((folder / "bug.yml").read_text())
    asked = {item["id"]: item["attributes"]["description"] for item in form["body"]}
    assert "ppl-vae --version" in asked["version"]
    assert "lint(model, guide, data)" in asked["lint"]
    for file in folder.iterdir():
        form = yaml.safe_load(file.read_text())
        assert set(form) >= {"name", "description", "body"}  # else the page shows no form
        for item in form["body"]:
            assert item["attributes"]["label"]


def test_the_workflow_tries_each_python_that_is_told_and_the_oldest_torch():
    path = ROOT / ".github/workflows/test.yml"
    if not path.exists():
        pytest.skip("a source archive has no workflow")
    jobs = yaml.safe_load(path.read_text())["jobs"]
    told = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if " 3." in line]
    assert jobs["all"]["strategy"]["matrix"]["python"] == told
    assert min(told, key=lambda version: int(version[2:])) == PROJECT["requires-python"][2:]
    assert jobs["all"]["steps"][-1]["run"] == "bash .ci/run"
    oldest = dict(line.split(">=") for line in PROJECT["dependencies"])
    tried = jobs["torch"]["strategy"]["matrix"]["include"]
    assert {"torch": f"{oldest['torch']}.0", "pyro": oldest["pyro-ppl"]}.items() <= tried[0].items()


def test_the_library_reads_no_pickle_and_opens_no_connection():
    reads = re.compile(r"\b(?:c?[pP]ickle|dill|joblib|torch)\.loads?\(|allow_pickle=True"
                       r"|^\s*(?:import|from) (?:urllib|http|requests)\b", re.M)  # fmt: skip
    for folder in ("ppl_vae", "models", "guides"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not reads.search(path.read_text()), path


def test_every_hook_runs_from_the_environment_of_the_makefile():
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"  # no hook is fetched
    for hook in repository["hooks"]:
        program, *words = hook["entry"].split()
        assert hook["language"] == "system"
        if program == "make":
            assert re.search(rf"^{words[0]}:", text("Makefile"), re.M)
        else:
            assert (ROOT / program).exists() or not (ROOT / ".venv").exists()


def text(name):
    return (ROOT / name).read_text()
