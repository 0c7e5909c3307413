"""The benchmark of guide calibration runs: every guide, and what is named of it."""

from benchmarks.test_mnist import command


def test_every_guide_is_judged_and_faults_are_named(tmp_path):
    shown = command("guide_calibration.py", "--tiny", folder=tmp_path)
    assert "2 latents, 400 rows, 99 draws" in shown
    lines = [line for line in shown.splitlines() if "passed" in line]
    assert [line[:10].strip() for line in lines] == [
        "exact", "sd x 0.8", "sd x 1.2", "+ 0.5 sd", "- 0.5 sd"
    ]  # fmt: skip
    named = [line.split("named ")[1].split()[0] for line in lines[1:]]
    assert named == ["narrow", "wide", "high", "low"]
    assert all("2/2 named" in line for line in lines[3:])
