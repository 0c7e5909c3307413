"""What each latent tells of the rows, and how far its values are from the prior: stacked bars."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ppl_vae.plots import style

MOST_NAMED = 60  # bars that have a name each
LEAST = 0.1  # nats that the axis shows at least, so that latents that tell nothing look so


def usage_bars(
    usage: Any, *, title: str = "What the latents tell of the rows", ax: Axes | None = None
) -> Axes:
    """Draw the KL divergence of each latent as a bar: mutual information, then marginal KL.

    The latents are in the order of their KL divergence, which is the height of a bar. Inactive ones
    are grey. A KL divergence whose parts are not known has one hatched bar. A negative part, which
    is noise, is drawn as 0.

    Args:
        usage: A frame with the latents as index and the columns ``active``, ``kl``,
            ``mutual_information`` and ``marginal_kl``, in nats; for example
            ``latent_usage(...).frame``. Lines without a KL divergence are left out.
        title: Title of the picture.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes, the largest KL divergence on the left.

    Raises:
        ValueError: If the frame has not these columns, or no line has a KL divergence.

    Example:
        >>> usage = pd.DataFrame({"active": [False, True], "kl": [0.0, 2.0]}, index=["a", "b"])
        >>> ax = usage_bars(usage.assign(mutual_information=[0.0, 1.5], marginal_kl=[0.0, 0.5]))
        >>> [tick.get_text() for tick in ax.get_xticklabels()]
        ['b', 'a']
    """
    columns = ["active", "kl", "mutual_information", "marginal_kl"]
    if not isinstance(usage, pd.DataFrame) or not set(columns) <= set(usage.columns):
        raise ValueError(
            f"usage: expected a frame with the columns {', '.join(columns)}, got "
            f"{type(usage).__name__}; pass latent_usage(...).frame"
        )
    known = usage[columns][usage["kl"].notna()].sort_values("kl", ascending=False, kind="stable")
    if known.empty:
        raise ValueError("usage: expected a latent with a KL divergence, got none")
    count = len(known)
    ax = style.axes_or_new(ax, float(np.clip(2.5 + 0.32 * count, 5.6, 14)), 4.4)
    places, active = np.arange(count), known["active"].to_numpy(dtype=bool)
    height = known["kl"].to_numpy(dtype=float).clip(0)
    split = known[["mutual_information", "marginal_kl"]].notna().all(axis=1).to_numpy() & active
    information = known["mutual_information"].fillna(0.0).to_numpy(dtype=float)
    first = np.where(split, np.minimum(information.clip(0), height), 0.0)
    second, whole = np.where(split, height - first, 0.0), np.where(split, 0.0, height)
    none = np.zeros(count)
    groups = [
        ("mutual information of latent and row", first, none, split, style.BLUE, ""),
        ("marginal KL: aggregate posterior from prior", second, first, split, style.PALE_BLUE, ""),
        ("KL, parts not known", whole, none, active & ~split, "white", "////"),
        ("inactive latents", height, none, ~active, style.GREY, ""),
    ]
    for name, heights, bottom, members, colour, hatch in groups:
        if (heights[members] > 0).any() or (name == "inactive latents" and members.any()):
            ax.bar(
                places[members], heights[members], bottom=bottom[members], width=0.78,
                color=colour, hatch=hatch, edgecolor=style.INK, linewidth=0.5, label=name,
            )  # fmt: skip
    labels = [style.shorten(name, 14) for name in known.index]
    longest = max(map(len, labels))
    if count <= MOST_NAMED:
        ax.set_xticks(places, labels=labels, rotation=90 if count * longest > 70 else 0)
        ax.tick_params(axis="x", length=0, labelsize=style.LEGEND_SIZE if count < 40 else 7)
        for text, is_active in zip(ax.get_xticklabels(), active, strict=True):
            text.set_color("black" if is_active else style.GREY)
    else:
        style.whole_ticks(ax.xaxis)
    ax.set_xlim(-0.7, count - 0.3)
    ax.set_ylim(0, 1.06 * max(LEAST, float(height.max())))
    style.label_axes(ax, title, "latents, in order of their KL divergence", "nats per row")
    style.legend_above(ax)
    return ax
