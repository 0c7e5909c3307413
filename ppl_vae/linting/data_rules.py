"""The linter's rules on the data: fields that neither half reads, and faults of rows."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch

from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows
from ppl_vae.linting.constant_columns import constant_columns
from ppl_vae.linting.data_scan import BadRows, DataFaults, support_name
from ppl_vae.linting.findings import Finding, error, site_error, warning
from ppl_vae.linting.inspection import Inspection


def unread_fields(pair: Pair, rows: Rows) -> Iterator[Finding]:
    """Find fields of a mapping that neither the model nor the guide has an argument for."""
    if rows.keys is None:
        return
    empty = dict.fromkeys(rows.keys, torch.empty(0))
    read = {*pair.model.fields_read(empty), *pair.guide.fields_read(empty)}
    for name in rows.keys:
        if name not in read:
            yield error(
                f'field "{name}"',
                "expected an argument of this name in the model or the guide, got none",
                "rename the field or the argument, or leave the field out of the data",
            )


def data_findings(inspection: Inspection, faults: DataFaults) -> Iterator[Finding]:
    """Yield a finding for each fault that the pass over the data has counted.

    Gaps (NaN or infinity) come first: they explain draws and log-probabilities that are not
    finite, so where both occur the gaps alone are reported.
    """
    counts = faults.counts
    if counts["gaps"] and (counts["values"] or counts["scores"] or faults.failure):
        yield from gap_findings(inspection, faults)
        return
    if faults.failure:
        yield faults.failure
        return
    for name, bad in counts["values"].items():
        yield site_error(
            name,
            f"expected finite values, got NaN or infinity in {_count(inspection, bad)}",
            "scale the inputs of the network (build fills loc and scale), or bound its output",
        )
    for name, bad in counts["outside"].items():
        yield _outside_finding(inspection, name, bad)
    for name, bad in counts["scores"].items() if not counts["values"] else ():
        yield site_error(
            name,
            f"expected a finite log-probability, got NaN or infinity in {_count(inspection, bad)}",
            "keep the scales above 0 and the guide's draws in the support of the model's prior",
        )
    yield from constant_columns(inspection, faults)


def _outside_finding(inspection: Inspection, name: str, bad: BadRows) -> Finding:
    """Return the finding for observed values outside the support of their likelihood.

    The finding is a warning where the user made the distribution with ``validate_args=False``.
    """
    support = support_name(inspection.model_sites()[name])
    problem = (
        f"expected data in the likelihood's support ({support}), got values outside it in "
        f"{_count(inspection, bad)}"
    )
    fix = "change the likelihood or the data"
    if name not in inspection.unvalidated:
        return site_error(name, problem, fix)
    problem += ", which validate_args=False lets pass: their score is not a log-probability"
    fix += ", or compare this ELBO with those of the same likelihood only"
    return warning(f'site "{name}"', problem, fix)


def gap_findings(inspection: Inspection, faults: DataFaults) -> Iterator[Finding]:
    """Yield a finding for each field with NaN or infinity that the pair cannot take."""
    for name, bad in faults.counts["gaps"].items():
        yield error(
            f'field "{name}"' if inspection.rows.keys else f"data field {name}",
            f"expected finite numbers, got NaN or infinity in {_count(inspection, bad)}",
            "drop these rows or impute the cells; or fill the cells (x.nan_to_num()) before the "
            "networks and the likelihood and mask them: NaN under a mask still reaches gradients",
        )


def _count(inspection: Inspection, bad: BadRows) -> str:
    """Return how many rows are at fault and which is the first, with its label in the index."""
    index: pd.Index = inspection.rows.index
    label = index[bad.first]
    named = "" if label == bad.first else f" (index {label!r})"
    return f"{bad.rows} of {len(inspection.rows)} rows, the first is row {bad.first}{named}"
