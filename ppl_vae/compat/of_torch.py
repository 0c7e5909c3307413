"""Private names of torch, and names that it does not document: what is expected of each."""

from __future__ import annotations

import contextlib
import linecache
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.fx import GraphModule, Node, graph_module
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


def all_gather_flat(gathered: Tensor, own: Tensor) -> None:
    """Fill ``gathered``, (ranks * n,), with the tensors ``own``, (n,), of all ranks in their order.

    Expected: ``torch.distributed.all_gather_single``, and before torch had it
    ``torch.distributed.all_gather_into_tensor``.
    """
    named = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    named(gathered, own)


def all_to_all_flat(received: Tensor, sent: Tensor) -> None:
    """Fill ``received``, (ranks * n,), with piece r of ``sent``, (ranks * n,), of every rank.

    r is the rank of this process, and the pieces stand in the order of the ranks that sent them.

    Expected: ``torch.distributed.all_to_all_single``, with gloo as well, which torch does not list.
    """
    dist.all_to_all_single(received, sent)


def compile_with_inductor(
    module: GraphModule, examples: Sequence[Tensor], options: dict[str, Any]
) -> Callable[..., list[Tensor]]:
    """Return a graph compiled by torch's inductor, without dynamo in front of it.

    ``torch.compile`` would read the graph's Python a second time with dynamo and would guard every
    call by checks of shapes and globals. ``torch._inductor.standalone_compile`` takes a graph that
    is traced already and returns a callable without guards.

    Expected: ``torch._inductor.standalone_compile(module, examples, dynamic_shapes=, options=)``,
    torch 2.8 or newer. Where it is missing, the ``ImportError`` reaches ``Stepper``, which warns
    that the compiler failed and runs the traced graph instead.

    Args:
        module: The graph, whose inputs and outputs are flat lists of tensors.
        examples: One tensor for each input; the compiled code holds for their shapes alone.
        options: Settings of inductor, such as ``{"fallback_random": True}``.

    Raises:
        Exception: Whatever stops inductor.
    """
    from torch._inductor import standalone_compile  # noqa: PLC0415  torch loads it slowly

    patches = {"config_patches": options}
    compiled: Callable[..., list[Tensor]] = standalone_compile(
        module, list(examples), dynamic_shapes="from_example_inputs", options=patches
    )
    return compiled


def without_wrappers(compiled: Any) -> Callable[[list[Tensor]], list[Tensor]] | None:
    """Return the code that inductor made, without the layers of Python that torch puts around it.

    The layers check and count at every call, which takes 0.01 of the 0.17 ms of a small step. The
    code takes one list of tensors, which it empties, and returns a list of tensors. It does not
    count as a change of the tensors that it changes (``torch.autograd.graph.increment_version``).

    Expected: an object of the class ``CompiledFxGraph`` with ``current_callable``, behind closures
    and behind the attributes named below. Where none is found, the result is ``None``.
    """
    seen: set[int] = set()
    waiting = [compiled]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type) or not callable(item):
            continue
        seen.add(id(item))
        if type(item).__name__ == "CompiledFxGraph":
            return getattr(item, "current_callable", None)
        for cell in getattr(item, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # a cell that is empty
                waiting.append(cell.cell_contents)
        names = ("_compiled_fn", "compiled_fn", "__wrapped__")
        waiting += [getattr(item, name, None) for name in names]
    return None


def called_in_turn(
    code: Callable[[list[Tensor]], list[Tensor]], inputs: Sequence[Sequence[Tensor]]
) -> list[Tensor]:
    """Call what ``without_wrappers`` returned once for each list of inputs.

    Where the code is C++, all inputs are handed over together, and what Python does around each
    call is left out: 0.005 of 0.13 ms of a small step.

    Expected: a closure over a function ``inductor_entry_cpp`` of pointers to tensors, which frees
    the pointers that it takes, and ``torch._C._aoti``, which makes tensors of pointers and pointers
    of tensors. Without the closure, the code is called as it is.

    Args:
        code: Compiled code, for one list of tensors.
        inputs: The tensors of each call, as many in each.

    Returns:
        The first result of each call, in order.

    Raises:
        Exception: What the code raises; later calls are not made then.
    """
    cells = [cell.cell_contents for cell in getattr(code, "__closure__", None) or ()]
    entry = next((c for c in cells if getattr(c, "__name__", "") == "inductor_entry_cpp"), None)
    if entry is None:
        return [code(list(of_call))[0] for of_call in inputs]
    pointers: Any = torch._C._aoti
    given = pointers.unsafe_alloc_void_ptrs_from_tensors([t for each in inputs for t in each])
    size, taken, results = len(inputs[0]), 0, []
    try:
        for _ in inputs:
            taken += size
            results.append(entry(given[taken - size : taken]))
    finally:
        pointers.alloc_tensors_by_stealing_from_void_ptrs(given[taken:])
        found = [pointers.alloc_tensors_by_stealing_from_void_ptrs(each) for each in results]
    return [of_call[0] for of_call in found]


@contextlib.contextmanager
def sources_forgotten() -> Iterator[None]:
    """Run the block, and drop the texts of programs that torch would store to the process's end.

    A graph module is Python that torch writes. torch stores the text of each in a table, and an
    entry in Python's own ``linecache``, so that a traceback can show its lines; inductor stores
    each module that it loaded in a list, so that its file can be deleted. None of these tables is
    ever emptied: a compiled fit left 0.4 MB in them, for a graph compiled before as for a new one.
    The graphs themselves need no entry, and a traceback through one shows no lines of it.

    Where another thread makes graphs during the block, tracebacks through those show no lines
    either.

    Expected: ``torch.fx.graph_module._loader.eval_cache``, ``{file name: text}``, whose names are
    those in ``linecache.cache``; ``torch._inductor.codecache.PyCodeCache`` with the lists and
    tables named below. Where one is missing, its entries stay.
    """
    texts = getattr(getattr(graph_module, "_loader", None), "eval_cache", {})
    before, count = set(texts), len(_loaded_modules())
    try:
        yield
    finally:
        for name in set(texts) - before:
            texts.pop(name, None)
            linecache.cache.pop(name, None)
        _forget_modules(count)


def _loaded_modules() -> list[ModuleType]:
    """Return inductor's list of the modules that it wrote and loaded; empty where it has none."""
    codecache = sys.modules.get("torch._inductor.codecache")
    modules: list[ModuleType] = getattr(getattr(codecache, "PyCodeCache", None), "modules", [])
    return modules


def _forget_modules(count: int) -> None:
    """Drop inductor's references to all modules after the first ``count`` that it loaded.

    A compiled function holds what it needs of its module. A graph that is compiled again is loaded
    from its file again.
    """
    modules = _loaded_modules()
    for module in modules[count:]:
        sys.modules.pop(module.__name__, None)
        cache = sys.modules["torch._inductor.codecache"].PyCodeCache
        for table in ("modules_no_attr", "linemaps"):
            getattr(cache, table, {}).pop(module.__file__, None)
    del modules[count:]


@contextlib.contextmanager
def compiler_silenced() -> Iterator[None]:
    """Run the block without a line of torch's log and without any warning.

    torch reports on its own compiler (a kernel that was not fused, a missing tool, the traceback of
    an operation that was refused) through loggers, and through warnings that a user of ``fit``
    cannot act on. An error is raised all the same, and ``fit`` reports it.

    Expected: torch's loggers have names that begin with ``torch``; a logger without a level of its
    own, or one that is first used inside the block, takes the level of ``torch``. Where a logger
    has another name, its lines are shown and nothing else changes.
    """
    named = [name for name in logging.root.manager.loggerDict if name.startswith("torch.")]
    loggers = [logging.getLogger(name) for name in ("torch", *named)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def decompositions(operations: Sequence[Any]) -> dict[Any, Callable[..., Any]]:
    """Return, for each operation of torch, its formula in simpler operations.

    Expected: ``torch._decomp.get_decompositions(operations)`` returns a table that ``make_fx``
    takes as ``decomposition_table``. Where it is missing, compiling fails and the traced graph
    runs.
    """
    from torch._decomp import get_decompositions  # noqa: PLC0415  torch loads it slowly

    return cast("dict[Any, Callable[..., Any]]", get_decompositions(operations))


def has_tag(node: Node, tag: torch.Tag) -> bool:
    """Return whether a node of a graph calls an operation of torch that carries a tag.

    Expected: ``torch._ops.OpOverload`` is the class of the operations in a graph made by
    ``make_fx``, and has ``tags``. Where it is missing, importing this module fails.
    """
    return isinstance(node.target, torch._ops.OpOverload) and tag in node.target.tags


def changes_an_input(node: Node) -> bool:
    """Return whether the operation of a node writes into one of its inputs, as ``add_`` does.

    Expected: ``OpOverload._schema.is_mutable``.
    """
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
"""The operations that give a tensor another shape in the same memory; the second says so nowhere.

Expected: ``_unsafe_view``, which ``reshape`` and matrix products leave in a graph.
"""


def inputs_sharing_memory(node: Node) -> list[Node]:
    """Return the inputs that a node writes into, or whose memory its result may share (a view).

    Expected: ``OpOverload._schema.arguments``, each with ``alias_info``, which is ``None`` for an
    argument that is neither written into nor returned as a view. A node that is no operation of
    torch takes one result from a list, and counts as a view of it.
    """
    if not isinstance(node.target, torch._ops.OpOverload) or node.target in VIEWS:
        return node.all_input_nodes
    given = {**node.kwargs}
    for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
        given[argument.name] = value
    shared = [given.get(a.name) for a in node.target._schema.arguments if a.alias_info is not None]
    return [leaf for leaf in tree_leaves(shared) if isinstance(leaf, Node)]


ALL_TRUE = (torch, "_is_all_true")
"""Where distributions ask whether their arguments are valid.

Expected: ``Distribution.__init__`` calls ``torch._is_all_true(valid)`` with one tensor of booleans
for each argument, and raises where the answer is false. Tracing replaces the function. Where it is
missing, tracing fails and the eager step runs.
"""

VALIDATE_SAMPLE = (Distribution, "_validate_sample")
"""Where ``log_prob`` checks that a value lies in the support, with no other effect.

Expected: ``Distribution._validate_sample(value)`` is called for its errors alone. Tracing replaces
the method by one that does nothing.
"""


def checks_arguments(distribution: Any) -> bool:
    """Return whether a distribution, or a class of distributions, checks its arguments.

    Expected: ``Distribution._validate_args``, a flag of the class that
    ``validate_args=True`` or ``False`` overrides in an instance.
    """
    return bool(distribution._validate_args)


def argument_checks_off(distribution: Any) -> bool:
    """Return whether a distribution was made with ``validate_args=False``.

    The class's flag is ``False`` as well while ``pyro.enable_validation(False)`` holds.
    """
    return distribution._validate_args is False


def mask_of(distribution: Any) -> Tensor | bool:
    """Return the mask of a ``MaskedDistribution``: a bool, or a tensor of its batch shape.

    Expected: ``MaskedDistribution._mask``.
    """
    return cast("Tensor | bool", distribution._mask)


LinAlgError: type[RuntimeError] = torch.linalg.LinAlgError  # type: ignore[attr-defined]
"""What torch raises where a factor of a matrix does not exist."""

BatchNorm = nn.modules.batchnorm._BatchNorm
"""Base class of torch's batch normalization layers, in one to three dimensions and synchronized."""


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """Return a module's own dictionary of buffers, to read and to write.

    Writing to the dictionary puts a buffer back without the code that a user's ``__setattr__``
    may run. Expected: ``nn.Module._buffers``, ``{name: tensor or None}``, without submodules'.
    """
    return module._buffers


def mark_as_stepped(optimizer: torch.optim.Optimizer) -> None:
    """Tell torch's schedulers that an optimizer has made an update.

    A scheduler warns where it is stepped before its optimizer, and it learns of the optimizer's
    steps by wrapping ``optimizer.step``. A compiled step updates the parameters without that
    method. Expected: the flag ``_opt_called``, set by the wrapper. Where torch names the flag
    otherwise, its warning is shown and nothing else changes.
    """
    vars(optimizer)["_opt_called"] = True


Operations = TorchDispatchMode
"""Base class of contexts that see every elementary operation of torch that runs inside.

Expected: ``torch.utils._python_dispatch.TorchDispatchMode``, a context manager that calls its
``__torch_dispatch__(func, types, args, kwargs)`` instead of each operation.
"""


def tensors_in(arguments: Any) -> list[Tensor]:
    """Return the tensors in nested tuples, lists and dictionaries.

    Expected: ``torch.utils._pytree.tree_leaves``.
    """
    return [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]


def mapped(function: Callable[[Any], Any], arguments: Any) -> Any:
    """Return nested tuples, lists and dictionaries with a function applied to what they hold.

    Expected: ``torch.utils._pytree.tree_map``.
    """
    return tree_map(function, arguments)


def draws_random_numbers(operation: Any) -> bool:
    """Return whether an operation of torch draws random numbers.

    Expected: every operation that draws has the tag ``torch.Tag.nondeterministic_seeded``.
    """
    return torch.Tag.nondeterministic_seeded in getattr(operation, "tags", ())


def is_traced() -> bool:
    """Return whether ``make_fx`` is recording operations, so that no value can be read.

    Expected: ``torch.fx.experimental.proxy_tensor.get_proxy_mode``, ``None`` outside of a trace.
    """
    return get_proxy_mode() is not None


def memory_of(tensor: Tensor) -> StorageWeakRef | None:
    """Return a weak reference to a tensor's memory; ``None`` for a sparse tensor, which has none.

    Two references are equal, and have one hash, where the memory is the same. The address of the
    memory is not given to another tensor as long as a reference lives. Expected:
    ``torch.multiprocessing.reductions.StorageWeakRef``, which torch does not document.
    """
    try:
        return StorageWeakRef(tensor.untyped_storage())
    except NotImplementedError:
        return None
