"""Codes of latents that are summed out: posterior probabilities, and most probable joint values.

    probability    E_q(z given x) p(y_i given x, z)                     y_i: one of the latents y
    mode           argmax_y p(y given x, z*),   z* the guide's center   all of y together

y are discrete latents that the model sums out without the guide, z all other latents. A mixture's y
is the component; the states y_0, y_1, ... of a hidden Markov model are a chain.

The probabilities of a row are averaged over draws of z from the guide: they are exact where nothing
but y is latent, and as good as the guide where there is more. The joint values of a chain are the
path that Viterbi's algorithm finds. The most probable state of each step by itself may make a path
that the model excludes.

Source: Rabiner (1989), A tutorial on hidden Markov models, section III.B (both kinds of codes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import block_rows, quiet_look
from ppl_vae.core.chains import steps_of
from ppl_vae.core.handlers import CentralValues, EnumerateInParallel, Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows, batch_rows
from ppl_vae.elbo.configurations import numbers_of_categories, support_values
from ppl_vae.elbo.enumerated import EnumeratedSum, marked_value
from ppl_vae.elbo.factors import Factor
from ppl_vae.elbo.log_sums import MaxOfLogs, SumOfLogs
from ppl_vae.elbo.one_by_one import values_one_by_one
from ppl_vae.elbo.particles import draw_given, plate_nesting
from ppl_vae.elbo.sum_memory import numbers_of_a_row


class SummedLatents:
    """The discrete latents of a pair that are summed out, and what a row says of their values.

    Args:
        pair: The pair.
        rows: The data; the pair is run on a few rows.
        joint: Whether the joint values of all these latents are asked for.

    Attributes:
        in_model: Names of the latents that the model sums out without the guide.
        in_guide: Names of the latents that the guide sums out.
        are_all: Whether the guide draws no latent, so that these are all there are.
        given_others: Whether the guide draws latents that are not summed.
        numbers: Numbers of one row in a run that sums them (``elbo.sum_memory``).

    Raises:
        ValueError: If a latent is summed out in the model while another one is left to its prior,
            or the joint values of one row do not fit in memory.
    """

    def __init__(self, pair: Pair, rows: Rows, *, joint: bool) -> None:
        self.pair = pair
        # a guide by itself is asked for no other number of rows than the blocks will have
        with quiet_look(pair, rows, block_rows(rows)) as block:
            guide_trace = poutine.trace(pair.guide).get_trace(block)
            in_guide = sites.with_role(guide_trace, "latent", "auxiliary")
            in_model: dict[str, sites.Site] = {}
            try:
                replayed = poutine.replay(pair.model, trace=guide_trace)
                model_trace = poutine.trace(replayed).get_trace(block)
                in_model = sites.with_role(model_trace, "latent")
            except Exception:
                if not in_guide:
                    raise  # else the guide has codes, for which the model need not run
            self.in_guide = [name for name, site in in_guide.items() if _is_summed(site)]
            self.are_all, self.given_others = not in_guide, len(in_guide) > len(self.in_guide)
            alone = {name: site for name, site in in_model.items() if name not in guide_trace}
            self.in_model = [name for name, site in alone.items() if _is_summed(site)]
            self._nesting, self._one_by_one = 0, False
            if self.in_model or self.in_guide:
                self._nesting = plate_nesting(pair, block)
                self._one_by_one = bool(values_one_by_one(pair, block))
        for name in alone if self.in_model else ():
            if name not in self.in_model:
                raise ValueError(
                    f'site "{name}": expected the guide to draw it, as the posterior of '
                    f'"{self.in_model[0]}", which the model sums out, depends on it; draw it in '
                    "the guide"
                )
        runs_all_values = self.in_model or (joint and self.in_guide)
        self.numbers = numbers_of_a_row(pair, rows) if runs_all_values else 0

    def posteriors(self, batch: Batch, guide_trace: Trace) -> dict[str, sites.Site]:
        """Return a site with the moments of each latent that the model sums, given a guide's draws.

        Args:
            batch: The rows.
            guide_trace: Trace of a plain run of the guide.

        Returns:
            ``{site: site}``: a single variable has probabilities of shape (places, rows,
            categories), a vector of variables the mean and the standard deviation of its numbers,
            (places, rows, ...) each. There is one place unless the latent stands in plates inside
            the rows.
        """
        if not self.in_model:
            return {}
        draw = draw_given(self.pair, batch, self._nesting, guide_trace)
        found = {
            name: _moments(
                share.reshape(len(share), -1, share.shape[-1]).movedim(0, 1),
                draw.model_trace.nodes[name]["fn"],
            )
            for name, share in draw.enumerated().posteriors(SumOfLogs()).items()
        }

        def posterior() -> None:  # sites of Pyro, so that handlers see what the numbers depend on
            for name, fn in found.items():
                pyro.sample(name, fn)

        values = {
            name: fn.probs.argmax(-1) if isinstance(fn, dist.Categorical) else fn.mean
            for name, fn in found.items()
        }
        return sites.sample_sites(poutine.trace(Substitute(values)(posterior)).get_trace())

    def most_probable(self, batch: Batch, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the most probable joint values of all latents that are summed.

        Those that the guide sums are the most probable under the guide. Those that the model sums
        are the most probable under the model, given the former and the centers of all others.

        Args:
            batch: The rows.
            given: Values of latents that are known already, ``{site: value}``.

        Returns:
            ``{site: (rows, places)}``, numbers of categories, those of a vector side by side; NaN
            in a row that no value allows.

        Raises:
            ValueError: If the guide sums latents one value at a time.
        """
        centers = CentralValues()(Substitute(given)(self.pair.guide))
        best: dict[str, Tensor] = {}
        if self.in_guide:
            trace = self._enumerated_guide(batch, given)
            factors = [Factor(trace.nodes[name], 1) for name in self.in_guide]
            sum_ = EnumeratedSum(trace, Trace(), self.pair.plate, batch_rows(batch), factors)
            shares = sum_.posteriors(MaxOfLogs())
            values = {name: marked_value(s, trace.nodes[name]) for name, s in shares.items()}
            centers = Substitute(values)(centers)
            best = {name: _categories(s, trace.nodes[name]["fn"]) for name, s in shares.items()}
        if self.in_model:
            guide_trace = poutine.trace(centers).get_trace(batch)
            draw = draw_given(self.pair, batch, self._nesting, guide_trace)
            for name, share in draw.enumerated().posteriors(MaxOfLogs()).items():
                best[name] = _categories(share, draw.model_trace.nodes[name]["fn"])
        return best

    def _enumerated_guide(self, batch: Batch, given: Mapping[str, Tensor]) -> Trace:
        """Return a trace of the guide with all values of its summed latents, others at centers."""
        if self._one_by_one:
            raise ValueError(
                f'site "{self.in_guide[0]}": expected a guide that enumerates in parallel, got '
                '"sequential", under which joint values are not searched; write infer='
                '{"enumerate": "parallel"}, or take the probabilities of each latent, joint=False'
            )
        guide = EnumerateInParallel()(Substitute(given)(self.pair.guide))
        guide = EnumMessenger(first_available_dim=-1 - self._nesting)(guide)
        return poutine.trace(CentralValues()(guide)).get_trace(batch)


def by_chain(categories: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the categories of sites by chain, ``{chain: (rows, steps)}``, steps in their order.

    Args:
        categories: ``{site: (rows, places)}``; the places of one step stand side by side.
    """
    steps = steps_of(categories)
    joined: dict[str, list[Tensor]] = {}
    for name in sorted(categories, key=lambda name: steps[name][1]):
        joined.setdefault(steps[name][0], []).append(categories[name])
    return {chain: torch.cat(parts, 1) for chain, parts in joined.items()}


def _moments(probability: Tensor, fn: Any) -> Any:
    """Return a distribution that has the moments of a latent with these probabilities.

    Args:
        probability: Of the latent's values, (..., values).
        fn: The latent's prior, which has these values.
    """
    if numbers_of_categories(fn).shape[1] == 1:
        return dist.Categorical(probability, validate_args=False)
    values = support_values(fn).to(probability.dtype)
    mean = torch.tensordot(probability, values, 1)
    variance = torch.tensordot(probability, values**2, 1) - mean**2
    spread = variance.clamp(min=0.0).sqrt()
    return dist.Normal(mean, spread, validate_args=False).to_event(fn.event_dim)  # moments alone


def _categories(share: Tensor, fn: Any) -> Tensor:
    """Return the numbers of the categories that are marked by a share of 1, NaN where it is NaN.

    Args:
        share: (rows, ..., values).
        fn: The latent's prior, which has these values.

    Returns:
        (rows, places times variables) of integers, or of floats where some are NaN.
    """
    categories = numbers_of_categories(fn)[share.argmax(-1)]
    gap = share.isnan().any(-1)
    if gap.any():
        categories = categories.double().masked_fill(gap[..., None], torch.nan)
    return categories.reshape(len(share), -1)


def _is_summed(site: sites.Site) -> bool:
    """Return whether a latent asks to be summed over all of its values."""
    return sites.is_enumerated(site) and site["infer"].get("num_samples") is None
