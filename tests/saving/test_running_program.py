"""Classes of the running script and of a notebook open again; what cannot says so when saved."""

import linecache
import subprocess
import sys
import textwrap
from types import ModuleType

import pytest
import torch
from parts.runs import X

from ppl_vae import fit, load, log_likelihood, save

SETUP = """
    import math
    import pyro, pyro.distributions as dist, torch
    import torch.nn.functional as F
    from torch import Tensor, nn
    from pyro.nn import PyroModule
    x = "a name of the program that is a variable of every method"
    SIZES = {"width": (3, 12), "scale": [0.5, float("inf")]}
    SHIFT = torch.tensor([0.25])
    KIND = torch.float32
"""
HELPERS = """
    def network(width, outputs):
        return Layers(nn.Linear(width, outputs), F.softplus)

    class Layers(nn.Module):
        def __init__(self, first, then):
            super().__init__()
            self.first, self.then = first, then
        def forward(self, z):
            return self.then(self.first(z))
"""
CLASS = """
    class Mine(PyroModule):
        '''A model of a notebook.'''

        def __init__(self, kind: Tensor | None = None) -> None:
            super().__init__()
            self.net = network(*SIZES["width"])

        def forward(self, x):
            ones = torch.ones(SIZES["width"][0], dtype=KIND)
            logits = self.net(ones) * SIZES["scale"][0] + SHIFT - math.log(2)
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)
"""


@pytest.fixture
def notebook(monkeypatch):
    """Run cells as a notebook does: under names that are no files, in the program's module."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)

    def run(cell):
        text = textwrap.dedent(cell)
        name = f"<ipython-input-{len(linecache.cache)}-{id(main)}>"
        lines = text.splitlines(keepends=True)
        monkeypatch.setitem(linecache.cache, name, (len(text), None, lines, name))
        exec(compile(text, name, "exec"), vars(main))
        return main

    return run


def scores(*models):
    return [log_likelihood(m, None, X[:6], seed=0, progress=False)["log_prob"] for m in models]


def test_a_class_of_a_notebook_opens_again(notebook, tmp_path):
    for cell in (SETUP, HELPERS, CLASS):
        main = notebook(cell)
    model = main.Mine()
    fit(model, None, X, epochs=1, progress=False, run=tmp_path / "run")
    save(model, None, tmp_path / "saved", data=X)
    before = scores(model)[0]
    fit(model, None, X, epochs=1, progress=False, run=tmp_path / "run", resume=True)
    vars(main).clear()
    for run in ("run", "saved"):
        assert scores(load(tmp_path / run, trust_code=True)[0])[0].equals(before)
    assert "class Mine" in (tmp_path / "run" / "source" / "model.py").read_text()
    again, _ = load(tmp_path / "run", trust_code=True)
    save(again, None, tmp_path / "again", data=X)
    assert scores(load(tmp_path / "again", trust_code=True)[0])[0].equals(before)


def test_the_values_of_the_program_are_kept_and_not_those_of_its_text(notebook, tmp_path):
    for cell in (SETUP, HELPERS, CLASS):
        main = notebook(cell)
    main.SIZES["scale"][0] = 2.0
    model = main.Mine()
    save(model, None, tmp_path / "run", data=X)
    first, second = scores(model, load(tmp_path / "run", trust_code=True)[0])
    assert first.equals(second)
    fit(model, None, X, epochs=1, progress=False, run=tmp_path / "fit")
    main.SIZES["scale"][0] = 3.0
    with pytest.raises(ValueError, match=r"is not as it was when"):
        fit(main.Mine(), None, X, epochs=2, progress=False, run=tmp_path / "fit", resume=True)


def test_of_a_class_defined_twice_the_one_that_was_used_is_kept(notebook, tmp_path):
    for cell in (SETUP, HELPERS, CLASS):
        main = notebook(cell)
    model = main.Mine()
    notebook(CLASS.replace("+ SHIFT", "- SHIFT"))
    save(model, None, tmp_path / "run", data=X)
    first, second = scores(model, load(tmp_path / "run", trust_code=True)[0])
    assert first.equals(second)
    assert first.equals(scores(main.Mine())[0]) is False


GLOBAL_NETWORK = """
    net = nn.Linear(3, 12)
    def network(*_):
        return net
"""
LOCAL_CLASS = """
    def make():
        class Local(nn.Module):
            def forward(self, z): return z
        return Local
    Local = make()
    def network(*_):
        return Local()
"""


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (GLOBAL_NETWORK, "network reads net of the running program.*a Linear"),
        (LOCAL_CLASS, "network reads Local, which is defined within a function"),
    ],
    ids=["global network", "local class"],
)
def test_what_a_class_reads_and_no_file_can_hold_is_named_when_saving(
    cell, message, notebook, tmp_path
):
    notebook(SETUP)
    notebook(cell)
    main = notebook(CLASS)
    with pytest.warns(UserWarning, match=f"without a recipe: {message}"):
        save(main.Mine(), None, tmp_path / "run", data=X)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "run", trust_code=True)


def test_a_class_typed_at_a_prompt_says_so_when_it_is_fitted(notebook, tmp_path):
    for cell in (SETUP, HELPERS):
        main = notebook(cell)
    exec(compile(textwrap.dedent(CLASS), "<stdin>", "exec"), vars(main))
    with pytest.warns(UserWarning, match=r"the text of Mine is not known.* typed at a prompt"):
        fit(main.Mine(), None, X, epochs=1, progress=False, run=tmp_path / "run")


def test_a_local_class_and_a_closure_say_so_when_they_are_saved(tmp_path):
    class Local(torch.nn.Module):
        def forward(self, x):
            pass

    for name, half in (("Local", Local()), ("closure", lambda x: None)):
        with pytest.warns(UserWarning, match="is not a torch module class at the top level"):
            save(half, None, tmp_path / name)


def test_the_class_of_a_script_opens_again_and_the_script_is_not_executed_again(tmp_path):
    script = tmp_path / "train.py"
    lines = [SETUP, CLASS, HELPERS, """
        import sys, warnings
        from ppl_vae import fit
        warnings.simplefilter("error")
        print("executed")
        rows = torch.load(sys.argv[1])
        fit(Mine(), None, rows, epochs=1, progress=False, run="run")
    """]  # fmt: skip
    script.write_text("\n".join(textwrap.dedent(part) for part in lines))
    torch.save(X, tmp_path / "x.pt")
    ran = subprocess.run([sys.executable, str(script), str(tmp_path / "x.pt")], cwd=tmp_path,
                         check=True, capture_output=True, text=True)  # fmt: skip
    assert ran.stdout == "executed\n"
    script.unlink()
    model, _ = load(tmp_path / "run", trust_code=True)
    assert model.net.first.weight.shape == (12, 3)
    assert "train" not in (tmp_path / "run" / "source" / "model.py").read_text()
