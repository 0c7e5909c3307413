"""Columns chosen on the command line, row labels kept in results, and names that do no harm."""

import pandas as pd
import pytest
from parts.extras import PARQUET

from ppl_vae.data.files import read_data

HOSTILE = ["=1+1", "+x", "-x", "@x", "'=x", "\tx", "a\x1b[2J", "b\u202ec", "d\x07"]


@pytest.fixture(scope="session")
def labelled_file(wine_file, tmp_path_factory):
    """The wines with a column of text, one of numbers that identify rows, and one to leave out."""
    data = pd.read_csv(wine_file)
    data.insert(0, "bottle", [f"{n:04d}" for n in range(len(data))])
    data.insert(3, "grower", "someone")
    path = tmp_path_factory.mktemp("wine") / "labelled.csv"
    data.assign(number=range(1000, 1000 + len(data))).to_csv(path, index=False)
    return path


def test_fit_takes_the_chosen_columns_and_the_run_remembers_them(ppl, labelled_file):
    words = ["gaussian", "normal", labelled_file, "--set", "latents=1"]
    chosen = ["--drop", "grower", "--drop", "number", "--id", "bottle"]
    assert ppl("lint", *words, *chosen, "--json").json["ok"]
    ppl("fit", *words, *chosen, "--epochs", "1", "--run", "run", "--quiet")
    shown = ppl("show", "run", "--json").json
    assert shown["template"]["fields"][0]["labels"] == list(
        pd.read_csv(labelled_file).columns.drop(["bottle", "grower", "number"])
    )
    two = ["--columns", "ash", "--columns", "alcohol"]
    ppl("fit", *words, *two, "--validation", labelled_file, "--epochs", "1", "--run", "two", "-q")
    assert ppl("encode", "two", labelled_file, "--json").json["rows"] == 178
    labels = ppl("show", "two", "--json").json["template"]["fields"][0]["labels"]
    assert labels == ["ash", "alcohol"]
    refused = ppl("report", "two", labelled_file, "--id", "botle", code=2).err
    assert "did you mean bottle" in refused


@pytest.mark.parametrize("kind", ["csv", "tsv", PARQUET])
@pytest.mark.parametrize("command", ["encode", "evaluate"])
@pytest.mark.filterwarnings('ignore:.*"k_hat" has 178 missing')  # 20 draws are too few for it
def test_the_labels_of_rows_are_in_the_results_to_join_on(
    ppl, wine_run, labelled_file, kind, command
):
    few = ["--num-samples", "20"]
    ppl(command, wine_run, labelled_file, "--id", "bottle", "--out", f"a.{kind}", *few, "--quiet")
    results = read_data(f"a.{kind}", index="bottle")
    assert results.index.tolist() == [f"{n:04d}" for n in range(178)]
    data = read_data(labelled_file, drop=["grower"], index="bottle")
    assert len(data.join(results)) == 178
    ppl(command, wine_run, labelled_file, "--id", "number", "--out", f"b.{kind}", *few, "--quiet")
    results = read_data(f"b.{kind}", index="number")
    assert results.index.tolist() == list(range(1000, 1178))


def test_labels_are_in_json_and_need_a_table(ppl, wine_run, labelled_file):
    told = ppl("encode", wine_run, labelled_file, "--id", "bottle", "--json").json
    assert told["index"][:2] == ["0000", "0001"]
    words = ("encode", wine_run, labelled_file, "--id", "bottle", "--out", "a.npy")
    assert "whose rows have no labels" in ppl(*words, code=2).err


def test_columns_are_chosen_in_every_command_that_reads_a_table(ppl, wine_run, labelled_file):
    words = ("--drop", "grower", "--num-samples", "20")
    ppl("check", wine_run, labelled_file, *words, "--id", "bottle", "--quiet")
    ppl("generate", wine_run, "--like", labelled_file, *words, "--quiet")
    for command in ("check", "encode", "evaluate"):
        done = ppl(command, wine_run, labelled_file, "--drop", "growre", code=2)
        assert "--drop: expected columns of" in done.err
        assert "did you mean grower?" in done.err
    assert "--id: expected columns" in ppl(
        "encode", wine_run, labelled_file, "--id", "bottles", code=2
    ).err  # fmt: skip
    done = ppl("encode", wine_run, labelled_file, "--drop", "ash", code=1)
    assert 'expected the run\'s columns, got none called "ash"' in done.err


def test_every_column_of_text_is_named_with_the_option_that_leaves_it_out(ppl, labelled_file):
    told = ppl("lint", "gaussian", "normal", labelled_file, code=1).err
    assert 'column "grower": expected numbers, got "someone" in line 2' in told
    assert "--drop leaves columns out" in told


def hostile_table(path):
    data = pd.DataFrame({name: [0.5 * n, 1.0, -n] for n, name in enumerate(HOSTILE)})
    data.set_axis(pd.Index(["=cmd()", "-u", "v"])).to_csv(path)
    return read_data(path)


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_no_name_or_label_in_a_table_of_results_is_a_formula(tmp_path, kind):
    from ppl_vae.cli.outfile import write

    data = hostile_table(tmp_path / "hostile.csv")
    mixed = data.assign(verdict=["=2", "fine", "@x"])
    write(tmp_path / f"a.{kind}", mixed)
    raw = pd.read_csv(tmp_path / f"a.{kind}", sep=",\t"[kind == "tsv"], dtype=str)
    texts = [*raw.columns, *raw.iloc[:, 0], *raw["verdict"]]
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@", "\t"))]
    back = read_data(tmp_path / f"a.{kind}", drop="verdict")
    pd.testing.assert_frame_equal(back, data)
    assert list(back.columns)[:5] == ["=1+1", "+x", "-x", "@x", "=x"]


def test_no_control_character_reaches_the_terminal(ppl, tmp_path):
    hostile_table(tmp_path / "hostile.csv")
    path = tmp_path / "hostile.csv"
    words = ("gaussian", "normal", path, "--set", "latents=1")
    outputs = [ppl("fit", *words, "--epochs", "1", "--run", "run")]
    outputs += [ppl("show", "run"), ppl("encode", "run", path), ppl("generate", "run")]
    outputs.append(ppl("check", "run", path, "--num-samples", "20"))
    outputs.append(ppl("encode", "run", path, "--drop", "a\x1b[2J", code=1))
    outputs.append(ppl("encode", "run", "no\x1b[31m\u202efile.csv", code=2))
    outputs.append(ppl("encode", "run", path, "--id", "\x1b[2J", code=2))
    for done in outputs:
        assert not set(done.out + done.err) & set("\x1b\x07\u202e")
    assert "a\\x1b[2J" in outputs[1].out
