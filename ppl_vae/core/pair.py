"""A model and a guide as the library calls them: on a batch, each in a store of its own.

A tensor or tuple batch is passed by position; of a mapping each half receives the fields that
its signature names. The parameters of modules stay in the modules; those of ``pyro.param`` and
``pyro.module`` live in a private store that belongs to the function (or to the object and the
method's name) and lasts as long as it does.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ppl_vae.core.handlers import KeepModuleParameters, PrivateStore
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch, map_batch

Model: TypeAlias = Callable[..., Any]
"""A Pyro model: called on a batch, opens the row plate, observes the data with ``obs=``."""

Guide: TypeAlias = Callable[..., Any] | None
"""A Pyro guide over the model's latents; ``None`` stands for the prior."""

_STORES: weakref.WeakKeyDictionary[Any, dict[str, PrivateStore]] = weakref.WeakKeyDictionary()


_EXCLUSIVE = threading.RLock()


def pyro_lock() -> contextlib.AbstractContextManager[bool]:
    """Held while a pair runs: Pyro's handlers stand on one stack for the whole process."""
    return _EXCLUSIVE


class Half:
    """A model or a guide, called on a batch inside its private store.

    Args:
        function: The user's callable; ``None`` is a guide without sites.
        role: ``"model"`` or ``"guide"``, for messages.
    """

    def __init__(self, function: Callable[..., Any] | None, role: str) -> None:
        self.function: Callable[..., Any] = _nothing if function is None else function
        self.role = role
        self.is_prior = function is None
        self.base = _unwrapped(self.function)
        self.owner: Any = getattr(self.base, "__self__", self.base)
        method = self.base.__name__ if self.owner is not self.base else ""
        self.store = _STORES.setdefault(self.owner, {}).setdefault(method, PrivateStore())
        self._respect = KeepModuleParameters(self.store)
        self._reads: dict[tuple[str, ...], list[str]] = {}
        self._forget_replaced()

    def __call__(self, batch: Batch) -> Any:
        """Run on a batch, inside the private store."""
        with self.store, self._respect:
            if isinstance(batch, dict):
                return self.function(**{key: batch[key] for key in self.fields_read(batch)})
            return self.function(*batch)

    def fields_read(self, batch: dict[str, Tensor]) -> list[str]:
        """Fields of a mapping that the signature names (all of them for ``**fields``)."""
        keys = tuple(batch)
        if keys not in self._reads:
            self._reads[keys] = _named_fields(self.base, keys)
        return self._reads[keys]

    @property
    def module(self) -> nn.Module | None:
        """The module that this half is, or whose method it is."""
        return self.owner if isinstance(self.owner, nn.Module) else None

    def layers(self) -> dict[str, nn.Module]:
        """The module of this half, or the modules that its function or object refers to."""
        if self.module is not None:
            return {"": self.module}
        if inspect.isfunction(self.base):
            names = inspect.getclosurevars(self.base)
            reached = {**names.globals, **names.nonlocals}
        else:
            reached = getattr(self.owner, "__dict__", {})
        return {name: held for name, held in reached.items() if isinstance(held, nn.Module)}

    def parameters(self) -> dict[str, Tensor]:
        """Unconstrained parameters, trainable or frozen, by name.

        A module's own, and those of ``pyro.param`` and ``pyro.module`` that have been met by a
        call. A bound method has those it registers, not all that its object owns.
        """
        whole = self.base if isinstance(self.base, nn.Module) else None
        found: dict[str, Tensor] = {} if whole is None else dict(whole.named_parameters())
        known = {id(p) for p in found.values()}
        for name, value in self.store.tables.named_parameters():
            if id(value) not in known:
                # an autoguide leaves its model's parameters in the guide's store when it sets up
                found.setdefault(name.replace("$$$", "."), value)
        return found

    def _forget_replaced(self) -> None:
        """Drop entries for parameters that the module no longer holds: the module is right."""
        if isinstance(self.owner, PyroModule):
            held = {id(p) for p in self.owner.parameters()}
            tables = self.store.tables
            for name, value in list(tables.named_parameters()):
                if isinstance(value, nn.Parameter) and id(value) not in held:
                    del tables[name]


@dataclass(frozen=True)
class Pair:
    """A model, a guide and the name of their row plate."""

    model: Half
    guide: Half
    plate: str

    @classmethod
    def of(cls, model: Callable[..., Any], guide: Callable[..., Any] | None, plate: str) -> Pair:
        """Wrap the two callables.

        Raises:
            ValueError: Where one of them cannot be called.
        """
        for name, half in (("model", model), ("guide", guide)):
            if isinstance(half, type):
                raise ValueError(f"{name}: expected an instance, got the class {half.__name__}")
            if not callable(half) and not (name == "guide" and half is None):
                raise ValueError(f"{name}: expected a callable, got {type(half).__name__}")
        return cls(Half(model, "model"), Half(guide, "guide"), plate)

    def parameters(self) -> dict[str, Tensor]:
        """All parameters of both halves by name, shared ones once (under the model's name)."""
        found: dict[str, Tensor] = {}
        seen: set[int] = set()
        for half in (self.model, self.guide):
            for name, value in half.parameters().items():
                if id(value) not in seen:
                    seen.add(id(value))
                    found[f"{half.role}.{name}"] = value
        return found

    def trainable(self) -> dict[str, Tensor]:
        """The parameters that are not frozen."""
        return {name: p for name, p in self.parameters().items() if p.requires_grad}

    def modules(self) -> list[nn.Module]:
        """Top modules of the halves, each once."""
        tops = [half.module for half in (self.model, self.guide) if half.module is not None]
        return [m for i, m in enumerate(tops) if all(m is not other for other in tops[:i])]

    def buffers(self) -> dict[str, Tensor]:
        """Buffers of both halves by name, shared ones once (under the model's name)."""
        found: dict[str, Tensor] = {}
        for half in (self.model, self.guide):
            for prefix, module in half.layers().items():
                for name, buffer in module.named_buffers(prefix):
                    if all(buffer is not other for other in found.values()):
                        found[f"{half.role}.{name}"] = buffer
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes: parameters, trainable or frozen, and buffers."""
        return {**self.parameters(), **self.buffers()}

    def load_tensors(self, tensors: dict[str, Tensor], batch: Batch | None) -> None:
        """Copy weights into the pair, whose parameters may not have appeared yet.

        Args:
            tensors: Values by the names of ``tensors()``.
            batch: Rows to run the pair on once if names are missing; it may fail on them, and
                then the values wait for the pair's first call.

        Raises:
            ValueError: Where the pair has a parameter that the values do not, or another shape.
        """
        if batch is not None and set(self.tensors()) != set(tensors):
            self._run_once(batch)
        targets = self.tensors()
        for half in (self.model, self.guide):
            prefix = f"{half.role}."
            late = {n: t for n, t in tensors.items() if n not in targets and n.startswith(prefix)}
            half.store.waiting.update({n.removeprefix(prefix): t for n, t in late.items()})
        for name, target in targets.items():
            got = tuple(tensors[name].shape) if name in tensors else "none"
            if got != tuple(target.shape):
                raise ValueError(
                    f"weights: expected {name} of shape {tuple(target.shape)}, as the pair has "
                    f"it, got {got}; make the pair with the sizes it was saved with"
                )
        for name, target in targets.items():
            if tensors[name].dtype == target.dtype:
                with torch.no_grad():
                    target.copy_(tensors[name])
            else:
                target.data = tensors[name].to(target.device)

    def _run_once(self, batch: Batch) -> None:
        device = self.device()
        moved = batch if device is None else map_batch(batch, lambda tensor: tensor.to(device))
        with self.quiet_run():
            for half in (self.guide, self.model):
                with contextlib.suppress(Exception):
                    half(moved)

    def device(self) -> torch.device | None:
        """Where the parameters are; they decide where work runs. ``None`` while none is known."""
        owned = (p for module in self.modules() for p in module.parameters())
        for tensor in (*self.parameters().values(), *owned, *self.buffers().values()):
            return tensor.device
        return None

    @contextlib.contextmanager
    def quiet_run(self) -> Iterator[None]:
        """Run the pair inside only to look at it: nothing outside notices.

        Layers are in evaluation mode and gradients are off; the random generators are seeded with
        0 and restored afterwards; Pyro's handlers around this block do not see the sites; and
        Pyro's own checks are off, since they would stop at the first fault of the data, before
        the library can say which row has it.
        """
        hidden = poutine.block()
        with pyro_lock(), forked(0), self.evaluating(), pyro.validation_enabled(False), hidden:
            yield

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Without gradients, and with every layer in evaluation mode; modes are put back.

        A plain function holds its layers where nobody sees them: those are met as they run.
        """
        training: list[nn.Module] = []

        def evaluate(module: nn.Module, inputs: Any = None) -> None:
            if module.training:
                training.append(module)
                module.training = False

        for top in self.modules():
            for module in top.modules():
                evaluate(module)
        hook = register_module_forward_pre_hook(evaluate)
        try:
            with torch.no_grad():
                yield
        finally:
            hook.remove()
            for module in training:
                module.training = True


def _nothing(*args: Any, **fields: Any) -> None:
    """The guide of a model that has nothing latent."""


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """What Pyro's handlers (``config_enumerate``, ``poutine.block``) were put around."""
    while isinstance(function, functools.partial):
        if function.args and isinstance(function.args[0], Messenger):
            function = function.args[1]
        elif isinstance(function.func, functools.partial):
            function = function.func
        else:
            break
    return function


def _named_fields(function: Callable[..., Any], keys: tuple[str, ...]) -> list[str]:
    target = function.forward if isinstance(function, nn.Module) else function
    parameters = inspect.signature(target).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return list(keys)
    named = {p.name for p in parameters}
    return [key for key in keys if key in named]
