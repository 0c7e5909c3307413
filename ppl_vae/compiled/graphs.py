"""A function of tensors, traced into one graph of tensor operations, and the graph compiled.

    results = graph(parameters, constants, inputs)

The function runs once, on example inputs, while ``make_fx`` records every operation on tensors. For
a function that runs a pair under an ELBO, effect handlers, distributions and plates do their work
during that run and leave no trace of themselves: the graph holds only the arithmetic, the random
draws (as operations, fresh at every run of the graph) and the gradient's operations. A step of a
small pair spends most of its time in that Python, so that the graph is several times faster.

What Python reads of a value cannot be recorded. ``value_free`` replaces the spots of Pyro and
torch that read values; where a pair reads one itself, tracing raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyro
import torch
from pyro.distributions.util import validation_enabled
from torch import Tensor
from torch.distributions import Distribution
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from ppl_vae.compat import of_torch
from ppl_vae.compiled import fused_functions, narrow_products
from ppl_vae.compiled.layout import copy_with_strides
from ppl_vae.compiled.value_free import without_values

# Operations that are taken apart into simpler ones before expands are sunk: the part that depends
# on a broadcast input alone is then computed once, not for every copy.
_TAKEN_APART = [torch.ops.aten.binary_cross_entropy_with_logits, torch.ops.aten.log_sigmoid_forward]

# Settings of inductor; ``compile_graph`` says what each is for.
OPTIONS = {"fallback_random": True, "size_asserts": False}
OPTIONS_OF_CPU = {
    "cpp_wrapper": True,
    "layout_optimization": False,
    "memory_planning": True,
    "cpp.enable_floating_point_contract_flag": "fast",
}
OPTIONS_WHERE_SUNK = {"realize_opcount_threshold": 16}
OPTIONS_OF_CUDA = {"triton.cudagraphs": True}

aten = torch.ops.aten


@dataclass(frozen=True)
class Graph:
    """A traced function.

    Attributes:
        module: The graph, called with parameters, constants and inputs, each a tensor; returns the
            list of tensors that the function returned.
        constants: Every other tensor that the graph reads, or changes in place: a pair's buffers,
            above all, and tensors that its Python made anew while tracing.
        precision: The machine epsilon of the coarsest float dtype in the graph, such as 1.2e-7 for
            float32 and 7.8e-3 for bfloat16.
    """

    module: GraphModule
    constants: list[Tensor]
    precision: float


def trace_graph(
    function: Callable[..., list[Tensor]], inputs: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Graph:
    """Return the graph of a function of tensors that runs a pair.

    The trace is made in four moves.

    1. The function runs under ``make_fx``, with the forms of ``value_free``. Pyro's own validation
       is off, because it reads values; the checks that distributions make of their arguments stay
       on where the user has them on, but are noted as tensors instead of being answered.
    2. Graphs whose shapes depend on values are refused (``_refuse_value_dependent_shapes``).
    3. The noted checks become a guard: the first result of the graph, the loss, is NaN wherever an
       argument of a distribution is not valid (``_add_guard``). Where the eager step would raise,
       the traced step thus returns a loss that is not finite, its update is not applied, and
       ``fit`` runs the eager step on the same batch to get the error.
    4. Tensors that the function reached by itself (parameters, buffers) become inputs
       (``_lift_tensors``). A tensor that is updated in place between two steps is therefore seen
       by the next step. A tensor that is replaced by another object is not, and neither is a
       number of Python's: ``training/equivalence.py`` compares the graph with the eager step to
       find these.

    Args:
        function: Takes tensors like ``inputs``; returns a list of tensors, a loss first.
        inputs: Tensors to run the function on; tensors of the same shapes may take their place.
        parameters: Tensors that the function reaches by itself and that become the graph's first
            inputs, in this order.

    Raises:
        RuntimeError: If Python reads a value. Other errors of torch's are possible too.

    Example:
        >>> scale = torch.tensor(3.0)
        >>> graph = trace_graph(lambda x: [scale * x.sum()], [torch.ones(2)], [scale])
        >>> graph.module(torch.tensor(5.0), torch.ones(2))
        [tensor(10.)]
    """
    checks: list[Tensor] = []

    def run(*given: Tensor) -> list[Tensor]:
        return [*function(*given), *checks]

    checked = of_torch.checks_arguments(Distribution)
    with of_torch.sources_forgotten():
        with without_values(checks), pyro.validation_enabled(False), validation_enabled(checked):
            module = make_fx(run)(*inputs)
        _refuse_value_dependent_shapes(module)
        _add_guard(module, len(checks))
        constants = _lift_tensors(module, list(parameters))
        examples = [node.meta.get("val") for node in module.graph.nodes]
        dtypes = [e.dtype for e in examples if isinstance(e, Tensor) and e.is_floating_point()]
        precision = max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)
        _forget_values(module)
    return Graph(module, constants, precision)


def _forget_values(module: GraphModule) -> None:
    """Drop the example tensors that ``make_fx`` noted beside each node, and unused nodes.

    The notes would keep the memory of a whole step alive. The graph's Python is generated anew.
    """
    for node in module.graph.nodes:
        node.meta.clear()
    module.graph.eliminate_dead_code()
    module.recompile()


def _sink_expands(module: GraphModule) -> bool:
    """Compute elementwise before broadcasting: f(expand(a), expand(b)) becomes expand(f(a, b)).

    The problem: enumeration and particles broadcast tensors that do not depend on them, and
    distributions broadcast their parameters to the shape of their values. Logarithms and
    exponentials are then taken of every copy, and a compiler that fuses them takes them inside the
    innermost loop.

    The trick: an elementwise operation whose inputs are all expanded from one shape to one shape
    gives the same numbers when it acts on the small tensors and its result is expanded. The nodes
    are visited in order, so an expand sinks through a whole chain of elementwise operations.

    Why it is right: an elementwise operation without side effects and without random draws acts on
    each cell alone. Operations that write into an input, or that draw, are left where they are
    (every copy has its own draw), and so are operations with an input that is not expanded.

    What would break it: all copies of an expanded result lie in one place of memory. A result that
    a later operation writes into is therefore left where it is, also where the writing goes through
    a view (``_written_results``). A later ``view`` may find no strides for an expanded result, so
    that ``reshape``, which copies then, takes its place.

    It needs the shapes in ``node.meta["val"]``, and so runs before ``_forget_values``.

    Returns:
        Whether that spares much: more numbers than the largest of these results has.
    """
    graph, expand, spared, largest = module.graph, aten.expand.default, 0, 0
    written = _written_results(module)
    for node in graph.nodes:
        if node.target in of_torch.VIEWS:
            node.target = aten.reshape.default
        if node in written or of_torch.changes_an_input(node):
            continue
        if not of_torch.has_tag(node, torch.Tag.pointwise):
            continue
        if of_torch.has_tag(node, torch.Tag.nondeterministic_seeded):
            continue
        expands = node.all_input_nodes
        if not expands or any(e.target is not expand for e in expands):
            continue
        shapes = {(e.args[0].meta["val"].shape, e.meta["val"].shape) for e in expands}
        if len(shapes) != 1 or node.meta["val"].shape != expands[0].meta["val"].shape:
            continue
        with graph.inserting_before(node):
            small = graph.node_copy(node, lambda e: e.args[0])
            large = graph.call_function(expand, (small, expands[0].args[1]))
        small.meta["val"] = expands[0].args[0].meta["val"]  # of the right shape; no other use
        large.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(large)
        graph.erase_node(node)
        spared += large.meta["val"].numel() - small.meta["val"].numel()
        largest = max(largest, large.meta["val"].numel())
    return spared > largest


def _written_results(module: GraphModule) -> set[Node]:
    """Return the nodes whose results are written into by a later node, itself or through a view."""
    written: set[Node] = set()
    for node in reversed(module.graph.nodes):
        if node in written or of_torch.changes_an_input(node):
            written.update(of_torch.inputs_sharing_memory(node))
    return written


def _refuse_value_dependent_shapes(module: GraphModule) -> None:
    """Raise ``RuntimeError`` where the shape of a result depends on values.

    The shape would stay in the graph as it was for the example: ``x[x > 0]``, ``x.nonzero()``,
    ``x.unique()``. Indexing by integers carries the same tag of torch's and is allowed.
    """
    for node in module.graph.nodes:
        if not of_torch.has_tag(node, torch.Tag.dynamic_output_shape):
            continue
        index_dtypes = {w.meta["val"].dtype for w in node.all_input_nodes[1:]}
        if node.target is not aten.index.Tensor or index_dtypes & {torch.bool, torch.uint8}:
            raise RuntimeError(
                f"the size of what {node.target.name()} returns depends on values; use torch.where"
            )


def _add_guard(module: GraphModule, count: int) -> None:
    """Make the loss NaN where an argument of a distribution is not valid.

    The graph's last ``count`` outputs are the noted checks, booleans that are true where a cell is
    valid. They are taken off the outputs, and the first output, the loss, becomes

        loss = masked_fill(loss, any(not check), NaN)

    for each check, so that no value is read in the middle of a step. Two kinds of checks are left
    out, since each costs a pass over a tensor: a check that a real number is not NaN (NaN reaches
    the loss by itself), and a check that does not depend on the inputs or parameters.
    """
    output = next(iter(reversed(module.graph.nodes)))
    values = list(output.args[0])
    results, checks = values[: len(values) - count], values[len(values) - count :]
    call = module.graph.call_function
    with module.graph.inserting_before(output):
        for check in checks:
            if check.op != "get_attr" and not _is_nan_check(check):
                invalid = call(aten.any.default, (call(aten.logical_not.default, (check,)),))
                results[0] = call(aten.masked_fill.Scalar, (results[0], invalid, math.nan))
    output.args = (results,)


def _is_nan_check(check: Node) -> bool:
    """Return whether a check is ``x == x``, perhaps reduced over the event: false for NaN alone."""
    while len(check.all_input_nodes) == 1 and check.target is not aten.eq.Tensor:
        check = check.all_input_nodes[0]
    return len(check.all_input_nodes) == 1 and check.target is aten.eq.Tensor


def _lift_tensors(module: GraphModule, parameters: list[Tensor]) -> list[Tensor]:
    """Make inputs of all tensors that the graph holds, and return those that are no parameters.

    ``make_fx`` stores a tensor that the function reaches by itself as an attribute of the graph.
    Each attribute is replaced by an input in front of the graph's own inputs: the parameters first,
    in their order and whether the graph reads them or not, then the constants. A tensor that the
    graph holds twice becomes one input.
    """
    tensors: list[Tensor] = list(parameters)
    place = {id(parameter): i for i, parameter in enumerate(parameters)}
    readers: dict[int, list[Node]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            tensor = getattr(module, str(node.target))
            if id(tensor) not in place:
                place[id(tensor)] = len(tensors)
                tensors.append(tensor)
            readers.setdefault(place[id(tensor)], []).append(node)
    with module.graph.inserting_before(next(iter(module.graph.nodes))):
        for i in range(len(tensors)):
            placeholder = module.graph.placeholder(f"held_{i}")
            for node in readers.get(i, []):
                node.replace_all_uses_with(placeholder)
                module.graph.erase_node(node)
    return tensors[len(parameters) :]


def _lift_large_numbers(module: GraphModule) -> list[Tensor]:
    """Make inputs of whole numbers beyond 32 bits that depend on no input, and return their values.

    The problem: inductor turns ``C * torch.arange(n)`` into C times the counter of a loop, in
    signed numbers of C++. torch's numbers wrap around where they leave 64 bits. In C++ a signed
    number may not leave them, from which gcc concludes that the counter stays small, and drops the
    branch for the last cells of a row, those that fill no whole vector. The loop then computes with
    cells that are not there and writes past the end of every tensor that it fills (torch 2.13, gcc
    12: keys of rows of 100 cells were wrong, and the heap of the process was corrupted).

    The mend: torch computes such numbers here, and the compiled code reads them from memory.

    Why smaller numbers can stay: they have not left 64 bits unless a counter passes 2^32.

    The values are those of the new inputs, which stand in front of the graph's own. It needs the
    tensors in ``node.meta["val"]``, and so runs before ``_forget_values``.
    """
    values = _whole_numbers(module)
    lifted: list[Tensor] = []
    first = next(iter(module.graph.nodes))
    for node, value in reversed(values.items()):
        if node.users and bool((value != value.int()).any()):
            with module.graph.inserting_before(first):
                node.replace_all_uses_with(module.graph.placeholder(f"large_{len(lifted)}"))
            lifted.append(value)
        if not node.users:
            module.graph.erase_node(node)
    return lifted


def _whole_numbers(module: GraphModule) -> dict[Node, Tensor]:
    """Return the values of the nodes that are whole numbers and depend on no input or draw."""
    values: dict[Node, Tensor] = {}
    written = _written_results(module)
    for node in module.graph.nodes:
        example = node.meta.get("val")
        if node.op != "call_function" or node in written or of_torch.changes_an_input(node):
            continue
        if not isinstance(example, Tensor) or not torch.can_cast(example.dtype, torch.int64):
            continue
        if of_torch.has_tag(node, torch.Tag.nondeterministic_seeded):
            continue
        if all(source in values for source in node.all_input_nodes):
            args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    return values


@dataclass(frozen=True, eq=False)
class CompiledGraph:
    """A compiled function of tensors, called with the tensors that it was compiled for.

    Attributes:
        function: The compiled code, with torch's own wrappers around it.
        bare: The compiled code alone, called with one list of tensors; ``None`` where torch does
            not show it. It marks no tensor as changed (``torch.autograd.graph.increment_version``).
        numbers: Large numbers, which the code takes in front of its inputs.
    """

    function: Callable[..., list[Tensor]]
    bare: Callable[[list[Tensor]], list[Tensor]] | None
    numbers: list[Tensor]

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Return the results of one call."""
        return self.function(*self.numbers, *inputs)


def compile_graph(
    function: Callable[..., list[Tensor]], state: list[Tensor], inputs: list[Tensor]
) -> CompiledGraph:
    """Return a function of tensors compiled by inductor, which draws as the function itself draws.

    Inductor is called directly, without ``torch.compile``. ``torch.compile`` would put dynamo in
    front: dynamo reads Python bytecode to find the operations, and checks at every call that shapes
    and globals are what they were. The function here is one flat sequence of operations already
    (``make_fx`` records it once more, together with the optimizer's update), its shapes are fixed
    by the caller, and there is nothing left to check, so a call costs the kernels and little more.

    These options matter. ``fallback_random`` makes torch's own generators draw, so that the
    compiled function draws the same numbers as the traced one from one seed; inductor's own
    generator would be another stream, and the comparison with the eager step would be impossible.
    ``cpp_wrapper`` writes the code between the kernels in C++ (on a CPU); elsewhere CUDA graphs
    take the place of that code. Checks of the inputs' sizes at every call are left to the caller
    (``size_asserts``): they took 0.012 of 0.2 ms of a small step. On a CPU, temporary results lie
    in one piece of memory (``memory_planning``), and products and sums are contracted
    (``enable_floating_point_contract_flag``). Where expands were sunk, results that take more than
    sixteen operations and are read more than once are stored (``realize_opcount_threshold``): by
    torch's own limit the likelihood of ten classes would be computed again for every row. Some
    functions fuse into the loop around them (``fused_functions.py``), some products are made with
    other columns (``narrow_products.py``). ``layout_optimization`` would store images with the
    channels last; on a CPU that was slower: beside eager PyTorch by hand, a convolutional pair ran
    at 0.93 of its speed with it, at 1.07 without.

    The function runs once on copies of the state before it is returned, so that a compiler that
    fails at its first call fails here.

    Args:
        function: Takes ``state`` then ``inputs``; returns a list of tensors. It may change the
            state in place.
        state: Tensors that the function may change; copies with the same strides are used here.
        inputs: Tensors that the function only reads.

    Raises:
        Exception: Whatever stops inductor, for example a missing C++ compiler.
    """
    on_cpu = (state or inputs)[0].device.type == "cpu"
    examples = [*map(copy_with_strides, state), *inputs]
    table = of_torch.decompositions(_TAKEN_APART)
    if on_cpu:
        table.update(fused_functions.RULES | narrow_products.rules())
    with of_torch.compiler_silenced(), of_torch.sources_forgotten():
        module = make_fx(function, decomposition_table=table)(*examples)
        sunk = _sink_expands(module)
        large = _lift_large_numbers(module)
        _forget_values(module)
        options = {**OPTIONS, **(OPTIONS_OF_CPU if on_cpu else OPTIONS_OF_CUDA)}
        if on_cpu and sunk:
            options.update(OPTIONS_WHERE_SUNK)
        code = of_torch.compile_with_inductor(module, [*large, *examples], options)
        compiled = CompiledGraph(code, of_torch.without_wrappers(code), large)
        compiled(*examples)
    return compiled
