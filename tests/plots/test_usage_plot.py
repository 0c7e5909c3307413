"""Bars of the usage of latents show the numbers that they are given."""

import itertools

import numpy as np
import pandas as pd
import pytest

from ppl_vae.plots import usage_bars


def usage(**columns):
    return pd.DataFrame(columns, index=[f"z[{i}]" for i in range(len(columns["kl"]))])


KNOWN = usage(
    active=[True, False, True, True],
    kl=[1.0, 0.01, 2.0, 0.5],
    mutual_information=[0.75, 0.005, 1.5, np.nan],
    marginal_kl=[0.25, 0.005, 0.5, np.nan],
)


def bars(ax):
    """{label: {name of the latent: (bottom, height)}}."""
    names = [tick.get_text() for tick in ax.get_xticklabels()]
    return {
        group.get_label(): {
            names[round(bar.get_x() + bar.get_width() / 2)]: (bar.get_y(), bar.get_height())
            for bar in group
        }
        for group in ax.containers
    }


def test_each_bar_is_the_kl_split_into_its_parts_in_order():
    ax = usage_bars(KNOWN)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["z[2]", "z[0]", "z[3]", "z[1]"]
    information, marginal, unknown, inactive = bars(ax).values()
    assert information == {"z[2]": (0, 1.5), "z[0]": (0, 0.75)}
    assert marginal == {"z[2]": (1.5, 0.5), "z[0]": (0.75, 0.25)}
    assert unknown == {"z[3]": (0, 0.5)}
    assert inactive == {"z[1]": (0, 0.01)}
    assert [tick.get_color() for tick in ax.get_xticklabels()] == ["black"] * 3 + ["0.6"]


def test_a_part_below_zero_is_no_bar_and_the_height_is_the_kl():
    noisy = usage(active=[True], kl=[1.0], mutual_information=[1.1], marginal_kl=[-0.1])
    ((only, heights),) = bars(usage_bars(noisy)).items()
    assert only.startswith("mutual information")
    assert heights == {"z[0]": (0, 1.0)}


def test_latents_that_tell_nothing_look_so():
    idle = usage(active=[False], kl=[1e-5], mutual_information=[1e-5], marginal_kl=[0.0])
    assert usage_bars(idle).get_ylim()[1] > 0.1


@pytest.mark.parametrize("count", [50, 200])
def test_names_of_many_latents_do_not_overlap(count):
    rng = np.random.default_rng(0).random(count)
    ax = usage_bars(
        usage(active=[True] * count, kl=rng, mutual_information=rng, marginal_kl=0 * rng)
    )
    ax.figure.canvas.draw()
    boxes = [tick.get_window_extent() for tick in ax.get_xticklabels() if tick.get_text()]
    assert len(boxes) > 2
    assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes))


def test_other_tables_are_refused():
    with pytest.raises(ValueError, match="usage: expected a frame with the columns active"):
        usage_bars(KNOWN.drop(columns="kl"))
    with pytest.raises(ValueError, match="usage: expected a latent with a KL divergence"):
        usage_bars(KNOWN.assign(kl=np.nan))
