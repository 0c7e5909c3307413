"""The built-in statistic that relates an observed site to the covariates: their correlation.

    r_jc = sum_n m_nj (y_nj - mean_j) (x_nc - mean_jc) / sqrt(...)     y: (rows, features)
                                                                       x: (rows, covariates)

with the mask m, 1 where a cell of y is unmasked; both means are over the unmasked rows of feature
j. A covariate is a column of the data that the model reads and does not observe. Statistics of y
alone cannot see a regression with a slope of the wrong sign: y may still have the right mean and
spread. The covariates are the same numbers for the data and for every replicate, so that the
p-values hold as for any other statistic.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppl_vae.checks.layouts import Layout
from ppl_vae.checks.pair_sums import RELATIVE_ROUNDING, paired_columns
from ppl_vae.core import sites
from ppl_vae.core.blocks import LARGEST, quiet_look
from ppl_vae.data.cells import cells_in
from ppl_vae.data.mixed_tables import COVARIATES, SEEN
from ppl_vae.data.rows import Rows, as_tuple
from ppl_vae.data.steps import step_fields
from ppl_vae.predictive.latent_draws import data_sites, simulate
from ppl_vae.predictive.replicates import ReplicateSampler
from ppl_vae.predictive.row_form import COMPARED_ROWS

NAME = "covariate correlation"


@dataclass(frozen=True)
class Covariates:
    """The columns of the data that the model reads and does not observe.

    Attributes:
        values: (rows, covariates) of doubles, each column with mean 0; for sequences, (rows *
            steps, covariates).
        names: A name for each column.
    """

    values: Tensor
    names: list[str]

    @classmethod
    def of(cls, sampler: ReplicateSampler) -> Covariates:
        """Find the covariates of a pair's data.

        A column that is constant, or not finite in every row, is left out. There are none where
        the cells that a site has observed cannot be found in the data (``x.log()``), because one
        of the columns is then the observed value itself. At most 64 evenly spaced columns count.
        """
        columns = _unobserved_columns(sampler)
        chosen = [columns[i] for i in paired_columns(len(columns))]
        return cls._varying(_read(sampler.rows, chosen), _labels(sampler, chosen))

    @classmethod
    def of_steps(cls, sampler: ReplicateSampler, steps: int) -> Covariates:
        """Find the covariates of sequences, a line for each step of each row.

        Those are the columns of the inputs of each step, and of fields with one value for a row.
        The fields that say which values there are, ``lengths`` and ``seen``, are none: a model may
        be right and say nothing of it.
        """
        rows, by_steps, columns = (
            sampler.rows,
            step_fields(sampler.rows),
            _unobserved_columns(sampler),
        )
        unobserved = set(columns)
        chosen = []
        for field, column in columns:
            name = rows.names[field]
            if name in by_steps:
                width = math.prod(rows.fields[field].array.shape[2:])
                whole = column < width and all(
                    (field, step * width + column) in unobserved for step in range(steps)
                )
                chosen += [(field, column)] * (whole and name != "seen")
            elif name != "lengths":
                chosen.append((field, column))
        chosen = [chosen[i] for i in paired_columns(len(chosen))]
        parts = [
            _read_steps(rows, column, steps, rows.names[column[0]] in by_steps) for column in chosen
        ]
        values = torch.stack(parts, -1) if parts else torch.zeros(len(rows) * steps, 0).double()
        return cls._varying(values, _labels(sampler, chosen))

    @classmethod
    def _varying(cls, values: Tensor, labels: list[str]) -> Covariates:
        """Return the columns, (lines, covariates), that are finite and not constant."""
        values = values - values.mean(0)
        varies = (values.isfinite() & (values != 0)).any(0) & values.isfinite().all(0)
        names = [label for label, used in zip(labels, varies.tolist(), strict=True) if used]
        return cls(values[:, varies], names)

    def correlations(self, x: Tensor, unmasked: Tensor | None) -> Tensor:
        """Return the correlation of every feature of some data sets with every covariate.

        Args:
            x: (data sets, rows, features).
            unmasked: (rows, features) of bool; ``None`` where no cell is masked.

        Returns:
            (data sets, values) of doubles, the covariates of the first feature first; NaN where a
            feature or a covariate is constant. Of more than 64 features, 64 evenly spaced ones.
            A covariate that is a mask, or the number of unmasked cells of each row, has NaN: a
            model may be right and say nothing of which cells are missing.

        Example:
            >>> time = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.double)
            >>> falling = torch.tensor([[[4.0], [2.0], [0.0]]])
            >>> Covariates(time, ["time"]).correlations(falling, None)
            tensor([[-1.]], dtype=torch.float64)
        """
        chosen = paired_columns(x.shape[2])
        weights = torch.ones(x.shape[1], len(chosen), dtype=torch.double)
        if unmasked is not None:
            weights = unmasked[:, chosen].double()
        count = weights.sum(0)
        y = x[:, :, chosen].double().masked_fill(weights == 0, 0.0)
        shifted = (y - (y.sum(1) / count)[:, None]) * weights
        mean = weights.T @ self.values / count[:, None]  # (features, covariates)
        square = weights.T @ self.values.square() / count[:, None]
        spread = square - mean.square()
        spread = spread.masked_fill(spread <= RELATIVE_ROUNDING * square, torch.nan)
        power = shifted.square().sum(1) / count  # (data sets, features)
        power = power.masked_fill(power <= RELATIVE_ROUNDING * y.square().sum(1) / count, torch.nan)
        product = torch.einsum("srj,rc->sjc", shifted, self.values) / count[:, None]
        found = product / (power[:, :, None] * spread).sqrt()
        if unmasked is not None:
            found[:, :, self._tell_of_masks(unmasked)] = torch.nan
        return found.flatten(1)

    def labels(self, features: Sequence[str]) -> list[str]:
        """Return the name of each value that ``correlations`` returns."""
        chosen = [features[i] for i in paired_columns(len(features))]
        return [f"{feature} ~ {name}" for feature in chosen for name in self.names]

    def _tell_of_masks(self, unmasked: Tensor) -> Tensor:
        """Return which covariates are a column of the mask or count its cells, (covariates,)."""
        masks = torch.cat([unmasked.double(), unmasked.double().sum(1, keepdim=True)], 1)
        masks = masks - masks.mean(0)
        same = (masks[:, :, None].abs() - self.values[:, None].abs()).abs() < 1e-9
        return same.all(0).any(0)


def of_layouts(sampler: ReplicateSampler, layouts: dict[str, Layout]) -> dict[str, Covariates]:
    """Return the covariates of each site, by rows or by the steps of sequences."""
    steps = {layout.inside.shape[1] for layout in layouts.values() if layout.inside is not None}
    of_steps = Covariates.of_steps(sampler, steps.pop()) if steps else None
    of_rows = (
        None
        if all(layout.inside is not None for layout in layouts.values())
        else (Covariates.of(sampler))
    )
    found = {
        name: of_rows if layout.inside is None else of_steps for name, layout in layouts.items()
    }
    return {name: covariates for name, covariates in found.items() if covariates is not None}


def on_normal_scale(statistic: str, observed: Tensor, replicated: Tensor) -> tuple[Tensor, Tensor]:
    """Return correlations with covariates as Fisher's z, atanh r; other statistics unchanged.

    Distances are measured in spreads of the replicates. Correlations are bounded, so that in few
    rows even -1 is only a few spreads away from a mean of 0.2; z is close to normal.

    Source: Fisher (1921), On the probable error of a coefficient of correlation, Metron 1.

    Args:
        statistic: Name of the statistic.
        observed: (1, values).
        replicated: (S, values).
    """
    if statistic != NAME:
        return observed, replicated
    limit = 1 - 1e-12
    return observed.clamp(-limit, limit).atanh(), replicated.clamp(-limit, limit).atanh()


def _unobserved_columns(sampler: ReplicateSampler) -> list[tuple[int, int]]:
    """Return the position of the field and of the column, for each column that is not observed."""
    pair, rows = sampler.pair, sampler.rows
    with quiet_look(pair, rows, COMPARED_ROWS, spread=True) as batch:
        trace = simulate(pair, batch, Messenger())
        read = list(range(len(as_tuple(batch))))
        if isinstance(batch, dict):
            fields = pair.model.fields_read(batch)
            mask = SEEN if rows.schema is not None else ""  # says nothing of values
            read = [i for i, name in enumerate(batch) if name in fields and name != mask]
        sizes = [field[0].numel() for field in as_tuple(batch)]
        observed: set[tuple[int, int]] = set()
        for site in data_sites(trace).values():
            if not sites.in_plate(site, pair.plate):
                continue
            place = cells_in(batch, torch.as_tensor(site["infer"]["obs"]), site["fn"].event_dim)
            if place is None:
                return []
            field, cells = place
            observed |= {(field, int(i)) for i in (cells.flatten() % sizes[field]).unique()}
    columns = [(field, column) for field in read for column in range(sizes[field])]
    return [column for column in columns if column not in observed]


def _read(rows: Rows, columns: list[tuple[int, int]]) -> Tensor:
    """Return some columns of the data, (rows, columns) of doubles."""
    parts = []
    for index in torch.arange(len(rows)).split(LARGEST) if columns else ():
        fields = [f.reshape(len(index), -1) for f in as_tuple(rows.take(index, None))]
        parts.append(torch.stack([fields[i][:, j].cpu().double() for i, j in columns], 1))
    return torch.cat(parts) if parts else torch.zeros(len(rows), 0, dtype=torch.double)


def _read_steps(rows: Rows, column: tuple[int, int], steps: int, has_steps: bool) -> Tensor:
    """Return a column of the data for each step of each row, (rows * steps,) of doubles.

    Args:
        rows: The data.
        column: The position of the field, and of the column in one step or in the row.
        steps: Number of steps.
        has_steps: Whether the field has a value for each step; else it is the same at all steps.
    """
    field, position = column
    parts = []
    for index in torch.arange(len(rows)).split(LARGEST):
        values = as_tuple(rows.take(index, None))[field].cpu()
        if has_steps:
            parts.append(values.reshape(len(index), steps, -1)[..., position].double())
        else:
            each = values.reshape(len(index), -1)[:, position].double()
            parts.append(each[:, None].expand(-1, steps))
    return torch.cat(parts).flatten()


def _labels(sampler: ReplicateSampler, columns: list[tuple[int, int]]) -> list[str]:
    """Return a name for each column: the frame's, or the field's with a number if it is wide.

    The field of a tuple has the name of the model's argument that it is passed as.
    """
    rows = sampler.rows
    fields = rows.names
    if rows.keys is None:
        base = sampler.pair.model.base
        arguments = list(inspect.signature(getattr(base, "forward", base)).parameters)
        fields = [*arguments, *fields[len(arguments) :]]
    names = []
    for field, column in columns:
        labels = rows.fields[field].labels
        if rows.schema is not None and rows.names[field] == COVARIATES:
            names.append(rows.schema.given_names[column])
        elif isinstance(labels, pd.Index):
            names.append(str(labels[column % len(labels)]))
        else:
            wide = rows.fields[field].array.ndim > 1
            names.append(f"{fields[field]}[{column}]" if wide else fields[field])
    return names
