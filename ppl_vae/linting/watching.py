"""What a half uses while it runs: its layers, its parameters, and the names it has for them.

A plain function may hold its networks anywhere, so the pair cannot list them beforehand. Both
watchers therefore use torch's global hook, which is called before every layer that runs, and
Pyro's messages for parameters.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Any, Self

from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ppl_vae.compat.of_pyro import constrained_parameters
from ppl_vae.compat.of_torch import buffers_of
from ppl_vae.compiled.layout import write_back
from ppl_vae.core.half import Half
from ppl_vae.core.pair import Pair
from ppl_vae.core.private_store import plain_name


class Layers:
    """Context that records the layers that run inside, and restores their buffers on leaving.

    A layer may change its buffers when it runs (a counter, the running mean of a batch norm).
    The values of the buffers are copied before the layer runs for the first time and restored in
    the end, so that the pair is left as it was.

    Args:
        pair: The pair.

    Attributes:
        names: The name of each layer of the pair's modules; for a layer that only a plain
            function holds, the name of its class.
        ran: The layers that have run, an outer layer before the layers inside it.
    """

    def __init__(self, pair: Pair) -> None:
        self.names: dict[nn.Module, str] = {}
        self.ran: dict[nn.Module, None] = {}
        self._buffers: list[tuple[nn.Module, dict[str, tuple[Tensor, Tensor]]]] = []
        self._tops = pair.modules()

    def __enter__(self) -> Self:
        for top in self._tops:
            for name, module in top.named_modules():
                self._add(module, name)
        self._hook = register_module_forward_pre_hook(self._before_run)
        return self

    def __exit__(self, *raised: object) -> None:
        self._hook.remove()
        for module, buffers in self._buffers:
            for name, (buffer, value) in buffers.items():
                write_back(buffer, value)
                buffers_of(module)[name] = buffer

    def _before_run(self, module: nn.Module, inputs: Any) -> None:
        """Record a layer that is about to run; called by torch."""
        self.ran.setdefault(module)
        self._add(module)

    def _add(self, module: nn.Module, name: str = "") -> None:
        """Record a layer's name and the values of its buffers, once."""
        if module not in self.names:
            self.names[module] = name or type(module).__name__
            values = {key: (b, b.clone()) for key, b in buffers_of(module).items() if b is not None}
            self._buffers.append((module, values))


class ParameterWatch(Messenger):
    """Handler that records the names of parameters, and names that stand for two parameters.

    Two unnamed modules inside one function may both have a parameter ``weight``. Pyro's store
    then returns the same tensor for both. The message of an ordinary parameter carries the
    module's own tensor, which differs between the two modules. The message of a constrained
    parameter (``PyroParam``) carries no tensor of the module, so that for constrained parameters
    the modules themselves are compared, in torch's hook.

    Attributes:
        names: Every name that was asked for.
        twins: The names under which two different parameters were asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.twins: list[str] = []
        self._holders: dict[str, object] = {}

    def __enter__(self) -> Self:
        self._hook = register_module_forward_pre_hook(self._before_run)
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._hook.remove()
        super().__exit__(*raised)

    def _before_run(self, module: nn.Module, inputs: Any) -> None:
        """Record the constrained parameters of a module that is about to run; called by torch."""
        if isinstance(module, PyroModule):
            for name in constrained_parameters(module):
                self._record(name, module)

    def _pyro_param(self, msg: Any) -> None:
        self.names.add(msg["name"])
        initial = msg["args"][1] if len(msg["args"]) > 1 else None
        if isinstance(initial, nn.Parameter):
            self._record(msg["name"], initial)

    def _record(self, name: str, holder: object) -> None:
        """Record what a name stands for: a parameter, or the module that has it."""
        if self._holders.setdefault(name, holder) is not holder and name not in self.twins:
            self.twins.append(name)


class ParameterLengthError(ValueError):
    """Raised where ``pyro.param`` in a plate has another length than the plate.

    Attributes:
        name: The parameter's name.
        problem: What was expected and what came.
        fix: What to change.
    """

    def __init__(self, name: str, problem: str, fix: str) -> None:
        super().__init__(f'parameter "{name}": {problem}; {fix}')
        self.name, self.problem, self.fix = name, problem, fix


class ParameterLengths(Messenger):
    """Handler that compares the length of a parameter in a plate with that of the plate.

    ``pyro.param(..., event_dim=)`` inside a plate holds a value for each place of the whole plate,
    of which Pyro picks those that the plate has drawn. A shorter one ends in an ``IndexError``
    of torch, which names neither. Pyro has a check of its own, which is off outside the ELBO.
    """

    def _pyro_post_param(self, msg: Any) -> None:
        event_dim = msg["kwargs"].get("event_dim")
        if event_dim is None:  # a lazy layer's parameter has no shape yet
            return
        shape = tuple(msg["value"].shape)
        for frame in msg["cond_indep_stack"]:
            if frame.dim is None or (frame.full_size or frame.size) < 0:
                continue
            dim, full_size = frame.dim - event_dim, frame.full_size or frame.size
            if len(shape) >= -dim and shape[dim] not in (1, full_size):
                raise ParameterLengthError(
                    plain_name(msg["name"]),
                    f'expected length {full_size} at dim {dim}, that of plate "{frame.name}", got '
                    f"shape {shape}",
                    "give the parameter a value for each place of the plate, one value for all "
                    "(length 1), or move pyro.param out of the plate",
                )


def own_parameters(half: Half) -> set[int]:
    """Return the ``id`` of each parameter that a half owns as a module; none for a function."""
    owned = half.base.parameters() if isinstance(half.base, nn.Module) else ()
    return {id(parameter) for parameter in owned}


def names_of_values(half: Half) -> dict[int, str]:
    """Return the names that a half's code has for its values, by the ``id`` of the value.

    They are the variables that a function's code uses (from its closure and its file), the
    attributes of the object that it belongs to, and the parameters of its module.
    """
    code = half.base.forward if isinstance(half.base, nn.Module) else half.base
    code = getattr(code, "__func__", code)
    variables = dict(getattr(half.owner, "__dict__", {}))
    if inspect.isfunction(code):
        with contextlib.suppress(ValueError):  # a variable without a value yet
            closure = inspect.getclosurevars(code)
            variables |= {**closure.globals, **closure.nonlocals}
    parameters = half.module.named_parameters() if half.module is not None else ()
    return {id(value): name for name, value in (*variables.items(), *parameters)}
