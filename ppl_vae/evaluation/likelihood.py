"""How good a fit is: every row's log-likelihood with its own reliability, and the ELBO by site.

    log p(x) ~ log 1/S sum_s w_s,   w_s = p(x, z_s) / q(z_s given x),   z_s ~ q(z given x)
    ess      = (sum w)^2 / sum w^2
    k_hat    = shape of the tail of w: above 0.7 the estimate cannot be trusted

Sources: Burda, Grosse & Salakhutdinov (2016), section 5, arXiv:1509.00519 (the estimate);
Vehtari et al. (2024), arXiv:1507.02646 (k-hat); Kong (1992) (effective sample size).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ppl_vae.core.blocks import block_rows, check_count, collect
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Data, as_rows, as_tuple
from ppl_vae.elbo.weights import draw_particles
from ppl_vae.evaluation.log_weights import PARTICLES, LogWeights
from ppl_vae.evaluation.psis import THRESHOLD, WeightSums
from ppl_vae.evaluation.summary import UnreliableWarning

Function = Callable[..., Any]
HELD = 1024  # weights of a row that are kept before they are summed


def log_likelihood(
    model: Function,
    guide: Function | None,
    data: Data,
    *,
    num_samples: int = 1000,
    seed: int | None = 0,
    compile: bool | str = "auto",  # noqa: A002  as fit has it
    progress: bool = False,
    plate: str = "data",
) -> pd.DataFrame:
    """Log-likelihood of every row, by importance sampling from the guide.

    The estimate is below the truth on average, by less the more samples; ``k_hat`` says row by
    row whether more would help. Discrete latents that ask for it are summed exactly. Latents
    outside the row plate are drawn once for a particle, shared by all rows of a block, and their
    own terms are left out: with the guide as their posterior, ``log_prob`` is then the row's
    log posterior predictive density. Networks run in evaluation mode.

    Args:
        model: The model.
        guide: The guide; ``None`` proposes from the prior, which shows why a guide that has seen
            the row is needed.
        data: N rows, in any form that ``fit`` takes.
        num_samples: S, draws of the latents for each row.
        seed: Seeds the draws; the generators are restored afterwards.
        compile: ``"auto"`` traces and compiles the weights for a large job, ``True`` for any,
            ``False`` for none. A graph is compared with the pair first, on blocks from all over
            the data; where they differ, the pair runs as it is.
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        N rows with the data's index, and four columns: ``log_prob`` and ``elbo`` in nats; ``ess``,
        the effective number of draws, 1 to S; ``k_hat``, the Pareto shape of the weights' tail:
        below 0.5 good, above 0.7 not to be trusted, ``-inf`` where all weights agree to rounding
        (the guide is the posterior, or nothing is left to draw), NaN below 25 draws, where the
        largest weights are ties (drawn discrete latents) and where no draw gives the row a
        probability.

    Raises:
        ValueError: Where a row's weights are not numbers, a latent outside the row plate is
            summed, or the guide draws what the model has not.

    Warns:
        UnreliableWarning: With the number of rows whose k-hat is above 0.7.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> scores = log_likelihood(BernoulliModel(4), NormalGuide(4), torch.ones(3, 4))
        >>> list(scores.columns), len(scores)
        (['log_prob', 'elbo', 'ess', 'k_hat'], 3)
    """
    check_count("num_samples", num_samples)
    if not isinstance(compile, bool) and compile != "auto":
        raise ValueError(f'compile: expected True, False or "auto", got {compile!r}')
    pair, rows = Pair.of(model, guide, plate), as_rows(data)
    count = math.ceil(num_samples / math.ceil(num_samples / PARTICLES))
    chunk = LogWeights(pair, rows, count)
    size, rounds = min(block_rows(rows, count), len(rows)), math.ceil(num_samples / count)
    chunk.prepare(size, math.ceil(len(rows) / size) * rounds, compile)
    bar = tqdm(
        total=len(rows) * num_samples, desc="log-likelihood", unit="draw", unit_scale=True,
        disable=not progress, leave=False,
    )  # fmt: skip

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        tally = WeightSums(num_samples, len(index))
        left = num_samples
        while left > 0:
            found = [chunk(batch) for _ in range(min(math.ceil(left / count), HELD // count))]
            log_weights = torch.cat([w for w, _ in found])[:left]
            elbo = log_weights if found[0][0] is found[0][1] else torch.cat([e for _, e in found])
            tally.add(log_weights, elbo[:left])
            left -= len(log_weights)
            bar.update(len(index) * len(log_weights))
        result = tally.result()
        if bool(result["log_prob"].isnan().any()):
            chunk.eager(batch)  # says what is wrong, if Pyro's own checks know
        _check_numbers(batch, index, result["log_prob"])
        return result

    with bar:
        found = collect(pair, rows, work, seed=seed, copies=count)
    frame = pd.DataFrame({name: v.numpy() for name, v in found.items()}, index=rows.index)
    bad = int((frame["k_hat"] > THRESHOLD).sum())
    if bad:
        warnings.warn(
            f"log_likelihood: k-hat is above {THRESHOLD} in {bad} of {len(frame)} rows: the guide "
            "misses part of their posterior, and log_prob may be far too low; fit a better guide "
            "or draw more",
            UnreliableWarning,
            stacklevel=2,
        )
    return frame


def elbo_terms(
    model: Function,
    guide: Function | None,
    data: Data,
    *,
    num_samples: int = 100,
    seed: int | None = 0,
    progress: bool = False,
    plate: str = "data",
) -> pd.DataFrame:
    """The ELBO taken apart: one column for each site, one row for each row of data.

    A likelihood's column is its expected log-probability; a latent's is minus its KL divergence,
    in closed form where there is one, else the average of log p - log q. Sites that are summed
    together in the model share a column, by their joined names. The columns of a row add up to its
    ELBO; with the totals of global sites the sum over rows is the ELBO of the data.

    Args:
        model: The model.
        guide: The guide; ``None`` is the prior. A latent that the guide does not draw comes from
            the model itself: its term is 0, and it has no column.
        data: N rows, in any form that ``fit`` takes.
        num_samples: Draws of the latents for each row.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        N rows with the data's index, in nats, latents first. ``frame.attrs["global"]`` holds the
        total of every site outside the row plate, ``{site: nats}``: such a site has no share in
        any row.

    Raises:
        ValueError: Where a latent outside the row plate is summed.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> terms = elbo_terms(BernoulliModel(4), NormalGuide(4), torch.ones(3, 4))
        >>> list(terms.columns), terms.sum(axis=1).shape
        (['z', 'x'], (3,))
    """
    check_count("num_samples", num_samples)
    pair, rows = Pair.of(model, guide, plate), as_rows(data)
    count = math.ceil(num_samples / math.ceil(num_samples / PARTICLES))
    chunk = LogWeights(pair, rows, count)
    outside: dict[str, list[tuple[int, float]]] = {}

    def runs(batch: Batch) -> Any:
        nesting = chunk.nesting
        if chunk.vectorized:
            return [draw_particles(pair, batch, count=count, nesting=nesting)]
        return (draw_particles(pair, batch, count=None, nesting=nesting) for _ in range(count))

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        totals: dict[str, Tensor] = {}
        left = num_samples
        while left > 0:
            for one in runs(batch):
                taken = min(left, count if chunk.vectorized else 1)
                left -= taken
                for name, term in one.terms().items():
                    values = term.double().expand(max(taken, len(term)), -1)[:taken].sum(0)
                    totals[name] = totals.get(name, 0) + values
                for name, term in one.global_terms().items():
                    values = term.double().expand(max(taken, len(term)))[:taken]
                    outside.setdefault(name, []).append((taken, float(values.sum())))
                if left <= 0:
                    break
        if not totals:
            raise ValueError(f'expected sites in the row plate "{plate}", found none')
        for total in totals.values():
            _check_numbers(batch, index, total)
        return {name: total / num_samples for name, total in totals.items()}

    title = "ELBO by site" if progress else ""
    found = collect(pair, rows, work, seed=seed, progress=title, copies=count)
    frame = pd.DataFrame({n: v.numpy() for n, v in found.items()}, index=rows.index)
    frame.attrs["global"] = {
        name: sum(total for _, total in parts) / sum(taken for taken, _ in parts)
        for name, parts in outside.items()
    }
    return frame


def _check_numbers(batch: Batch, index: Tensor, values: Tensor) -> None:
    """Raise where a row's value is NaN, or infinite because a cell of the row is."""
    bad = values.isnan()
    for field in as_tuple(batch):
        cells = field.isfinite().reshape(len(field), -1).all(1).cpu()
        bad |= ~values.isfinite() & ~cells
    if bool(bad.any()):
        raise ValueError(
            f"data: expected numbers that the pair takes, got none for row {int(index[bad][0])}; "
            "look for NaN or infinity in the row or in the networks' weights"
        )
