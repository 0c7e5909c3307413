"""The example of strange rows compares a VAE with an exact density, in a table and a figure."""

from pathlib import Path

from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its tumours
ROOT = Path(__file__).parents[2]


def test_an_estimated_and_an_exact_score_are_compared(tmp_path):
    options = "--epochs", 2, "--draws", 30, "--run", tmp_path / "run"
    out, _ = run_script(ROOT / "examples" / "strange_rows.py", *options, folder=tmp_path)
    (figure,) = (tmp_path / "run").glob("*.png")
    assert figure.stat().st_size > 5000
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert len(lines["VAE"]) == len(lines["flow"]) == 5
    assert float(lines["VAE"][-1]) > 0  # an estimate depends on the seed
    assert float(lines["flow"][-1]) == 0  # an exact density does not
    for word in ("AUROC", "power", "false alarms", "Monte Carlo error (nats)", "Try next"):
        assert word in out
