"""Which rows are strange and why, where is the threshold, and do p-values hold?"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ppl_vae.arguments import check_count, shown
from ppl_vae.plots import style
from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.images import image_grid
from ppl_vae.plots.ranges import even_edges, is_rounding, range_in_sight
from ppl_vae.uniform_counts import binomial_mass, central_counts

ATTRIBUTION = "attribution:"  # what the columns of ``anomaly_scores`` begin with
NAME_LENGTH = 24  # characters of a column's name
LEVEL = 0.95  # probability that a share of clean rows lies in the band, at each level by itself


def score_histogram(
    scores: Any,
    threshold: float | None = None,
    labels: Any = None,
    *,
    name: str = "anomaly score",
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the scores of rows as bars, and the threshold as a line.

    The axis shows the bulk of the rows that are not strange, and the threshold. What lies beyond,
    infinite scores among it, is counted in the bar at the edge, and the axis says how many rows
    these are.

    Args:
        scores: (rows,) the higher, the stranger; infinite scores are allowed.
        threshold: The score above which a row is flagged; ``None`` or infinite for no line.
        labels: (rows,) 1 for strange rows, 0 for others, drawn as two groups, each in shares of its
            own rows; ``None`` for one group.
        name: Name of the score, for the axis.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes.

    Raises:
        ValueError: If a score or the threshold is NaN, there are no finite scores, or labels are
            not 0 and 1.

    Example:
        >>> ax = score_histogram([1.0, 2.0, 3.0, 9.0], threshold=4.0)
        >>> ax.get_legend_handles_labels()[1]
        ['threshold 4: 1 of 4 rows above', '4 rows']
    """
    values = _as_scores(scores)
    groups = _groups(values, labels)
    if threshold is not None:
        threshold = _as_threshold(threshold)
    edges = _edges(groups, threshold)
    ax = style.axes_or_new(ax, 6.8, 4.4)
    if threshold is not None and np.isfinite(threshold):
        above = f"{int((values > threshold).sum())} of {len(values)} rows above"
        label = f"threshold {threshold:.4g}: {above}"
        ax.axvline(threshold, color="black", linewidth=1.8, linestyle="--", zorder=4, label=label)
    for label, members, look in groups:
        counts = np.histogram(members.clip(edges[0], edges[-1]), edges)[0]
        heights = counts / len(members) if len(groups) > 1 else counts
        ax.bar(
            edges[:-1], heights, width=np.diff(edges), align="edge", edgecolor=style.INK,
            linewidth=0.6, label=label, **look,
        )  # fmt: skip
    beyond = [int((values < edges[0]).sum()), int((values > edges[-1]).sum())]
    parts = [f"{count} {side}" for count, side in zip(beyond, ("below", "above"), strict=True)]
    shown = ", ".join(part for part, count in zip(parts, beyond, strict=True) if count)
    note = f"\nin the bar at the edge, rows from beyond it: {shown}" if shown else ""
    y = "share of the group's rows" if len(groups) > 1 else "rows"
    if len(groups) == 1:
        style.whole_ticks(ax.yaxis, 8)
    title = "Scores of the rows" if title is None else title
    style.label_axes(ax, title, f"{name} (nats; higher is stranger){note}", y)
    style.legend_above(ax)
    return ax


def p_value_calibration(
    p_values: Any,
    calibration_rows: int | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the share of clean rows that each false-alarm rate flags, against that rate.

    On the diagonal, p-values hold. Above it, there are more false alarms than asked for. The band
    holds 95 % of the shares that chance gives, at each rate by itself. One calibration set shifts
    all p-values together, so that the band is wider where ``calibration_rows`` says how many rows
    there were.

    Args:
        p_values: (rows,) of rows that are known to be clean, from above 0 to 1.
        calibration_rows: Number of rows that the p-values were calibrated on; ``None`` for
            p-values that are independent.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes, both on a logarithmic scale.

    Raises:
        ValueError: If a p-value is not above 0 and at most 1, or there are none.

    Example:
        >>> ax = p_value_calibration([0.1, 0.3, 0.5, 0.7, 0.9], calibration_rows=9)
        >>> ax.get_legend_handles_labels()[1][0]
        '5 clean rows, 9 calibration rows'
    """
    values = np.sort(as_array(p_values, "p_values"))
    if values.ndim != 1 or not len(values) or not ((values > 0) & (values <= 1)).all():
        got = f"shape {values.shape}"
        if values.ndim == 1 and len(values):
            bad = ~((values > 0) & (values <= 1))  # NaN among them, which stands last
            got = f"{values[bad][0]:g}"
        raise ValueError(f"p_values: expected numbers above 0 and at most 1, (rows,), got {got}")
    if calibration_rows is not None:
        check_count("calibration_rows", calibration_rows)
    count = len(values)
    rates = np.unique(values)
    shares = np.searchsorted(values, rates, side="right") / count
    rows = count if calibration_rows is None else 1 / (1 / count + 1 / calibration_rows)
    ax = style.axes_or_new(ax, 5.4, 5.0)
    lowest = min(rates[0], 0.5) / 1.3
    levels = np.geomspace(lowest, 0.9999, 200)
    low, high = _band(levels, max(1, int(rows)))
    known = "" if calibration_rows is None else f", {calibration_rows} calibration rows"
    ax.step(
        np.append(rates, 1.0), np.append(shares, 1.0), where="post", color=style.BLUE, linewidth=2,
        label=f"{count} clean rows{known}",
    )  # fmt: skip
    label = f"{100 * LEVEL:g} % of calibrated p-values, at each rate"
    ax.fill_between(levels, low, high, color=style.BAND, zorder=0, label=label)
    ax.plot([lowest, 1], [lowest, 1], color=style.INK, linewidth=1, linestyle="--", zorder=1)
    _share_axes(ax, lowest)
    title = "Do the p-values hold?" if title is None else title
    style.label_axes(ax, title, "false-alarm rate asked for", "clean rows flagged", grid=True)
    style.legend_above(ax)
    return ax


def attribution_bars(
    row: Any, number: int = 10, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Draw which cells make a row strange, the largest attributions first.

    Args:
        row: A row of the frame of ``anomaly_scores(..., attribution=True)``, ``frame.loc[...]``;
            or a mapping from names of cells to attributions in nats.
        number: Number of cells to draw; one bar shows the largest of the others.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes. A bar to the right says by how much the score falls where the cell is ordinary.

    Raises:
        ValueError: If the row has no attributions, or some are not finite.

    Example:
        >>> ax = attribution_bars({"age": 0.5, "income": 8.0, "height": -0.2}, number=2)
        >>> [tick.get_text() for tick in ax.get_yticklabels()]
        ['income', 'age', '1 other']
    """
    check_count("number", number)
    row = _one_row(row)
    names, values = _attributions(row)
    order = np.argsort(-values, kind="stable")
    first, others = order[:number], order[number:]
    bars = [(style.shorten(names[i], NAME_LENGTH), float(values[i])) for i in first]
    ax = style.axes_or_new(ax, 6.8, 1.5 + 0.36 * (len(bars) + bool(len(others))))
    colours = [style.ORANGE if value > 0 else style.PALE_BLUE for _, value in bars]
    if len(others):
        text = "1 other" if len(others) == 1 else f"{len(others)} others, at most"
        bars.append((text, float(values[others].max())))
        colours.append(style.PALE_GREY)
    lengths = [value for _, value in bars]
    ax.barh(
        range(len(bars)), lengths, height=0.68, color=colours, edgecolor=style.INK, linewidth=0.6
    )
    _write_numbers(ax, lengths)
    ax.axvline(0, color=style.INK, linewidth=0.8)
    ax.margins(x=0.18)  # room for the numbers
    ax.set_yticks(range(len(bars)), labels=[name for name, _ in bars])
    ax.invert_yaxis()
    which = "this row" if getattr(row, "name", None) is None else f"row {row.name}"
    title = f"What makes {which} strange" if title is None else title
    x = "nats that the score falls by with an ordinary value"
    style.label_axes(ax, title, x, left=False)
    return ax


def strange_images(
    images: Any,
    reconstructions: Any,
    scores: Any,
    number: int = 8,
    *,
    shape: tuple[int, int] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the images with the highest scores, the strangest first, above their reconstructions.

    Args:
        images: (n, height, width), (n, 1, height, width), or (n, features) with ``shape``.
        reconstructions: What ``reconstruct`` gives for them, of the same shape.
        scores: (n,) the higher, the stranger; written below each image.
        number: Number of images.
        shape: Height and width of one image, for images that come as vectors.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes.

    Raises:
        ValueError: If images, reconstructions and scores differ in number, or a score is NaN.

    Example:
        >>> rows = np.random.rand(9, 16)
        >>> ax = strange_images(rows, rows, np.arange(9.0), number=2, shape=(4, 4))
        >>> [tick.get_text() for tick in ax.get_xticklabels()]
        ['8', '7']
    """
    values = _as_scores(scores)
    stacks = {
        "image": as_array(images, "images"),
        "reconstruction": as_array(reconstructions, "reconstructions"),
    }
    check_count("number", number)
    if any(len(stack) != len(values) for stack in stacks.values()):
        lengths = [len(stack) for stack in stacks.values()]
        raise ValueError(
            f"scores: expected images, reconstructions and scores of one number, got {lengths} and "
            f"{len(values)}"
        )
    first = np.argsort(-values, kind="stable")[:number]
    return image_grid(
        {name: stack[first] for name, stack in stacks.items()},
        shape=shape,
        column_labels=[f"{value:.4g}" for value in values[first]],
        title="The strangest images, with their scores" if title is None else title,
        ax=ax,
    )


# Scores


def _as_scores(scores: Any) -> np.ndarray:
    """Return scores as (rows,), or raise ``ValueError``."""
    values = as_array(scores, "scores")
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        got = "NaN" if values.ndim == 1 and len(values) else f"shape {values.shape}"
        raise ValueError(f"scores: expected a number for each row, (rows,), got {got}")
    return values


def _as_threshold(threshold: Any) -> float:
    """Return a threshold as a number, or raise ``ValueError``."""
    value = as_array(threshold, "threshold")
    if value.ndim or np.isnan(value):
        raise ValueError(f"threshold: expected a number or None, got {shown(threshold)}")
    return float(value)


def _groups(values: np.ndarray, labels: Any) -> list[tuple[str, np.ndarray, dict[str, Any]]]:
    """Return the label, the scores and the look of each group of bars, strange rows last."""
    if labels is None:
        text = f"{len(values)} row{'' if len(values) == 1 else 's'}"
        return [(text, values, {"color": style.PALE_BLUE})]
    marks = as_array(labels, "labels")
    if marks.shape != values.shape or not np.isin(marks, [0, 1]).all():
        got = f"shape {marks.shape}" if marks.shape != values.shape else f"{np.unique(marks)[:5]}"
        raise ValueError(f"labels: expected 1 for strange rows and 0 for others, got {got}")
    looks = (
        (0, "other rows", {"color": style.PALE_BLUE}),
        (1, "strange rows", {"color": style.ORANGE, "alpha": 0.65, "hatch": "///"}),
    )
    groups = [(f"{(marks == k).sum()} {text}", values[marks == k], look) for k, text, look in looks]
    return [group for group in groups if len(group[1])]


def _edges(
    groups: list[tuple[str, np.ndarray, dict[str, Any]]], threshold: float | None
) -> np.ndarray:
    """Return the edges of the bars: the bulk of the first group, the threshold, and what is near.

    Raises:
        ValueError: If no score is finite.
    """
    finite = [members[np.isfinite(members)] for _, members, _ in groups]
    known = [members for members in finite if len(members)]
    if not known:
        raise ValueError("scores: expected finite scores, got infinite ones alone")
    low, high = range_in_sight(known[0])
    if threshold is not None and np.isfinite(threshold):
        low, high = min(low, threshold), max(high, threshold)
    if is_rounding(high - low, np.array([low, high])):
        low, high = low - 0.5, high + 0.5
    highest = max(float(members.max()) for members in known)
    lowest = min(float(members.min()) for members in known)
    span = high - low
    low, high = max(min(low, lowest), low - 0.5 * span), min(max(high, highest), high + span)
    return even_edges(low, high, 41, whole=False)  # an odd number: equal scores stand in the middle


# p-values and contributions


def _band(levels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest share of ``count`` rows at each level, by chance."""
    tail = (1 - LEVEL) / 2
    counts = np.array([central_counts(*binomial_mass(count, level), tail) for level in levels])
    return counts[:, 0] / count, counts[:, 1] / count


def _share_axes(ax: Axes, lowest: float) -> None:
    """Make both axes logarithmic, with ticks in percent."""
    steps = (1.0,) if lowest < 0.003 else (1.0, 2.0, 5.0)
    for axis, limits in ((ax.xaxis, ax.set_xlim), (ax.yaxis, ax.set_ylim)):
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        limits(lowest, 1.08)
        axis.set_major_locator(LogLocator(10, subs=steps))
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axis.set_minor_formatter(NullFormatter())


def _write_numbers(ax: Axes, lengths: list[float]) -> None:
    """Write the length of each horizontal bar beside its end."""
    for line, value in enumerate(lengths):
        side = -1 if value < 0 else 1
        ax.annotate(
            f"{value:+.2f}", (value, line), xytext=(5 * side, 0), textcoords="offset points",
            ha="left" if side > 0 else "right", va="center", fontsize=style.LEGEND_SIZE,
        )  # fmt: skip


def _one_row(row: Any) -> Any:
    """Return a frame of one row as that row; ``ValueError`` for a frame of several."""
    if not hasattr(row, "items"):
        raise ValueError(
            f"row: expected a row of anomaly_scores(..., attribution=True), got {shown(row)}"
        )
    if not isinstance(row, pd.DataFrame):
        return row
    if len(row) != 1:
        raise ValueError(f"row: expected one row, frame.loc[...], got {len(row)} rows")
    return row.iloc[0]


def _attributions(row: Any) -> tuple[list[str], np.ndarray]:
    """Return the names of cells and their contributions, (cells,) in nats.

    Raises:
        ValueError: If there are none, or some are not finite.
    """
    items = {str(name): value for name, value in row.items()}
    chosen = {n.removeprefix(ATTRIBUTION): v for n, v in items.items() if n.startswith(ATTRIBUTION)}
    chosen = chosen if chosen or isinstance(row, pd.Series) else items
    if not chosen:
        raise ValueError(
            f"row: expected columns {ATTRIBUTION}NAME, got "
            f"{', '.join(list(items)[:5]) or 'none'}; pass a row of "
            "anomaly_scores(..., attribution=True)"
        )
    values = as_array(list(chosen.values()), "row")
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("row: expected finite contributions, got NaN or infinity; the row is far")
    return list(chosen), values
