"""``impute`` and ``generate`` of tables, arrays, sequences: files as the user's, none replaced."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from parts.extras import PARQUET
from typer.testing import CliRunner

import ppl_vae
from ppl_vae.cli.main import app

COUNT = 60
FEW = ("--num-samples", "40")


def people():
    """A table of texts, numbers and dates, each with gaps of its own sort; sex is a covariate."""
    random = np.random.default_rng(0)
    sex = random.choice(["Male", "Female"], COUNT)
    frame = pd.DataFrame({
        "key": [f"p{i}" for i in range(COUNT)],
        "sex": sex,
        "height": np.where(sex == "Male", 5.0, -5.0) + random.normal(size=COUNT).round(3),
        "age": random.poisson(40, COUNT),
        "zip": random.choice(["007", "00501", "=2"], COUNT),
        "city": random.choice(["Rome", "Oslo", "?"], COUNT),
        "born": pd.date_range("2020-01-01", periods=COUNT).strftime("%Y-%m-%d"),
    })  # fmt: skip
    holes = random.random((COUNT, 3)) < 0.2
    frame["age"] = frame["age"].mask(holes[:, 0], -999)
    return frame.assign(
        height=frame["height"].mask(holes[:, 1]), born=frame["born"].mask(holes[:, 2])
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with people.csv, and a run of the pair of tables on it."""
    folder = tmp_path_factory.mktemp("people")
    people().to_csv(folder / "people.csv", index=False)
    words = ["fit", "table", "table", folder / "people.csv", "--run", folder / "run", "--quiet"]
    words += ["--missing", "?", "--missing", "-999", "--covariate", "sex", "--epochs", "3"]
    words += ["--set", "latents=1", "--set", "hidden=(8,)"]
    with warnings.catch_warnings(action="ignore"):
        done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.stderr
    return folder


def impute(ppl, files, *words, **options):
    return ppl("impute", files / "run", files / "people.csv", *FEW, *words, **options)


def test_the_completed_file_is_the_file_with_its_gaps_filled(ppl, files):
    done = impute(ppl, files, "--out", "full.csv", "--cells", "cells.csv")
    given, full, cells = (pd.read_csv(f, dtype=str, keep_default_na=False) for f in
                          (files / "people.csv", "full.csv", "cells.csv"))  # fmt: skip
    assert list(full.columns) == list(given.columns)
    gap = given.isin(["", "?", "-999"])
    marked = given.replace("=2", "'=2")  # no formula to a spreadsheet
    assert (full == marked).mask(gap, True).all().all()
    assert not full.isin(["", "?", "-999"]).any().any()
    assert set(full["city"]) == {"Rome", "Oslo"}
    assert len(cells) == gap.to_numpy().sum()
    assert f"{len(cells)} missing cells imputed in {gap.any(axis=1).sum()} of 60 rows" in done.out
    for line in cells.itertuples():
        value = full.loc[int(line.row), line.column]
        assert value == line.value
        assert (line.probability == "") == (line.column != "city")
    again = ppl("impute", files / "run", "full.csv", "--out", "same.csv")
    assert "no cell is missing in 60 rows" in again.out
    assert Path("same.csv").read_bytes() == Path("full.csv").read_bytes()


def test_the_numbers_are_those_of_the_public_function(ppl, files):
    impute(ppl, files, "--cells", "cells.csv", "--level", "0.5", "--seed", "3")
    cells = pd.read_csv("cells.csv")
    model, guide = ppl_vae.load(files / "run")
    frame = pd.read_csv(files / "people.csv", dtype={"zip": str})
    found = ppl_vae.impute(model, guide, frame, num_samples=40, level=0.5, seed=3).frame
    assert cells["column"].tolist() == found["column"].tolist()
    np.testing.assert_allclose(cells["sd"], found["sd"], rtol=1e-6)
    np.testing.assert_allclose(cells["probability"], found["probability"], rtol=1e-6)
    impute(ppl, files, "--cells", "wide.csv", "--level", "0.95", "--seed", "3")
    wide = pd.read_csv("wide.csv")
    of_height = cells["column"] == "height"
    narrow, wider = (
        pd.to_numeric(each.loc[of_height, "upper"]) - pd.to_numeric(each.loc[of_height, "lower"])
        for each in (cells, wide)
    )
    assert narrow.mean() < wider.mean()


def test_several_files_hold_draws_that_differ(ppl, files):
    impute(ppl, files, "--out", "full.csv", "--num-imputations", 3)
    assert sorted(p.name for p in Path().iterdir()) == [f"full-{n}.csv" for n in (1, 2, 3)]
    one, two = (pd.read_csv(f"full-{n}.csv") for n in (1, 2))
    there = people()["height"].notna()
    assert one["height"][there].equals(two["height"][there])
    assert (one["height"][~there] != two["height"][~there]).any()
    assert not one.isna().any().any()


@pytest.mark.parametrize("kind", ["csv", "tsv", PARQUET])
def test_tables_and_cells_are_written_in_every_format_of_tables(ppl, files, kind):
    impute(ppl, files, "--out", f"full.{kind}", "--cells", f"cells.{kind}", "--id", "key")
    if kind == "parquet":
        full, cells = pd.read_parquet("full.parquet"), pd.read_parquet("cells.parquet")
        assert full["age"].dtype == np.int64
        assert set(full["zip"]) == {"007", "00501", "=2"}
    else:
        separator = "," if kind == "csv" else "\t"
        full, cells = (pd.read_csv(f"{n}.{kind}", sep=separator) for n in ("full", "cells"))
        full = full.set_index("key")
    assert full.index.tolist() == [f"p{i}" for i in range(COUNT)]
    assert set(cells["row"]) <= set(full.index)
    assert set(cells["column"]) == {"height", "age", "city", "born"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "there.csv"], "--out there.csv: is there already; --force replaces it"),
        (["--cells", "there.csv"], "--cells there.csv: is there already"),
        (["--out", "full.csv", "--num-imputations", 2], "--out full-2.csv: is there already"),
        (["--out", "full.npz"], 'full.npz: expected .*.parquet, because column "key"'),
        (["--cells", "cells.npy"], "--cells cells.npy: expected a name of a .csv"),
        (["--out", "a.csv", "--cells", "a.csv"], "expected another file than that of --out"),
        (["--out", "a.txt"], "--out a.txt: expected one of"),
        (["--num-imputations", 2], "expected --out FILE beside it"),
        (["--out", "away/a.csv"], "expected a file in a folder that exists"),
    ],
)
def test_no_file_is_replaced_and_none_is_begun_that_cannot_be_written(ppl, files, words, message):
    for name in ("there.csv", "full-2.csv"):
        Path(name).write_text("mine")
    err = " ".join(impute(ppl, files, *words, code=2).err.split())
    assert pd.Series([err]).str.contains(message).all(), err
    assert {p.name: p.read_text() for p in Path().iterdir()} == {
        "there.csv": "mine", "full-2.csv": "mine",
    }  # fmt: skip


def test_the_data_are_never_replaced(ppl, files):
    before = (files / "people.csv").read_bytes()
    for option in ("--out", "--cells"):
        done = impute(ppl, files, option, files / "people.csv", "--force", code=2)
        assert "expected a file other than the data" in " ".join(done.err.split())
    assert (files / "people.csv").read_bytes() == before
    Path("there.csv").write_text("mine")
    impute(ppl, files, "--out", "there.csv", "--force")
    assert len(pd.read_csv("there.csv")) == COUNT


def test_a_wrong_level_or_category_is_one_message(ppl, files):
    assert "level: expected a probability" in impute(ppl, files, "--level", 2, code=1).err
    people().assign(city="Paris").to_csv("new.csv", index=False)
    done = ppl("impute", files / "run", "new.csv", code=1)
    assert 'column "city"' in done.err
    assert "Traceback" not in done.err


def test_arrays_of_a_mapping_are_filled(ppl):
    """A model that observes which cells are seen: a file of two arrays, and a file of two again."""
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 3)).astype(np.float32)
    seen = random.random((50, 3)) > 0.3
    np.savez("holes.npz", x=np.where(seen, x, 0), seen=seen)
    pair = ("not_missing_at_random", "missing_cells")
    ppl("fit", *pair, "holes.npz", "--epochs", 2, "--set", "latents=1", "--run", "run", "--quiet")
    words = ("impute", "run", "holes.npz", *FEW)
    done = ppl(*words, "--out", "full.npz", "--cells", "cells.csv")
    with np.load("full.npz") as full:
        assert (full["x"].dtype, full["x"].shape) == (np.float32, (50, 3))
        assert np.array_equal(full["x"][seen], x[seen])
        assert (full["x"][~seen] != 0).all()
        assert np.array_equal(full["seen"], seen)
        filled = full["x"]
    cells = pd.read_csv("cells.csv")
    assert list(zip(cells["row"], cells["column"], strict=True)) == [
        tuple(place) for place in np.argwhere(~seen)
    ]
    np.testing.assert_allclose(cells["value"], filled[~seen], rtol=1e-5)
    assert "missing cells imputed" in done.out
    refused = ppl(*words, "--out", "full.csv", code=1)
    assert "write an .npz file" in refused.err


@pytest.mark.filterwarnings("ignore:log.csv.* missing values", "ignore:impute.* few draws")
def test_gaps_of_sequences_are_filled_line_by_line(ppl):
    random = np.random.default_rng(0)
    log = pd.DataFrame({
        "machine": np.repeat([f"m{i}" for i in range(12)], 5), "t": np.tile(np.arange(5), 12),
        "load": random.normal(size=60).round(3), "heat": random.normal(size=60).round(3),
    })  # fmt: skip
    log.loc[random.random(60) < 0.2, "heat"] = np.nan
    log.to_csv("log.csv", index=False)
    ppl("fit", "state_space", "smoothing", "log.csv", "--id", "machine", "--step", "t",
        "--epochs", 2, "--set", "latents=1", "--run", "run", "--quiet")  # fmt: skip
    ppl("impute", "run", "log.csv", *FEW, "--out", "full.csv", "--cells", "cells.csv")
    full, gap = pd.read_csv("full.csv"), log["heat"].isna()
    assert list(full.columns) == list(log.columns)
    np.testing.assert_allclose(full["load"], log["load"], rtol=1e-6)
    np.testing.assert_allclose(full["heat"][~gap], log["heat"][~gap], rtol=1e-6)
    assert full["heat"].notna().all()
    cells = pd.read_csv("cells.csv")
    assert len(cells) == gap.sum()
    np.testing.assert_allclose(cells["value"], full["heat"][gap], rtol=1e-5)
    assert set(cells["row"]) <= set(log["machine"])


# generate


def test_generated_rows_have_the_covariate_that_is_given(ppl, files):
    done = ppl("generate", files / "run", "--given", "sex=Female", "--num-samples", 30,
               "--out", "new.csv")  # fmt: skip
    new = pd.read_csv("new.csv", dtype={"zip": str})
    assert (new["sex"] == "Female").all()
    assert list(new.columns) == [c for c in people() if c != "key"]
    assert not new.isna().any().any()
    assert new["born"].str.fullmatch(r"\d{4}-\d\d-\d\d").all()
    assert "note:" not in done.err
    scored = ppl("evaluate", files / "run", "new.csv", "--num-samples", 5)
    assert "30 rows, 5 draws of the latents for each row" in scored.out


def test_rows_like_those_of_a_file_are_told_whether_they_copy_it(ppl, files):
    done = ppl("generate", files / "run", "--like", files / "people.csv", "--num-samples", 25,
               "--out", "new.csv")  # fmt: skip
    assert "25 generated rows: distance to the closest real row" in done.err
    assert "generated rows are no closer to real rows" in done.err
    assert set(pd.read_csv("new.csv")["sex"]) == {"Male", "Female"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--given", "sex"], 2, "--given: expected NAME=VALUE, got sex"),
        (["--given", "sex=female"], 1, "column \"sex\" (binary): expected one of its 2 categories"),
        (["--given", "sex=Male", "--given", "city=Rome"], 1, "expected covariates among ['sex']"),
        (["--given", "sex=Male", "--out", "new.npz"], 2, "because column \"key\""),
    ],
)  # fmt: skip
def test_wrong_covariates_are_refused(ppl, files, words, code, message):
    done = ppl("generate", files / "run", *words, code=code)
    assert message in " ".join(done.err.split())
    assert list(Path().iterdir()) == []
