"""A check of a chain of sites is printed with one line for each statistic, of its worst step."""

import torch

from ppl_vae import predictive_check
from ppl_vae.models.hmm import HMMModel


def test_a_chain_has_one_printed_line_for_each_statistic():
    x = torch.randn(40, 12, 1)
    check = predictive_check(HMMModel(12, 1, states=2), None, x, num_samples=20)
    across = [("(across sites)", "correlation")]  # of two steps, such as "x_0[0] & x_3[0]"
    steps = check.frame.drop(index=across)
    statistics = steps.index.unique("statistic")
    assert len(steps) == 12 * len(statistics)
    lines = check.lines.drop(index=across)
    assert list(lines.index.unique("statistic").sort_values()) == sorted(statistics)
    assert len(lines) == len(statistics)
    for statistic in statistics:  # the frame has the worst lines first
        worst = steps.xs(statistic, level="statistic").index[0]
        assert (worst, statistic) in lines.index
    printed = str(check)
    assert len(printed.splitlines()) < len(statistics) + 11
    assert "x_0 to x_11 are the steps of a chain" in printed
    assert f"of {len(check.frame)} statistics flagged" in printed


def test_sites_that_are_no_chain_have_all_their_lines():
    x = torch.randn(40, 1, 1)
    check = predictive_check(HMMModel(1, 1, states=2), None, x, num_samples=20)
    assert check.lines.equals(check.frame)
    assert "chain" not in str(check)
