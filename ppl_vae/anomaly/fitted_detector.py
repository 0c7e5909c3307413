"""``fit_detector``: a detector for a table of real numbers, without anything to choose.

    rows of the table  ->  training 68 %, validation 12 %, calibration 20 %, at random
    models/exemplar.py with guides/normal.py, as many latents as columns, in 1,000 updates
    AnomalyDetector on the calibration rows

The settings are those of ``benchmarks/anomaly.py``, which compares them with other detectors on
sets that they were not chosen on.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import nn

from ppl_vae.anomaly.detector import FEWEST, AnomalyDetector
from ppl_vae.arguments import check_arguments, shown
from ppl_vae.core.pair import Guide, Model
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Data, Rows, as_rows, as_tuple
from ppl_vae.nn import MLP
from ppl_vae.schedules import linear
from ppl_vae.training.svi import fit
from ppl_vae.zoo.build import build
from ppl_vae.zoo.catalog import find_class

CALIBRATION = 0.2  # of the rows
VALIDATION = 0.15  # of the rest
LARGEST_DEVIATION = 10.0  # standard deviations to which the encoder's input is clipped
LARGEST_BATCH, SMALLEST_BATCH = 128, 32  # rows
STEPS_AN_EPOCH = 20  # at least, so that validation rows are not read after every few steps


def fit_detector(
    clean: Data,
    *,
    calibration: Data | None = None,
    updates: int = 1000,
    num_samples: int = 100,
    seed: int | None = 0,
    progress: bool | None = None,
) -> AnomalyDetector:
    """Fit a pair to clean rows of a table, and return a calibrated detector of strange rows.

    The pair is ``models/exemplar.py``, whose density is low far from rows of the data, also in
    holes between clusters. Columns keep their units; their scales are measured.

    Args:
        clean: N rows that are known to be clean, (N, columns), a frame, an array or a tensor of
            numbers; 95 or more, or 4 with ``calibration``.
        calibration: Clean rows that the detector is calibrated on and the pair is not fitted to;
            ``None`` takes a fifth of ``clean`` at random.
        updates: Updates of the parameters; more of them for a table of more than 50,000 rows.
        num_samples: Draws of the latents for each row that is scored.
        seed: Seeds the split, the first weights, the fit and the draws.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.

    Returns:
        The detector; ``detector.model`` and ``detector.guide`` are the pair. Its score is
        ``negative_log_likelihood``.

    Raises:
        ValueError: If there are too few rows, or the rows are no vectors of finite numbers.

    Warns:
        UserWarning: If a column holds one value in all rows: the pair cannot know how strange
            another value is.

    Example:
        >>> import torch
        >>> clean = torch.randn(200, 1) * torch.tensor([1.0, 2.0, -1.0])  # one line in space
        >>> detector = fit_detector(clean, updates=200, progress=False)
        >>> detector(torch.tensor([[1.0, 2.0, -1.0], [1.0, -2.0, -1.0]]))["flagged"].tolist()
        [False, True]
    """
    check_arguments(num_samples=num_samples, progress=progress, updates=updates, seed=seed)
    rows = as_rows(clean, "clean")
    if calibration is None:
        if len(rows) * CALIBRATION < FEWEST:
            raise ValueError(
                f"clean: expected at least {math.ceil(FEWEST / CALIBRATION)} rows, "
                f"{CALIBRATION:.0%} of which calibrate the detector, got {len(rows)}; or pass "
                "calibration="
            )
        rows, held_out = rows.split(CALIBRATION, seed)
        calibration = held_out
    model, guide = fit_table_pair(rows, updates=updates, seed=seed, progress=progress)
    return AnomalyDetector(
        model, guide, calibration, num_samples=num_samples, seed=seed, progress=progress
    )


def fit_table_pair(
    clean: Data, *, updates: int = 1000, seed: int | None = 0, progress: bool | None = None
) -> tuple[Model, Guide]:
    """Return the pair of ``fit_detector``, fitted to all rows but those for validation.

    Args:
        clean: N clean rows, (N, columns).
        updates: Updates of the parameters.
        seed: Seeds the split, the first weights and the fit.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.

    Raises:
        ValueError: If there are too few rows, or the rows are no vectors of finite numbers.
    """
    rows = as_rows(clean, "clean")
    shapes = [tuple(field.array.shape[1:]) for field in rows.fields]
    if len(shapes) != 1 or len(shapes[0]) != 1 or not shapes[0][0] or not rows.single:
        raise ValueError(
            f"clean: expected one table, (rows, columns), got {len(shapes)} fields of rows of "
            f"shapes {shown(shapes)}; write a pair for such rows, and calibrate AnomalyDetector"
        )
    if len(rows) < 4:
        raise ValueError(f"clean: expected at least 4 rows, got {len(rows)}")
    _tell_of_constant_columns(rows)
    training, validation = rows.split(VALIDATION, seed)
    with forked(seed):
        model, guide = _pair(rows)
    batch = min(LARGEST_BATCH, max(SMALLEST_BATCH, len(training) // 16))
    copies = math.ceil(STEPS_AN_EPOCH * batch / len(training))
    training = training.subset(torch.arange(len(training)).repeat(copies))
    fit(
        model, guide, training, validation=validation, batch_size=batch, seed=seed,
        epochs=math.ceil(updates / math.ceil(len(training) / batch)),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        kl_weight=linear(max(1, updates * 3 // 10)), clip_norm=100.0, progress=progress,
    )  # fmt: skip
    return model, guide


def _tell_of_constant_columns(rows: Rows) -> None:
    """Warn of columns that hold one value in all rows."""
    (values,) = as_tuple(rows.take(torch.arange(len(rows))))
    constant = (values == values[0]).all(0).nonzero().flatten().tolist()
    if constant:
        labels = rows.fields[0].labels
        named = range(values.shape[1]) if labels is None else [f'"{name}"' for name in labels]
        names = ", ".join(str(named[place]) for place in constant)
        words = f"column {names} holds" if len(constant) == 1 else f"columns {names} hold"
        warnings.warn(
            f"clean: {words} one value in all rows, so that nothing says how strange another value "
            "is: a row that has one is hardly found; compare these columns by yourself",
            stacklevel=3,
        )


def _pair(rows: Rows) -> tuple[Any, Any]:
    """Return a pair for rows of a table, with as many latents as columns, and two at least."""
    columns = int(rows.fields[0].array.shape[1])
    latents = max(2, columns)
    encoder = nn.Sequential(
        nn.Hardtanh(-LARGEST_DEVIATION, LARGEST_DEVIATION),  # a row far out would overflow it
        MLP(columns, 2 * latents, (128, 128), nn.SiLU),
    )
    guide = build(
        find_class("normal", "guides"), rows, latents=latents, encoder=encoder,
        positive="softplus",
    )  # fmt: skip
    return build(find_class("exemplar", "models"), rows, guide=guide, latents=latents), guide
