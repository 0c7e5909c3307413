"""Rows drawn from the model, in the form of given rows, with the latents that they came from.

    theta ~ q(theta)          latents outside the row plate: from the guide, for a group of rows
    z ~ p(z given theta),  x ~ p(x given z, theta)          latents and observations of a row

What the model reads without observing it (covariates, masks, lengths) is that of given rows. A cell
that a mask hides keeps the value that the given row has there, so that the guide reads what it
would read in real data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import collect, quiet_look
from ppl_vae.core.handlers import ReplayReplicates, Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import child
from ppl_vae.data.rows import Batch, Rows, as_tuple, generator
from ppl_vae.data.steps import without_padding
from ppl_vae.predictive.factors import sites_beside_factors
from ppl_vae.predictive.global_draws import GlobalDraws
from ppl_vae.predictive.latent_draws import data_sites, drawn_latents, simulate, site_values
from ppl_vae.predictive.randomness import DependentTensors
from ppl_vae.predictive.replicates import samples_first
from ppl_vae.predictive.row_form import CellPlaces

GROUPS = 20
"""Groups of rows, each with a draw of its own of the latents outside the row plate."""


class SimulatedRows:
    """Rows drawn from the model, and the latents that they were drawn from.

    Args:
        pair: The pair.
        like: Rows that give the form.
        num_rows: Rows to draw.
        size: Rows in a block, at most.
        seed: Seeds the draws.

    Attributes:
        rows: The drawn rows.
        size: Rows in a block; those of a block have the same latents outside the row plate.
        latents: The latents of the rows, ``{site: (rows, ...)}`` as ``samples_first`` has them.
        outside: Names of the latents outside the row plate.

    Raises:
        ValueError: If the model has a factor, or observes values that are no cells of the data.
    """

    def __init__(
        self, pair: Pair, like: Rows, num_rows: int, size: int, *, seed: int | None
    ) -> None:
        self.pair, self._like, self._seed = pair, like, seed
        for site, factors in sites_beside_factors(pair, like, prior=True).items():
            raise ValueError(
                f'site "{site}": expected a model that draws latents and data by its sites alone, '
                f'got the factor "{factors[0]}", which rows drawn from the model do not follow; '
                "write the factor as the distribution of a site"
            )
        self._globals = GlobalDraws(pair, like)
        with quiet_look(pair, like) as few_rows:
            in_model = sites.with_role(poutine.trace(pair.model).get_trace(few_rows), "latent")
        self.outside = [name for name in in_model if name in self._globals.names]
        self.size = min(size, -(-num_rows // GROUPS)) if self._globals.names else size
        self._places = CellPlaces(pair, like)
        self._reads_lengths = pair.reads_lengths(like)
        self._drawn: dict[int, dict[str, Tensor]] = {}
        template = like.subset(_positions(len(like), num_rows, seed))
        results = collect(pair, template, self._simulated, seed=seed, size=self.size, judge=False)
        fields = [results.pop(("field", place)) for place in range(len(like.fields))]
        self.latents = {name: v for (kind, name), v in results.items() if kind == "latent"}
        self._log_probs = {name: v for (kind, name), v in results.items() if kind == "log_prob"}
        self.rows = template.with_values(fields)

    def shared(self, index: Tensor) -> dict[str, Tensor]:
        """Return the latents outside the row plate for a block of rows, ``{site: value}``.

        Args:
            index: Positions of the block's rows, (rows,).
        """
        number = int(index[0]) // self.size if self._globals.names else 0
        if number not in self._drawn:
            self._drawn[number] = self._globals.draw(child(self._seed, 1, number))
        return self._drawn[number]

    def true_trace(self, batch: Batch, index: Tensor) -> Trace:
        """Return the model run on drawn rows, with the latents that these were drawn from.

        Args:
            batch: A block of the drawn rows.
            index: Their positions, (rows,).
        """
        own = {name: value[index].to(self.pair.device()) for name, value in self.latents.items()}
        model = ReplayReplicates(own, None)(Substitute(self.shared(index))(self.pair.model))
        return poutine.trace(model).get_trace(batch)

    def check(self, log_probs: Mapping[str, Tensor]) -> None:
        """Raise if the rows have other log-probabilities than they had when they were drawn.

        They have where observed values decide about the model itself: as which cells are missing,
        by a mask that the model observes, too. Such rows are no draws of the model on them.

        Args:
            log_probs: Of each site, from ``row_log_probs`` of ``true_trace``, ``{site: (rows,)}``.
        """
        for name, before in self._log_probs.items():
            after = log_probs[name].to(before)
            differs = (before - after).abs() > 0.01 + 1e-3 * before.abs()
            differs &= before.isfinite() & after.isfinite()
            if bool(differs.any()):
                row = int(differs.nonzero()[0])
                raise ValueError(
                    f'site "{name}": expected a distribution that the observed values leave as it '
                    f"is, got a log-probability of {float(before[row]):.6g} nats when a row was "
                    f"drawn, and {float(after[row]):.6g} in the drawn row; a model that observes "
                    "which cells are missing, or rounds what it observes, cannot be simulated: "
                    "take a model without that site"
                )

    def row_log_probs(self, trace: Trace) -> dict[str, Tensor]:
        """Return the log-probability of each row at each site of the model, ``{site: (rows,)}``."""
        roles = {**data_sites(trace), **sites.with_role(trace, "latent", "data")}
        in_rows = {n: site for n, site in roles.items() if sites.in_plate(site, self.pair.plate)}
        return {name: sites.row_log_prob(site) for name, site in in_rows.items()}

    def _simulated(self, batch: Batch, index: Tensor) -> dict[tuple[str, Any], Tensor]:
        """Return the fields of drawn rows, their latents, and the log-probability of each site."""
        trace = simulate(self.pair, batch, Substitute(self.shared(index)))
        drawn = data_sites(trace)
        values = site_values(trace, expected=False)
        fields = self._places.fields_with_values(batch, drawn, values, expected=False)
        for name, site in drawn.items():
            place, cells = self._places.cells(name, batch, site["infer"]["obs"])
            hidden = cells[~sites.unmasked_cells(site).reshape(cells.shape)]
            old = as_tuple(batch)[place].reshape(-1)[hidden]
            fields[place].view(-1)[hidden] = old.to(fields[place].dtype)
        if self._reads_lengths:
            fields = without_padding(self._like, fields)
        latents = {
            name: samples_first(site["value"], site, None)[0]
            for name, site in drawn_latents(trace).items()
            if sites.in_plate(site, self.pair.plate)
        }
        return {
            **{("field", place): field for place, field in fields.items()},
            **{("latent", name): value for name, value in latents.items()},
            **{("log_prob", name): value for name, value in self.row_log_probs(trace).items()},
        }


def rows_for_a_guide(pair: Pair, like: Rows, size: int, *, seed: int | None) -> SimulatedRows:
    """Return as many rows drawn from the model as there are, on which its guide can be judged.

    Args:
        pair: The pair.
        like: Rows that give the form.
        size: Rows in a block, at most.
        seed: Seeds the draws.

    Raises:
        ValueError: If the guide takes no rows but those of its fit, or the observed values change
            the model's own distributions.
    """
    refuse_numbers_of_rows(pair, like)
    made = SimulatedRows(pair, like, len(like), size, seed=seed)
    refuse_known_rows(pair, made.rows)
    made.check(
        collect(
            pair, made.rows, lambda batch, index: made.row_log_probs(made.true_trace(batch, index)),
            seed=seed, size=made.size, judge=False,
        )
    )  # fmt: skip
    return made


def refuse_numbers_of_rows(pair: Pair, rows: Rows) -> None:
    """Raise if the guide draws the latents of a row from what the model does not read.

    A guide that holds numbers for each row of some data finds them by the row's index. It says the
    same of any row that is drawn in its place.

    Args:
        pair: The pair.
        rows: Rows of the form of the data.
    """
    read = set(pair.model.fields_read(rows.names))
    of_guide = [rows.names.index(name) for name in rows.names if name not in read]
    if rows.keys is None or not of_guide or pair.guide.is_prior:
        return
    by_model = [rows.names.index(name) for name in rows.names if name in read]
    if _decide(pair, rows, of_guide) and not _decide(pair, rows, by_model):
        names = ", ".join(f'"{rows.names[place]}"' for place in of_guide)
        raise ValueError(
            "guide: expected an amortized guide, which reads the rows that the model draws, got "
            f"one whose latents depend on {names} alone, which the model does not read; take "
            "an amortized guide"
        )


def refuse_known_rows(pair: Pair, rows: Rows) -> None:
    """Raise if the guide takes no rows but those that it was fitted to.

    Args:
        pair: The pair.
        rows: Rows drawn from the model.
    """
    try:
        with quiet_look(pair, rows) as batch:
            poutine.trace(pair.guide).get_trace(batch)
    except ValueError as error:
        raise ValueError(
            "guide: expected an amortized guide, which takes rows drawn from the model, got one "
            f"that does not: {error}; take an amortized guide of the model"
        ) from error


def _decide(pair: Pair, rows: Rows, fields: list[int]) -> bool:
    """Return whether the values of a latent of the rows depend on some fields, in the guide."""
    dependent = DependentTensors(random_numbers=False)
    with quiet_look(pair, rows) as batch, dependent:
        for place in fields:
            dependent.mark(as_tuple(batch)[place])
        drawn = sites.with_role(poutine.trace(pair.guide).get_trace(batch), "latent", "auxiliary")
        return any(
            dependent.holds(site["value"])
            for site in drawn.values()
            if sites.in_plate(site, pair.plate)
        )


def _positions(rows: int, count: int, seed: int | None) -> Tensor:
    """Return which rows give their covariates: each as often as any other, or one time more."""
    random = generator(child(seed, 2))
    orders = [torch.randperm(rows, generator=random) for _ in range(-(-count // rows))]
    return torch.cat(orders)[:count].sort().values
