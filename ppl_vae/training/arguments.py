"""Checks of the arguments of ``fit``, and what is made of them: optimizer, scheduler, rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from pyro.optim import PyroOptim
from torch import Tensor

from ppl_vae.arguments import (
    check_arguments,
    check_count,
    check_memory,
    check_number,
    names_in,
    shown,
)
from ppl_vae.core.pair import Pair
from ppl_vae.core.world import World
from ppl_vae.data.rows import Data, Rows, as_rows
from ppl_vae.data.steps import repeated_label, step_fields
from ppl_vae.elbo.sum_memory import TooManyConfigurationsError, numbers_of_a_row

Callback: TypeAlias = Callable[[dict[str, float], Any, Any], object]
"""Called once an epoch with the epoch's entry of the history, the model and the guide."""

KLWeight: TypeAlias = float | Callable[[int], float]
"""The weight of every latent site: a number, or a function of the step (counted from 0)."""


def check_fit_arguments(
    *,
    epochs: int,
    batch_size: int,
    kl_weight: Any,
    clip_norm: float | None,
    patience: int | None,
    compile: bool | str,  # noqa: A002  the name of the argument of fit
    validation: Any,
    seed: int | None,
    run: str | Path | None,
    resume: bool,
    progress: bool | None,
    shards: int | None,
) -> None:
    """Raise ``ValueError`` at the first argument of ``fit`` that is wrong by itself.

    The error names the argument. The data, the callables and the run directory are checked later,
    where they are used.
    """
    check_arguments(epochs=epochs, batch_size=batch_size, compile=compile, seed=seed, resume=resume)
    check_arguments(progress=progress)
    if shards is not None:
        check_count("shards", shards)
    if run is not None:
        check_arguments(run=run)
    elif resume:
        raise ValueError("resume: needs the directory of the run; give run=")
    if clip_norm is not None:
        check_number("clip_norm", clip_norm, positive=True)
    if patience is not None:
        check_count("patience", patience)
    if isinstance(validation, Real):
        check_number("validation", validation)
    if not callable(kl_weight):
        check_number("kl_weight", kl_weight, least=0)
    if patience is not None and validation is None:
        raise ValueError("patience: needs held-out rows; give validation=0.1 or data")
    if run is not None and seed is None and isinstance(validation, Real):
        raise ValueError(
            "seed: a run directory needs a seed to split off the same held-out rows again; give "
            "seed=, or pass the held-out rows as validation="
        )


def kl_weight_at(kl_weight: KLWeight, step: int) -> float:
    """Return the KL weight of one step as a float.

    Args:
        kl_weight: What the user gave: a number, or a function of the step.
        step: The step, counted from 0.

    Raises:
        ValueError: Unless the weight is a finite number of at least 0.
    """
    try:
        weight = kl_weight(step) if callable(kl_weight) else kl_weight
    except TypeError as error:
        raise ValueError(
            f"kl_weight: expected a number, or a function of the step, got {error} at step {step}"
        ) from error
    check_number("kl_weight", weight, least=0, when=f" at step {step}")
    return float(weight)


def check_callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks as a tuple; raise ``ValueError`` unless they are functions in a list."""
    listed = names_in("callbacks", callbacks)
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        mend = "; write [function]" if callable(callbacks) else ""
        raise ValueError(f"callbacks: expected a list of functions, got {shown(callbacks)}{mend}")
    for callback in listed:
        if not callable(callback):
            raise ValueError(f"callbacks: expected functions, got {shown(callback)}")
    return tuple(listed)


def split_rows(
    pair: Pair, data: Data, validation: Any, seed: int | None
) -> tuple[Rows, Rows | None]:
    """Return the rows to fit to and the held-out rows.

    Args:
        pair: The pair; where it was fitted before, columns are put into the order of that fit.
        data: The data, in any form that ``fit`` takes.
        validation: ``None``, the fraction of the data to hold out at random, or held-out data.
        seed: Seeds the choice of the rows to hold out.

    Raises:
        ValueError: If there are fewer than 2 rows, or where the held-out data have other
            shapes, or other columns of a frame, than the data.

    Warns:
        UserWarning: If several rows of a frame share a label, as the steps of a sequence do.
    """
    rows = pair.rows(data)
    if len(rows) < 2:
        mend = ""
        if step_fields(rows):
            mend = (
                "; cut it into windows, sequences([x[i : i + 50] for i in range(0, len(x), 50)]), "
                "each of which is then a sequence of its own"
            )
        raise ValueError(f"data: expected at least 2 rows to fit to, got {len(rows)}{mend}")
    if not isinstance(data, Rows) and (label := repeated_label(rows.index)) is not None:
        warnings.warn(
            f"data: expected rows that are independent, got several with the label {shown(label)}; "
            "pass ppl_vae.sequences(frame.reset_index(), id=..., step=...) where they are the "
            "steps of one sequence, else frame.reset_index(drop=True)",
            stacklevel=3,
        )
    if validation is None:
        return rows, None
    if isinstance(validation, Real):
        return rows.split(float(validation), seed)
    held_out = as_rows(validation, "validation", [rows.columns])
    pair.check_sequences(held_out)
    shapes = [
        {name: tuple(f.array.shape[1 + (name in padded) :]) for name, f in named}
        for padded, named in (
            (step_fields(r), zip(r.names, r.fields, strict=True)) for r in (rows, held_out)
        )
    ]  # sequences may be padded to other lengths
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"validation: expected rows like the data's, shapes {shapes[0]}; got {shapes[1]}"
        )
    for field, other in zip(rows.fields, held_out.fields, strict=True):
        names, others = field.columns, other.columns
        if names is not None and others is not None and names != others:
            raise ValueError(
                f"validation: expected the data's columns {names[:9]}, got {others[:9]}; give "
                "them the data's names"
            )
    return rows, held_out


def trainable_parameters(pair: Pair) -> list[Tensor]:
    """Return the parameters of a pair that are not frozen; ``ValueError`` where there are none."""
    parameters = list(pair.trainable().values())
    if not parameters:
        raise ValueError(
            "fit: the pair has nothing to train; unfreeze a parameter, or register the "
            "networks of plain functions with pyro.module"
        )
    return parameters


def default_optimizer(parameters: list[Tensor], lr: float = 1e-3) -> torch.optim.Optimizer:
    """Return Adam over the parameters, fused where devices, dtypes and strides allow it.

    The fused Adam takes the numbers of a parameter for one piece of memory without gaps; for other
    parameters (every second number of a tensor) it would read the wrong gradients. A new tensor
    like such a parameter has other strides.
    """
    fusable = all(
        p.is_floating_point()
        and p.device.type in ("cpu", "cuda")
        and torch.empty_like(p).stride() == p.stride()
        for p in parameters
    )
    one_device = len({p.device for p in parameters}) == 1
    return torch.optim.Adam(parameters, lr=lr, fused=fusable and one_device)


def make_optimizer(make: Any, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return the optimizer that a user's function makes of the parameters; Adam for ``None``.

    Learning rates and other settings that are numpy's numbers become Python's, so that a run
    directory can store them.

    Raises:
        ValueError: If ``make`` is no function, or returns something else than one of torch's
            optimizers, or returns ``LBFGS``, which would have to evaluate the loss itself.
    """
    if make is None:
        return default_optimizer(parameters)
    hint = "pass a function of the parameters: lambda p: torch.optim.Adam(p, lr=1e-3)"
    if isinstance(make, torch.optim.Optimizer | PyroOptim) or not callable(make):
        raise ValueError(f"optimizer: expected a function, got {type(make).__name__}; {hint}")
    try:
        optimizer = make(parameters)
    except TypeError as error:
        raise ValueError(f"optimizer: expected a function, got {error}; {hint}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"optimizer: expected it to return a torch optimizer, got {type(optimizer).__name__}; "
            + hint
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("optimizer: LBFGS evaluates the loss itself; expected one that does not")
    for settings in (optimizer.defaults, *optimizer.param_groups):
        settings.update(plain_numbers({k: v for k, v in settings.items() if k != "params"}))
    return optimizer


def make_scheduler(make: Any, optimizer: torch.optim.Optimizer) -> Any:
    """Return the scheduler that a user's function makes of the optimizer; ``None`` for ``None``.

    Raises:
        ValueError: If the function does not take an optimizer.
    """
    if make is None:
        return None
    hint = "lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)"
    try:
        return make(optimizer)
    except TypeError as error:
        raise ValueError(
            f"scheduler: expected a function of the optimizer, got {error}; write {hint}"
        ) from error


def check_batch_holds_all_rows(summed: Sequence[str], batch_size: int, rows: int) -> None:
    """Raise where a latent outside the row plate is summed, and a batch holds some of the rows.

    Args:
        summed: Names of the latents outside the row plate that are summed exactly.
        batch_size: Rows of one update.
        rows: Rows of the data.

    Raises:
        ValueError: If there is such a latent, and a batch does not hold all rows.
    """
    if summed and batch_size < rows:
        raise ValueError(
            f'site "{summed[0]}": expected all {rows} rows in one batch, as the latent stands '
            f"outside the row plate and is summed over all rows at once, got batch_size="
            f"{batch_size}; pass batch_size={rows}, or draw the latent in the guide"
        )


def check_shards(
    shards: int, batch_size: int, rows: int, summed: Sequence[str], team: World
) -> None:
    """Raise where a batch cannot be cut into a number of shards.

    Args:
        shards: V, the shards of a batch.
        batch_size: Rows of one update, at most those of the data.
        rows: Rows of the data.
        summed: Names of the latents outside the row plate that are summed exactly.
        team: The processes.

    Raises:
        ValueError: If several processes have one shard, a shard would have no row, or a latent is
            summed over all rows at once.
    """
    if shards == 1 and team.size > 1:
        raise ValueError(
            f"shards: expected 2 or more for {team.size} processes, got 1, which is a fit of one "
            "process; pass shards=, begin a new run, or start one process"
        )
    if shards > 1 and summed:
        raise ValueError(
            f'shards: expected 1 where site "{summed[0]}" is summed over all rows at once, got '
            f"{shards}; start one process, or draw the latent in the guide"
        )
    if min(batch_size, rows) < shards:
        raise ValueError(
            f"shards: expected at most the {min(batch_size, rows)} rows of a batch, got {shards}; "
            "pass a larger batch_size, or fewer shards"
        )


def check_sums_fit_in_memory(pair: Pair, rows: Rows, batch_size: int) -> None:
    """Raise where a batch needs more memory than there is, because latents are summed.

    Every site that depends on summed latents holds its numbers for all of their joint values, and
    a step needs them, their log-probabilities and the gradients.

    Args:
        pair: The pair, which ``lint`` has run on one row.
        rows: The data.
        batch_size: Rows of one update.

    Raises:
        ValueError: If the machine's memory is smaller.
    """
    try:
        numbers = numbers_of_a_row(pair, rows)
    except TooManyConfigurationsError:
        raise
    except Exception:  # of a pair that runs under its own ELBO alone, whose step raises it again
        return
    size = numbers * torch.get_default_dtype().itemsize * 3 * min(batch_size, len(rows))
    mend = "take smaller batches, or draw the summed latents in the guide"
    check_memory("batch_size", batch_size, size, mend)


def plain_numbers(value: Any) -> Any:
    """Return a value with numpy's numbers replaced by Python's, inside dicts, lists and tuples.

    Users compute settings with numpy; JSON and snapshots take Python's numbers alone.

    Example:
        >>> plain_numbers({"lr": np.float64(0.5), "betas": (np.float32(0.25), 1)})
        {'lr': 0.5, 'betas': (0.25, 1)}
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {plain_numbers(key): plain_numbers(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain_numbers(item) for item in value)
    return value
