"""The command starts fast, has help, and refuses wrong command lines."""

import inspect
import json
import subprocess
import sys

import pytest

import ppl_vae
from ppl_vae.cli.fit import fit as fit_command
from ppl_vae.cli.main import app

HEAVY = ("torch", "pyro", "numpy", "pandas", "matplotlib", "sklearn", "pyarrow")
COMMANDS = [command.name for command in app.registered_commands]


@pytest.mark.parametrize(
    "words",
    [["--help"], ["fit", "--help"], ["list"], ["new", "gaussian", "normal"], ["--version"],
     ["fit", "gaussian", "normal", "x.csv"], ["fit", "gausian", "normal", "x.csv", "--run", "r"]],
    ids=" ".join,
)  # fmt: skip
def test_slow_imports_wait_until_they_are_needed(words, tmp_path):
    code = (
        "import json, sys; from ppl_vae.cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    command = [sys.executable, "-W", "error", "-c", code, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout.splitlines()[-1]) == [], done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_json_quiet_and_exit_codes(ppl, command):
    shown = ppl(command, "--help").out
    for word in ("--json", "--quiet", "Exit codes: 0 done"):
        assert word in shown


def test_the_commands_are_those_of_the_design():
    design = ["list", "new", "lint", "fit", "evaluate", "check", "compare"]
    design += [
        "audit",
        "encode",
        "generate",
        "impute",
        "score",
        "report",
        "show",
        "schema",
        "shuffle",
    ]
    assert design == COMMANDS


def test_defaults_are_those_of_the_library():
    library = inspect.signature(ppl_vae.fit).parameters
    command = inspect.signature(fit_command).parameters
    shared = set(library) & set(command) - {"model", "guide", "data", "run"}
    assert len(shared) >= 8
    for name in shared:
        assert command[name].default == library[name].default, name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fitt"], "Did you mean 'fit'"),
        (["fit", "gaussian", "normal"], "Missing argument"),
        (
            ["fit", "gaussian", "normal", "x.csv", "--run", "r", "--epochs", "0"],
            "'--epochs'",
        ),
        (["fit", "gaussian", "normal", "x.csv", "--run", "r", "--epoch", "1"], "--epochs"),
        (["lint", "gausian", "normal", "x.csv"], "did you mean gaussian?"),
        (["lint", "gaussian", "normla", "x.csv"], "did you mean normal?"),
        (["lint", "mine.py", "normal", "x.csv"], "mine.py:Class"),
        (["lint", "mine.py:Mine", "normal", "wine.csv"], "mine.py: no such file"),
        (["lint", "gaussian", "normal", "wines.csv"], "no such file; did you mean wine.csv?"),
        (["lint", "gaussian", "normal", "away/x.csv"], "there is no folder away"),
        (["lint", "gaussian", "normal", "wine.csv", "--set", "latents"], "NAME=VALUE"),
        (["lint", "gaussian", "normal", "wine.csv", "--set", "latent=2"], "did you mean latents?"),
        (["lint", "gaussian", "normal", "wine.csv", "--set", "both.latents=2"], "model.NAME"),
        (["lint", "gaussian", "normal", "wine.csv", "--set", "guide.decoder=2"], "NormalGuide"),
        (["encode", "runs/none", "wine.csv"], "no such run directory"),
        (["show", "runs/none"], "no such run directory"),
        (["new", "gaussian", "norml"], "did you mean normal or logistic_normal?"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_why(ppl, wine_file, tmp_path, words, message):
    (tmp_path / "wine.csv").write_bytes(wine_file.read_bytes())
    done = ppl(*words, code=2)
    assert message in " ".join(done.err.replace("│", " ").split())
    assert done.out == ""
    assert "Traceback" not in done.err


def test_an_error_is_in_json_as_well(ppl):
    done = ppl("show", "runs/none", "--json", code=2)
    assert done.json == {"error": "runs/none: no such run directory"}
