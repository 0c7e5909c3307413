"""A run holds the code that was fitted: the very bytes, and all that they reach."""

import importlib
import itertools
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch
from parts.runs import X

from ppl_vae import fit, load, log_likelihood, save
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.saving.kept_code import KeptCode
from ppl_vae.saving.statements import global_names, reached_statements

MODEL = """
    import pyro, pyro.distributions as dist, torch
    from pyro.nn import PyroModule
    {imports}

    SPREAD = 0.5

    def network(width):
        return torch.nn.Linear(width, 12)

    class Mine(PyroModule):
        def __init__(self, width):
            super().__init__()
            self.net = network(width)
            self.size = width

        def forward(self, x):
            with pyro.plate("data", len(x)):
                logits = self.net(x.new_ones(self.size)) * SPREAD {more}
                pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)
"""
COUNT = itertools.count()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder on Python's path, where ``write`` makes files and ``module`` imports one anew."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Project(folder)


class Project:
    def __init__(self, folder):
        self.folder = folder
        self.name = f"mine{next(COUNT)}"
        self.helpers = f"helpers{self.name}"

    def write(self, imports="", more="", name=None):
        path = self.folder / f"{name or self.name}.py"
        path.write_text(textwrap.dedent(MODEL).format(imports=imports, more=more))
        return path

    def edit(self, old, new, name=None):
        path = self.folder / f"{name or self.name}.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def module(self, name=None):
        for imported in (self.name, self.helpers):
            sys.modules.pop(imported, None)
        importlib.invalidate_caches()
        return importlib.import_module(name or self.name)


def test_a_file_edited_since_its_import_makes_no_recipe(project, tmp_path):
    project.write()
    model = project.module().Mine(2)
    project.edit("SPREAD = 0.5", "SPREAD = 5.0")
    with pytest.warns(UserWarning, match=r"weights without a recipe: SPREAD in .*other numbers"):
        save(model, None, tmp_path / "with", data=X)
    with pytest.raises(ValueError, match="gives other numbers"):
        load(tmp_path / "with", trust_code=True)
    with pytest.warns(UserWarning, match=r"SPREAD in the file of mine\d+ is not what the kept"):
        save(model, None, tmp_path / "without")
    project.edit("SPREAD = 5.0", "SPREAD = 0.5")
    project.edit("* SPREAD", "* SPREAD * 2")
    with pytest.warns(UserWarning, match=r"Mine in the file of mine\d+ is not what the kept"):
        save(model, None, tmp_path / "method")


def test_a_loaded_pair_computes_what_the_fitted_pair_computed(project, tmp_path):
    """The file is edited between the import and the fit, within the fit, and after it."""
    project.write()
    for moment in ("before", "within", "after"):
        project.write()
        model, run = project.module().Mine(2), tmp_path / moment

        def edit(*_, now="within", moment=moment):
            if now == moment:
                project.edit("SPREAD = 0.5", "SPREAD = 5.0")

        edit(now="before")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            fit(model, None, X, epochs=1, progress=False, run=run, callbacks=[edit])
        edit(now="after")
        refused = any("without a recipe" in str(w.message) for w in told)
        assert refused == (moment == "before")
        if not refused:
            again = load(run, trust_code=True)
            scores = [log_likelihood(m, None, X[:5], seed=0, progress=False)["log_prob"]
                      for m in (model, again[0])]  # fmt: skip
            assert scores[0].equals(scores[1])


def test_files_that_a_kept_file_imports_are_kept(project, tmp_path):
    """Wherever the import stands, and of a file that is no longer there when the run is loaded."""
    (project.folder / f"{project.helpers}.py").write_text("SHIFT = 0.25\n")
    project.write(f"from {project.helpers} import SHIFT", "+ SHIFT")
    model = project.module().Mine(2)
    save(model, None, tmp_path / "run", data=X)
    code = (
        "import sys, torch; from ppl_vae import load; import helpers_of_another_project;"
        "model, _ = load(sys.argv[1], trust_code=True);"
        "print(sys.modules[type(model).__module__].SHIFT)"
    )
    (tmp_path / "helpers_of_another_project.py").write_text("")
    (tmp_path / f"{project.helpers}.py").write_text("SHIFT = 99.0\n")
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")],
                            check=True, capture_output=True, text=True, cwd=tmp_path)  # fmt: skip
    assert result.stdout.strip() == "0.25"
    kept = tmp_path / "run" / "source" / "modules" / f"{project.helpers}.py"
    kept.write_text("SHIFT = 1.0\n")
    with pytest.raises(ValueError, match="changed since the run was made"):
        load(tmp_path / "run", trust_code=True)


def test_a_package_with_relative_imports_opens_again(project, tmp_path, monkeypatch):
    package = project.folder / f"package{project.name}"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("BASE = 0.125\n")
    (package / "deep" / "__init__.py").write_text("from .vae import Mine\n")
    (package / "deep" / "numbers.py").write_text("from .. import BASE\nSHIFT = BASE * 2\n")
    project.write("from .numbers import SHIFT\nfrom .. import other as helpers",
                  "+ SHIFT + helpers.more()", name=f"{package.name}/deep/vae")  # fmt: skip
    (package / "other.py").write_text(
        "def more():\n    from .deep import numbers\n    return numbers.SHIFT\n"
    )
    model = project.module(f"{package.name}.deep").Mine(2)
    save(model, None, tmp_path / "run", data=X)
    scores = [log_likelihood(model, None, X[:5], seed=0, progress=False)["log_prob"]]
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        monkeypatch.delitem(sys.modules, name)
    package.rename(project.folder / "gone")
    importlib.invalidate_caches()
    again, _ = load(tmp_path / "run", trust_code=True)
    scores += [log_likelihood(again, None, X[:5], seed=0, progress=False)["log_prob"]]
    assert scores[0].equals(scores[1])
    save(again, None, tmp_path / "second", data=X)  # from the copies of the first run
    third, _ = load(tmp_path / "second", trust_code=True)
    assert torch.equal(third.net.weight, model.net.weight)


def test_a_compiled_module_that_cannot_be_kept_is_named(project, tmp_path):
    from importlib.machinery import EXTENSION_SUFFIXES

    name = f"fast{project.name}"
    (project.folder / f"{name}{EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    project.write(f"try:\n    import {name}\nexcept ImportError:\n    pass")
    with pytest.warns(UserWarning, match=f"does not hold {name}, which the files"):
        save(project.module().Mine(2), None, tmp_path / "run", data=X)
    load(tmp_path / "run", trust_code=True)


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("mine", "SPREAD = 0.5", "SPREAD = 0.6", True),
        ("mine", "Linear(width, 12)", "Linear(width, 12, bias=1)", True),
        ("mine", "self.size = width", "self.size = width + 0", True),
        ("helpers", "SHIFT = 0.25", "SHIFT = 0.5 / 2", True),
        ("mine", "SPREAD = 0.5", "SPREAD = 0.5  # a comment\nUNRELATED = 3", False),
        ("helpers", "UNUSED = 1", "UNUSED = 2", False),
    ],
)  # fmt: skip
def test_resume_compares_all_that_a_class_reaches(file, old, new, changes, project, tmp_path):
    (project.folder / f"{project.helpers}.py").write_text("SHIFT = 0.25\nUNUSED = 1\n")
    project.write(f"from {project.helpers} import SHIFT", "+ SHIFT")
    run = tmp_path / "run"
    fit(project.module().Mine(2), None, X, epochs=1, progress=False, run=run)
    project.edit(old, new, {"mine": project.name, "helpers": project.helpers}[file])
    model = project.module().Mine(2)
    if changes:
        with pytest.raises(ValueError, match=rf"{file}\w*\.py is not as it was when"):
            fit(model, None, X, epochs=2, progress=False, run=run, resume=True)
    else:
        fit(model, None, X, epochs=2, progress=False, run=run, resume=True)


def test_saving_executes_the_users_file_without_effect_on_the_process(project, tmp_path, capsys):
    import pyro

    path = project.write()
    path.write_text(path.read_text() + textwrap.dedent("""
        import random, warnings
        pyro.clear_param_store()
        torch.manual_seed(3)
        random.seed(3)
        torch.set_default_dtype(torch.float64)
        print("executed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.warn("executed")
    """))  # fmt: skip
    dtype = torch.get_default_dtype()
    try:
        model = project.module().Mine(2)
        torch.set_default_dtype(dtype)
        model.float()
        with pyro.get_param_store().scope():
            pyro.param("hers", torch.ones(2))
            before = torch.get_rng_state()
            capsys.readouterr()
            save(model, None, tmp_path / "run", data=X)
            assert torch.equal(before, torch.get_rng_state())
            assert torch.get_default_dtype() is dtype
            assert list(pyro.get_param_store()) == ["hers"]
            assert capsys.readouterr().out == ""
    finally:
        torch.set_default_dtype(dtype)


def test_a_file_that_fits_when_it_is_executed_is_not_fitted_again(project, tmp_path):
    path = project.write()
    path.write_text(path.read_text() + textwrap.dedent(f"""
        from ppl_vae import fit
        rows, run = torch.ones(30, 12), {str(tmp_path / "run")!r}
        fit(Mine(2), None, rows, epochs=1, progress=False, run=run)
    """))  # fmt: skip
    message = (
        r"fit: called while the file .* is executed once more.* put the call under if __name__"
    )
    with pytest.warns(UserWarning, match=message) as told:
        project.module()
    assert len([w for w in told if "without a recipe" in str(w.message)]) == 1
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_files_with_any_name_and_files_that_end_the_program_are_kept_or_named(tmp_path):
    from ppl_vae.zoo.catalog import class_in_file

    (tmp_path / "my-net 1.py").write_text("import torch\nclass Net(torch.nn.Linear):\n    pass\n")
    net = class_in_file(tmp_path / "my-net 1.py", "Net")(3, 12)
    save(BernoulliModel(12, 3, net), NormalGuide(12, 3), tmp_path / "run", data=X)
    again, _ = load(tmp_path / "run", trust_code=True)
    assert torch.equal(again.decoder.weight, net.weight)
    with (tmp_path / "my-net 1.py").open("a") as file:
        file.write("import sys\nsys.exit(3)\n")
    with pytest.warns(UserWarning, match=r"line 5: SystemExit: 3; load\(run\) will ask"):
        save(BernoulliModel(12, 3, net), NormalGuide(12, 3), tmp_path / "exits", data=X)


def test_a_wrapped_half_has_no_recipe_because_the_wrapper_is_part_of_the_model(tmp_path):
    from pyro import poutine

    with pytest.warns(UserWarning, match="the model is wrapped in a handler of Pyro"):
        save(poutine.scale(BernoulliModel(12, 3), 0.5), None, tmp_path, data=X)


def test_names_of_a_module_are_told_from_variables_of_functions():
    text = (
        "@deco\nclass A(B):\n    c = D\n    def f(self, x: Note):\n        y = E\n        return y"
    )
    assert global_names(text) == {"deco", "B", "D", "E"}
    text = b"x = []\nx.append(1)\nclass A:\n    def f(self, y):\n        return x, y\ny = 3\n"
    files = {"m": text}
    assert set(reached_statements(files, "m", "A")) == {("m", "A"), ("m", "x")}
    assert "append" in reached_statements(files, "m", "A")["m", "x"]


def test_two_runs_with_two_versions_of_a_file_do_not_meet(tmp_path):
    text = b"import b\ndef f():\n    import b as c\n    return c.N"
    codes = [
        KeptCode(tmp_path / folder, {"a": ("a.py", text), "b": ("b.py", f"N = {number}".encode())})
        for folder, number in (("one", 1), ("two", 2))
    ]
    functions = [code.member("a", "f") for code in codes]
    assert [function() for function in functions] == [1, 2]
    assert "a" not in sys.modules
