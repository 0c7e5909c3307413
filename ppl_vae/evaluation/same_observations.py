"""Whether several pairs observe the same numbers in the same way, so that nats can be compared.

    log p(x)                                    a probability is a number without a unit
    log p(x in other units) = log p(x) + log c  a density is one in the unit of x, 1 / unit

Nats of two models differ by what the models are worth only where both score the same event. They
do not where one gives a density and the other a probability, where one scores scaled values, more
cells or other cells, or where one is given the total of the counts and the other has to explain it.

No site is known by its name alone: two models of one data set may call their sites what they like,
or have a site for each step where the other has one for all. So the observed numbers themselves are
compared, by sums over each row: their number without masked ones, sum, sum of absolute values and
sum of squares. These do not depend on how the numbers are divided among sites, nor on their order.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import collect, quiet_look
from ppl_vae.core.pair import Pair
from ppl_vae.core.supports import basic_distribution, is_discrete, support_of
from ppl_vae.data.rows import Batch, Rows, batch_rows
from ppl_vae.distributions import Multinomial

NEAR = 1e-4
"""Relative difference of sums up to which observed numbers count as the same: rounding."""

KINDS = ("density", "probability")


@dataclass(frozen=True)
class Scored:
    """How a pair scores one observed site.

    Attributes:
        kind: ``"density"`` or ``"probability"``.
        family: The distribution, for messages.
        tied: Whether some of an event's numbers follow from others: parts of a whole, counts given
            their total, a single 1 among zeros.
    """

    kind: str
    family: str
    tied: bool

    @classmethod
    def of(cls, site: sites.Site) -> Scored:
        """Return how a site of a trace is scored."""
        fn, support = basic_distribution(site["fn"]), support_of(site["fn"])
        given_total = isinstance(fn, Multinomial | torch.distributions.Multinomial)
        kind = KINDS[is_discrete(site["fn"])]
        return cls(kind, type(fn).__name__, given_total or getattr(support, "event_dim", 0) > 0)

    def __str__(self) -> str:
        tie = " of numbers that are tied to one another" if self.tied else ""
        return f"a {self.kind}{tie} ({self.family})"


@dataclass(frozen=True)
class Observed:
    """What a pair observes in the row plate.

    Attributes:
        sites: How each site is scored, by name.
        factors: Names of the model's factors.
        sums: Of each row, (rows, 5): how many numbers have a density and how many a probability,
            without masked ones; their sum, the sum of their absolute values, and of their squares.
    """

    sites: dict[str, Scored]
    factors: list[str]
    sums: Tensor

    @classmethod
    def of(cls, pair: Pair, rows: Rows) -> Observed:
        """Read what a pair observes, from one run of its model on each block of rows.

        Latents are drawn from the prior: no observed value depends on them.

        Args:
            pair: The pair.
            rows: The data.

        Raises:
            ValueError: If the pair does not run on the rows, or a value is outside its support.
        """
        with quiet_look(pair, rows) as few_rows:
            trace = _model_trace(pair, few_rows)
        found = {
            sites.full_site_name(trace, name): Scored.of(site)
            for name, site in _observed_sites(trace, pair.plate)
        }
        factors = list(sites.with_role(trace, "factor"))

        def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
            each = _observed_sites(_model_trace(pair, batch), pair.plate)
            none = torch.zeros(batch_rows(batch), 5, dtype=torch.float64)
            return {"sums": sum((_sums(site).cpu() for _, site in each), start=none)}

        marks = torch.zeros(len(rows), dtype=torch.bool)  # no row is left out
        return cls(found, factors, collect(pair, rows, work, seed=0, shared=marks)["sums"])


def check_same(observed: dict[str, Observed]) -> None:
    """Raise unless all pairs observe the same numbers of each row, as what all others do.

    Args:
        observed: What each pair observes, by the pair's name.

    Raises:
        ValueError: With the names of two pairs, the sites, and what to change.

    Warns:
        UserWarning: If a model has a factor, which may be no log-probability; if probabilities are
            of other values, which may be coarser ones.
    """
    (first, reference), *others = observed.items()
    for name, other in others:
        _check_kinds(first, reference, name, other)
        _check_counts(first, reference, name, other)
        _check_values(first, reference, name, other)
    for name, each in observed.items():
        if each.factors:
            warnings.warn(
                f'compare: pairs["{name}"]: site "{each.factors[0]}" is a factor, which counts as '
                "it is: nats can be compared only if it is the log-probability of observed data",
                stacklevel=3,
            )


def _check_kinds(first: str, reference: Observed, name: str, other: Observed) -> None:
    """Raise where a site, or as many numbers, are scored as something else by another pair."""
    named = [name for name in reference.sites if name in other.sites]
    pairs = [(name, reference.sites[name], other.sites[name]) for name in named]
    if len(reference.sites) == len(other.sites) == 1:  # one site, whatever its names
        (site, ours), theirs = next(iter(reference.sites.items())), next(iter(other.sites.values()))
        pairs = [(site, ours, theirs)]
    for site, ours, theirs in pairs:
        where = f'in pairs["{first}"] and {theirs} in pairs["{name}"]'
        if ours.kind != theirs.kind:
            raise ValueError(
                f'site "{site}": expected densities in all pairs, or probabilities, got {ours} '
                f"{where}: nats of a density depend on the unit of the data, those of a "
                "probability do not; give both a likelihood of whole numbers (Poisson, or "
                "RoundedLogistic, which integrates a density), or both one of real numbers"
            )
        if ours.tied != theirs.tied:
            raise ValueError(
                f'site "{site}": expected likelihoods of the same numbers, got {ours} {where}: '
                "where numbers are tied, such as counts by their total, one pair is given what the "
                "other has to explain; compare pairs that are given the same"
            )


def _check_counts(first: str, reference: Observed, name: str, other: Observed) -> None:
    """Raise where another pair observes more or fewer numbers of a row, or more as densities."""
    all_here, all_there = (each.sums[:, :2].sum(1) for each in (reference, other))
    differ = (all_here != all_there).nonzero().flatten().tolist()
    if differ:
        raise ValueError(
            f'pairs["{name}"]: expected as many observed numbers in each row as pairs["{first}"] '
            f"has, got {int(all_there[differ[0]])} and not {int(all_here[differ[0]])} in row "
            f"{differ[0]} ({_names(first, reference, other)}); compare pairs that observe the same "
            "fields and columns, under the same mask"
        )
    here, there = reference.sums[:, 0], other.sums[:, 0]
    differ = (here != there).nonzero().flatten().tolist()
    if differ:
        raise ValueError(
            f'pairs["{name}"]: expected as many densities and probabilities in each row as '
            f'pairs["{first}"] has, got {int(there[differ[0]])} densities and not '
            f"{int(here[differ[0]])} in row {differ[0]} ({_names(first, reference, other)}); nats "
            "of a density depend on the unit of the data, those of a probability do not"
        )


def _check_values(first: str, reference: Observed, name: str, other: Observed) -> None:
    """Raise where another pair observes other values of a row; warn if they are probabilities."""
    here, there = reference.sums, other.sums
    near = (here[:, 2:] - there[:, 2:]).abs() <= NEAR * here[:, [3, 3, 4]]
    missing = here[:, 2:].isnan() & there[:, 2:].isnan()  # log_likelihood speaks of these
    differ = (~(near | missing).all(1)).nonzero().flatten().tolist()
    if not differ:
        return
    where = f"in row {differ[0]} ({_names(first, reference, other)})"
    if set(reference.sites) != set(other.sites) or bool((here[:, 0] > 0).any()):
        raise ValueError(
            f'pairs["{name}"]: expected the observed values of pairs["{first}"], got others '
            f"{where}; observe the same fields as they are in the data: where a model scales them, "
            "its density is one of other units, so scale inside the distribution, "
            "Normal(loc + scale * mean, scale * sd) or TransformedDistribution"
        )
    warnings.warn(
        f'compare: pairs["{name}"] observes other values than pairs["{first}"] {where}: '
        "probabilities can be compared only if each value stands for one of the other pair's; a "
        "coarser one, such as x > 0.5, is always more probable",
        stacklevel=4,
    )


def _names(first: str, reference: Observed, other: Observed) -> str:
    """Return the sites of a pair, and those of the first one where they are others, in words."""
    own, firsts = (
        " and ".join(f'"{name}"' for name in each.sites) or "none" for each in (other, reference)
    )
    text = f"site{'' if len(other.sites) == 1 else 's'} {own}"
    return text if own == firsts else f'{text}; pairs["{first}"] has {firsts}'


def _model_trace(pair: Pair, batch: Batch) -> Trace:
    """Run the model with latents from the prior; a far draw must not stop it."""
    with pyro.validation_enabled(False):
        return poutine.trace(pair.model).get_trace(batch)


def _observed_sites(trace: Trace, plate: str) -> Iterator[tuple[str, sites.Site]]:
    """Yield the observed sites in the row plate, with their names."""
    for name, site in sites.with_role(trace, "data").items():
        if sites.in_plate(site, plate):
            yield name, site


def _sums(site: sites.Site) -> Tensor:
    """Return the sums of a site's unmasked numbers in each row, (rows, 5) in double precision."""
    fn, unmasked = site["fn"], sites.unmasked_cells(site)
    shape = (*fn.batch_shape, *site["value"].shape[site["value"].ndim - fn.event_dim :])
    unmasked, value = unmasked.expand(shape), site["value"].double().expand(shape)
    value = value.masked_fill(~unmasked, 0.0)

    def by_row(numbers: Tensor) -> Tensor:
        numbers = numbers.movedim(len(fn.batch_shape) - 1, 0)
        return numbers.reshape(len(numbers), -1).double().sum(1)

    count = by_row(unmasked)
    counts = [count, torch.zeros_like(count)]
    if is_discrete(fn):
        counts.reverse()
    return torch.stack([*counts, by_row(value), by_row(value.abs()), by_row(value.square())], 1)
