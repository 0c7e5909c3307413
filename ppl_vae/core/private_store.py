"""The private parameter store of a model or a guide, and what it takes from Pyro's global store.

Pyro stores the parameters of a whole process in one global object, by name. Here each model and
each guide has a store of its own. Two rules say what happens where the global store, which plain
``pyro.infer.SVI`` trains, holds a parameter of the same name:

- a ``pyro.param`` of a function lives nowhere but in a store, so the value that a script has
  trained in the global store is taken over when the function first asks for the parameter;
- a module's parameters live in the module, so the module's own are used.

Either is said in one warning.
"""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import pyro
import torch
from pyro.params.param_store import ParamStoreDict
from torch import Tensor, nn
from torch.distributions import transform_to
from torch.distributions.constraints import Constraint

from ppl_vae.compat.of_pyro import stored_constraint, watch_new_parameters


@dataclass
class FunctionParameter:
    """What a private store knows of a ``pyro.param`` of a function; all values unconstrained.

    Attributes:
        untrained: Copy of the value that the parameter began with. While the parameter still
            equals the copy, neither ``fit`` nor ``load`` has changed it.
        source: The tensor of this name in the global store at the last look, held weakly.
        source_value: Copy of that tensor at the last look; ``None`` where there was none.
    """

    untrained: Tensor
    source: weakref.ref[Tensor] | None = None
    source_value: Tensor | None = None

    def note(self, source: Tensor) -> None:
        """Write down the global store's tensor, with a copy of its value."""
        self.source, self.source_value = weakref.ref(source), source.detach().clone()

    def is_news(self, source: Tensor) -> bool:
        """Return whether the global store's tensor is another one or was trained since."""
        seen = None if self.source is None else self.source()
        return seen is not source or not _equal(source, self.source_value)


@dataclass
class News:
    """Names of parameters about which the user has to be told, each list for one warning.

    Attributes:
        taken: Parameters of functions whose values came from the global store.
        modules: Parameters of modules that the global store holds with other values.
        trained: Parameters of functions that ``fit`` or ``load`` has set, while the global store
            got other values.
    """

    taken: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)


class PrivateStore:
    """A parameter store that stands in for Pyro's global store inside ``with``.

    The problem: in one global store two unnamed modules with an attribute ``net`` share the entry
    ``net.weight``, and one of them never trains; and a fit leaves entries behind that change the
    next one. So each model and each guide needs a store of its own.

    The trick: Pyro's modules imported that global object when they were loaded, so the object
    cannot be replaced. Its content can: everything the object holds lies in its ``__dict__``.
    Entering swaps this ``__dict__`` for the private store's, leaving swaps it back. That is one
    assignment, so it costs no copy, and whatever the code inside registers lands in the private
    store. Stores nest, because the outer content waits on a stack; after an exception the
    outer content is back as well. The lowest content on the stack is the global store's.

    What would break it: a version of Pyro whose store uses ``__slots__``, or two threads that run
    pairs at once (see ``pyro_lock``).

    Attributes:
        tables: The private content, a store of Pyro's own class.
        waiting: Values for parameters that have not appeared yet, by name.
            ``KeepModuleParameters`` copies each one into its parameter when that appears.
        waiting_frozen: Names of those whose parameters are to be frozen when they appear.
        looks_at_global: Whether parameters of functions follow the global store; False once a
            run directory has given the values.
        news: What the user has to be told.
    """

    _outer: ClassVar[list[dict[str, Any]]] = []

    def __init__(self) -> None:
        self.tables = ParamStoreDict()
        self.waiting: dict[str, Tensor] = {}
        self.waiting_frozen: set[str] = set()
        self.looks_at_global = True
        self.news = News()
        self._functions: dict[str, FunctionParameter] = {}

    def __enter__(self) -> Self:
        watch_new_parameters(self.tables, self._appear)
        store = pyro.get_param_store()
        self._outer.append(store.__dict__)
        store.__dict__ = self.tables.__dict__
        return self

    def __exit__(self, *error: object) -> None:
        pyro.get_param_store().__dict__ = self._outer.pop()

    def _global_store(self) -> ParamStoreDict:
        """Return a store with the content of Pyro's global store, also inside ``with``."""
        view = ParamStoreDict()
        view.__dict__ = self._outer[0] if self._outer else pyro.get_param_store().__dict__
        return view

    def _appear(self, name: str, value: Tensor) -> None:
        """Take over the global store's value of a function's parameter that is being created.

        Pyro's store calls this just before it stores a new parameter, whatever statement made the
        parameter and whatever handlers hide that statement. ``value`` is then changed in place.

        Args:
            name: Name in the store.
            value: The new parameter's unconstrained tensor.

        Raises:
            ValueError: If the global store's parameter has another constraint or shape.
        """
        if not self.looks_at_global or plain_name(name) in self.waiting:
            return
        outside = self._global_store()
        source = dict(outside.named_parameters()).get(name)
        if source is value:  # the script made the parameter of this very tensor: nothing can differ
            return
        if isinstance(value, nn.Parameter) or _made_by_a_pyro_module():
            if source is not None and not _equal(source, value):
                self.news.modules.append(plain_name(name))
            return
        if source is not None:
            self._check_kind(name, value, outside, source)
            if not _equal(source, value):
                self.news.taken.append(name)
            _assign(value, source)
        self._functions[name] = FunctionParameter(value.detach().clone())
        if source is not None:
            self._functions[name].note(source)

    def _check_kind(
        self, name: str, value: Tensor, outside: ParamStoreDict, source: Tensor
    ) -> None:
        """Raise ``ValueError`` unless the two parameters have one constraint and one shape."""
        mine, theirs = stored_constraint(self.tables, name), stored_constraint(outside, name)
        shapes = [
            tuple(transform_to(constraint)(tensor.detach()).shape)
            for constraint, tensor in ((mine, value), (theirs, source))
        ]
        if shapes[0] != shapes[1] or not _same(mine, theirs):
            raise ValueError(
                f'parameter "{name}": expected shape {shapes[0]} and constraint {mine}, as the '
                f"function asks for it, got shape {shapes[1]} and constraint {theirs} in Pyro's "
                "global parameter store; rename the parameter, or call pyro.clear_param_store()"
            )

    def forget(self, names: Iterable[str]) -> None:
        """Remove parameters by name, and what the store knows of them."""
        for name in names:
            del self.tables[name]
            self._functions.pop(name, None)
            for listed in (self.news.taken, self.news.modules, self.news.trained):
                listed[:] = [one for one in listed if one != plain_name(name)]

    def follow_global_store(self) -> None:
        """Take over what a script has trained in the global store since the last look.

        A script may call this library, train on and call it again. A parameter follows the tensor
        that it was taken from, or a tensor that appeared where there was none, as long as neither
        ``fit`` nor ``load`` has changed the pair's own value. Otherwise the pair's own value
        stays. A tensor that replaced the one that a parameter was taken from, as after
        ``pyro.clear_param_store()``, may belong to another pair and is not followed.
        """
        outside = self._global_store()
        sources, own = dict(outside.named_parameters()), dict(self.tables.named_parameters())
        for name, parameter in self._functions.items() if self.looks_at_global else ():
            if name not in own or name not in sources or not parameter.is_news(sources[name]):
                continue
            value, source = own[name], sources[name]
            first = parameter.source is None or parameter.source() is source
            kinds = stored_constraint(self.tables, name), stored_constraint(outside, name)
            fits = value.shape == source.shape and _same(*kinds)
            parameter.note(source)
            if fits and torch.allclose(source.cpu(), value.cpu(), rtol=1e-6, atol=1e-8):
                continue  # equal, or written back through its constraint, which rounds
            if first and fits and _equal(value, parameter.untrained):
                _assign(value, source)
                parameter.untrained = source.detach().clone()
                self.news.taken.append(name)
            else:
                self.news.trained.append(name)


def plain_name(name: str) -> str:
    """Return a parameter's name with dots, where Pyro's store writes ``$$$`` after a module.

    Example:
        >>> plain_name("decoder$$$weight")
        'decoder.weight'
    """
    return name.replace("$$$", ".")


def tell(stores: Iterable[PrivateStore]) -> None:
    """Warn of the news of all stores, one line for each kind of news, and forget the news."""
    news = [store.news for store in stores]
    trained = _counted(name for one in news for name in one.trained)
    taken = _counted(name for one in news for name in one.taken)
    modules = _counted(name for one in news for name in one.modules)
    for one in news:
        one.taken, one.modules, one.trained = [], [], []
    lines = (
        (
            taken,
            "took the values that Pyro's global parameter store holds; to start afresh, call "
            "pyro.clear_param_store() before the pair is first used",
        ),
        (
            modules,
            "Pyro's global parameter store holds other values under these names; the modules' own "
            "are used. pyro.clear_param_store() removes the others; pyro.module(name, module, "
            "update_module_params=True) puts them into a module",
        ),
        (
            trained,
            "a script has changed the values in Pyro's global parameter store; the pair keeps its "
            "own. To use the others, define the functions anew",
        ),
    )
    for names, text in lines:
        if names:
            warnings.warn(f"{names}: {text}", stacklevel=_level_of_the_user())


def _level_of_the_user() -> int:
    """Return the ``stacklevel`` of a warning of the caller that shows the user's own line."""
    level, frame = 0, inspect.currentframe()
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in ("ppl_vae", "contextlib"):
            break
        level, frame = level + 1, frame.f_back
    return level


def _counted(names: Iterable[str]) -> str:
    """Return words for the names of parameters, the first three of them; "" without names."""
    distinct = list(dict.fromkeys(names))
    if not distinct:
        return ""
    listed = ", ".join(f'"{name}"' for name in distinct[:3])
    more = f" and {len(distinct) - 3} more" if len(distinct) > 3 else ""
    return f"parameter{'s' if len(distinct) > 1 else ''} {listed}{more}"


def _made_by_a_pyro_module() -> bool:
    """Return whether a ``PyroModule`` is creating a parameter for one of its attributes.

    An autoguide makes its parameters while it runs for the first time: an attribute is set to a
    ``PyroParam``, and Pyro sends the initial tensor through ``pyro.param``, as a function would.
    Only the caller of that statement tells the two apart. The callers are read from the inside
    out, past this file and the files of Pyro that a ``pyro.param`` statement runs through.
    """
    frame = inspect.currentframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        inner = ("pyro.params", "pyro.primitives", "pyro.poutine", "ppl_vae.compat", __name__)
        if not module.startswith(inner):
            return module == "pyro.nn.module"
        frame = frame.f_back
    return False


def _assign(value: Tensor, source: Tensor) -> None:
    """Give a parameter the value of another tensor, on the parameter's device."""
    value.data = source.detach().clone().to(value.device)


def _equal(one: Tensor, other: Tensor | None) -> bool:
    """Return whether two tensors have one shape and the same numbers, on any devices."""
    return other is not None and torch.equal(one.detach().cpu(), other.detach().cpu())


def _same(one: Any, other: Any) -> bool:
    """Return whether two constraints are of one class with the same bounds.

    torch's constraints do not define equality, so their attributes are compared.
    """
    if isinstance(one, Constraint):
        return type(one) is type(other) and _same(vars(one), vars(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return _equal(one, other)
    return bool(one == other)
