"""Constructor arguments of torch modules, recorded as they are given.

To build a module again, its constructor needs the arguments that it got. The module need not have
stored them: ``self.net = Linear(12, width)`` leaves no ``width``, and an attribute of that name may
hold something else. So ``record_constructions`` gives ``torch.nn.Module`` a method ``__new__``.
Python passes every constructor's arguments to ``__new__`` before ``__init__`` can change them.

    Why it is right.  ``nn.Module`` has no ``__new__`` of its own; the new one makes the object by
    the next one in the class's order, as before. ``signature(cls)`` and ``__init__`` stay as they
    are, subclasses and classes made earlier are covered, and so are ``PyroModule``, whose
    metaclass has no ``__call__``, and ``PyroModule[nn.Linear]``. The record stands in the module's
    ``__dict__`` and lives as long as the module. Nothing is kept alive by it: numbers, texts and
    types are recorded, small tensors as copies, modules as weak references, and of everything
    else the type's name (a frame of data given to a constructor can go).
    Copies.  ``copy.deepcopy`` and pickle call ``__new__`` without arguments, then restore the
    ``__dict__`` of the original, with its record. The record is written to a pickle as ``()``, so
    that a pickle needs no ``ppl_vae`` to be read.
    What it does not see.  Modules made before ``import ppl_vae``, and classes whose own
    ``__new__`` passes nothing on; their arguments are read from attributes of the same names. No
    recipe is trusted for being recorded: it must rebuild the same pair (``recipes.py``).
    What would break it.  A ``__new__`` in torch's own ``nn.Module``, or in a base behind it.
    Cost.  A few microseconds for each module, 4 % of making a small linear layer. Modules of
    torch's own machinery (``torch.fx``, ``torch.jit``) are passed over.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LARGEST_TENSOR = 100_000
"""The most numbers that a tensor in a record may hold; larger ones belong into the weights."""

_RECORD = "_ppl_vae_arguments"
_PLAIN = (bool, int, float, str, type(None), type, torch.dtype, torch.device, np.generic)


class Unrecorded:
    """What stands in a record for a value that was not recorded.

    Args:
        type_name: Name of the value's type.
    """

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name


class _Record:
    """The arguments of one construction, in the ``__dict__`` of the module that was made."""

    __slots__ = ("args", "kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs

    def __deepcopy__(self, memo: dict[int, Any]) -> _Record:
        """Return a record that names the copies of modules where the original names modules."""

        def copied(module: nn.Module) -> Any:
            try:
                return weakref.ref(copy.deepcopy(module, memo))
            except Exception:  # the module, which may be anybody's, cannot be copied
                return Unrecorded(type(module).__name__)

        args, kwargs = (_with_modules(value, copied) for value in (self.args, self.kwargs))
        return _Record(args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be nothing in a pickle, which must not need this class to be read."""
        return (tuple, ())


def record_constructions() -> None:
    """Make every torch module from now on record the arguments of its constructor."""
    if "__new__" not in vars(nn.Module):
        nn.Module.__new__ = _new  # type: ignore[method-assign,assignment]


def arguments_of(module: nn.Module) -> dict[str, Any] | None:
    """Return the arguments that a module's constructor was given, by parameter.

    Returns:
        Values by the names of the constructor's parameters; ``*args`` as a tuple and ``**more`` as
        a dictionary under their names. Parameters left to their defaults are not in it. Values
        that were not recorded are ``Unrecorded``. ``None`` where nothing fitting was recorded.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> arguments_of(BernoulliModel(16, latents=2))
        {'features': 16, 'latents': 2}
    """
    record = vars(module).get(_RECORD)
    if not isinstance(record, _Record):
        return None
    try:
        args, kwargs = (_with_modules(v, lambda held: held) for v in (record.args, record.kwargs))
        bound = inspect.signature(type(module)).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return None
    return bound.arguments


def _new(cls: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """Make the object of a torch module and record the arguments; ``nn.Module.__new__``."""
    inherited = super(nn.Module, cls).__new__
    module: nn.Module = (
        inherited(cls) if inherited is object.__new__ else inherited(cls, *args, **kwargs)
    )
    place = cls.__module__
    if place[:6] != "torch." or place[:17] == "torch.nn.modules.":
        kept_args = tuple([_recordable(value) for value in args])
        kept_kwargs = {name: _recordable(value) for name, value in kwargs.items()}
        vars(module)[_RECORD] = _Record(kept_args, kept_kwargs)
    return module


def _recordable(value: Any, depth: int = 3) -> Any:  # noqa: PLR0911  one for each form
    """Return a value as a record may hold it: containers and tensors copied, large things named."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, nn.Module):
        return weakref.ref(value)
    if isinstance(value, Tensor):
        small = not value.is_meta and value.layout == torch.strided
        if small and value.numel() <= LARGEST_TENSOR and type(value) in (Tensor, nn.Parameter):
            return value.detach().clone()
    elif isinstance(value, np.ndarray):
        if value.size <= LARGEST_TENSOR and value.dtype.kind in "biuf":
            return value.copy()
    elif depth and type(value) in (list, tuple, torch.Size) and len(value) <= LARGEST_TENSOR:
        return type(value)([_recordable(item, depth - 1) for item in value])
    elif depth and isinstance(value, dict) and len(value) <= LARGEST_TENSOR:
        return {key: _recordable(item, depth - 1) for key, item in value.items()}
    elif inspect.isroutine(value):
        return value
    return Unrecorded(type(value).__name__)


def _with_modules(value: Any, change: Callable[[nn.Module], Any]) -> Any:
    """Return a recorded value with each weak reference replaced by ``change(module)``."""
    if isinstance(value, weakref.ref):
        module = value()
        return Unrecorded("module that is gone") if module is None else change(module)
    if isinstance(value, dict):
        return {key: _with_modules(item, change) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)([_with_modules(item, change) for item in value])
    return value


record_constructions()
