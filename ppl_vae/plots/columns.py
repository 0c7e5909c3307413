"""Each column of a table: real rows beside generated ones."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ppl_vae.plots import style

MOST_CATEGORIES = 12  # that a figure shows; the rest are one bar
BINS = 30


def column_comparison(
    observed: Any, generated: Any, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Draw the distribution of one column in real rows and in generated ones.

    Numbers and dates are histograms with the same bins, categories bars; a category that is rare is
    counted among the others. Missing cells are left out.

    Args:
        observed: (rows,) the column in real rows, a series or an array.
        generated: (rows,) the column in generated rows.
        ax: Where to draw; a new figure by default.
        title: Title of the picture; the name of the column by default.

    Returns:
        The axes.

    Raises:
        ValueError: If the column has no value in one of the two.

    Example:
        >>> ax = column_comparison(pd.Series(list("aab"), name="group"), list("abb"))
        >>> ax.get_title(), [tick.get_text() for tick in ax.get_yticklabels()]
        ('group', ['a', 'b'])
    """
    held, made = (pd.Series(values).dropna() for values in (observed, generated))
    for name, values in (("observed", held), ("generated", made)):
        if not len(values):
            raise ValueError(f"{name}: expected a column with values, got none")
    title = str(getattr(observed, "name", None) or "column") if title is None else title
    is_date = pd.api.types.is_datetime64_any_dtype(held)
    if is_date or (pd.api.types.is_numeric_dtype(held) and held.dtype.kind != "b"):
        ax = style.axes_or_new(ax, 5.2, 3.0)
        _histograms(ax, held, made, is_date=is_date)
        style.label_axes(ax, title, "", "share of rows")
    else:
        shares = _shares(held, made)
        ax = style.axes_or_new(ax, 5.2, 1.0 + 0.28 * len(shares))
        _bars(ax, shares)
        style.label_axes(ax, title, "share of rows", left=False)
    style.legend_above(ax)
    return ax


def _histograms(ax: Axes, held: pd.Series, made: pd.Series, *, is_date: bool) -> None:
    """Draw two histograms with the same bins, in which the outermost 0.1 % share the last bins."""
    import matplotlib.dates as mdates  # noqa: PLC0415

    values = [
        mdates.date2num(each.to_numpy()) if is_date else each.to_numpy(float)
        for each in (held, made)
    ]
    low, high = np.quantile(np.asarray(values[0], dtype=float), [0.001, 0.999])
    whole = not is_date and bool((values[0] == np.round(values[0])).all())
    if whole:
        width = max(1, round((high - low + 1) / BINS))
        edges = np.arange(math.floor(low), math.floor(high) + 1 + width, width) - 0.5
    else:
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    for each, name, options in (
        (values[0], "real rows", {"color": style.PALE_BLUE, "histtype": "stepfilled"}),
        (values[1], "generated rows", {"color": style.INK, "histtype": "step", "linewidth": 1.4}),
    ):
        inside = np.clip(np.asarray(each, dtype=float), edges[0], edges[-1])
        weights = np.full(len(inside), 1 / len(inside))
        ax.hist(inside, edges, weights=weights, label=name, **options)  # type: ignore[arg-type]
    if is_date:
        ax.xaxis.set_major_formatter(mdates.ConciseDateFormatter(ax.xaxis.get_major_locator()))


def _shares(held: pd.Series, made: pd.Series) -> pd.DataFrame:
    """Return the share of each category in real and in generated rows, the most frequent first."""
    counts = [each.astype(str).value_counts(normalize=True) for each in (held, made)]
    shares = pd.concat(counts, axis=1, keys=["real rows", "generated rows"]).fillna(0.0)
    shares = shares.sort_values("real rows", ascending=False, kind="stable")
    if len(shares) > MOST_CATEGORIES:
        rest = shares.iloc[MOST_CATEGORIES - 1 :].sum().rename("others")
        shares = pd.concat([shares.iloc[: MOST_CATEGORIES - 1], rest.to_frame().T])
    return shares


def _bars(ax: Axes, shares: pd.DataFrame) -> None:
    """Draw two bars for each category, the first category on top."""
    places = np.arange(len(shares))
    ax.barh(places - 0.2, shares["real rows"], 0.38, color=style.PALE_BLUE, label="real rows")
    ax.barh(
        places + 0.2, shares["generated rows"], 0.38, color="none", edgecolor=style.INK,
        label="generated rows",
    )  # fmt: skip
    ax.set_yticks(places, [style.shorten(name, 24) for name in shares.index])
    ax.invert_yaxis()
