"""Layers in evaluation mode, those of plain functions too, which nobody can list.

The layers of a plain function may stand in a list, in a dictionary or in another object. But the
call of every layer passes through torch, and torch calls a global hook before each of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

_COMPUTING: dict[nn.RNNBase, float] = {}
"""The dropouts of recurrent layers that compute at this moment, in any of these contexts."""


@contextlib.contextmanager
def in_evaluation_mode(tops: Iterable[nn.Module]) -> Iterator[None]:
    """Make a context with every layer in evaluation mode that computes inside.

    A layer that is still in training mode is switched just before it computes, and is written
    down. On leaving, exactly these layers are set back to training mode. A layer whose computation
    is not its ``forward`` (a function that multiplies by ``layer.weight``) does not reach the
    hook, and has no modes to switch.

    While a recurrent layer computes, it is in training mode with a dropout of 0, which gives the
    same numbers: cuDNN refuses to differentiate such a layer in evaluation mode.

    Args:
        tops: Modules whose layers are switched at once.

    Yields:
        Nothing.
    """
    switched: list[nn.Module] = []

    def before(module: nn.Module, inputs: Any = None) -> None:
        if module in _COMPUTING:
            return
        if module.training:
            switched.append(module)
            module.training = False
        if isinstance(module, nn.RNNBase) and inputs is not None:
            _COMPUTING[module] = module.dropout
            module.training, module.dropout = True, 0.0

    def after(module: nn.Module, inputs: Any, outputs: Any) -> None:
        if isinstance(module, nn.RNNBase) and module in _COMPUTING:
            module.training, module.dropout = False, _COMPUTING.pop(module)

    for top in tops:
        for module in top.modules():
            before(module)
    hooks = [
        register_module_forward_pre_hook(before),
        register_module_forward_hook(after, always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in switched:
            module.training = True
