"""Every program of every page runs, with few epochs, and prints what its page says it prints.

A page's programs run one after the other as one program. A page that goes on from another one says
so, and begins with that page's program; a page that edits another one's program is that program
with the edits. A new page with a program has to say in ``PRINTS`` what the program prints.
"""

import ast
import importlib
import re
import subprocess
import sys
import warnings

import pytest
from parts import extras
from parts.scripts import run_script
from parts.site import DOCS, ROOT, blocks, edited, linked, pages, program, text_of
from typer.main import get_command

from ppl_vae.cli.main import app

SHORTER = {
    r"epochs=\d\d+": "epochs=2",
    r"hidden=\(128,\)": "hidden=(32,)",
    r"num_samples=(1000|2000|5000)\b": "num_samples=50",
    r"load_digits\(\)\.(data|images)": r"load_digits().\1[:300]",
}
"""What is shortened on every page: {pattern: replacement}."""

OWN = {
    "choose.md": {"x[:200]": "x[:20]", "x[:50])": "x[:10], steps=5, num_samples=50)"},
    "howto/check_a_fit.md": {},
    "howto/compare.md": {"(pairs, held_out)": "(pairs, held_out, num_samples=50)"},
    "howto/counts.md": {"(model, guide, data)[": "(model, guide, data, num_samples=50)["},
    "howto/discrete_latents.md": {"num_draws=100": "num_draws=3"},
    "howto/from_scikit_learn.md": {
        "n_jobs=2": "n_jobs=1",
        "[2, 4]": "[2]",
        '["gaussian", "student", "ppca"]': '["gaussian"]',
        "LatentClassifier(": "LatentClassifier(epochs=2, ",
    },
    "howto/score_anomalies.md": {"fit_detector(known)": "fit_detector(known, updates=30)"},
    "howto/trust_the_guide.md": {
        "x[:200])": "x[:20], steps=5, num_samples=50)",
        "(model, guide, x))  # are": "(model, guide, x, num_rows=100))  # are",
        "refine(model, guide, x)": "refine(model, guide, x[:100], steps=10)",
        "(model, refined, x)": "(model, refined, x[:100], num_samples=50)",
    },
    "start/from_svi.md": {"range(1000)": "range(5)", "x[:200]": "x[:50]"},
}
"""What is shortened on one page, each text at least once: {page: {text: replacement}}."""

PRINTS = {
    "choose.md": ["of 8 latents active", "Inference gap of 10 rows"],
    "howto/another_guide.md": [r"full covariance -\d+", r"Laplace -\d+", r"flow -\d+"],
    "howto/another_likelihood.md": ["no findings", "TraceMeanField_ELBO"],
    "howto/another_prior.md": ["Trace_ELBO", r"torch.Size\(\[300, 10\]\)", "299 "],
    "howto/autoencoders.md": [
        "training log joint density", r"torch.Size\(\[300, 64\]\)",
        r"torch.Size\(\[300, 4\]\) \d+", r"torch.Size\(\[3, 1, 8, 8\]\)",
    ],
    "howto/check_a_fit.md": [
        r"log_prob +-\d+", r"k_hat +-?\d", "of 3 statistics flagged", " ink ",
    ],
    "howto/compare.md": ["log-likelihood of 150 rows in nats a row", "plain", "free bits"],
    "howto/counts.md": [
        "dispersion index", "log-likelihood of 100 rows", "zero fraction", r"tensor\(\[\[",
    ],
    "howto/discrete_latents.md": [
        "recommended: ", r"\[200 rows x 12 columns\]", "TraceEnum_ELBO",
    ],
    "howto/disentangle.md": ["4 latents, 2 factors, 2000 rows", "dci_informativeness"],
    "howto/faster_steps.md": ["eager|traced|compiled", r"tensor\(0.7738\)"],
    "howto/fit_your_data.md": [r"held-out ELBO +-\d+", r"^-\d+\.\d+$"],
    "howto/from_scikit_learn.md": ["'latents': 2"],
    "howto/images.md": [r"torch.Size\(\[3, 1, 8, 8\]\)"],
    "howto/impute.md": ["alcohol", "k_hat +reason"],
    "howto/labels.md": [r"torch.Size\(\[10, 64\]\)", r"^0\.\d+"],
    "howto/save_and_share.md": ["^epochs$", "log_prob"],
    "howto/scale_out.md": ["log_prob"],
    "howto/score_anomalies.md": [
        "calibration    51 rows", r"\[312 rows x 6 columns\]",
        "with a probability of 90 %, this one flags 0.7% to 9.0% of clean rows",
        "drift: 100 new rows against 51 calibration rows",
    ],
    "howto/sequences.md": [r"\[200 rows x", r"tensor\(-\d+\.\d+", "Trace_ELBO"],
    "howto/tables.md": [
        "schema of 4 columns", "distance to the closest real row", "statistics flagged",
    ],
    "howto/trust_the_guide.md": [
        "Inference gap of 20 rows", "of 9 quantities flagged", "of 8 latents active",
        r"^[01]\.\d+$",
    ],
    "howto/write_a_likelihood.md": ["no findings", "of 5 statistics flagged"],
    "howto/write_a_pair.md": ["no findings", "TraceMeanField_ELBO"],
    "stability.md": ["AnomalyDetector, Comparison"],
    "start/first_pair.md": ["no findings", "TraceMeanField_ELBO"],
    "start/from_svi.md": [r"k_hat +-?\d", "statistics flagged", "training ELBO"],
    "theory.md": [r"ELBO +-\d", r"exact +-\d"],
    "troubleshooting.md": [r'site "z"', "epochs: expected"],
}  # fmt: skip
"""Patterns in what the programs of a page print; other lines change with the fit."""

EDITED = {
    "howto/another_likelihood.md": "TraceMeanField_ELBO",
    "howto/another_prior.md": "Trace_ELBO",
    "howto/discrete_latents.md": "TraceEnum_ELBO",
    "start/from_svi.md": "training ELBO",
}
"""What the edited program of a page prints."""

NOT_RUN = {"howto/scale_out.md": "Ray is too large for the tests; examples/ray_scores.py runs it"}
"""Pages with fragments, ``py`` in place of ``python``, that no test runs, and why."""

UNSURE = (
    "log_likelihood", "anomaly_scores", "compare", "forecast", "impute", "score_samples",
    "transform", "fit: the ELBO was still rising", "write_report",
)  # fmt: skip
"""Warnings that few epochs bring about, by their first words."""

NEEDS = {"howto/counts.md": (extras.sparse, extras.anndata)}


def run(text, page, folder, alone=False):
    """Run a page's program, shortened, alone in a process of its own; returns what it printed."""
    for pattern, short in SHORTER.items():
        text = re.sub(pattern, short, text)
    for long, short in OWN.get(page, {}).items():
        assert long in text, f"{page}: {long!r} is no longer there to be shortened"
        text = text.replace(long, short)
    (folder / "program.py").write_text(text)
    if alone:  # nothing is missing that the tests have imported or set
        command = [sys.executable, "-W", "error", "program.py"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout
    with warnings.catch_warnings():
        for words in UNSURE:
            warnings.filterwarnings("ignore", words)
        return run_script(folder / "program.py", folder=folder)[0]


def beginning(text):
    """The first three words of a text, a number as #: what few epochs do not change."""
    return " ".join(re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", text).split()[:3])


def beginning_of_lines(output):
    """What each line of an output begins with."""
    return {beginning("\n".join(output.splitlines()[i:])) for i in range(output.count("\n") + 1)}


@pytest.mark.parametrize("page", [page for page in pages() if blocks(page, "python")])
def test_the_programs_of_a_page_run_and_print_what_it_says(page, tmp_path):
    extras.sklearn("datasets")
    for needed in NEEDS.get(page, ()):
        needed()
    assert page in PRINTS, f"{page}: say in PRINTS what its programs print"
    output = run(program(page), page, tmp_path, alone=page == "start/first_pair.md")
    for shown in blocks(page, "text", first="python"):
        assert beginning(shown) in beginning_of_lines(output), (
            f"{page}: no longer printed:\n{shown}"
        )
    for pattern in PRINTS[page]:
        assert re.search(pattern, output, re.MULTILINE), f"{page}: {pattern} is not in\n{output}"


@pytest.mark.parametrize("page", [page for page in pages() if blocks(page, "diff")])
def test_the_edits_of_a_page_fit_their_program_and_it_runs(page, tmp_path):
    extras.sklearn("datasets")
    if page != "howto/command_line.md":  # tests/cli/test_command_page.py applies its edit
        output = run(edited(page), "", tmp_path)
        assert EDITED[page] in output
        if linked(page, "edits"):  # what stands before the page's own programs
            later = blocks(page, "text", first="python")
            for shown in blocks(page, "text")[: -len(later) or None]:
                assert beginning(shown) in beginning_of_lines(output), shown


@pytest.mark.parametrize("page", pages())
def test_fragments_that_do_not_run_are_known_and_are_python(page):
    fragments = blocks(page, "py")
    assert bool(fragments) == (page in NOT_RUN)
    for fragment in fragments:
        ast.parse(fragment)
    assert "<<OUT>>" not in text_of(page)


def test_no_entry_is_of_a_page_that_is_gone():
    assert {*OWN, *PRINTS, *EDITED, *NOT_RUN, *NEEDS} <= set(pages())


@pytest.mark.parametrize("page", pages())
def test_links_and_names_of_a_page_lead_somewhere(page):
    text = text_of(page)
    for link in re.findall(r"\]\(([^)#:]+\.md)", text):
        assert (DOCS / page).parent.joinpath(link).exists(), link
    for role, name in re.findall(r"\{([\w:]+)\}`([^`]+)`", text):
        if role in ("zoo", "example"):
            folder = "" if role == "zoo" else "examples"
            assert (ROOT / folder / f"{name}.py").exists(), name
        elif role == "py:mod":
            importlib.import_module(name)
        elif role.startswith("py:"):
            module, _, attribute = name.removeprefix("~").rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name
    for file in re.findall(r"\b(?:benchmarks|examples)/\w+\.py", text):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize("page", pages())
def test_commands_of_a_page_exist_with_their_options(page):
    commands = get_command(app).commands
    shell = "\n".join([*blocks(page, "sh"), *blocks(page, "bash")])
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    lines = re.findall(r"^ppl-vae ([^\n#]+)", shell, re.MULTILINE)
    lines += re.findall(r"`ppl-vae ([^`]+)`", prose)
    for line in lines:
        verb, *words = line.split()
        assert verb in commands, line
        known = {option for each in commands[verb].params for option in each.opts}
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert given <= known, f"ppl-vae {line}: {given - known}"
