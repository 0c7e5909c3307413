"""``ppl-vae score``: the numbers of the detector, row by row, from files of any cut."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ppl_vae import AnomalyDetector, load

RATE = ("--false-alarm-rate", "0.1")


@pytest.fixture(scope="module")
def files(tmp_path_factory, request):
    """A run, clean rows, and new rows with an id, a date and three planted cells."""
    from ppl_vae import build, fit
    from ppl_vae.guides.normal import NormalGuide
    from ppl_vae.models.gaussian import GaussianModel

    folder = tmp_path_factory.mktemp("score")
    rng = np.random.default_rng(0)
    z = rng.normal(size=(700, 2))
    x = z @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(700, 4))
    frame = pd.DataFrame(x.astype("f4"), columns=["age", "height", "dose", "time"])
    train, clean, new = frame[:300], frame[300:500], frame[500:].reset_index(drop=True)
    new.loc[[5, 60, 199], "dose"] += 20
    model, guide = build(GaussianModel, train), build(NormalGuide, train)
    fit(model, guide, train, epochs=40, seed=0, progress=False, run=folder / "run")
    clean.to_csv(folder / "clean.csv", index=False)
    train.to_csv(folder / "train.csv", index=False)
    new.insert(0, "code", [f"{i:03}" for i in range(200)])
    new["day"] = pd.date_range("2024-02-01", periods=200)
    new.to_csv(folder / "new.csv", index=False)
    new.to_parquet(folder / "new.parquet", row_group_size=13)
    return folder


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_results_are_those_of_the_detector_in_the_order_of_the_rows(files, ppl, ending):
    done = ppl(
        "score", files / "run", files / f"new.{ending}", "--calibrate", files / "clean.csv",
        "--out", f"scores.{ending}", "--keep", "code", "--keep", "day", "--explain", *RATE,
    )  # fmt: skip
    assert "anomaly detector" in done.out
    text = {"code": str, "day": str}
    found = pd.read_csv("scores.csv", dtype=text) if ending == "csv" else None
    found = pd.read_parquet("scores.parquet") if found is None else found
    new = pd.read_parquet(files / "new.parquet")
    assert list(found["code"]) == list(new["code"])
    assert list(found["day"].astype(str)) == list(new["day"].astype(str))
    detector = AnomalyDetector(*load(files / "run"), pd.read_csv(files / "clean.csv"))
    right = detector(new.drop(columns=["code", "day"]), false_alarm_rate=0.1)
    for name in right:
        np.testing.assert_allclose(found[name], right[name], rtol=1e-6)
    assert found["flagged"][[5, 60, 199]].all()
    assert found["reasons"][[5, 60, 199]].str.startswith("dose +").all()


def test_a_kept_detector_serves_later_calls(files, ppl):
    words = ("score", files / "run", files / "new.csv")
    ppl(*words, "--calibrate", files / "clean.csv", "--out", "a.csv", "--keep-detector")
    done = ppl(*words, "--out", "b.csv", "--json")
    pd.testing.assert_frame_equal(pd.read_csv("a.csv"), pd.read_csv("b.csv"))
    assert done.json["rows"] == 200
    assert done.json["flagged"] == pd.read_csv("b.csv")["flagged"].sum()
    again = ("--calibrate", files / "clean.csv", "--out", "c.csv", "--keep-detector")
    assert "holds a detector already; --force replaces it" in ppl(*words, *again, code=2).err
    assert not Path("c.csv").exists(), "refused before the work"
    ppl(*words, *again, "--force", "--score", "reconstruction")
    replaced = AnomalyDetector.load(files / "run")
    assert replaced.scoring.score == "reconstruction"
    (files / "run" / "detector.safetensors").unlink()


def test_discoveries_are_decided_over_all_parts(files, ppl, monkeypatch):
    monkeypatch.setattr("ppl_vae.cli.scored_file.READ", 7)
    monkeypatch.setattr("ppl_vae.anomaly.scoring.PART", 10)
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", 8)
    words = ("--calibrate", files / "clean.csv", "--false-discovery-rate", "0.4", "--keep", "code")
    ppl("score", files / "run", files / "new.parquet", "--out", "s.csv", *words)
    found = pd.read_csv("s.csv", dtype={"code": str})
    detector = AnomalyDetector(*load(files / "run"), pd.read_csv(files / "clean.csv"))
    new = pd.read_parquet(files / "new.parquet")
    right = detector(new.drop(columns=["code", "day"]), false_discovery_rate=0.4)
    assert list(found["code"]) == list(new["code"])
    for name in right:
        np.testing.assert_allclose(found[name], right[name], rtol=1e-6)
    assert found["flagged"].sum() >= 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--out", "s.npy"], 2, "expected a .csv, .tsv or .parquet file"),
        (["--out", "s.csv", "--explain"], 2, "--explain: expected --calibrate CLEAN"),
        (["--out", "s.csv", "--keep-detector"], 2, "--keep-detector: expected --calibrate"),
        (["--out", "s.csv"], 1, "no detector in it; give clean rows, --calibrate CLEAN"),
        (["--out", "s.csv", "--score", "divergence"], 2, "--score: expected --calibrate CLEAN"),
        (["--out", "s.csv", "--num-samples", "9"], 2, "--num-samples: expected --calibrate CLEAN"),
        (["--out", "s.csv", "--seed", "1"], 2, "--seed: expected --calibrate CLEAN beside it"),
        (["--out", "s.csv", "--calibrate", "clean.csv", "--score", "typicality"],
         1, '--reference: expected rows for the score "typicality"'),
        (["--out", "s.csv", "--calibrate", "clean.csv", "--false-alarm-rate", "0",
          "--keep-detector"], 1, "--false-alarm-rate: expected a number above 0"),
        (["--out", "s.csv", "--calibrate", "clean.csv", "--keep", "cod"], 2, "did you mean code?"),
        (["--out", "s.csv", "--calibrate", "clean.csv", *RATE, "--false-discovery-rate", "0.1"],
         1, "pass one of the two"),
        (["--out", "s.csv", "--calibrate", "clean.csv", "--false-alarm-rate", "0.001"],
         1, "calibration rows"),
        (["--out", "s.csv", "--calibrate", "clean.csv", "--score", "likelihood"],
         1, "score: expected one of"),
    ],
)  # fmt: skip
def test_faults_are_told_and_leave_no_file(files, ppl, words, code, message):
    words = [files / word if word in ("clean.csv", "train.csv") else word for word in words]
    done = ppl("score", files / "run", files / "new.csv", *words, code=code)
    assert message in done.err
    assert not list(Path().iterdir())
    assert not (files / "run" / "detector.safetensors").exists()


def test_columns_that_the_results_have_are_not_handed_on_in_their_place(files, ppl):
    pd.read_csv(files / "new.csv").assign(score=7, reasons="x").to_csv("new.csv", index=False)
    words = ("--calibrate", files / "clean.csv", "--out", "s.csv", "--keep", "code", "--keep")
    for name in ("score", "reasons"):
        done = ppl("score", files / "run", "new.csv", *words, name, code=2)
        assert (
            f'--keep: expected columns of other names than those of the results, got "{name}"'
            in (done.err)
        )
    np.save("new.npy", np.zeros((3, 4)))
    done = ppl("score", files / "run", "new.npy", *words, "code", code=2)
    assert "--keep: expected new.npy to be one table" in done.err


def test_rows_that_the_run_was_fitted_to_are_no_clean_rows(ppl, wine_run, wine_file):
    words = ("score", wine_run, wine_file, "--out", "s.csv", "--calibrate")
    done = ppl(*words, wine_file, code=1)
    assert "expected rows that the run was not fitted to, got 160 of its fit among 178" in done.err
    wine = pd.read_csv(wine_file)
    (wine + 0.01).to_csv("other.csv", index=False)
    ppl(*words, "other.csv")


def test_clean_rows_are_never_replaced_by_the_results(files, ppl):
    before = (files / "clean.csv").read_bytes()
    words = ("--calibrate", files / "clean.csv", "--out", files / "clean.csv", "--force")
    done = ppl("score", files / "run", files / "new.csv", *words, code=2)
    assert "expected a file other than the data" in done.err
    assert (files / "clean.csv").read_bytes() == before


def test_a_detector_is_that_of_the_run_and_not_of_one_of_its_files(files, ppl):
    weights = files / "run" / "weights.safetensors"
    words = ("score", weights, files / "new.csv", "--out", "s.csv")
    assert "expected the run directory" in ppl(*words, code=2).err
    calibrated = (*words, "--calibrate", files / "clean.csv")
    assert "expected the run directory" in ppl(*calibrated, "--keep-detector", code=2).err
    ppl(*calibrated)


def test_an_ensemble_is_named_and_its_pairs_are_runs(files, ppl):
    pair = load(files / "run")
    clean = pd.read_csv(files / "clean.csv")
    AnomalyDetector([pair, pair], None, clean, num_samples=25).save("both")
    words = (files / "new.csv", "--out", "s.csv")
    assert "both: holds an ensemble" in ppl("score", "both", *words, code=1).err
    ppl("score", "both/member-1", *words, "--calibrate", files / "clean.csv")


def test_typicality_is_measured_from_reference_rows(files, ppl):
    words = ("--score", "typicality", "--reference", files / "train.csv", "--out", "s.csv")
    ppl("score", files / "run", files / "new.csv", "--calibrate", files / "clean.csv", *words)
    clean, train = (pd.read_csv(files / name) for name in ("clean.csv", "train.csv"))
    new = pd.read_csv(files / "new.csv").drop(columns=["code", "day"])
    pair = load(files / "run")
    detector = AnomalyDetector(*pair, clean, score="typicality", reference=train)
    np.testing.assert_allclose(pd.read_csv("s.csv")["score"], detector(new)["score"], rtol=1e-6)


def test_a_data_file_that_changes_meanwhile_is_told_of(files, ppl, monkeypatch):
    new = pd.read_csv(files / "new.csv")
    parts = AnomalyDetector.parts
    words = ("--calibrate", files / "clean.csv", "--out", "s.csv", "--keep", "code")
    for other in (new[:9], pd.concat([new, new[:9]])):

        def then_changed(*arguments, other=other, **options):
            yield from parts(*arguments, **options)
            other.to_csv("new.csv", index=False)

        new.to_csv("new.csv", index=False)
        monkeypatch.setattr(AnomalyDetector, "parts", then_changed)
        done = ppl("score", files / "run", "new.csv", *words, code=1)
        assert "new.csv: has changed while it was scored" in done.err
        assert not Path("s.csv").exists()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_disk_that_is_full_is_told_of_and_leaves_no_file(files, ppl, ending):
    resource = pytest.importorskip("resource")
    words = ("--calibrate", files / "clean.csv", "--out", f"s.{ending}")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (100, 12_000 if ending == "csv" else 9_000):  # while scored; while written
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            done = ppl("score", files / "run", files / "new.csv", *words, code=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert f"error: s.{ending}: cannot be written" in done.err
        assert not list(Path().iterdir())


def test_faults_of_the_rows_are_told_with_their_place(files, ppl, monkeypatch):
    monkeypatch.setattr("ppl_vae.anomaly.scoring.PART", 10)
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", 8)
    lines = (files / "new.csv").read_text().splitlines()
    parts = lines[151].split(",")
    parts[3] = "inf"
    bad = [*lines[:151], ",".join(parts), *lines[152:]]
    with open("bad.csv", "w") as file:
        file.write("\n".join(bad))
    words = ("--calibrate", files / "clean.csv", "--out", "s.csv")
    done = ppl("score", files / "run", "bad.csv", *words, code=1)
    assert 'infinity in row 150 in column "dose"' in done.err
    new = pd.read_csv(files / "new.csv").drop(columns="dose")
    new.to_csv("missing.csv", index=False)
    done = ppl("score", files / "run", "missing.csv", *words, code=1)
    assert 'none called "dose"' in done.err
