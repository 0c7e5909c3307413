"""The benchmark of several processes runs all setups, and forms ratios and a model."""

from benchmarks.test_mnist import command


def test_each_setup_is_measured_and_extended(tmp_path):
    words = ["--works", "vae-512x784", "--setups", "1x1", "2x1", "--rounds", "1", "--tiny"]
    shown = command("scale.py", *words, folder=tmp_path)
    measured = [line.split() for line in shown.splitlines() if line.startswith(("vae", " "))]
    assert [words[0] for words in measured if words and words[0] == "2x1"][:1] == ["2x1"]
    assert "speed beside 1x1" in shown
    machines = [int(line.split()[0]) for line in shown.split("by the model")[1].splitlines()[3:]]
    assert machines == [1, 2, 4, 8, 16, 32, 64]


def test_the_model_is_that_of_its_formula(imported):
    scale = imported("scale")
    frame = scale.pd.DataFrame({"work": ["vae-512x784"], "setup": ["1x1"], "step": [20.0]})
    table = scale.modelled(frame.assign(bytes=10**6), scale.work_of("vae-512x784", tiny=False))
    fixed = 2e-4 + 2.5e6 / 5e9
    network = 2 * 3 * scale.LATENCY + 2 * 10**6 * 0.75 / scale.BANDWIDTH
    expected = 1e3 * (fixed + (0.02 - fixed) / 4 + network)
    assert abs(table.loc[4, "ms a step"] - expected) < 0.01
    assert table.loc[1, "speed"] == 1
