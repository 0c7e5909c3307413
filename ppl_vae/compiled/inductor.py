"""A function of tensors, compiled by torch's inductor into fused kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ppl_vae.compat import compile_with_inductor, decompositions, inductor_silenced
from ppl_vae.compiled.tracing import forget_values, sink_expands

# Operations that are taken apart into simpler ones before expands are sunk: the part that depends
# on a broadcast input alone is then computed once, not for every copy.
_TAKEN_APART = [torch.ops.aten.binary_cross_entropy_with_logits, torch.ops.aten.log_sigmoid_forward]


def compile_graph(
    function: Callable[..., list[Tensor]], state: list[Tensor], inputs: list[Tensor]
) -> Callable[..., list[Tensor]]:
    """Return a function of tensors compiled by inductor, which draws as the function itself draws.

    Inductor is called directly, without ``torch.compile``. ``torch.compile`` would put dynamo in
    front: dynamo reads Python bytecode to find the operations, and checks at every call that shapes
    and globals are what they were. The function here is one flat sequence of operations already
    (``make_fx`` records it once more, together with the optimizer's update), its shapes are fixed
    by the caller, and there is nothing left to check, so a call costs the kernels and little more.

    Two options matter. ``fallback_random`` makes torch's own generators draw, so that the compiled
    function draws the same numbers as the traced one from one seed; inductor's own generator would
    be another stream, and the comparison with the eager step would be impossible.
    ``cpp_wrapper`` writes the code between the kernels in C++ (on a CPU); elsewhere CUDA graphs
    take the place of that code.

    The function runs once on copies of the state before it is returned, so that a compiler that
    fails at its first call fails here.

    Args:
        function: Takes ``state`` then ``inputs``; returns a list of tensors. It may change the
            state in place.
        state: Tensors that the function may change; copies of them are used here.
        inputs: Tensors that the function only reads.

    Raises:
        Exception: Whatever stops inductor, for example a missing C++ compiler.
    """
    on_cpu = (state or inputs)[0].device.type == "cpu"
    examples = [*(tensor.detach().clone() for tensor in state), *inputs]
    options: dict[str, Any] = {"fallback_random": True}
    options["cpp_wrapper" if on_cpu else "triton.cudagraphs"] = True
    with inductor_silenced():
        table = decompositions(_TAKEN_APART)
        module = make_fx(function, decomposition_table=table)(*examples)
        sink_expands(module)
        forget_values(module)
        compiled = compile_with_inductor(module, examples, options)
        compiled(*examples)
    return compiled
