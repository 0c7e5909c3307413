"""One half of a pair, the model or the guide, called on a batch inside a private parameter store.

A tensor or tuple batch is passed by position. Of a mapping, each half receives the fields that
its signature names. A module's parameters stay in the module. Those of ``pyro.param`` and
``pyro.module`` live in a private store that lasts as long as the function, or the object whose
method it is.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from pyro.nn import PyroModule
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ppl_vae.core.effect_guides import run_as_guide
from ppl_vae.core.failed_runs import Cause, FieldsError
from ppl_vae.core.handlers import RowPlateOfBatch
from ppl_vae.core.held_modules import held_modules
from ppl_vae.core.private_store import PrivateStore, plain_name
from ppl_vae.data import columns as fitted_columns
from ppl_vae.data.rows import Batch, batch_rows


class KeepModuleParameters(Messenger):
    """Handler that lets modules keep their frozen and their lazy parameters as they are.

    Pyro's store assumes that every parameter it meets is trained. At a parameter's first access
    it calls ``requires_grad_(True)``, which silently thaws what the user froze; and it reads the
    parameter's shape, which a lazy layer (``nn.LazyLinear``) does not have before its first call.
    This handler therefore remembers a frozen parameter before Pyro's code runs and freezes it
    again afterwards, and hands an uninitialized parameter straight back, past the store.

    It also completes the loading of weights: where a value waits in the store for the parameter
    that has just appeared, the value is copied into the parameter. A module's value waits under the
    name that the module has for the tensor, which is not the name in Pyro's store where the module
    has a name of its own, as an autoguide has, or the parameter a constraint (``PyroParam``).

    Args:
        store: The private store of the half that runs.
        module: The half, where it is a module.
    """

    def __init__(self, store: PrivateStore, module: nn.Module | None) -> None:
        super().__init__()
        self.store, self.module = store, module
        self._frozen: nn.Parameter | None = None

    def _pyro_param(self, msg: Any) -> None:
        initial = msg["args"][1] if len(msg["args"]) > 1 else None
        if isinstance(initial, nn.parameter.UninitializedParameter):
            msg["value"], msg["done"] = initial, True
        elif isinstance(initial, nn.Parameter) and not initial.requires_grad:
            self._frozen = initial

    def _pyro_post_param(self, msg: Any) -> None:
        if self._frozen is not None:
            self._frozen.requires_grad_(False)
            self._frozen = None
        if self.store.waiting:
            parameter = dict(self.store.tables.named_parameters()).get(msg["name"])
            if parameter is None:  # a lazy layer's, which has no shape yet
                return
            own = {} if self.module is None else dict(self.module.named_parameters())
            names = [name for name, value in own.items() if value is parameter]
            name = (*names, plain_name(msg["name"]))[0]
            value = self.store.waiting.pop(name, None)
            if value is not None:
                with torch.no_grad():
                    parameter.copy_(value)
                parameter.requires_grad_(name not in self.store.waiting_frozen)
                msg["value"] = self.store.tables[msg["name"]]


# The private stores of all halves, by owner and by the method's name ("" for a function or a
# module). Python makes a new object at every access of a bound method (``vae.model is vae.model``
# is False), so a store cannot belong to the method itself. The references to owners are weak: a
# store goes when its owner goes.
_STORES: weakref.WeakKeyDictionary[Any, dict[str, PrivateStore]] = weakref.WeakKeyDictionary()


class Half:
    """A model or a guide, called on a batch inside its private parameter store.

    Args:
        function: The user's callable; ``None`` makes a guide without sites.
        role: ``"model"`` or ``"guide"``, used in messages and in parameter names.
        plate: Name of the row plate.

    Attributes:
        is_prior: Whether ``function`` was ``None``.
        base: The function or module inside Pyro's handlers and ``functools.partial``.
        owner: The object that the parameters belong to: the one whose bound method ``base`` is,
            otherwise ``base`` itself.
        store: The private parameter store.
    """

    def __init__(self, function: Callable[..., Any] | None, role: str, plate: str) -> None:
        self.function: Callable[..., Any] = _guide_without_sites if function is None else function
        self.role, self.plate = role, plate
        self.is_prior = function is None
        self.base = _without_handlers(self.function)
        self.owner: Any = getattr(self.base, "__self__", self.base)
        self._method = self.base.__name__ if self.owner is not self.base else ""
        self.store = _STORES.setdefault(self.owner, {}).setdefault(self._method, PrivateStore())
        module = self.base if isinstance(self.base, nn.Module) else None
        self._keep_parameters = KeepModuleParameters(self.store, module)
        self._fields_by_keys: dict[tuple[str, ...], list[str]] = {}
        self._forget_replaced_parameters()
        self.store.follow_global_store()

    def __call__(self, batch: Batch) -> Any:
        """Run the half on a batch, inside its private store, and return what the half returns.

        Args:
            batch: The rows.

        Raises:
            FieldsError: If the half has an argument without a value that no field of the batch has
                the name of, or more fields come by position than it has arguments.
        """
        row_plate = RowPlateOfBatch(self.plate, batch_rows(batch))
        with self.store, self._keep_parameters, row_plate, self._acting_as_guide():
            try:
                if isinstance(batch, dict):
                    return self.function(**{key: batch[key] for key in self.fields_read(batch)})
                return self.function(*batch)
            except TypeError as error:
                cause = self._wrong_fields(batch)
                if cause is None:
                    raise
                raise FieldsError(cause) from error

    def _acting_as_guide(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which an effect-based guide acts as an ordinary one."""
        if not isinstance(self.base, GuideMessenger):
            return contextlib.nullcontext()
        return run_as_guide(self.base, Half(self.base.model, "model", self.plate).store, self.store)

    def fields_read(self, batch: Iterable[str]) -> list[str]:
        """Return the fields of a mapping that the signature names: all of them for ``**fields``."""
        keys = tuple(batch)
        if keys not in self._fields_by_keys:
            self._fields_by_keys[keys] = named_fields(self.base, keys)
        return self._fields_by_keys[keys]

    def _wrong_fields(self, batch: Batch) -> Cause | None:
        """Return the cause where the half cannot be called with the fields of a batch.

        Args:
            batch: Rows on which a call of the half has raised ``TypeError``.

        Returns:
            The field that is missing, or the fields in excess; ``None`` where the signature takes
            the fields, so that the error was raised inside.
        """
        try:
            parameters = inspect.signature(_target(self.base)).parameters.values()
        except ValueError:  # a callable without a signature
            return None
        named = [p.name for p in parameters if p.kind in _BY_NAME]
        needed = [p.name for p in parameters if p.kind in _BY_NAME and p.default is p.empty]
        takes_any = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
        form = ", ".join(f'"{name}": ...' for name in needed)
        if isinstance(batch, dict):
            given, got = list(batch), f"fields {list(batch)}"
        else:
            given, got = named[: len(batch)], f"{len(batch)} field(s) without names"
            if len(batch) > len(named) and not takes_any:
                return Cause(
                    "data",
                    f"expected no more fields than the arguments {named} of the {self.role}, got "
                    f"{len(batch)}",
                    'pass fields by name, {"x": ..., ...}: model and guide then each read those '
                    "that their arguments name",
                )
        missing = [name for name in needed if name not in given]
        if not missing:
            return None
        return Cause(
            f'field "{missing[0]}"',
            f"expected data with this field, which the {self.role} reads, got {got}",
            f"pass a mapping with one entry for each row in every field, {{{form}}}",
        )

    @property
    def module(self) -> nn.Module | None:
        """The module that this half is, or whose bound method it is; ``None`` for a function."""
        return self.owner if isinstance(self.owner, nn.Module) else None

    def layers(self) -> dict[str, nn.Module]:
        """Return the modules that this half computes with, by the name under which it knows them.

        A module is itself the only entry, under the name "". What a plain function or the method
        of an ordinary object computes with is found by ``core.held_modules``.
        """
        if self.module is not None:
            return {"": self.module}
        return held_modules(self.base)

    def parameters(self) -> dict[str, Tensor]:
        """Return the unconstrained parameters by name, trainable or frozen.

        They are a module's own, and those that ``pyro.param`` and ``pyro.module`` have registered
        in a call. A bound method has the parameters that it registers, not all those of its object.
        """
        module = self.base if isinstance(self.base, nn.Module) else None
        by_name: dict[str, Tensor] = {} if module is None else dict(module.named_parameters())
        known = {id(p) for p in by_name.values()}
        for name, value in self.store.tables.named_parameters():
            if id(value) not in known:
                # an autoguide leaves its model's parameters in the guide's store when it sets up
                by_name.setdefault(plain_name(name), value)
        return by_name

    @property
    def columns(self) -> fitted_columns.Columns:
        """Names of the columns that this half was fitted to, by field; empty if unknown."""
        return fitted_columns.remembered(self.owner, self._method)

    def remember_columns(self, columns: fitted_columns.Columns) -> None:
        """Store the columns that this half is fitted to.

        A half without weights learns nothing of the columns, and may be used with others next.

        Args:
            columns: The names of the columns, by field.
        """
        layers = self.layers().values()
        has_buffers = any(True for layer in layers for _ in layer.buffers())
        if self.parameters() or self.store.waiting or has_buffers:
            fitted_columns.remember(self.owner, columns, self._method)

    @property
    def fitted_fields(self) -> dict[str, bool] | None:
        """Whether each field of the fit is an optional covariate; ``None`` before any fit."""
        return fitted_columns.remembered_fields(self.owner, self._method)

    def remember_fields(self, fields: Mapping[str, bool]) -> None:
        """Store the fields that this half is fitted with, and which are optional covariates."""
        fitted_columns.remember_fields(self.owner, fields, self._method)

    def fields_given(self, keys: Sequence[str] | None, count: int) -> list[str]:
        """Return the names under which this half gets the fields of data.

        Args:
            keys: The keys of a mapping; ``None`` for fields that are passed by position.
            count: Number of fields.
        """
        if keys is not None:
            return list(keys)
        return list(inspect.signature(_target(self.base)).parameters)[:count]

    def _forget_replaced_parameters(self) -> None:
        """Drop a module's old parameters from the store after the user assigned new ones.

        The store remembers a parameter by its name, so it would hand the old tensor to the model
        after ``model.weight = nn.Parameter(...)``.
        """
        if isinstance(self.owner, PyroModule):
            owned = {id(p) for p in self.owner.parameters()}
            tables = self.store.tables
            for name, value in list(tables.named_parameters()):
                if isinstance(value, nn.Parameter) and id(value) not in owned:
                    del tables[name]


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _target(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function whose signature names the fields: ``forward`` of a module."""
    return function.forward if isinstance(function, nn.Module) else function


def _guide_without_sites(*rows: Any) -> None:
    """Draw nothing: the guide of a model without latents."""


def _without_handlers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function or module inside Pyro's handlers and ``functools.partial``.

    A handler applied to a function, such as ``config_enumerate(guide)`` or
    ``poutine.block(model)``, is a ``functools.partial`` of the handler's call with the function
    as second argument.
    """
    while isinstance(function, functools.partial):
        if function.args and isinstance(function.args[0], Messenger):
            function = function.args[1]
        elif isinstance(function.func, functools.partial):
            function = function.func
        else:
            break
    return function


def named_fields(function: Callable[..., Any], keys: tuple[str, ...]) -> list[str]:
    """Return those of the keys that are arguments of the function; all keys for ``**fields``."""
    if isinstance(function, GuideMessenger):  # its call takes anything, and passes it to its model
        return named_fields(_without_handlers(function.model), keys)
    arguments = inspect.signature(_target(function)).parameters.values()
    if any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in arguments):
        return list(keys)
    names = {argument.name for argument in arguments}
    return [key for key in keys if key in names]
