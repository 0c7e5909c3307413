"""Private names of Pyro, and its warnings and log: what is expected of each."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from types import ModuleType
from typing import Any, cast

from pyro.infer import traceenum_elbo
from pyro.infer.util import Dice
from pyro.nn import PyroModule
from pyro.ops.einsum.adjoint import require_backward
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions.constraints import Constraint

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


def modules_of_elbos(name: str) -> list[ModuleType]:
    """Return the loaded modules of Pyro's ELBOs that hold a function under a name.

    They are in ``pyro.infer`` and in ``pyro.contrib``. A function that a module has imported by
    name (``from pyro.util import warn_if_nan``) has to be replaced in that module. Expected names:
    ``torch_item``, which reads a loss as a number, and ``warn_if_nan``, which reads a loss to warn.
    """
    packages = ["pyro", "infer"], ["pyro", "contrib"]
    modules = [m for n, m in list(sys.modules.items()) if n.split(".")[:2] in packages]
    return [module for module in modules if name in vars(module)]


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


def enumerated_elbo(model_trace: Trace, guide_trace: Trace) -> Any:
    """Return the ELBO of one particle under ``TraceEnum_ELBO``, a scalar or a number.

    ``TraceEnum_ELBO.loss`` reads this tensor as a number. Expected:
    ``traceenum_elbo._compute_dice_elbo(model_trace, guide_trace)``.
    """
    return traceenum_elbo._compute_dice_elbo(model_trace, guide_trace)


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


MODEL_OF_GUIDE = "_model"
"""Name of the attribute in which an effect-based guide holds its model.

Expected: ``GuideMessenger._model``, a tuple with the model alone; ``GuideMessenger.model`` reads it
at each call. Where Pyro names it otherwise, such a guide runs its model in the guide's own store.
"""


# Warnings without a category of their own, and lines of a log


@contextlib.contextmanager
def pyro_log_silenced() -> Iterator[None]:
    """Run the block without what Pyro's ELBOs report of their work, such as the plates they found.

    Expected: the logger ``pyro.infer.elbo``, whose lines of level INFO Pyro prints to stderr. Where
    the logger has another name, the lines are shown and nothing else changes.

    A filter is set and not the level: a change of level makes Python empty a table of every logger
    of the process, and torch has hundreds.
    """

    def is_warning(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    logger = logging.getLogger("pyro.infer.elbo")
    logger.addFilter(is_warning)
    try:
        yield
    finally:
        logger.removeFilter(is_warning)


@contextlib.contextmanager
def pyro_remarks_silenced() -> Iterator[None]:
    """Run a fit without warnings of Pyro and torch that say nothing new to its user.

    - "Encountered NaN" and its kin: ``fit`` raises an error for a loss that is not finite, and the
      error names the site and the row.
    - "Converting a tensor with requires_grad=True to a scalar": Pyro reads a tensor KL weight with
      ``float`` to compare scales.
    - "... was not registered in the param store": Pyro meets a frozen parameter, which is ordinary
      use here.

    - "Found plate statements in guide but not model" and its kin, "TraceEnum_ELBO found no sample
      sites configured for enumeration": ``lint`` makes a finding of each, which ``fit`` repeats
      once before it starts.

    All are plain ``UserWarning``, raised without a flag that would turn them off; so the
    words are all that tells them from a user's own warnings. Where the words change, the warnings
    are shown and nothing else changes. Pyro's log is silenced as well.
    """
    with warnings.catch_warnings(), pyro_log_silenced():
        for words in (
            "Encountered (NaN|[+-]?inf)",
            "Converting a tensor with requires_grad=True",
            ".*was not registered in the param store",
            "Found (auxiliary vars|vars in model|non-auxiliary vars|plate statements)",
            "TraceEnum_ELBO found no sample sites configured for enumeration",
        ):
            warnings.filterwarnings("ignore", message=words, category=UserWarning)
        yield
