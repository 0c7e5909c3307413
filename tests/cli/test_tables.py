"""Every command on a CSV file of a mixed table: text, gaps, dates, codes of digits, a covariate."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ppl_vae import Schema, load, log_likelihood

RANDOM = np.random.default_rng(0)
ROWS = 120
GROUP = RANDOM.integers(0, 3, ROWS)
DAY = pd.Timestamp("2020-01-01")
PEOPLE = pd.DataFrame({
    "id": [f"p{i:03d}" for i in range(ROWS)], "age": RANDOM.poisson(30 + 10 * GROUP),
    "job": np.array(["clerk", "nurse", "chef"])[GROUP],
    "income": np.exp(RANDOM.normal(8, 0.3, ROWS) + GROUP).round(2),
    "start": (DAY + pd.to_timedelta(RANDOM.integers(0, 900, ROWS), "D")).strftime("%Y-%m-%d"),
    "sex": RANDOM.choice(["F", "M"], ROWS), "zip": RANDOM.choice(["01234", "98765", "00501"], ROWS),
}).astype({"age": object})  # fmt: skip
PEOPLE.loc[::9, ["age", "job"]] = "?"
OPTIONS = ("--missing", "?", "--covariate", "sex", "--id", "id")
QUICK = ("--epochs", "2", "--set", "hidden=(8,)", "--set", "latents=2", "--no-compile")


@pytest.fixture
def people(tmp_path):
    PEOPLE.to_csv(tmp_path / "people.csv", index=False)
    return "people.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run directory of a fit to the first rows, with a fixture's own command."""
    from typer.testing import CliRunner

    from ppl_vae.cli.main import app

    folder = tmp_path_factory.mktemp("table")
    PEOPLE.head(80).to_csv(folder / "first.csv", index=False)
    words = ["fit", "table", "table", folder / "first.csv", "--run", folder / "run"]
    done = CliRunner().invoke(app, list(map(str, [*words, *OPTIONS, *QUICK])))
    assert done.exit_code == 0, done.output
    return folder / "run"


def test_schema_shows_and_writes_what_a_fit_would_read(ppl, people):
    shown = ppl("schema", people, *OPTIONS, "--out", "schema.json").out
    for words in ("schema of 6 columns: 5 described by the model, 1 covariate", "binary, covariate",
                  "days", "2020-01", "00501, 01234, 98765", "chef, clerk, nurse"):  # fmt: skip
        assert words in shown
    found = Schema.load("schema.json")
    kinds = [column.kind for column in found.columns]
    assert kinds == ["count", "categorical", "positive", "date", "binary", "categorical"]
    assert found.missing == ("?",)
    as_json = json.loads(ppl("schema", people, *OPTIONS, "--json").out)
    assert as_json["columns"] == json.loads(json.dumps(found.to_json()))["columns"]


def test_notes_and_mends_are_in_the_words_of_the_command(ppl, people):
    assert '--missing "?" makes it one' in " ".join(ppl("schema", people).out.split())
    told = ppl("schema", people, "--kind", "job=real", code=1).err
    assert 'column "job" (real): expected a number, got' in told
    assert "by --kind" in told
    assert (
        'people.csv: --ignore: expected columns of the data, got none called "shoe"'
        in ppl("schema", people, "--ignore", "shoe", code=1).err
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--kind", "age"], "--kind: expected COLUMN=KIND"),
        (["--out", "schema.txt"], "expected a name that ends in .json"),
        (["--out", "people.json"], "exists already; --force replaces it"),
        (["--drop", "shoe"], '--drop: expected columns of people.csv, got none called "shoe"'),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(ppl, people, tmp_path, words, told):
    (tmp_path / "people.json").write_text("mine")
    assert told in ppl("schema", people, *words, code=2).err
    assert (tmp_path / "people.json").read_text() == "mine"


def test_an_edited_schema_is_what_the_fit_reads(ppl, people):
    ppl("schema", people, *OPTIONS, "--out", "schema.json")
    content = json.loads(Path("schema.json").read_text(encoding="utf-8"))
    entries = {entry["name"]: entry for entry in content["columns"]}
    entries["age"]["kind"], entries["zip"]["kind"] = "real", "ignored"
    entries["job"] |= {"kind": "ordinal", "categories": ["nurse", "clerk", "chef"]}
    Path("schema.json").write_text(json.dumps(content), encoding="utf-8")
    words = ("fit", "table", "table", people, "--id", "id", "--schema", "schema.json", *QUICK)
    shown = ppl(*words, "--run", "edited").out
    assert "1 left out" in shown
    record = json.loads(Path("edited/run.json").read_text(encoding="utf-8"))
    kept = Schema.of_json(record["template"]["schema"])
    assert kept.named("job").categories == ("nurse", "clerk", "chef")
    assert kept.named("age").kind == "real"
    assert 20 < kept.named("age").loc < 60
    assert (
        "--schema: expected no other option"
        in ppl(*words, "--kind", "a=b", "--run", "r", code=2).err
    )
    entries["income"]["scale"] = -1
    Path("schema.json").write_text(json.dumps(content), encoding="utf-8")
    told = ppl(*words, "--run", "r", code=1).err
    assert 'schema.json: cannot be read as a schema: column "income": scale: expected' in told


def test_lint_reads_the_table_by_the_same_options(ppl, people):
    shown = ppl("lint", "table", "table", people, *OPTIONS).out
    assert "no findings" in shown
    for site in ("real", "positive", "count", "categorical"):
        assert site in shown


def test_results_of_later_files_are_those_of_python(ppl, people, run):
    found = json.loads(ppl("evaluate", run, people, "--id", "id", "--json").out)
    frame = PEOPLE.replace("?", None).set_index("id").astype({"age": float})
    scores = log_likelihood(*load(run), frame, num_samples=5000, progress=False)
    assert found["log_likelihood"]["mean"] == pytest.approx(scores["log_prob"].mean(), abs=1e-6)


def test_codes_have_the_labels_of_the_rows(ppl, people, run):
    ppl("encode", run, people, "--id", "id", "--out", "codes.csv")
    codes = pd.read_csv("codes.csv", index_col=0)
    assert list(codes.index) == list(PEOPLE["id"])
    assert np.isfinite(codes).all().all()


def test_generated_files_have_the_form_of_the_table(ppl, people, run):
    told = ppl("generate", run, "--num-samples", "50", "--out", "made.csv").err
    assert "the covariates sex have the mean or the first category" in " ".join(told.split())
    given = ppl("generate", run, "--num-samples", "50", "--out", "given.csv", "--given", "sex=M")
    assert given.err == ""
    assert set(pd.read_csv("given.csv")["sex"]) == {"M"}
    made = pd.read_csv("made.csv", dtype={"zip": str})
    assert list(made.columns) == list(PEOPLE.columns[1:])
    assert set(made["zip"]) <= {"01234", "98765", "00501"}
    assert set(made["job"]) <= {"clerk", "nurse", "chef"}
    assert made["age"].dtype == "int64"
    assert pd.to_datetime(made["start"], format="%Y-%m-%d").notna().all()
    again = json.loads(ppl("evaluate", run, "made.csv", "--json").out)  # it is a table of the fit
    assert np.isfinite(again["log_likelihood"]["mean"])


def test_scores_of_a_file_keep_its_labels(ppl, people, run, tmp_path):
    PEOPLE.tail(40).to_csv(tmp_path / "new.csv", index=False)
    PEOPLE.tail(40).assign(extra=1).to_csv(tmp_path / "more.csv", index=False)
    for file, kept in (("new.csv", "id"), ("more.csv", "extra")):
        ppl(
            "score",
            run,
            file,
            "--calibrate",
            "new.csv",
            "--keep",
            kept,
            "--out",
            "s.csv",
            "--force",
        )
        scores = pd.read_csv("s.csv")
        assert len(scores) == 40
        assert scores[kept].tolist() == pd.read_csv(file)[kept].tolist()
        assert np.isfinite(scores["score"]).all()
    told = ppl("score", run, "more.csv", "--calibrate", "new.csv", "--out", "t.csv", code=1).err
    assert 'more.csv: column "extra": expected the columns of the fitted table' in told


def test_check_and_report_take_a_table(ppl, people, run):
    shown = ppl("check", run, people, "--id", "id").out
    for site in ("real", "positive", "count", "categorical"):
        assert site in shown
    ppl("report", run, people, "--id", "id", "--out", "report.html")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "could not be" not in page
    assert "chef" in page


FAULTS = {
    "a new category": ({"job": "pilot"}, 'column "job" (categorical): expected one of its 3'),
    "a new column": ({"shoe": 1}, 'column "shoe": expected the columns of the fitted table'),
    "no number": ({"income": "high"}, 'column "income" (positive): expected a number'),
    "no date": ({"start": "2020-02-30"}, 'column "start" (date): expected a date'),
    "a gap in a covariate": ({"sex": ""}, 'column "sex": expected a value in every row'),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_later_file_that_does_not_fit_is_named_by_file_column_and_row(ppl, run, name):
    change, told = FAULTS[name]
    later = PEOPLE.assign(**change)
    later.to_csv("later.csv", index=False)
    error = " ".join(ppl("evaluate", run, "later.csv", "--id", "id", code=1).err.split())
    assert f"error: later.csv: {told}" in error
    assert "in row 0 (label 'p000')" in error or name == "a new column"


def test_a_lost_column_is_named(ppl, run):
    PEOPLE.drop(columns="income").to_csv("later.csv", index=False)
    error = ppl("evaluate", run, "later.csv", "--id", "id", code=1).err
    assert "error: later.csv: expected the columns of the table that was fitted, got none" in error
    assert '"income"' in error


@pytest.mark.filterwarnings("always:.*taken for missing")
def test_unseen_categories_may_be_missing(ppl, people, tmp_path):
    words = ("fit", "table", "table", people, "--run", "run", *OPTIONS, *QUICK)
    ppl(*words, "--unseen-missing")
    PEOPLE.assign(job="pilot").to_csv(tmp_path / "later.csv", index=False)
    ppl("evaluate", "run", "later.csv", "--id", "id")
    ppl(*words, "--force")
    told = ppl("evaluate", "run", "later.csv", "--id", "id", code=1).err
    assert "or take such cells for missing: --unseen-missing" in " ".join(told.split())


COMMANDS = {
    "evaluate": ("--num-samples", "20"), "check": ("--num-samples", "40"), "encode": (),
    "impute": ("--out", "full.csv"), "report": ("--num-samples", "100", "--out", "page.html"),
    "score": ("--calibrate", "clean.csv", "--out", "s.csv"), "compare": (),
}  # fmt: skip


@pytest.mark.filterwarnings("always::UserWarning")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_unseen_categories_for_missing(ppl, run, command, tmp_path):
    later = PEOPLE.tail(40).copy()
    later.iloc[[3, 5], later.columns.get_loc("job")] = "pilot"
    later.to_csv("later.csv", index=False)
    PEOPLE.tail(40).to_csv("clean.csv", index=False)
    shutil.copytree(run, "other")
    data, options = [run, "later.csv"], COMMANDS[command]
    if command == "compare":
        data, options = [run, "other", "later.csv"], ()
    labelled = () if command == "score" else ("--id", "id")
    done = ppl(command, *data, *options, *labelled, "--unseen-missing")
    assert "2 of column \"job\", first 'pilot'" in done.err
    if command == "impute":
        full = pd.read_csv("full.csv")
        assert full["job"].tolist().count("pilot") == 2
        assert "2 hold a category that the fit did not have, and stay as they are" in done.out
    assert ppl(command, *data, *options, *labelled, "--force", code=1).err


def test_unseen_missing_is_of_tables(ppl, tmp_path):
    pd.DataFrame({"a": [0.5, 1.5, 2.5], "b": [1.0, 2.5, 0.0]}).to_csv("x.csv", index=False)
    ppl("fit", "gaussian", "normal", "x.csv", "--run", "plain", "--epochs", "1", "--no-compile")
    told = ppl("evaluate", "plain", "x.csv", "--unseen-missing", code=2).err
    assert "--unseen-missing: expected a run that was fitted to a table" in told


def test_a_validation_file_is_read_by_the_schema_of_the_fit(ppl, people, tmp_path):
    PEOPLE.tail(30).sample(frac=1, axis=1, random_state=0).to_csv(
        tmp_path / "held.csv", index=False
    )
    done = ppl("fit", "table", "table", people, "--run", "run", *OPTIONS, *QUICK,
               "--validation", "held.csv", "--json")  # fmt: skip
    assert np.isfinite(json.loads(done.out)["validation_elbo"])
