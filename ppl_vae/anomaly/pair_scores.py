"""The scores of rows under one pair, from one pass over the particles.

    z_s ~ q(z given x)                                            s = 1 ... S particles
    reconstruction            - log 1/S sum_s p(x given z_s)
    expected_reconstruction   - 1/S sum_s log p(x given z_s)
    divergence                KL(q(z given x), p(z)), in closed form where there is one
    negative_elbo             expected_reconstruction + divergence
    negative_log_likelihood   - log 1/S sum_s p(x, z_s) / q(z_s given x)

Every quantity is (rows,), in nats.

Sources: An & Cho (2015), Variational autoencoder based anomaly detection using reconstruction
probability, section 3 (reconstruction); Burda, Grosse & Salakhutdinov (2016), section 5,
arXiv:1509.00519 (the log-likelihood).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ppl_vae.core.blocks import collect
from ppl_vae.core.far_rows import FarRows
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows, batch_rows
from ppl_vae.elbo.factors import total
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.evaluation.particle_pass import ParticlePass, check_numbers, draws_bar
from ppl_vae.evaluation.particle_terms import Terms
from ppl_vae.evaluation.psis import WeightSums

PROBABILITIES = ("reconstruction", "negative_elbo", "negative_log_likelihood")
SCORES = (
    "reconstruction", "expected_reconstruction", "divergence", "negative_elbo",
    "negative_log_likelihood",
)  # fmt: skip
OF_POINTS = ("reconstruction", "expected_reconstruction")  # scores that a point has, too


class PairScores:
    """Scores rows under one pair; what the pair compiled is used again for other rows.

    Args:
        pair: The pair.
        rows: Rows of the form to come, as many as one call of ``of`` will have.
        num_samples: S, draws of the latents for each row.
        compile: ``True``, ``False`` or ``"auto"``, as ``fit`` has it.
        most: The most rows that a block may have.
        total: Rows in all that are to come.

    Attributes:
        names: The scores that the pair has: those of ``OF_POINTS`` where the guide gives a point.
        not_covered: Names of the latents outside the row plate.
        exact: Whether no latent is drawn at all.
        size: Rows of a block of these data.
        full_size: Rows of a block where there are enough.
    """

    def __init__(
        self,
        pair: Pair,
        rows: Rows,
        num_samples: int,
        *,
        compile: bool | str,  # noqa: A002  as fit has it
        most: int | None = None,
        total: int | None = None,
    ) -> None:
        self.pair, self.num_samples = pair, num_samples
        self._pass = ParticlePass(
            pair, rows, num_samples, self._measure, compile=compile, refuse_points=False,
            most=most, total=total,
        )  # fmt: skip
        terms = self._pass.terms
        self.names = OF_POINTS if terms.points else SCORES
        self.not_covered, self.exact = terms.outside, terms.draws_nothing
        self.size, self.full_size = self._pass.size, self._pass.full_size

    def of(
        self, rows: Rows, *, seed: int | None, progress: bool | None = False, first_block: int = 0
    ) -> dict[str, Tensor]:
        """Return the scores of rows, ``ess`` and ``k_hat``, (N,) each.

        Args:
            rows: N rows.
            seed: Seeds the draws.
            progress: Whether to show a bar.
            first_block: Number of the first block, where the rows are a part of the data.

        Returns:
            ``{name: (N,)}``. The scores of a row on which the pair overflows are infinite, its
            other numbers NaN.

        Warns:
            UserWarning: If the pair overflows on a row.
        """
        bar = draws_bar("anomaly scores", rows, self.num_samples, shown=progress)

        def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
            sums = _ScoreSums(self.num_samples, batch_rows(batch), self._pass.terms.draws_discrete)
            for terms in self._pass.parts(batch, bar):
                sums.add(terms)
            result = sums.result()
            for name in self.names:
                check_numbers(rows, batch, index, result[name])
            return result

        far_rows = FarRows(self.pair, rows)
        with bar:
            columns = collect(
                self.pair, rows, far_rows.marked(work), seed=seed, size=self.size,
                first_block=first_block, shared=far_rows.found,
            )  # fmt: skip
        far_rows.warn("anomaly_scores", stacklevel=4, value="scores are infinite")
        for name in SCORES:
            columns[name][far_rows.found] = math.inf
        others = {name: value for name, value in columns.items() if name not in SCORES}
        return {**{name: columns[name] for name in self.names}, **others}

    def _measure(self, draw: Draw) -> Terms:
        """Return the terms of one run of the pair that the scores are sums of."""
        terms: Terms = {}
        if draw.has_enumerated:
            by_site = draw.terms()
            terms["log_weights"], terms["log_likelihoods"] = (
                draw.log_weights(),
                draw.log_likelihoods(),
            )
        else:
            by_site = draw.terms(closed=False)
            terms["log_weights"] = total(list(by_site.values()))
            by_site |= draw.closed_terms()
        terms["expected"] = total([t for names, t in by_site.items() if draw.is_likelihood(names)])
        latent = [term for names, term in by_site.items() if not draw.is_likelihood(names)]
        terms["divergence"] = -total(latent) if latent else torch.zeros_like(terms["expected"])
        return terms


class _ScoreSums:
    """Sums over the particles of a block of rows, in double precision on the CPU.

    Args:
        num_samples: S, particles of each row in all parts together.
        rows: Rows of the block.
        draws_discrete: As in ``WeightSums``.
    """

    def __init__(self, num_samples: int, rows: int, draws_discrete: bool) -> None:
        self.weights = WeightSums(num_samples, rows, draws_discrete=draws_discrete)
        self.probability = torch.full((rows,), -math.inf, dtype=torch.double)
        self.sums: dict[str, Tensor] = {}

    def add(self, terms: Terms) -> None:
        """Update the sums with more particles: terms of (particles, rows, ...), in nats."""
        self.weights.add(terms["log_weights"], terms["log_weights"])
        log_likelihoods = terms.get("log_likelihoods", terms["expected"]).to("cpu", torch.double)
        self.probability = torch.logaddexp(self.probability, log_likelihoods.logsumexp(0))
        for name in ("expected", "divergence"):
            part = terms[name].to("cpu", torch.double).sum(0)
            self.sums[name] = self.sums[name] + part if name in self.sums else part

    def result(self) -> dict[str, Tensor]:
        """Return the scores, ``ess`` and ``k_hat``, (rows,) each."""
        count, weights = self.weights.count, self.weights.result()
        means = {name: value / count for name, value in self.sums.items()}
        return {
            "reconstruction": math.log(count) - self.probability,
            "expected_reconstruction": -means["expected"],
            "divergence": means["divergence"],
            "negative_elbo": means["divergence"] - means["expected"],
            "negative_log_likelihood": -weights["log_prob"],
            "ess": weights["ess"],
            "k_hat": weights["k_hat"],
        }
