"""The notebooks are what the script makes of the examples, and they run from start to end."""

import importlib.util
import re
from pathlib import Path

import pytest
from parts.extras import sklearn

nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install 'ppl-vae[dev]'")
nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install 'ppl-vae[dev]'")
pytest.importorskip("ipykernel", reason="needs ipykernel: pip install 'ppl-vae[dev]'")
sklearn("datasets")  # the examples read its wines, digits and tumours
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "notebooks"
SETTINGS = {
    "correlated_posterior": {"epochs": 60},
    "digits": {"epochs": 3},
    "strange_rows": {"epochs": 2, "draws": 30},
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "scripts" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebooks_are_what_the_script_makes_of_the_examples(script):
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(script.NAMES) == set(SETTINGS)
    for name in script.NAMES:
        made = script.notebook_text(name)
        assert (FOLDER / f"{name}.ipynb").read_text() == made, "run scripts/notebooks.py"
        nbformat.validate(nbformat.reads(made, 4))


def test_every_statement_of_an_example_but_the_command_line_is_in_its_notebook(script):
    for name in script.NAMES:
        source = (ROOT / "examples" / f"{name}.py").read_text()
        code = source.partition('"""\n')[2].partition("\nif __name__")[0]  # without docstring, call
        cells = "\n".join(cell.source for cell in script.notebook(source, name).cells)
        known = {line.strip().removeprefix("# ") for line in cells.splitlines()}
        lost = {line.strip().removeprefix("# ") for line in code.splitlines()} - known - {""}
        only_there = (
            r"import argparse|import matplotlib as mpl|mpl\.use|parser|arguments = |def main"
        )
        assert all(re.match(rf'{only_there}|"""', line) for line in lost), (name, lost)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_a_notebook_runs_and_its_figures_have_a_text_beside_them(name, tmp_path):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    (settings,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for option, value in SETTINGS[name].items():
        settings.source, count = re.subn(rf"\b{option}=\d+", f"{option}={value}", settings.source)
        assert count == 1
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert figures
    for figure in figures:
        assert len(figure.metadata["image/png"]["alt"]) > len("Figure: ")
    assert list((tmp_path / "runs" / name).glob("*.png"))
    assert "Try next" in "".join(output.get("text", "") for output in outputs)
