"""Install built packages, each into an empty environment, and use the library there.

    python scripts/smoke_test.py build/dist/*                         wheel and source archive
    python scripts/smoke_test.py build/dist/*.whl --python python3.13 --torch 2.8.0
    python scripts/smoke_test.py --here                               what this Python has installed

Packages get the versions of constraints.txt; `--torch` gives torch another one. Environments and
working directories lie in temporary folders: nothing of the repository is on the path.
"""

import argparse
import importlib
import importlib.metadata
import importlib.resources
import math
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Try the packages that the command line names, or the installed one."""
    parser = argparse.ArgumentParser(description="Install built packages and use the library.")
    parser.add_argument("packages", nargs="*", type=Path, help="Wheels and source archives.")
    parser.add_argument("--python", default=sys.executable, help="The Python of the environments.")
    parser.add_argument("--torch", help="A version of torch other than that of constraints.txt.")
    parser.add_argument("--here", action="store_true", help="Try what this Python has installed.")
    arguments = parser.parse_args()
    if arguments.here == bool(arguments.packages):
        parser.error("expected files of packages, or --here for what is installed")
    if arguments.here:
        with tempfile.TemporaryDirectory() as folder:
            use_the_library(Path(folder))
    for package in arguments.packages:
        with tempfile.TemporaryDirectory() as folder:
            install_and_use(package.resolve(), Path(folder), arguments.python, arguments.torch)


def install_and_use(package: Path, folder: Path, python: str, torch: str | None) -> None:
    """Install a package into a new environment in a folder, and use the library there."""
    print(f"{package.name}: into an empty environment of {python}", flush=True)
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    if torch:
        lines = [f"torch=={torch}", *(line for line in lines if not line.startswith("torch=="))]
    (folder / "constraints.txt").write_text("\n".join(lines) + "\n")
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    pip = [folder / "venv/bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-c", folder / "constraints.txt", package], check=True)
    subprocess.run([*pip, "check"], check=True)
    command = [folder / "venv/bin/python", "-I", Path(__file__).resolve(), "--here"]
    subprocess.run(command, cwd=folder, check=True)


def use_the_library(folder: Path) -> None:
    """Use what is installed, and end with an error where anything is missing or wrong."""
    version = importlib.metadata.version("ppl-vae")
    files_are_installed()
    command_answers(version)
    count = zoo_is_installed()
    import torch  # noqa: PLC0415 - the files are looked for before the long import

    fit_is_kept(folder)
    print(
        f"ppl-vae {version} works with Python {sys.version.split()[0]}, torch {torch.__version__}"
        f" and Pyro {importlib.metadata.version('pyro-ppl')}: {count} models and guides",
        flush=True,
    )


def files_are_installed() -> None:
    """Look for files beside the modules, in the folder of this environment."""
    package = importlib.resources.files("ppl_vae")
    expect(Path(str(package)).is_relative_to(sys.prefix), f"{package} is in {sys.prefix}")
    for name in ("py.typed", "report/templates/page.html", "report/templates/report.css"):
        expect(package.joinpath(name).is_file(), f"{name} is in {package}")


def command_answers(version: str) -> None:
    """Ask the command ``ppl-vae`` for its version and its models."""
    command = Path(sys.executable).with_name("ppl-vae")
    said = subprocess.run([command, "--version"], check=True, capture_output=True, text=True)
    expect(said.stdout.strip() == version, f"ppl-vae --version is {version}")
    listed = subprocess.run([command, "list"], check=True, capture_output=True, text=True).stdout
    expect("bernoulli" in listed and "mean_field" in listed, "ppl-vae list shows the zoo")


def zoo_is_installed() -> int:
    """Import every model and guide, and return how many there are."""
    count = 0
    for package in ("ppl_vae.models", "ppl_vae.guides"):
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{found.name}")
            count += 1
    expect(count > 50, "ppl_vae.models and ppl_vae.guides have their files")
    return count


def fit_is_kept(folder: Path) -> None:
    """Fit a pair, evaluate it, store it, open it again, and write its report."""
    import torch  # noqa: PLC0415

    import ppl_vae  # noqa: PLC0415
    from ppl_vae.guides.normal import NormalGuide  # noqa: PLC0415
    from ppl_vae.models.bernoulli import BernoulliModel  # noqa: PLC0415

    torch.manual_seed(0)
    rows = (torch.rand(64, 1) < torch.linspace(0.1, 0.9, 6)).float()
    model, guide = BernoulliModel(6, latents=2), NormalGuide(6, latents=2)
    before = ppl_vae.log_likelihood(model, guide, rows, seed=0)["log_prob"].mean()
    history = ppl_vae.fit(model, guide, rows, epochs=20, progress=False, seed=0)
    after = ppl_vae.log_likelihood(model, guide, rows, seed=0)["log_prob"]
    expect(before < after.mean() < 0, f"a fit improves {before} to {after.mean()}")
    expect(math.isfinite(history.frame["elbo"].iloc[-1]), "the history ends with a number")
    ppl_vae.save(model, guide, folder / "run", data=rows)
    again = ppl_vae.load(folder / "run")
    opened = ppl_vae.log_likelihood(*again, rows, seed=0)["log_prob"]
    expect((opened == after).all(), "a stored pair gives the log-likelihoods that it gave before")
    page = folder / "report.html"
    ppl_vae.write_report(model, guide, rows, page, num_samples=100, replicates=100)
    expect("</html>" in page.read_text(), "the report is a whole page")


def expect(true: bool, what: str) -> None:
    """End with an error unless something is as it should be."""
    if not true:
        raise SystemExit(f"not so: {what}")


if __name__ == "__main__":
    main()
