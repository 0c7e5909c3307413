"""Log-likelihood of every row, with a measure of its reliability; and the ELBO site by site.

    log p(x) ~ log 1/S sum_s w_s,   w_s = p(x, z_s) / q(z_s given x),   z_s ~ q(z given x)
    ess      = (sum w)^2 / sum w^2
    k_hat    = shape of the tail of w: above min(1 - 1/log10(S), 0.7) it cannot be trusted by itself

Every quantity is (rows,); log p(x) and the ELBO are in nats.

Sources: Burda, Grosse & Salakhutdinov (2016), section 5, arXiv:1509.00519 (the estimate);
Vehtari et al. (2024), arXiv:1507.02646 (k-hat); Kong (1992) (effective sample size).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pandas as pd
from torch import Tensor

from ppl_vae.arguments import check_arguments, shown
from ppl_vae.bars import Bar
from ppl_vae.core.blocks import collect, quiet_look
from ppl_vae.core.far_rows import FarRows
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.rows import Batch, Data, Rows, batch_rows
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.particles import ParticleRuns
from ppl_vae.elbo.points import LOG_JOINT, point_latents
from ppl_vae.elbo.sum_memory import numbers_of_a_row
from ppl_vae.evaluation.particle_filter import filtered_log_likelihood
from ppl_vae.evaluation.particle_pass import (
    ParticlePass,
    check_numbers,
    draws_bar,
    particles_and_rows,
)
from ppl_vae.evaluation.psis import WeightSums
from ppl_vae.evaluation.summary import LikelihoodSummary, UnreliableWarning

METHODS = ("importance", "particle_filter")
"""How ``log_likelihood`` draws: whole paths at once, or step by step."""


def log_likelihood(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    method: str = "importance",
    num_samples: int = 1000,
    seed: int | None = 0,
    compile: bool | str = "auto",  # noqa: A002  as fit has it
    progress: bool | None = None,
    plate: str = "data",
) -> pd.DataFrame:
    """Return the log-likelihood of every row, estimated by importance sampling from the guide.

    A long sequence of states needs ``method="particle_filter"``: importance sampling draws whole
    paths, of which ever fewer count the longer they are, while a particle filter draws states step
    by step, from the guide's steps, and goes on from those that explain the data. It takes pairs
    with one latent, a ``MarkovPath``, whose observations depend on the state of their own step.
    Data that are padded further have other draws, and so another estimate, within its error. The
    log-likelihood of a sequence is a sum over its steps: longer ones have, as a rule, lower values.
    To compare them, divide by ``data["lengths"]``, or take ``anomaly_scores(..., per_step=True)``.

    The estimate is below the truth on average, by less the more samples are drawn; ``k_hat`` says
    row by row whether more samples would help. Discrete latents that ask for it are summed exactly.
    Latents outside the row plate are drawn once for a particle, shared by all rows of a block, and
    their own terms are left out: with the guide as their posterior, ``log_prob`` is then the row's
    log posterior predictive density. A point outside the row plate (``AutoDelta``) is allowed:
    ``log_prob`` is then conditional on the point. Networks run in evaluation mode.

    Args:
        model: The model.
        guide: The guide; ``None`` proposes latents from the prior, which wastes almost all samples
            once a row says much about its latents.
        data: N rows, in any form that ``fit`` takes.
        method: ``"importance"`` or ``"particle_filter"``.
        num_samples: S, draws of the latents for each row; of a particle filter, S states at each
            step, in 8 independent filters of the same size (rounded up).
        seed: Seeds the draws; the generators are restored afterwards.
        compile: ``"auto"`` traces and compiles the weights for a large job, ``True`` for any job,
            ``False`` for none. A graph is first compared with the pair, on blocks from all over
            the data; where they differ, the pair's own Python runs, as in the particle filter.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        N rows with the data's index, and four columns: ``log_prob`` and ``elbo`` in nats; ``ess``,
        the effective number of draws, 1 to S; ``k_hat``, the Pareto shape of the weights' tail:
        below 0.5 good, above ``frame.attrs["k_hat_threshold"]``, which is min(1 - 1/log10(S), 0.7),
        not to be trusted unless ``ess`` is most of S, ``-inf`` where all weights agree to rounding
        (the guide is the posterior, or nothing is left to draw), NaN below 25 draws, where the
        largest weights are ties, where all weights agree although discrete latents are drawn (a
        class that the guide never draws leaves no sign), and where no draw gives the row a
        probability above 0. ``frame.attrs["not_covered"]`` lists the latents outside the row plate:
        their draws are taken as given, so that no column says how far the guide of these latents is
        from their posterior. ``History.converged`` and ``predictive_check`` speak of them.
        ``frame.attrs["exact"]`` says whether no latent is drawn at all.

        Of the particle filter: ``log_prob``; ``standard_error``, in nats, from the 8 filters; and
        ``ess``, the effective number of particles at the step where it is smallest. Do not trust a
        row whose error is above ``frame.attrs["standard_error_threshold"]``, or whose ``ess`` is
        below ``frame.attrs["ess_threshold"]``. p(x) itself has no bias.

    Raises:
        ValueError: If the guide gives a latent of the rows as a point (a ``Delta`` that no
            auxiliary draw moves), which has no likelihood; if the data or the weights of all
            rows are NaN, an enumerated latent stands outside the row plate, or the guide draws a
            latent that the model does not have. If a particle filter would be wrong, because a
            latent is no path, or observations depend on more than the state of their own step.

    Warns:
        UserWarning: If the pair overflows on a row that is far from the data: all columns of the
            row are NaN, and those of the other rows are computed. If the guide draws only a part
            of a prior's support, such as an interval of the real numbers.
        UnreliableWarning: If in any row k-hat is above its threshold and ``ess`` below S/2; the
            warning says in how many, and their effective number of draws and standard error. If a
            particle filter is not to be trusted.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> scores = log_likelihood(BernoulliModel(4), NormalGuide(4), torch.ones(3, 4))
        >>> list(scores.columns), len(scores)
        (['log_prob', 'elbo', 'ess', 'k_hat'], 3)
    """
    check_arguments(num_samples=num_samples, seed=seed, compile=compile, progress=progress)
    check_method(method)
    pair = Pair.of(model, guide, plate)
    options: dict[str, Any] = {"seed": seed, "compile": compile, "progress": progress}
    return likelihoods_of_rows(
        pair, pair.rows(data), method, num_samples, **options, name="log_likelihood", stacklevel=2
    )


def check_method(method: Any) -> None:
    """Raise ``ValueError`` unless a value is one of ``METHODS``."""
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method: expected {' or '.join(METHODS)}, got {shown(method)}")


def likelihoods_of_rows(
    pair: Pair, rows: Rows, method: str, num_samples: int, *, seed: int | None,
    compile: bool | str, progress: bool | None, name: str, stacklevel: int,  # noqa: A002
) -> pd.DataFrame:  # fmt: skip
    """Return the frame of ``log_likelihood``, under the name of the function that is asked.

    Args:
        pair: The pair.
        rows: The data.
        method: As ``log_likelihood`` has it, and so the next four.
        num_samples: Draws of the latents for each row.
        seed: Seeds the draws.
        compile: Whether the weights are compiled.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        name: What warnings begin with: the public function.
        stacklevel: As ``warnings.warn`` has it, counted from the caller.
    """
    if method == METHODS[1]:
        return filtered_log_likelihood(
            pair, rows, num_samples, seed=seed, progress=progress, name=name,
            stacklevel=stacklevel + 1,
        )  # fmt: skip
    particles = ParticlePass(pair, rows, num_samples, compile=compile)
    bar = draws_bar("log-likelihood", rows, num_samples, shown=progress)
    weights = particles.terms

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        sums = WeightSums(num_samples, batch_rows(batch), draws_discrete=weights.draws_discrete)
        for terms in particles.parts(batch, bar):
            sums.add(terms["log_weights"], terms.get("elbo", terms["log_weights"]))
        result = sums.result()
        if bool(result["log_prob"].isnan().any()):
            weights.eager(batch)  # under Pyro's own checks, which may name the fault
        check_numbers(rows, batch, index, result["log_prob"])
        return result

    far_rows = FarRows(pair, rows)
    with bar:
        columns = collect(
            pair, rows, far_rows.marked(work), seed=seed, size=particles.size,
            shared=far_rows.found,
        )  # fmt: skip
    frame = _frame(rows, columns)
    far_rows.warn(name, stacklevel=stacklevel + 1)
    for site in weights.narrow:
        warnings.warn(
            f'{name}: site "{site}": the guide draws only a part of what the prior can '
            "give, so that log_prob leaves out the rest and is too low unless the posterior is 0 "
            "there, whatever k-hat says; give the guide a family of the prior's support",
            stacklevel=stacklevel + 1,
        )
    frame.attrs["not_covered"], frame.attrs["exact"] = weights.outside, weights.draws_nothing
    has_guide = not pair.guide.is_prior
    summary = LikelihoodSummary.of(frame, num_samples, has_guide=has_guide)
    frame.attrs["k_hat_threshold"] = summary.threshold
    if summary.unreliable:
        text = f"{name}: {summary.verdict()} {summary.advice()}"
        warnings.warn(text, UnreliableWarning, stacklevel=stacklevel + 1)
    return frame


def elbo_terms(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    num_samples: int = 100,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> pd.DataFrame:
    """Return the ELBO of every row, taken apart: one column for each site.

    The column of an observed site is its expected log-probability. The column of a latent is minus
    its KL divergence, in closed form where there is one, else the average of log p - log q. The
    auxiliary draw that an autoguide turns into one latent counts for that latent. Where the model
    alone enumerates a latent, the latent and what follows it share a column, under their joined
    names (``"y + x"``). The columns of a row add up to its ELBO; with the totals of the sites
    outside the row plate, the sum over all rows is the ELBO of the data set. Terms of a sequence
    are sums over its steps: divide by ``data["lengths"]`` to compare sequences.

    Where the guide gives a latent as a point (a ``Delta`` that no auxiliary draw moves), the
    columns add up to the log joint density at that point, which is no bound on the log-likelihood;
    ``frame.attrs["measure"]`` says which of the two it is.

    Args:
        model: The model.
        guide: The guide; ``None`` is the prior. A latent that the guide does not draw comes from
            the model itself: its term is 0, and it has no column.
        data: N rows, in any form that ``fit`` takes.
        num_samples: Draws of the latents for each row.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        N rows with the data's index, in nats, latents first. ``frame.attrs["global"]`` holds the
        total of every site outside the row plate, ``{site: nats}``: such a site has no share in
        any row. ``frame.attrs["measure"]`` is ``"ELBO"`` or ``"log joint density"``.

    Raises:
        ValueError: If no site stands in the row plate, an enumerated latent stands outside it, or
            the terms of all rows are NaN.

    Warns:
        UserWarning: If the pair overflows on a row that is far from the data: the row is NaN.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> terms = elbo_terms(BernoulliModel(4), NormalGuide(4), torch.ones(3, 4))
        >>> list(terms.columns), terms.sum(axis=1).shape
        (['z', 'x'], (3,))
    """
    check_arguments(num_samples=num_samples, seed=seed, progress=progress)
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    numbers = numbers_of_a_row(pair, rows)
    count, size = particles_and_rows(pair, rows, num_samples, numbers)
    with quiet_look(pair, rows) as few_rows:
        runs = ParticleRuns.probe(pair, few_rows)
        measure = LOG_JOINT if point_latents(pair, few_rows) else "ELBO"
        if next(runs.draws(pair, few_rows, 1)).draws_nothing:
            num_samples = 1
    outside: dict[str, list[tuple[int, float]]] = {}  # of each site: particles and their total

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        totals: dict[str, Tensor] = {}
        totals_outside: list[tuple[str, int, float]] = []
        for used, draw in _draws_in_all(runs, pair, batch, num_samples, count):
            latents = draw.latents_of_auxiliaries()
            for names, term in draw.terms().items():
                name = " + ".join(dict.fromkeys(latents.get(each, each) for each in names))
                totals[name] = totals.get(name, 0) + _sum_over_particles(term, used)
            sums: dict[str, float] = {}
            for name, term in draw.global_terms().items():
                latent = latents.get(name, name)
                sums[latent] = sums.get(latent, 0.0) + float(_sum_over_particles(term, used))
            totals_outside += [(name, used, nats) for name, nats in sums.items()]
        if not totals:
            raise ValueError(
                f'plate "{plate}": expected sites in the row plate, found none; open it in the '
                "model, or pass its name as plate="
            )
        for total in totals.values():
            check_numbers(rows, batch, index, total)
        for name, used, nats in totals_outside:
            outside.setdefault(name, []).append((used, nats))
        return {name: total / num_samples for name, total in totals.items()}

    far_rows = FarRows(pair, rows)
    bar = Bar(f"{measure} by site", progress)
    options: dict[str, Any] = {"seed": seed, "bar": bar, "size": size}
    frame = _frame(rows, collect(pair, rows, far_rows.marked(work), **options))
    far_rows.warn("elbo_terms", stacklevel=2)
    frame.attrs["global"] = {
        name: sum(nats for _, nats in parts) / sum(used for used, _ in parts)
        for name, parts in outside.items()
    }
    frame.attrs["measure"] = measure
    return frame


def _draws_in_all(
    runs: ParticleRuns, pair: Pair, batch: Batch, num_samples: int, count: int
) -> Iterator[tuple[int, Draw]]:
    """Yield the runs of the pair that draw S particles, each with the number of particles to use.

    Args:
        runs: How the pair draws its particles.
        pair: The pair.
        batch: The rows.
        num_samples: S, particles in all.
        count: Particles of one run, where a run draws several.
    """
    per_run = count if runs.vectorized else 1
    for start in range(0, num_samples, per_run):
        (draw,) = runs.draws(pair, batch, per_run)
        yield min(per_run, num_samples - start), draw


def _sum_over_particles(term: Tensor, used: int) -> Tensor:
    """Add up the first ``used`` particles of a term, (particles or 1, ...), in double precision."""
    return term.double().expand(max(used, len(term)), *term.shape[1:])[:used].sum(0)


def _frame(rows: Rows, columns: dict[str, Tensor]) -> pd.DataFrame:
    """Return columns, (rows,) each, as a frame with the data's index."""
    return pd.DataFrame({name: v.numpy() for name, v in columns.items()}, index=rows.index)
