"""Parquet files are written anew in a random order: each row once, every column, bounded memory."""

import numpy as np
import pandas as pd
import pytest
from parts.extras import pyarrow

from ppl_vae.data import shuffle as module
from ppl_vae.data.shuffle import shuffle

pyarrow()
FRAME = pd.DataFrame({"n": range(500), "city": [f"town {n}" for n in range(500)],
                      "day": pd.date_range("2024-01-01", periods=500),
                      "size": pd.array([None, *range(499)], dtype="Int64")})  # fmt: skip


def write(folder, frame=FRAME):
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(frame)), 3)):
        frame.iloc[part].to_parquet(folder / f"{number}.parquet", row_group_size=50, index=False)
    return folder


def read(folder):
    return pd.concat([pd.read_parquet(file) for file in sorted(folder.iterdir())])


@pytest.mark.parametrize("bucket", [1 << 27, 4000], ids=["one bucket", "buckets"])
def test_each_row_is_written_once_in_a_random_order(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUCKET", bucket)
    source = write(tmp_path / "rows")
    files = shuffle(source, tmp_path / "mixed", seed=1)
    mixed = read(tmp_path / "mixed")
    assert (files > 3) == (bucket == 4000)
    pd.testing.assert_frame_equal(mixed.sort_values("n", ignore_index=True), FRAME)
    places = np.corrcoef(mixed["n"], np.arange(500))[0, 1]
    assert abs(places) < 0.2  # 0.045 is its standard deviation
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mixed", "rows"]
    shuffle(source, tmp_path / "again", seed=1)
    assert read(tmp_path / "again").equals(mixed)
    shuffle(source, tmp_path / "other", seed=2)
    assert not read(tmp_path / "other").equals(mixed)


def test_each_order_is_as_probable_as_another(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUCKET", 20)
    source = write(tmp_path / "rows", pd.DataFrame({"n": range(3)}))
    found = []
    for seed in range(300):
        shuffle(source, tmp_path / f"{seed}", seed=seed)
        found.append("".join(map(str, read(tmp_path / f"{seed}")["n"])))
    counts = pd.Series(found).value_counts()
    assert len(counts) == 6
    assert ((counts - 50) ** 2 / 50).sum() < 20.5  # chi-squared of 5 degrees: 99.9 %


def test_faults_leave_nothing_behind(tmp_path):
    source = write(tmp_path / "rows")
    FRAME.assign(n="x").to_parquet(source / "2.parquet", index=False)
    with pytest.raises(ValueError, match=r"2\.parquet: expected columns of the types"):
        shuffle(source, tmp_path / "mixed")
    assert [file.name for file in tmp_path.iterdir()] == ["rows"]
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="there: expected a new folder"):
        shuffle(source, tmp_path / "there")
    with pytest.raises(ValueError, match="outside"):
        shuffle(source, source / "mixed")


def test_types_that_differ_among_files_become_one_that_holds_all(tmp_path):
    source = write(tmp_path / "rows", FRAME.assign(empty=None))
    last = FRAME.assign(n=FRAME["n"] + 0.5, empty=1.5)
    last.to_parquet(source / "2.parquet", index=False)
    shuffle(source, tmp_path / "mixed")
    mixed = read(tmp_path / "mixed")
    assert (mixed["n"] % 1 == 0.5).sum() == 500
    assert (mixed["empty"] == 1.5).sum() == 500
