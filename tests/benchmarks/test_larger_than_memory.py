"""The benchmark of files beside memory measures both, and nothing twice."""

import json
from pathlib import Path

from parts.extras import pyarrow
from parts.scripts import run_script

pyarrow()
FILE = Path(__file__).parents[2] / "benchmarks" / "larger_than_memory.py"


def test_both_fits_are_measured_once(tmp_path):
    words = "--tiny", "--out", tmp_path / "rows.jsonl", "--folder", tmp_path / "rows"
    out, _ = run_script(FILE, *words, folder=tmp_path)
    assert "files over memory" in out
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["files", "memory"]
    assert abs(rows[0]["elbo"] - rows[1]["elbo"]) < 2  # other orders, the same data
    run_script(FILE, *words, folder=tmp_path)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2
