"""What replicated data do not follow: factors of a model, and masks that draws decide.

    p(x, z) f(x, z)          f: a ``pyro.factor`` of the model, exp of its log-factor

Replicates are drawn from the distributions of sample statements. A factor multiplies the density
without a distribution to draw from. A model of censored times, for example, masks the censored
rows at the site and adds the log-probability of the censoring as a factor: replicates of the site
are then all observed times, while the data's are those that came before their censoring.
"""

from __future__ import annotations

from pyro import poutine
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows, as_tuple
from ppl_vae.predictive.randomness import DependentTensors


def sites_beside_factors(pair: Pair, rows: Rows, *, prior: bool) -> dict[str, list[str]]:
    """Return the data sites whose replicates differ from the model by a factor.

    A site is named where it observes a field of the data that the factor reads too. With latents
    from the prior, every data site is named: the factor changes how latents are distributed. With
    latents from the guide it does not matter there, as the guide approximates the posterior under
    the factor.

    Args:
        pair: The pair; its model is run on a few rows, once, and once more for each field of the
            data if it has factors.
        rows: The data.
        prior: Whether replicates are drawn from latents of the prior.

    Returns:
        ``{site: names of factors}``, by the names that the user gave the sites.
    """
    with quiet_look(pair, rows) as batch:
        trace = poutine.trace(pair.model).get_trace(batch)
    factors = list(sites.with_role(trace, "factor"))
    data = list(sites.with_role(trace, "data"))
    if not factors or not data:
        return {}
    beside: dict[str, set[str]] = {name: set(factors) if prior else set() for name in data}
    for field in range(len(rows.fields)):
        reading = _reading(pair, rows, field)
        for name in reading.intersection(data):
            beside[name] |= reading.intersection(factors)
    return {
        sites.full_site_name(trace, name): [factor for factor in factors if factor in beside[name]]
        for name in data
        if beside[name]
    }


def sites_masked_by_draws(pair: Pair, rows: Rows, names: list[str]) -> list[str]:
    """Return the sites whose mask depends on values that each replicate draws anew.

    A count that is masked where another observed site is 0 is an example: a replicate draws that
    other site too, so that its counts are unmasked in other cells than the data's.

    Args:
        pair: The pair; its model is run on a few rows twice, without the data's values.
        rows: The data.
        names: The data sites to look at.
    """
    drawn = poutine.uncondition(pair.model)
    with quiet_look(pair, rows) as batch:
        first, second = (
            {
                sites.full_site_name(trace, name): sites.unmasked_cells(site)
                for name, site in sites.with_role(trace, "data", "latent").items()
            }
            for trace in (poutine.trace(drawn).get_trace(batch) for _ in range(2))
        )
    return [name for name in names if not first[name].equal(second[name])]


def _reading(pair: Pair, rows: Rows, field: int) -> set[str]:
    """Return the observed sites and factors of the model whose values depend on a field."""
    dependent = DependentTensors(random_numbers=False)
    with quiet_look(pair, rows) as batch, dependent:
        dependent.mark(as_tuple(batch)[field])
        trace = poutine.trace(pair.model).get_trace(batch)
        return {
            name
            for name, site in sites.with_role(trace, "data", "factor").items()
            if dependent.holds(_content(site))
        }


def _content(site: sites.Site) -> Tensor:
    """Return the observed value of a data site, or the log-factor of a factor."""
    content: Tensor = site["fn"].log_factor if sites.role(site) == "factor" else site["value"]
    return content
