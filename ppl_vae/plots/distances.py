"""How far are rows from the closest real row: generated rows beside real ones."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ppl_vae.plots import style
from ppl_vae.plots.arrays import as_array

IN_SIGHT = 0.97
"""Share of the rows that are surely in sight; few others are so far away that they hide these."""


def distance_histogram(
    generated: Any, real: Any, *, ax: Axes | None = None, title: str = "Distance to a real row"
) -> Axes:
    """Draw the distances of generated rows to the closest real row, and those among real rows.

    Copies of real rows are a bar at 0. A few rows, 3 % at most, that are far from all others are
    not in sight.

    Args:
        generated: (rows,) distances of generated rows.
        real: (rows,) distances of real rows to the closest other real row.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes.

    Example:
        >>> ax = distance_histogram([0.1, 0.2, 0.2], [0.1, 0.3])
        >>> ax.get_legend_handles_labels()[1]
        ['real rows', 'generated rows']
    """
    made, held = (as_array(v, n) for v, n in ((generated, "generated"), (real, "real")))
    ax = style.axes_or_new(ax, 5.6, 3.6)
    bulk = max(float(np.quantile(values, IN_SIGHT)) for values in (made, held))
    most = max(float(values.max()) for values in (made, held))
    edges = np.linspace(0, max(min(1.25 * bulk, most), 1e-6), 41)
    for values, name, options in (
        (held, "real rows", {"color": style.PALE_BLUE, "histtype": "stepfilled"}),
        (made, "generated rows", {"color": style.INK, "histtype": "step", "linewidth": 1.6}),
    ):
        weights = np.full(len(values), 1 / len(values))
        ax.hist(values, edges, weights=weights, label=name, **options)  # type: ignore[arg-type]
    style.label_axes(ax, title, "distance to the closest (other) real row", "share of rows")
    style.legend_above(ax)
    return ax
