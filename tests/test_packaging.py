"""What a user installs: all files in the wheel, public names, import contracts, examples."""

import doctest
import importlib
import pkgutil
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pytest
import torch
from parts import extras

import ppl_vae

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_library_the_models_and_the_guides(tmp_path):
    for folder in ("ppl_vae", "models", "guides"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*build, "-w", str(tmp_path), "."], cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(Path("ppl_vae", "" if folder == "ppl_vae" else folder, path.relative_to(ROOT / folder)))
        for folder in ("ppl_vae", "models", "guides")
        for path in (ROOT / folder).rglob("*.py")
    }
    templates = (ROOT / "ppl_vae/report/templates").iterdir()
    assets = {"ppl_vae/py.typed", *(f"ppl_vae/report/templates/{file.name}" for file in templates)}
    assert wanted | assets <= held


def test_every_public_name_loads_and_no_file_or_folder_has_the_same_name():
    assert set(ppl_vae.__all__) == set(dir(ppl_vae))
    for name in ppl_vae.__all__:
        assert getattr(ppl_vae, name) is not None
    taken = {
        path.stem for path in (ROOT / "ppl_vae").iterdir()
    }  # importing one would hide the name
    assert not taken & set(ppl_vae.__all__)


def test_importing_the_package_loads_neither_torch_nor_pyro():
    code = "import sys, ppl_vae; sys.exit('torch' in sys.modules or 'pyro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


FOLDERS = "a folder imports only from the folders on the lines below its own"
CIRCLES = "no circle of imports among folders, nor among the files of a folder"


@pytest.mark.parametrize(
    ("planted", "broken"),
    [
        ({}, None),
        ({"schedules.py": "ppl_vae.elbo.bounds"}, FOLDERS),
        ({"cli/console.py": "ppl_vae.models.bernoulli"}, FOLDERS),
        ({"models/bernoulli.py": "ppl_vae.guides.normal"}, FOLDERS),
        ({"nn/mlp.py": "ppl_vae.nn.scaling", "nn/scaling.py": "ppl_vae.nn.mlp"}, CIRCLES),
    ],
    ids=["nothing", "upward", "library to zoo", "model to guide", "circle"],
)
def test_the_import_contracts_notice_a_planted_import(planted, broken, tmp_path):
    pytest.importorskip("importlinter", reason="needs import-linter: pip install -e '.[dev]'")
    package, ignore = tmp_path / "ppl_vae", shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ppl_vae", package, ignore=ignore)
    for folder in ("models", "guides"):
        shutil.copytree(ROOT / folder, package / folder, ignore=ignore)
    for file, name in planted.items():
        with (package / file).open("a") as text:
            text.write(f"\nimport {name}\n")
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    command += ["--config", ROOT / "pyproject.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    for contract in (FOLDERS, CIRCLES):
        verdict = "BROKEN" if contract == broken else "KEPT"
        assert f"{contract} {verdict}" in " ".join(done.stdout.split()), done.stdout
    assert done.returncode == (0 if broken is None else 1)


MODULES = [found.name for found in pkgutil.walk_packages(ppl_vae.__path__, "ppl_vae.")]


def test_the_docstring_examples_of_arviz_are_true():
    extras.arviz()
    assert run_examples("ppl_vae.arviz") > 0


def test_all_other_docstring_examples_are_true():
    total = sum(run_examples(name) for name in MODULES if name != "ppl_vae.arviz")
    assert total >= 20


def run_examples(name):
    """Run the docstring examples of a module; returns how many there were."""
    module = importlib.import_module(name)
    torch.manual_seed(0)
    result = doctest.testmod(module, extraglobs={"torch": torch})
    plt.close("all")  # matplotlib warns of many open figures
    pyro.clear_param_store()  # examples that trace a half leave its parameters there
    assert result.failed == 0, name
    return result.attempted
