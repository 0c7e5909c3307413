"""``encode``, ``generate`` and ``show``: results on the screen and in files of every kind."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from parts.extras import PARQUET

import ppl_vae
from ppl_vae.data.files import read_data
from ppl_vae.zoo.catalog import find_class

KINDS = ["csv", "tsv", PARQUET, "npy", "npz"]
TABLES = ("csv", "tsv", "parquet")


def test_encode_equals_the_public_function(ppl, wine_run, wine_file):
    told = ppl("encode", wine_run, wine_file, "--json").json
    codes = ppl_vae.encode(*ppl_vae.load(wine_run), read_data(wine_file))
    assert told["columns"] == ["z.mean.0", "z.mean.1", "z.sd.0", "z.sd.1"]
    assert np.allclose(told["values"], codes.to_numpy())
    shown = ppl("encode", wine_run, wine_file)
    assert "z.mean.0" in shown.out
    assert "..." in shown.out


def test_a_model_that_sums_its_latents_out_has_codes_without_a_guide(ppl, wine_file):
    ppl("fit", "mixture", "none", wine_file, "--run", "run", "--epochs", 2, "--set", "components=3")
    assert "encode" in ppl("show", "run").out
    table = ppl("encode", "run", wine_file, "--json").json
    assert table["columns"] == [f"k.probability.{i}" for i in range(3)]
    assert np.allclose(np.sum(table["values"], 1), 1)
    modes = ppl("encode", "run", wine_file, "--joint", "--json").json
    assert modes["columns"] == ["k.mode.0"]
    assert np.array_equal(np.array(modes["values"])[:, 0], np.argmax(table["values"], 1))


@pytest.mark.parametrize("kind", KINDS)
def test_result_files_can_be_read_as_data(ppl, wine_run, wine_file, kind):
    told = ppl("encode", wine_run, wine_file, "--out", f"codes.{kind}", "--json").json
    assert (told["rows"], told["out"]) == (178, f"codes.{kind}")
    expected = np.array(ppl("encode", wine_run, wine_file, "--json").json["values"])
    assert np.allclose(np.asarray(read_data(f"codes.{kind}")), expected)
    assert [path.name for path in Path().iterdir()] == [f"codes.{kind}"]


@pytest.mark.parametrize("kind", KINDS)
def test_generated_rows_have_the_form_of_the_data(ppl, wine_run, wine_file, kind):
    ppl("generate", wine_run, "--num-samples", "20", "--out", f"new.{kind}", "--quiet")
    made = read_data(f"new.{kind}", read_data(wine_file) if kind in TABLES else None)
    assert made.shape == (20, 13)


def test_generated_rows_follow_the_seed_and_look_like_data(ppl, wine_run, wine_file):
    words = ("generate", wine_run, "--num-samples", "500", "--json")
    first, again = ppl(*words).json, ppl(*words).json
    other = ppl(*words, "--seed", "1").json
    assert first == again != other
    data = read_data(wine_file)
    assert first["columns"] == list(data.columns)
    away = (np.mean(first["values"], 0) - data.mean()) / data.std()
    assert away.abs().max() < 1


def test_generated_digits_have_the_dtype_of_the_data(ppl, digits_file):
    ppl("fit", "bernoulli", "normal", digits_file, "--epochs", "1", "--run", "run", "--quiet")
    ppl("generate", "run", "--num-samples", "4", "--out", "new.npy", "--quiet")
    made = np.load("new.npy")
    assert (made.shape, made.dtype) == ((4, 64), np.uint8)
    assert ppl("encode", "run", digits_file, "--json").json["rows"] == 300


def test_new_documents_take_their_length_from_rows_and_none_is_empty_in_silence(ppl):
    counts = np.random.default_rng(0).poisson(2.0, (40, 6))
    np.save("words.npy", counts)
    setting = ("--set", "latents=2", "--epochs", "1", "--run", "run", "--quiet")
    ppl("fit", "topics", "dirichlet", "words.npy", *setting)
    without = ppl("generate", "run", "--num-samples", "4", "--out", "empty.npy")
    assert "--like DATA" in without.out + without.err
    assert np.load("empty.npy").sum() == 0
    new = ppl("generate", "run", "--like", "words.npy", "--num-samples", "4", "--out", "new.npy")
    assert "--like DATA" not in new.out + new.err
    assert set(np.load("new.npy").sum(1)) <= set(counts.sum(1))


def test_columns_are_found_by_name_among_others(ppl, wine_run, wine_file):
    data = pd.read_csv(wine_file)
    data[[*data.columns[::-1]]].assign(grower="someone").to_csv("mixed.csv", index=False)
    expected = ppl("encode", wine_run, wine_file, "--json").json
    assert ppl("encode", wine_run, "mixed.csv", "--json").json == expected


def test_row_labels_stay_with_their_codes(ppl, wine_run, wine_file):
    data = pd.read_csv(wine_file).iloc[:3].set_axis(["u", "v", "w"])
    data.to_csv("named.csv")
    ppl("encode", wine_run, "named.csv", "--out", "codes.csv", "--quiet")
    assert list(read_data("codes.csv").index) == ["u", "v", "w"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data.rename(columns={"ash": "ashes"}),
            'none called "ash"; did you mean ashes?',
        ),
        (
            lambda data: data.assign(ash="much"),
            'column "ash": expected numbers, got "much" in line 2',
        ),
    ],
)
def test_data_of_another_form_exit_with_1(ppl, wine_run, wine_file, change, message):
    change(pd.read_csv(wine_file)).to_csv("other.csv", index=False)
    assert message in ppl("encode", wine_run, "other.csv", code=1).err
    assert message in ppl("generate", wine_run, "--like", "other.csv", code=1).err


def test_arrays_of_another_width_exit_with_1(ppl, wine_run):
    np.save("narrow.npy", np.zeros((5, 12)))
    done = ppl("encode", wine_run, "narrow.npy", code=1)
    assert "expected rows of shape (13,), got (12,)" in done.err


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("codes.xlsx", "expected one of .csv, .tsv, .parquet, .npy, .npz, got .xlsx"),
        ("codes", "got no extension"),
        ("away/codes.csv", "a folder that exists"),
        ("other.csv", "is there already; --force replaces it"),
        ("wine.csv", "expected a file other than the data"),
    ],
)
def test_results_never_overwrite_a_file(ppl, wine_run, wine_file, tmp_path, out, message):
    for name in ("wine.csv", "other.csv"):
        (tmp_path / name).write_bytes(wine_file.read_bytes())
    assert message in ppl("encode", wine_run, "wine.csv", "--out", out, code=2).err
    assert Path("other.csv").read_bytes() == wine_file.read_bytes()
    ppl("encode", wine_run, "wine.csv", "--out", "other.csv", "--force")
    assert Path("other.csv").read_text().startswith("z.mean.0,")


@pytest.mark.parametrize("command", ["encode", "evaluate", "check", "generate --like", "score"])
def test_results_never_replace_the_data_that_they_are_of(ppl, wine_run, wine_file, command):
    Path("wine.csv").write_bytes(wine_file.read_bytes())
    name, *option = command.split()
    done = ppl(name, wine_run, *option, "wine.csv", "--out", "wine.csv", "--force", code=2)
    assert "--out wine.csv: expected a file other than the data" in done.err
    assert Path("wine.csv").read_bytes() == wine_file.read_bytes()


def test_show_prints_what_is_in_a_run(ppl, wine_run):
    shown = ppl("show", wine_run).out
    for words in ("finished", "GaussianModel(features=13, latents=2", "malic_acid", "held-out",
                  "TraceMeanField_ELBO", "3 epochs, 6 steps", "finished after all epochs",
                  "torch"):  # fmt: skip
        assert words in shown
    told = ppl("show", wine_run, "--json").json
    assert told["last_epoch"]["epoch"] == 3


def test_show_opens_a_run_that_was_only_saved(ppl):
    model = ppl_vae.build(find_class("bernoulli", "models"), np.ones((5, 4)))
    guide = ppl_vae.build(find_class("normal", "guides"), np.ones((5, 4)))
    ppl_vae.save(model, guide, "saved")
    assert "saved without data" in ppl("show", "saved").out
    assert "--like DATA" in ppl("generate", "saved", code=2).err
    np.save("x.npy", np.ones((5, 4)))
    assert ppl("generate", "saved", "--like", "x.npy", "--json").json["form"] == "shape (4,)"


def test_a_users_files_are_executed_only_when_trusted(ppl, wine_file):
    pair = ppl("new", "gaussian", "normal", "--json").json["pair"]
    ppl("fit", *pair, wine_file, "--epochs", "1", "--run", "run", "--quiet")
    marker = "import pathlib; pathlib.Path('executed').touch()\n"
    for path in Path("models").glob("*.py"):
        path.write_text(marker + path.read_text())
    ppl("fit", *pair, wine_file, "--epochs", "1", "--run", "marked", "--quiet")
    Path("executed").unlink()
    for words in (["encode", "marked", wine_file], ["generate", "marked"]):
        assert "execute them by --trust-code" in ppl(*words, code=1).err
    assert "--trust-code" in ppl("show", "marked").out
    assert not Path("executed").exists()
    ppl("generate", "marked", "--trust-code", "--quiet")
    assert Path("executed").exists()


@pytest.mark.parametrize("name", ["run.json", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone"])
def test_a_damaged_run_gives_one_message(ppl, own_run, wine_file, name, damage):
    file = own_run / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    kinds = {"cut": content[: len(content) // 3], "flipped": content, "empty": b""}
    file.unlink() if damage == "gone" else file.write_bytes(bytes(kinds[damage]))
    done = ppl("encode", own_run, wine_file, code=1)
    assert name in done.err
    assert done.err.count("\n") == 1


def test_a_snapshot_opens_if_the_weights_are_damaged(ppl, own_run, wine_file):
    (own_run / "weights.safetensors").write_bytes(b"")
    snapshot = own_run / "snapshot.safetensors"
    assert f"give {snapshot} as RUN" in ppl("encode", own_run, wine_file, code=1).err
    assert ppl("encode", snapshot, wine_file, "--json").json["rows"] == 178


def test_json_has_null_for_nan_and_infinity(ppl, wine_run):
    from ppl_vae.cli.console import json_value

    values = {"a": [np.float32("nan"), float("inf")], "b": np.arange(2), "c": Path("x"), "d": None}
    assert json.loads(json.dumps(json_value(values), allow_nan=False)) == {
        "a": [None, None], "b": [0, 1], "c": "x", "d": None,
    }  # fmt: skip


def test_the_device_is_an_option_of_every_command(ppl, wine_file, wine_run):
    told = ppl("evaluate", wine_run, wine_file, "--json", "--num-samples", 20).out
    on_cpu = ppl("evaluate", wine_run, wine_file, "--json", "--num-samples", 20, "--device", "cpu")
    assert on_cpu.out == told
    for command in (["lint", "gaussian", "normal"], ["evaluate", wine_run], ["generate", wine_run]):
        data = [] if command[0] == "generate" else [wine_file]
        for device in ("gpu", "cuda:99"):
            refused = ppl(*command, *data, "--device", device, code=2)
            assert f"--device {device}: cannot be used" in refused.err
