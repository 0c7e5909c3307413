"""The section of a report on other pairs that were fitted to the same rows."""

from typing import Any

import pandas as pd
from markupsafe import Markup

from ppl_vae.arguments import shown
from ppl_vae.evaluation.comparison import Comparison
from ppl_vae.report.figures import Figure
from ppl_vae.report.html import Table, render
from ppl_vae.report.numbers import decimal, shortened


def check_comparison(comparison: Any) -> None:
    """Raise ``ValueError`` unless an argument is ``None`` or what ``compare`` returns."""
    if comparison is not None and not isinstance(comparison, Comparison):
        raise ValueError(
            f"comparison: expected what compare returned, got {shown(comparison)}; pass "
            "compare({name: (model, guide), ...}, data)"
        )


def comparison_section(found: Comparison) -> Markup:
    """Return the section with the log-likelihood of each pair and the differences from the best."""
    rows = len(found.rows) - found.left_out
    lines = [_line(str(name), pair) for name, pair in found.frame.iterrows()]
    heads = [
        "pair", "log-likelihood", "standard error", "rows better, %", "rows not reliable, %",
    ]  # fmt: skip
    caption = (
        f"Means over {rows} rows, in nats per row, the best pair first; rows better: the share of "
        "rows that this pair explains better than the first one"
    )
    alt = "Differences from the best pair, with intervals: " + "; ".join(found.sentences()) + "."
    height = 1.3 + 0.35 * len(lines)
    return render(
        "comparison.html", sentences=found.sentences(), table=Table(caption, heads, lines),
        figure=Figure.drawn(found.plot, alt, height=height),
    )  # fmt: skip


def _line(name: str, pair: pd.Series) -> list[object]:
    """Return the line of the table for one pair."""
    means = (decimal(pair["log_prob"]), decimal(pair["se"]))
    return [
        shortened(name, 24), *means, decimal(100 * pair["rows_better"], 0),
        decimal(100 * pair["unreliable"], 0),
    ]  # fmt: skip
