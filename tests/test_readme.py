"""The README's program runs as pasted, and with each of its edits."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from parts.extras import anndata, sklearn, sparse
from parts.scripts import run_script

sklearn("datasets")  # the program reads its digits or wines
README = Path(__file__).parents[1] / "README.md"
PROGRAM, EVALUATION, REFINED, COMPARED, TRUSTED, CHECK, *_ = re.findall(
    r"```python\n(.*?)```", README.read_text(), re.DOTALL
)
EDITS = re.split(r"\n\*\*(.+?)\*\*:", README.read_text().split("Three edits")[1])[1:]
EDITS = dict(zip(EDITS[::2], EDITS[1::2], strict=True))


def apply(program, text):
    """Each ```diff block replaces its old lines, which must stand there once, by its new ones."""
    hunks = re.findall(r"```diff\n(.*?)```", text.split("\n## ")[0], re.DOTALL)
    assert hunks
    for hunk in hunks:
        lines = hunk.splitlines()
        old = "".join(line[1:] + "\n" for line in lines if line[0] in " -")
        new = "".join(line[1:] + "\n" for line in lines if line[0] in " +")
        assert program.count(old) == 1, old
        program = program.replace(old, new)
    return program


def run(program, tmp_path, alone=False):
    """Run a program, alone in a process of its own; returns what it printed."""
    short = program.replace("epochs=100", "epochs=4").replace("hidden=(128,)", "hidden=(32,)")
    assert short != program
    (tmp_path / "pair.py").write_text(short)
    unsure = (
        "log_likelihood",
        "anomaly_scores",
        "compare",
        "forecast",
        "impute",
    )  # four epochs leave some rows unreliable
    if alone:
        ignored = [part for name in unsure for part in ("-W", f"ignore:{name}")]
        command = [sys.executable, "-W", "error", *ignored, "pair.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout
    with warnings.catch_warnings():
        for name in unsure:
            warnings.filterwarnings("ignore", name)
        return run_script(tmp_path / "pair.py", folder=tmp_path)[0]


def test_the_program_is_short():
    assert len([line for line in PROGRAM.splitlines() if line.strip()]) < 40
    assert all(len(EDITS[name].split("\n## ")[0].splitlines()) < 30 for name in EDITS)


def test_the_program_runs_as_pasted(tmp_path):
    output = run(PROGRAM, tmp_path, alone=True)
    assert "no findings" in output
    assert "TraceMeanField_ELBO" in output


def test_the_check_and_the_report_run_after_it(tmp_path):
    output = run(PROGRAM + CHECK, tmp_path)
    assert "of 3 statistics flagged" in output
    assert " ink " in output
    assert "</html>" in (tmp_path / "report.html").read_text()


def test_the_evaluation_runs_after_it(tmp_path):
    quicker = EVALUATION.replace("num_samples=5000", "num_samples=50")
    assert quicker != EVALUATION
    output = run(PROGRAM + quicker, tmp_path)
    assert re.search(r"log_prob +-\d+", output)
    assert re.search(r"k_hat +-?\d", output)


def test_the_refined_guide_is_evaluated_after_it(tmp_path):
    quicker = REFINED.replace("(model, guide, x)", "(model, guide, x[:100], steps=10)")
    quicker = quicker.replace("(model, refined, x)", "(model, refined, x[:100], num_samples=50)")
    assert quicker.count("x[:100]") == 2
    assert re.search(r"^[01]\.\d+$", run(PROGRAM + quicker, tmp_path), re.MULTILINE)


def test_the_guide_is_judged_after_it(tmp_path):
    quicker = TRUSTED.replace("x[:200]", "x[:20], steps=5, num_samples=50")
    quicker = quicker.replace(
        "guide_calibration(model, guide, x)", "guide_calibration(model, guide, x, num_rows=100)"
    )
    assert quicker.count("num_rows=100") == quicker.count("steps=5") == 1
    output = run(PROGRAM + quicker, tmp_path)
    assert "Inference gap of 20 rows" in output
    assert "of 9 quantities flagged" in output
    assert "of 8 latents active" in output


def test_two_pairs_are_compared_after_it(tmp_path):
    quicker = COMPARED.replace("(pairs, held_out)", "(pairs, held_out, num_samples=50)")
    assert quicker != COMPARED
    output = run(PROGRAM + quicker, tmp_path)
    assert "log-likelihood of 898 rows in nats a row" in output
    assert (
        "plain and free bits" in output or "free bits and plain" in output or "is ahead" in output
    )


@pytest.mark.parametrize(
    ("edit", "objective"),
    [
        ("Another likelihood", "TraceMeanField_ELBO"),
        ("Another prior", "Trace_ELBO"),
        ("A discrete latent", "TraceEnum_ELBO"),
    ],
)
def test_each_edit_applies_and_fits(edit, objective, tmp_path):
    assert list(EDITS) == ["Another likelihood", "Another prior", "A discrete latent"]
    output = run(apply(PROGRAM, EDITS[edit]), tmp_path)
    assert "no findings" in output
    assert f"objective        {objective}:" in output


ROWS = README.read_text().split("\n## A model for your rows\n")[1].split("\n## ")[0]
PROGRAMS = dict(re.findall(r"\*\*(\w+)\*\*(?:(?!```).)*```python\n(.*?)```", ROWS, re.DOTALL))
"""Programs of the section by the bold word that their paragraph begins with."""


def test_the_program_on_images_runs(tmp_path):
    assert "torch.Size([3, 1, 8, 8])" in run(PROGRAMS["Images"], tmp_path)


def test_the_programs_pairs_of_other_priors_are_built_after_it(tmp_path):
    fitted = "fit(vampprior, guide, bits, epochs=1, progress=False)\nprint(clusters.centers.shape)"
    output = run(PROGRAMS["Images"] + PROGRAMS["Priors"] + fitted, tmp_path)
    assert "torch.Size([1797, 10])" in output
    assert "torch.Size([10, 8])" in output


def test_the_program_on_clusters_runs_after_them(tmp_path):
    clusters = PROGRAMS["Clusters"].replace("epochs=30", "epochs=1")
    output = run(PROGRAMS["Images"] + PROGRAMS["Priors"] + clusters, tmp_path)
    assert "1796" in output
    assert "probability" in output


def test_the_program_on_autoencoders_runs(tmp_path):
    output = run(PROGRAMS["Autoencoders"], tmp_path)
    assert output.count("training log joint density") == 2
    assert output.count("trained value") == 2
    assert "torch.Size([1797, 64])" in output


def test_the_program_on_codebooks_runs(tmp_path):
    output = run(PROGRAMS["Codebooks"], tmp_path)
    assert re.search(r"torch.Size\(\[1797, 4\]\) \d+$", output, re.MULTILINE)
    assert "torch.Size([3, 1, 8, 8])" in output


def test_the_program_of_other_guides_runs_after_it(tmp_path):
    output = run(PROGRAMS["Images"] + PROGRAMS["Guides"], tmp_path)
    assert len(re.findall(r"^-?\d+\.\d+$", output, re.MULTILINE)) == 2


def test_the_program_from_scikit_learn_runs(tmp_path):
    text = README.read_text().split("## From scikit-learn")[1]
    (program,) = re.findall(r"```python\n(.*?)```", text.split("\n## ")[0], re.DOTALL)
    quicker = program.replace("n_jobs=2", "n_jobs=1").replace("[2, 4]", "[2]")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(score_samples|transform)")
        output = run(quicker, tmp_path)
    assert "'latents': 2" in output
    assert (tmp_path / "runs" / "wine" / "estimator.json").exists()


def test_the_programs_flow_is_fitted_after_it(tmp_path):
    fitted = "print(fit(model, flow, images, epochs=1, progress=False).objective)"
    assert "Trace_ELBO" in run(PROGRAMS["Images"] + PROGRAMS["Flows"] + fitted, tmp_path)


def test_the_program_on_counts_runs(tmp_path):
    sparse()
    quicker = PROGRAMS["Counts"].replace(
        "(model, guide, data)[", "(model, guide, data, num_samples=50)["
    )
    output = run(quicker, tmp_path)
    assert "TraceMeanField_ELBO" in output
    assert "dispersion index" in output


def test_the_program_on_cells_runs(tmp_path):
    sparse(), anndata()
    output = run(PROGRAMS["Cells"] + "print(cells.obsm['codes'].shape)", tmp_path)
    assert "log-likelihood of 100 rows" in output
    assert "zero fraction" in output
    assert output.endswith("(400, 2)\n")


def test_the_program_on_documents_runs(tmp_path):
    sparse()
    output = run(PROGRAMS["Documents"], tmp_path)
    assert "TraceMeanField_ELBO" in output
    assert "tensor([[" in output


def test_the_program_on_labels_runs(tmp_path):
    assert "torch.Size([10, 64])" in run(PROGRAMS["Labels"], tmp_path)


def test_the_program_on_factors_runs(tmp_path):
    text = README.read_text().split("\n## Does each latent stand for one factor\n")[1]
    (program,) = re.findall(r"```python\n(.*?)```", text.split("\n## ")[0], re.DOTALL)
    output = run(program, tmp_path)
    assert "4 latents, 2 factors, 2000 rows" in output
    assert "dci_informativeness" in output


def test_the_programs_on_discrete_latents_run(tmp_path):
    text = README.read_text().split("\n## Discrete latents\n")[1].split("\n## ")[0]
    fits, chains, estimators = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    fits, chains = (program.replace("epochs=30", "epochs=1") for program in (fits, chains))
    quicker = estimators.replace("num_draws=100", "num_draws=3")
    assert quicker != estimators
    for program, words in {
        fits + quicker: "recommended: ",
        chains: "[200 rows x 12 columns]",
    }.items():
        (tmp_path / "program.py").write_text(program)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fit: the ELBO was still rising")
            assert words in run_script(tmp_path / "program.py", folder=tmp_path)[0]


def test_the_program_on_strange_rows_runs(tmp_path):
    text = README.read_text().split("\n## Which rows are strange\n")[1].split("\n## ")[0]
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    quicker = program.replace("fit_detector(known)", "fit_detector(known, updates=30)")
    assert quicker != program
    (tmp_path / "program.py").write_text(quicker)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit: the ELBO was still rising")
        output = run_script(tmp_path / "program.py", folder=tmp_path)[0]
    assert "calibration    51 rows" in output
    assert "with a probability of 90 %, this one flags 0.7% to 9.0% of clean rows" in output
    assert "[312 rows x 6 columns]" in output
    assert "drift: 100 new rows against 51 calibration rows" in output
    assert (tmp_path / "runs/tumours/detector.safetensors").exists()


def test_the_program_on_sequences_runs(tmp_path):
    output = run(PROGRAMS["Sequences"], tmp_path)
    assert "objective        Trace_ELBO" in output
    assert "[200 rows x" in output
    assert re.search(r"tensor\(-\d+\.\d+", output)


def test_the_program_on_tables_runs(tmp_path):
    output = run(PROGRAMS["Tables"], tmp_path)
    assert "schema of 4 columns" in output
    assert "generated rows: distance to the closest real row" in output
    assert "statistics flagged" in output
