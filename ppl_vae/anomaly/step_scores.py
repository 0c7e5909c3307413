"""Anomaly scores of every step of every sequence, in nats: when a sequence is strange.

    score of step t    - log p(x_t given x_1 ... x_(t-1))

The steps' scores add up to that of the sequence. A step is judged by what came before it alone, so
that a score at step t is what a monitor would have seen at t, and a strange step does not make the
steps before it strange. (A guide that reads the sequence backwards proposes states at step t that
know what comes later; the particle filter weighs them by the past and x_t, see
``elbo.path_filter``.)

Source: Durbin & Koopman (2012), section 7.5 (one-step prediction errors as diagnostics).
"""

from __future__ import annotations

import math

import pandas as pd
import torch

from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Data
from ppl_vae.data.steps import sequence_lengths, step_index
from ppl_vae.evaluation.particle_filter import FilterPass, filter_columns, note_errors

SCORE = "negative_log_likelihood"


def step_scores(
    pair: Pair, data: Data, num_samples: int, *, seed: int | None, progress: bool | None
) -> pd.DataFrame:
    """Return the frame of ``anomaly_scores(..., per_step=True)``.

    Args:
        pair: The pair, with one latent, a ``MarkovPath``.
        data: The sequences.
        num_samples: Particles of each row.
        seed: Seeds the draws.
        progress: Whether to show a bar.

    Raises:
        ValueError: If the pair has another latent, or its data are no sequences.
    """
    rows = pair.rows(data)
    particle_filter = FilterPass(pair, rows, num_samples, who="anomaly_scores(..., per_step=True)")
    columns = filter_columns(
        particle_filter, name="anomaly_scores", per_step=True, seed=seed, progress=progress,
        stacklevel=3,
    )  # fmt: skip
    scores = -columns.pop("log_prob")
    far = columns["lengths"].isnan()  # rows on which the pair overflows
    known = sequence_lengths(rows, particle_filter.paths.steps)
    lengths = torch.where(far, known, columns.pop("lengths")).long()
    inside = torch.arange(scores.shape[1]) < lengths[:, None]
    named = {SCORE: scores.masked_fill(far[:, None], math.inf), **columns}
    index = step_index(rows.index, lengths.numpy())
    frame = pd.DataFrame({name: v[inside].numpy() for name, v in named.items()}, index=index)
    note_errors(frame, "anomaly_scores", "steps", stacklevel=3)
    return frame
