"""What a user installs: every file in the wheel, names where the README says they are."""

import subprocess
import sys
import zipfile
from pathlib import Path

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


def test_every_public_name_loads_and_no_file_or_folder_bears_one():
    assert set(ppl_vae.__all__) == set(dir(ppl_vae))
    for name in ppl_vae.__all__:
        assert getattr(ppl_vae, name) is not None
    taken = {
        path.stem for path in (ROOT / "ppl_vae").iterdir()
    }  # importing one would hide the name
    assert not taken & set(ppl_vae.__all__)


def test_importing_the_package_is_light():
    code = "import sys, ppl_vae; sys.exit('torch' in sys.modules or 'pyro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_docstring_examples_are_true():
    import doctest
    import importlib
    import pkgutil

    import torch

    names = [found.name for found in pkgutil.walk_packages(ppl_vae.__path__, "ppl_vae.")]
    total = 0
    for name in names:
        module = importlib.import_module(name)
        torch.manual_seed(0)
        result = doctest.testmod(module, extraglobs={"torch": torch})
        assert result.failed == 0, name
        total += result.attempted
    assert total >= 20
