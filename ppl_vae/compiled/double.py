"""A traced graph run in double precision, to see how far rounding moved its results.

The graph says which operations there are; their rounding in single precision is what parts two
programs that do the same operations in another order, or that contract products and sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from ppl_vae.compat import of_torch


class _InDouble(Interpreter):
    """Runs a graph node by node on numbers of double precision; draws are those of single."""

    def run_node(self, n: Node) -> Any:
        """Return the result of a node, in double precision where it is in single."""
        return of_torch.mapped(_doubled, super().run_node(n))

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation: a draw on single precision, so that it is the graph's own draw."""
        if of_torch.draws_random_numbers(target):
            args, kwargs = of_torch.mapped(_single, (args, kwargs))
        else:
            args, kwargs = of_torch.mapped(_double_dtype, (args, kwargs))
        return super().call_function(target, args, kwargs)


def run_in_double(module: GraphModule, *inputs: Tensor) -> list[Tensor]:
    """Return a graph's results in double precision, from inputs and draws of single precision.

    A drawn number that depends on a computed one, such as a category, may fall to another side of
    a limit than in single precision; the results then differ by more than rounding.

    Args:
        module: The graph.
        *inputs: Its inputs, which are left unchanged.

    Example:
        >>> from torch.fx.experimental.proxy_tensor import make_fx
        >>> module = make_fx(lambda x: [(x + 1e8) - x])(torch.ones(1))
        >>> [result] = run_in_double(module, torch.tensor([0.25]))
        >>> result.dtype, result.tolist()
        (torch.float64, [100000000.0])
    """
    results: list[Tensor] = _InDouble(module).run(
        *(of_torch.mapped(_doubled, t.clone()) for t in inputs)
    )
    return results


def _doubled(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.dtype == torch.float32 else value


def _single(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float64 else value


def _double_dtype(value: Any) -> Any:
    return torch.float64 if value == torch.float32 and isinstance(value, torch.dtype) else value
