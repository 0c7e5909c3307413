"""Private names of torch and Pyro that the library relies on, each with what is expected of it.

Nothing else in the library touches a name of torch or Pyro that begins with an underscore, so a
new version that changes one of these names is mended here. ``tests/test_compat.py`` has one test
per name, which states the expectation and fails under that name.

Three kinds of names are not here, because torch and Pyro document them: the hooks that a messenger
overrides (``_pyro_sample``, ``_pyro_post_sample``, ``_pyro_param``, ...), the fields of a site's
message (``msg["scale"]``), and ``torch.nn.modules.module.register_module_forward_pre_hook``. The
keys with an underscore that Pyro writes into ``site["infer"]`` (``_deterministic``,
``_enumerate_dim``, ``_enumerate_symbol``, ``_dim_to_symbol``) are read where they are needed, and
``tests/test_compat.py`` states what is expected of them as well.

Known to hold for torch 2.6 to 2.13 and Pyro 1.9.1 to 1.9.2, except where a docstring says more.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, cast

import torch
from pyro.infer import traceenum_elbo
from pyro.infer.util import Dice
from pyro.nn import PyroModule
from pyro.ops.einsum.adjoint import require_backward
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.fx import GraphModule, Node
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Pieces of torch


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


def draws_random_numbers(operation: Any) -> bool:
    """Return whether an operation of torch draws random numbers.

    Expected: every operation that draws has the tag ``torch.Tag.nondeterministic_seeded``.
    """
    return torch.Tag.nondeterministic_seeded in getattr(operation, "tags", ())


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


# Pieces of Pyro

COMMON_SCALE = (traceenum_elbo, "_get_common_scale")
"""Where ``TraceEnum_ELBO`` compares the scales of the sites that are summed out together.

Expected: ``_get_common_scale(scales)`` returns the one scale, after reading every scale with
``float``. Tracing replaces it by a form that reads numbers and leaves tensors alone.
"""

EXPECTATION = (Dice, "compute_expectation")
"""Where ``TraceEnum_ELBO`` and ``TraceGraph_ELBO`` take the expected cost.

Expected: ``Dice.compute_expectation(self, costs)`` with ``costs`` a dictionary from ordinals to
lists of packed tensors; it returns a scalar. Tracing replaces it, because Pyro's own form selects
cells by a mask, so that a shape depends on values.
"""


def modules_of_pyro_infer(name: str) -> list[ModuleType]:
    """Return the loaded modules of ``pyro.infer`` that hold a function under a name.

    A function that a module has imported by name (``from pyro.util import warn_if_nan``) has to be
    replaced in that module. Expected names: ``torch_item``, which reads a loss as a number, and
    ``warn_if_nan``, which reads a loss to warn.
    """
    modules = [m for n, m in sys.modules.items() if n.split(".")[:2] == ["pyro", "infer"]]
    return [module for module in modules if hasattr(module, name)]


def log_factors(dice: Dice, ordinal: Any) -> list[Tensor | float]:
    """Return the log-probabilities that weigh a cost at an ordinal (a set of plates).

    Expected: ``Dice._get_log_factors(ordinal)`` returns packed tensors, and at most one number:
    minus the logarithm of how many times the ordinal is counted.
    """
    return cast("list[Tensor | float]", dice._get_log_factors(ordinal))


def named_dims(tensor: Tensor) -> str:
    """Return the names of a packed tensor's dimensions, one letter for each.

    Pyro packs a log-probability so that each remaining dimension belongs to a plate or to an
    enumerated latent, named by a letter. Expected: the attribute ``_pyro_dims``.
    """
    return cast("str", cast("Any", tensor)._pyro_dims)


def name_dims(tensor: Tensor, dims: str) -> Tensor:
    """Name the dimensions of a tensor, one letter for each, and return the tensor."""
    packed: Any = tensor
    packed._pyro_dims = dims
    return tensor


def marginals(
    ring: Any, factors: list[Tensor], queries: Collection[Tensor], eliminated: Iterable[str]
) -> list[Tensor]:
    """Return, for each query, the product of all factors summed over other dimensions; all as logs.

    Where the factors are probabilities, that is the query's marginal. One contraction serves all
    queries: its backward pass, which Pyro runs in the same semiring (sums of products), leaves the
    result of each query beside the query. Expected: ``ring.sumproduct(factors, dims)``
    returns a tensor with ``_pyro_backward()``, which fills ``_pyro_backward_result`` of every
    tensor that ``require_backward`` has marked.

    Args:
        ring: A ``pyro.ops.rings.MarginalRing``.
        factors: Packed log-factors, the queries among them.
        queries: The factors whose dimensions are asked for.
        eliminated: Names of the dimensions to sum out.
    """
    for query in queries:
        require_backward(query)
    ring.sumproduct(factors, set(eliminated))._pyro_backward()
    results: Any = list(queries)
    return [name_dims(query._pyro_backward_result, named_dims(query)) for query in results]


def surrogate_of_graph_elbo(elbo: Any, model: Any, guide: Any, batch: Any) -> tuple[Any, Any]:
    """Return the ELBO of a batch under ``TraceGraph_ELBO``, and the surrogate to minimize.

    The class has no ``differentiable_loss``: its public ``loss_and_grads`` calls ``backward``
    itself. Expected: ``_loss_and_surrogate_loss(model, guide, args, kwargs)`` returns an ELBO (to
    maximize) and a surrogate loss (to minimize), both averaged over particles.
    """
    bound, surrogate = elbo._loss_and_surrogate_loss(model, guide, (batch,), {})
    return bound, surrogate


def particle_traces(elbo: Any, model: Any, guide: Any, batch: Any) -> Iterator[tuple[Trace, Trace]]:
    """Yield a model trace and a guide trace for each particle; one of each where vectorized.

    Expected: ``ELBO._get_traces(model, guide, args, kwargs)``.
    """
    yield from elbo._get_traces(model, guide, (batch,), {})


def particle_loss(elbo: Any, model_trace: Trace, guide_trace: Trace) -> tuple[Any, Any]:
    """Return the loss of one particle under ``Trace_ELBO`` or a subclass, and its surrogate.

    Expected: ``_differentiable_loss_particle(model_trace, guide_trace)`` returns the loss (minus
    the ELBO) as a number and the surrogate loss as a tensor.
    """
    loss, surrogate = elbo._differentiable_loss_particle(model_trace, guide_trace)
    return loss, surrogate


def constrained_parameters(module: PyroModule) -> list[str]:
    """Return the full names of a module's own constrained parameters (``PyroParam``).

    Expected: ``PyroModule._pyro_params``, a dictionary by short names, and
    ``_pyro_get_fullname(name)``, which the module's ``pyro.param`` statements use.
    """
    return [module._pyro_get_fullname(name) for name in module._pyro_params]


class _WatchedParameters(dict[str, Tensor]):
    """The dictionary of a parameter store, which tells of a new parameter before it is stored."""

    def __init__(self, tensors: dict[str, Tensor], tell: Callable[[str, Tensor], None]) -> None:
        super().__init__(tensors)
        self.tell = tell

    def __setitem__(self, name: str, value: Tensor) -> None:
        if name not in self:
            self.tell(name, value)
        super().__setitem__(name, value)


def watch_new_parameters(store: ParamStoreDict, tell: Callable[[str, Tensor], None]) -> None:
    """Call a function with each new parameter of a store, its name and its unconstrained tensor.

    The function is called before the parameter is stored, but after its constraint is. Handlers
    do not see all of these statements: ``poutine.block`` hides them.

    Expected: ``ParamStoreDict._params``, a dictionary that all statements write new parameters
    into by ``store._params[name] = tensor``.
    """
    if not isinstance(store._params, _WatchedParameters):
        store._params = _WatchedParameters(store._params, tell)


def stored_constraint(store: ParamStoreDict, name: str) -> Constraint:
    """Return the constraint of a parameter in a store.

    Expected: ``ParamStoreDict._constraints``, a dictionary.
    """
    constraint: Constraint = store._constraints[name]
    return constraint


def expand_to_plates(msg: Any) -> None:
    """Expand the distribution of a site's message to the sizes of all plates of the message.

    Expected: the static method ``BroadcastMessenger._pyro_sample(msg)``, which Pyro's plates use.
    """
    BroadcastMessenger._pyro_sample(msg)


# Warnings without a category of their own, and lines of a log


@contextlib.contextmanager
def pyro_log_silenced() -> Iterator[None]:
    """Run the block without what Pyro's ELBOs report of their work, such as the plates they found.

    Expected: the logger ``pyro.infer.elbo``, whose lines of level INFO Pyro prints to stderr. Where
    the logger has another name, the lines are shown and nothing else changes.
    """
    logger = logging.getLogger("pyro.infer.elbo")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def pyro_remarks_silenced() -> Iterator[None]:
    """Run a fit without three warnings of Pyro and torch that say nothing to its user.

    - "Encountered NaN" and its kin: ``fit`` raises an error for a loss that is not finite, and the
      error names the site and the row.
    - "Converting a tensor with requires_grad=True to a scalar": Pyro reads a tensor KL weight with
      ``float`` to compare scales.
    - "... was not registered in the param store": Pyro meets a frozen parameter, which is ordinary
      use here.

    All three are plain ``UserWarning``, raised without a flag that would turn them off; so the
    words are all that tells them from a user's own warnings. Where the words change, the warnings
    are shown and nothing else changes. Pyro's log is silenced as well.
    """
    with warnings.catch_warnings(), pyro_log_silenced():
        for words in (
            "Encountered (NaN|[+-]?inf)",
            "Converting a tensor with requires_grad=True",
            ".*was not registered in the param store",
        ):
            warnings.filterwarnings("ignore", message=words, category=UserWarning)
        yield
