"""A pair's run as one graph of tensor operations, Python gone.

    results = graph(parameters, constants, inputs)

The pair runs once while every operation on tensors is written down (``make_fx``): effect handlers,
distributions and plates act then and vanish; random draws stay operations, fresh at every run.
Every tensor that the operations met becomes an input, so that one updated in place is seen. What
Python decides from values cannot be written down: the spots of Pyro and torch that do are replaced
while tracing by forms that read no value; where a pair does it itself, tracing fails.

Source of the expectation: Foerster et al. (2018), DiCE, arXiv:1802.05098.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pyro
import torch
from opt_einsum import shared_intermediates  # type: ignore[import-untyped]  # Pyro's
from pyro.distributions.util import validation_enabled
from pyro.infer import traceenum_elbo
from pyro.infer.util import Dice
from pyro.ops import packed
from pyro.ops.einsum.adjoint import require_backward
from pyro.ops.rings import MarginalRing
from torch import Tensor
from torch._ops import OpOverload
from torch.distributions import Distribution
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx


@dataclass(frozen=True)
class Graph:
    """What ``trace`` wrote down.

    Attributes:
        module: Called with parameters, constants and inputs, each a tensor; returns what the
            function returned.
        constants: The other tensors that it reads or changes in place: buffers, above all.
        precision: The largest relative rounding error of a dtype in it.
    """

    module: GraphModule
    constants: list[Tensor]
    precision: float


def trace_graph(
    function: Callable[..., list[Tensor]], inputs: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Graph:
    """Write down a function of tensors that runs a pair.

    Its first result becomes NaN wherever a distribution's arguments are not valid.

    Args:
        function: Returns a list of tensors.
        inputs: Tensors to run it on; others of their shapes may take their place.
        parameters: Tensors that the pair holds and that become inputs of their own.

    Raises:
        RuntimeError: Or another error of torch's, where Python reads a value that is computed.
    """
    checks: list[Tensor] = []

    def run(*given: Tensor) -> list[Tensor]:
        return [*function(*given), *checks]

    checked = Distribution._validate_args
    with without_values(checks), pyro.validation_enabled(False), validation_enabled(checked):
        module = make_fx(run)(*inputs)
    _refuse_selections(module)
    _guard(module, len(checks))
    constants = _lift(module, list(parameters))
    dtypes = [value.dtype for value in _values(module) if value.is_floating_point()]
    precision = max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)
    forget_values(module)
    return Graph(module, constants, precision)


def forget_values(module: GraphModule) -> None:
    """Drop the tensors that tracing noted beside each operation, and operations without use."""
    for node in module.graph.nodes:
        node.meta.clear()
    module.graph.eliminate_dead_code()
    module.recompile()


def sink_expands(module: GraphModule) -> None:
    """Compute elementwise before broadcasting: f(expand(a), expand(b)) becomes expand(f(a, b)).

    Enumeration and particles broadcast what does not depend on them, and distributions broadcast
    their parameters to their values: logarithms and exponentials of the few are taken here, not
    of the many copies.
    """
    graph = module.graph
    for node in graph.nodes:
        target = node.target
        if not isinstance(target, OpOverload) or torch.Tag.pointwise not in target.tags:
            continue
        if target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags:
            continue
        wide = node.all_input_nodes
        if not wide or any(w.target is not torch.ops.aten.expand.default for w in wide):
            continue
        shapes = {(w.args[0].meta["val"].shape, w.meta["val"].shape) for w in wide}
        if len(shapes) != 1 or node.meta["val"].shape != wide[0].meta["val"].shape:
            continue
        with graph.inserting_before(node):
            first = graph.node_copy(node, lambda w: w.args[0])
            later = graph.call_function(torch.ops.aten.expand.default, (first, wide[0].args[1]))
        first.meta["val"] = wide[0].args[0].meta["val"]  # its shape is what counts here
        later.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(later)
        graph.erase_node(node)


def _values(module: GraphModule) -> list[Tensor]:
    values = [node.meta.get("val") for node in module.graph.nodes]
    return [value for value in values if isinstance(value, Tensor)]


def _refuse_selections(module: GraphModule) -> None:
    """Raise where a shape depends on values: it would stay what it was while tracing."""
    for node in module.graph.nodes:
        target = node.target
        if not isinstance(target, OpOverload) or torch.Tag.dynamic_output_shape not in target.tags:
            continue
        kinds = {w.meta["val"].dtype for w in node.all_input_nodes[1:]}
        if target is not torch.ops.aten.index.Tensor or kinds & {torch.bool, torch.uint8}:
            raise RuntimeError(
                f"the size of what {target.name()} returns depends on values; use torch.where"
            )


def _guard(module: GraphModule, count: int) -> None:
    """Make the loss NaN where a distribution's arguments are not valid: the last outputs say so.

    That a real number is not NaN need not be asked: the loss tells. Nor need a constant.
    """
    aten = torch.ops.aten
    output = next(iter(reversed(module.graph.nodes)))
    values = list(output.args[0])
    kept, checks = values[: len(values) - count], values[len(values) - count :]
    with module.graph.inserting_before(output):
        for check in checks:
            if check.op != "get_attr" and not _asks_for_nan(check):
                call = module.graph.call_function
                invalid = call(aten.any.default, (call(aten.logical_not.default, (check,)),))
                kept[0] = call(aten.masked_fill.Scalar, (kept[0], invalid, math.nan))
    output.args = (kept,)


def _asks_for_nan(check: Any) -> bool:
    while len(check.all_input_nodes) == 1 and check.target is not torch.ops.aten.eq.Tensor:
        check = check.all_input_nodes[0]
    same = len(check.all_input_nodes) == 1
    return bool(same and check.target is torch.ops.aten.eq.Tensor)


def _lift(module: GraphModule, parameters: list[Tensor]) -> list[Tensor]:
    """Make inputs of all tensors that the graph holds: parameters first; returns the others."""
    held = [node for node in module.graph.nodes if node.op == "get_attr"]
    known = {id(parameter): i for i, parameter in enumerate(parameters)}
    tensors: list[Tensor] = list(parameters)
    users: dict[int, list[Any]] = {}
    for node in held:
        tensor = getattr(module, node.target)
        if id(tensor) not in known:
            known[id(tensor)] = len(tensors)
            tensors.append(tensor)
        users.setdefault(known[id(tensor)], []).append(node)
    first = next(iter(module.graph.nodes))
    with module.graph.inserting_before(first):
        for i in range(len(tensors)):
            placeholder = module.graph.placeholder(f"held_{i}")
            for node in users.get(i, []):
                node.replace_all_uses_with(placeholder)
                module.graph.erase_node(node)
    return tensors[len(parameters) :]


@contextlib.contextmanager
def without_values(checks: list[Tensor]) -> Iterator[None]:
    """Pyro's ELBOs, and what they call of torch's, in forms that read no tensor's value.

    Args:
        checks: Takes what distributions ask of their arguments, (...) of booleans each.
    """

    def note(valid: Tensor) -> bool:
        checks.append(valid)
        return True

    modules = [m for name, m in sys.modules.items() if name.startswith("pyro.infer")]
    replaced = {"torch_item": _detached, "warn_if_nan": _unread}
    with contextlib.ExitStack() as stack:
        for module in modules:
            for name, form in replaced.items():
                if hasattr(module, name):
                    stack.enter_context(patch.object(module, name, form))
        stack.enter_context(patch.object(torch.nn.functional, "one_hot", _one_hot))
        stack.enter_context(patch.object(Dice, "compute_expectation", _expectation))
        stack.enter_context(patch.object(traceenum_elbo, "_get_common_scale", _common_scale))
        stack.enter_context(patch.object(torch, "_is_all_true", note))
        stack.enter_context(patch.object(Distribution, "_validate_sample", _unread))
        for name in ("numpy", "tolist", "__array__"):  # past torch's dispatcher, and so unseen
            stack.enter_context(patch.object(Tensor, name, _refused))
        yield


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _unread(value: Any, *args: Any, **kwargs: Any) -> Any:
    return value


def _refused(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("Python reads values, with numpy() or tolist(), that change between steps")


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:
        raise RuntimeError("one_hot reads its values to count the classes; give num_classes")
    classes = torch.arange(num_classes, device=tensor.device)
    return (tensor.unsqueeze(-1) == classes).to(torch.int64)


def _common_scale(scales: list[Any]) -> Any:
    """The scale that enumerated sites share; eager Pyro, which runs first, compares tensors."""
    numbers = {float(scale) for scale in scales if not isinstance(scale, Tensor)}
    if len(numbers) > 1:
        raise ValueError(f"expected enumerated sites to share one scale, got {sorted(numbers)}")
    return scales[0]


def _expectation(dice: Any, costs: dict[Any, list[Any]]) -> Any:
    """Expected cost over the enumerated and sampled sites upstream of each cost.

    Cells of probability zero are given the cost zero, where Pyro leaves them out.
    """
    total: Any = 0.0
    with shared_intermediates() as cache:
        ring = MarginalRing(cache=cache)
        for ordinal, terms in costs.items():
            found = dice._get_log_factors(ordinal)
            weight = math.exp(sum(f for f in found if not isinstance(f, Tensor)))
            factors: list[Any] = [f for f in found if isinstance(f, Tensor)]
            asked = _queries(terms, factors)
            eliminated = set().union(*(f._pyro_dims for f in factors)) - ordinal
            for query in asked.values():
                require_backward(query)
            ring.sumproduct(factors, eliminated)._pyro_backward()
            for cost in terms:
                query = asked[frozenset(cost._pyro_dims)]
                probability: Any = query._pyro_backward_result.exp()
                probability._pyro_dims = query._pyro_dims
                value, chance = packed.broadcast_all(cost, probability)
                value = value.masked_fill(chance <= 0, 0.0)
                total = total + weight * (chance * value).sum()
    return total


def _queries(terms: list[Any], factors: list[Any]) -> dict[frozenset[str], Any]:
    """For the dimensions of each cost a factor whose marginal is asked for, added if missing."""
    asked: dict[frozenset[str], Any] = {}
    for cost in terms:
        dims = frozenset(cost._pyro_dims)
        if dims in asked:
            continue
        same = [factor for factor in factors if frozenset(factor._pyro_dims) == dims]
        if not same:
            flat: Any = torch.zeros_like(cost)
            flat._pyro_dims = cost._pyro_dims
            factors.append(flat)
            same = [flat]
        asked[dims] = same[0]
    return asked
