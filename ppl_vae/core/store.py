"""A private parameter store for each half of a pair, in place of Pyro's global store."""

from __future__ import annotations

from typing import Any, Self

import pyro
import torch
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn


class PrivateStore:
    """A parameter store that stands in for Pyro's global store inside ``with``.

    The problem: Pyro stores the parameters of a whole process in one global object, by name. Two
    unnamed modules with an attribute ``net`` then share the entry ``net.weight``, and one of them
    never trains; and a fit leaves entries behind that change the next one. So each model and each
    guide needs a store of its own.

    The trick: Pyro's modules imported that global object when they were loaded, so the object
    cannot be replaced. Its content can: everything the object holds lies in its ``__dict__``.
    Entering swaps this ``__dict__`` for the private store's, leaving swaps it back. That is one
    assignment, so it costs no copy, and whatever the code inside registers lands in the private
    store. Stores nest, because the outer content waits on a stack; after an exception the
    outer content is back as well.

    What would break it: a version of Pyro whose store uses ``__slots__``, or two threads that run
    pairs at once (see ``pyro_lock``).

    Attributes:
        tables: The private content, a store of Pyro's own class.
        waiting: Values for parameters that have not appeared yet, by name.
            ``KeepModuleParameters`` copies each one into its parameter when that appears.
    """

    def __init__(self) -> None:
        self.tables = ParamStoreDict()
        self.waiting: dict[str, Tensor] = {}
        self._outer: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        store = pyro.get_param_store()
        self._outer.append(store.__dict__)
        store.__dict__ = self.tables.__dict__
        return self

    def __exit__(self, *error: object) -> None:
        pyro.get_param_store().__dict__ = self._outer.pop()


class KeepModuleParameters(Messenger):
    """Handler that lets modules keep their frozen and their lazy parameters as they are.

    Pyro's store assumes that every parameter it meets is trained. At a parameter's first access
    it calls ``requires_grad_(True)``, which silently thaws what the user froze; and it reads the
    parameter's shape, which a lazy layer (``nn.LazyLinear``) does not have before its first call.
    This handler therefore remembers a frozen parameter before Pyro's code runs and freezes it
    again afterwards, and hands an uninitialized parameter straight back, past the store.

    It also completes the loading of weights: where a value waits in the store for the parameter
    that has just appeared, the value is copied into the parameter.

    Args:
        store: The private store of the half that runs.
    """

    def __init__(self, store: PrivateStore) -> None:
        super().__init__()
        self.store = store
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
            value = self.store.waiting.pop(plain_name(msg["name"]), None)
            if value is not None:
                with torch.no_grad():
                    dict(self.store.tables.named_parameters())[msg["name"]].copy_(value)
                msg["value"] = self.store.tables[msg["name"]]


def plain_name(name: str) -> str:
    """Return a parameter's name with dots, where Pyro's store writes ``$$$`` after a module.

    Example:
        >>> plain_name("decoder$$$weight")
        'decoder.weight'
    """
    return name.replace("$$$", ".")
