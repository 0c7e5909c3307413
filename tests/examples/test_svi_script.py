"""In the example of an SVI script, the library's ELBO is that of the script, and the runs open."""

import warnings
from pathlib import Path

from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
ROOT = Path(__file__).parents[2]


def test_the_library_gives_the_numbers_of_the_script(tmp_path):
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        words = "--epochs", 8, "--run", tmp_path / "run"
        out, _ = run_script(ROOT / "examples" / "svi_script.py", *words, folder=tmp_path)
    said = [str(record.message) for record in records if "store" in str(record.message)]
    assert len(said) == 1
    assert said[0].startswith('parameters "share", "ink": took the values')
    assert (tmp_path / "run" / "reconstructions.png").stat().st_size > 5000
    assert (tmp_path / "run" / "kinds" / "run.json").exists()
    table = out.split("nats per row\n")[1]
    rows = dict(zip(("code", "kinds"), table.splitlines()[1:3], strict=True))
    for name, row in rows.items():
        start, by_svi, elbo, log_likelihood, _ = row.split()
        assert start == name
        assert abs(float(by_svi) - float(elbo)) < 0.15
        assert float(log_likelihood) >= float(elbo)
