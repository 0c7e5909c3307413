"""A model and a guide together: their parameters, their device, and the ways to run them.

``Pair`` is what all other code works with: ``pair.model(batch)`` and ``pair.guide(batch)`` run
the user's Pyro code; parameters and buffers have names that begin with ``model.`` or ``guide.``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.arguments import check_arguments
from ppl_vae.compat.of_pyro import pyro_log_silenced
from ppl_vae.compat.of_torch import buffers_of
from ppl_vae.compiled.layout import copy_with_strides, write_back
from ppl_vae.core.evaluation_mode import in_evaluation_mode
from ppl_vae.core.half import Half
from ppl_vae.core.handlers import HeldSubsamples
from ppl_vae.core.optional_fields import field_fault, optional_fields
from ppl_vae.core.private_store import tell
from ppl_vae.core.seeding import forked
from ppl_vae.data.columns import Columns
from ppl_vae.data.rows import Batch, Data, Rows, as_rows, map_batch
from ppl_vae.data.steps import (
    check_lengths,
    check_no_gaps,
    check_one_length,
    check_seen,
    check_whole_lengths,
)

Model: TypeAlias = Callable[..., Any]
"""A Pyro model: called on a batch, opens the row plate, observes the data with ``obs=``."""

Guide: TypeAlias = Callable[..., Any] | None
"""A Pyro guide over the model's latents; ``None`` stands for the prior."""

_LOCK = threading.RLock()
_EVALUATING: list[Pair] = []  # the pairs inside ``Pair.evaluating``, the outermost first


def pyro_lock() -> contextlib.AbstractContextManager[bool]:
    """Return the lock that a thread holds while it runs a pair.

    Pyro has one stack of active handlers, one parameter store and one flag for its checks in the
    whole process. Two threads that run pairs at the same time would see each other's
    handlers and stores. The lock is reentrant: a thread that holds it may take it again.
    """
    return _LOCK


@dataclass(frozen=True)
class Pair:
    """A model, a guide and the name of their row plate.

    Attributes:
        model: The model, callable on a batch.
        guide: The guide, callable on a batch; without sites where the user passed ``None``.
        plate: Name of the row plate.
        subsamples: The indices that plates inside the rows subsample, in all runs that evaluate
            the pair (``HeldSubsamples``).
        looks: Which of the few rows that a look takes the pair overflows on, (rows,) of bool, by
            data and by positions of the rows (``core.blocks.quiet_look``).
        judged: Which rows' observed values have been compared with their supports, by data
            (``core.observed_values.Judged``).
    """

    model: Half
    guide: Half
    plate: str
    subsamples: dict[tuple[str, int, int], Tensor] = field(
        default_factory=dict, compare=False, repr=False
    )
    looks: WeakKeyDictionary[Rows, dict[tuple[int, int], Tensor]] = field(
        default_factory=WeakKeyDictionary, compare=False, repr=False
    )
    judged: WeakKeyDictionary[Rows, Any] = field(
        default_factory=WeakKeyDictionary, compare=False, repr=False
    )

    @classmethod
    def of(cls, model: Model, guide: Guide, plate: str) -> Pair:
        """Make a pair of the user's two callables.

        Args:
            model: Pyro model.
            guide: Pyro guide, or ``None``.
            plate: Name of the row plate.

        Raises:
            ValueError: If the model or the guide is a class or cannot be called, or the plate's
                name is no text.
        """
        check_arguments(plate=plate)
        for name, half in (("model", model), ("guide", guide)):
            if isinstance(half, type):
                raise ValueError(
                    f"{name}: expected an instance, got the class {half.__name__}; "
                    f"call it to make one, {half.__name__}(...)"
                )
            if not callable(half) and not (name == "guide" and half is None):
                raise ValueError(
                    f"{name}: expected a callable, got {type(half).__name__}; "
                    "pass a Pyro function or module"
                )
        return cls(Half(model, "model", plate), Half(guide, "guide", plate), plate)

    def rows(self, data: Data, name: str = "data") -> Rows:
        """Return data as rows, with the columns of frames in the order that the pair was fitted to.

        Args:
            data: The data, in any form that ``fit`` takes.
            name: The argument's name, for messages.

        Raises:
            ValueError: If the data cannot be read as rows, or a frame has some of the columns
                that the pair was fitted to, and not all, or an optional covariate of the model,
                such as a size, is there and was not in the fit, or was in the fit and is missing;
                if sequences cannot be read (``check_sequences``).
        """
        rows = as_rows(data, name, [half.columns for half in (self.model, self.guide)])
        self.check_sequences(rows)
        fitted = self.model.fitted_fields
        if fitted is None:
            return rows
        given = self.model.fields_given(rows.keys, len(rows.fields))
        new = [field for field in self.model.fields_read(given) if field not in fitted]
        fault = field_fault(fitted, given, self.optional_fields(rows) if new else [])
        if fault is not None:
            raise ValueError(f"{name}: expected {fault[0]}, got {given}; {fault[1]}")
        return rows

    def reads_lengths(self, rows: Rows) -> bool:
        """Return whether a half reads a field ``lengths``, those of sequences in the field x."""
        return any("lengths" in half.fields_read(rows.names) for half in (self.model, self.guide))

    def check_sequences(self, rows: Rows) -> None:
        """Raise ``ValueError`` for sequences that the pair would read wrongly.

        Args:
            rows: The data; what no half reads as sequences, by a field ``lengths``, passes.

        Raises:
            ValueError: If lengths are no whole numbers, or a sequence has one that the data cannot
                have, or missing values, and the model does not read ``seen``; if the model does not
                read ``lengths``, and sequences end at different steps.
        """
        if "lengths" not in self.model.fields_read(rows.names):
            check_one_length(rows)
        if rows.schema is not None and "seen" not in self.model.fields_read(rows.names):
            check_no_gaps(rows)
        if self.reads_lengths(rows):
            check_whole_lengths(rows)
            check_lengths(rows)
            if "seen" not in self.model.fields_read(rows.names):
                check_seen(rows)

    def optional_fields(self, rows: Rows) -> list[str]:
        """Return the fields of the data that the model can silently do without.

        Args:
            rows: The data; the pair is run on the first two rows.
        """
        batch = rows.take(torch.arange(min(len(rows), 2)), self.device())
        with self.quiet_run():
            return optional_fields(self.model, self.guide, batch)

    def remember_fields(self, rows: Rows) -> None:
        """Store which fields the model is fitted with, for ``rows``."""
        given = self.model.fields_given(rows.keys, len(rows.fields))
        optional = self.optional_fields(rows)
        read = self.model.fields_read(given)
        self.model.remember_fields({field: field in optional for field in read})

    def remember_columns(self, columns: Columns) -> None:
        """Store the columns that the pair is fitted to, for ``rows``."""
        for half in (self.model, self.guide):
            half.remember_columns(columns)

    def parameters(self) -> dict[str, Tensor]:
        """Return all unconstrained parameters by name, trainable or frozen.

        A parameter that model and guide share appears once, under the model's name.
        """
        by_name: dict[str, Tensor] = {}
        known: set[int] = set()
        for half in (self.model, self.guide):
            for name, value in half.parameters().items():
                if id(value) not in known:
                    known.add(id(value))
                    by_name[f"{half.role}.{name}"] = value
        return by_name

    def trainable(self) -> dict[str, Tensor]:
        """Return the parameters that are not frozen, by name."""
        return {name: p for name, p in self.parameters().items() if p.requires_grad}

    def modules(self) -> list[nn.Module]:
        """Return the modules that the two halves are or belong to, each once."""
        tops = [half.module for half in (self.model, self.guide) if half.module is not None]
        return [m for i, m in enumerate(tops) if all(m is not other for other in tops[:i])]

    def buffers(self) -> dict[str, Tensor]:
        """Return the buffers of all layers by name; shared ones once, under the model's name."""
        by_name: dict[str, Tensor] = {}
        for half in (self.model, self.guide):
            for prefix, module in half.layers().items():
                for name, buffer in module.named_buffers(prefix):
                    if all(buffer is not other for other in by_name.values()):
                        by_name[f"{half.role}.{name}"] = buffer
        return by_name

    def unregistered(self) -> dict[str, Tensor]:
        """Return the parameters of the halves' layers that neither half has registered, by name.

        ``pyro.module`` passes over frozen parameters, and a method may compute with a network of
        its object that it never registers. No fit changes these parameters, but the numbers that
        the pair gives depend on them, so that they are stored with the weights.
        """
        known = {id(p) for p in self.parameters().values()}
        by_name: dict[str, Tensor] = {}
        for half in (self.model, self.guide):
            for prefix, module in half.layers().items():
                for name, parameter in module.named_parameters(prefix):
                    lazy = isinstance(parameter, nn.parameter.UninitializedParameter)
                    if id(parameter) not in known and not lazy:
                        known.add(id(parameter))
                        by_name[f"{half.role}.{name}"] = parameter
        return by_name

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights, that is all parameters and buffers, by name."""
        return {**self.unregistered(), **self.parameters(), **self.buffers()}

    def load_tensors(self, tensors: dict[str, Tensor], batch: Batch | None) -> None:
        """Copy weights into the pair, also into parameters that appear at the first call only.

        Parameters of ``pyro.param``, of autoguides and of lazy layers do not exist before the
        pair has run. Where names are missing, the pair is run once on ``batch``. If that fails,
        or a parameter is still missing, its value waits in the half's private store and is copied
        when the parameter appears.

        Args:
            tensors: Values by the names that ``tensors()`` gives.
            batch: Rows to run the pair on where names are missing; ``None`` for no such run.

        Raises:
            ValueError: If the pair has a registered parameter without a value, or one of another
                shape.
        """
        for half in (self.model, self.guide):
            half.store.looks_at_global = False  # the values come from the run directory
        if batch is not None and set(self.tensors()) != set(tensors):
            self._run_once(batch)
        absent = self.unregistered().keys() - tensors.keys()  # older runs do not hold them
        targets = {name: t for name, t in self.tensors().items() if name not in absent}
        for half in (self.model, self.guide):
            prefix = f"{half.role}."
            late = {n: t for n, t in tensors.items() if n not in targets and n.startswith(prefix)}
            half.store.waiting.update({n.removeprefix(prefix): t for n, t in late.items()})
        for name, target in targets.items():
            shape = tuple(tensors[name].shape) if name in tensors else "none"
            if shape != tuple(target.shape):
                raise ValueError(
                    f"weights: expected {name} of shape {tuple(target.shape)}, as the pair has "
                    f"it, got {shape}; make the pair with the sizes it was saved with"
                )
        for name, target in targets.items():
            if tensors[name].dtype == target.dtype:
                write_back(target, tensors[name])
            else:
                target.data = tensors[name].to(target.device)

    def freeze(self, names: Iterable[str]) -> None:
        """Freeze parameters by the names that ``tensors()`` gives, those too that appear later."""
        present = self.tensors()
        for name in names:
            if name in present:
                present[name].requires_grad_(False)
            else:
                role, _, own = name.partition(".")
                half = self.model if role == self.model.role else self.guide
                half.store.waiting_frozen.add(own)

    def _run_once(self, batch: Batch) -> None:
        """Run guide and model on a batch so that their parameters appear; errors do not matter."""
        device = self.device()
        moved = batch if device is None else map_batch(batch, lambda tensor: tensor.to(device))
        with self.quiet_run():
            for half in (self.guide, self.model):
                with contextlib.suppress(Exception):
                    half(moved)

    def device(self) -> torch.device | None:
        """Return the device of the parameters, where all work runs; ``None`` without parameters."""
        owned = (p for module in self.modules() for p in module.parameters())
        for tensor in (*self.parameters().values(), *owned, *self.buffers().values()):
            return tensor.device
        return None

    @contextlib.contextmanager
    def quiet_run(self, seed: int = 0) -> Iterator[None]:
        """Make a context in which running the pair has no effect outside.

        Layers are in evaluation mode and gradients are off. The random generators are seeded and
        restored afterwards. Pyro's handlers outside the context do not see the sites. Pyro's own
        checks are off, because they stop at the first fault of the data, before the library can
        say which row has the fault.

        Args:
            seed: Seed of the random generators inside.

        Yields:
            Nothing.
        """
        hide, unchecked = poutine.block(), pyro.validation_enabled(False)
        with pyro_lock(), forked(seed), hide, self.evaluating(), pyro_log_silenced(), unchecked:
            yield

    @contextlib.contextmanager
    def keeping_buffers(self) -> Iterator[None]:
        """Make a context on leaving which the buffers of all layers are as they were.

        Layers keep the modes that they are in, and some change their buffers in train mode.

        Yields:
            Nothing.
        """
        tops = [top for half in (self.model, self.guide) for top in half.layers().values()]
        tables = {id(layer): buffers_of(layer) for top in tops for layer in top.modules()}
        kept = [(table, dict(table)) for table in tables.values()]
        values = {
            id(b): copy_with_strides(b) for _, held in kept for b in held.values() if b is not None
        }
        try:
            yield
        finally:
            for table, held in kept:
                table.update(held)
                for buffer in held.values():
                    if buffer is not None:
                        write_back(buffer, values[id(buffer)])

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Make a context without gradients and with every layer in evaluation mode.

        Plates that subsample something else than the rows have one subsample in all these contexts.

        On leaving the outermost of these contexts the user is told what the pair's stores have
        taken from Pyro's global store; an inner context may be in code that ignores warnings.

        Yields:
            Nothing.
        """
        outermost = not _EVALUATING
        _EVALUATING.append(self)
        modes = in_evaluation_mode(self.modules())
        try:
            with torch.no_grad(), modes, HeldSubsamples(self.plate, self.subsamples):
                yield
        finally:
            _EVALUATING.pop()
            if outermost:
                tell((self.model.store, self.guide.store))
