"""A function of tensors compiled by torch's inductor: kernels fused, Python gone from the call."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from ppl_vae.compiled.tracing import forget_values, sink_expands

# Taken apart, so that what they compute of a broadcast input is computed once
_ELEMENTWISE = [
    torch.ops.aten.binary_cross_entropy_with_logits,
    torch.ops.aten.log_sigmoid_forward,
]


def compile_graph(
    function: Callable[..., list[Tensor]], state: list[Tensor], inputs: list[Tensor]
) -> Callable[..., list[Tensor]]:
    """A function of tensors through inductor, with eager's random draws.

    Around the kernels there is generated C++ on a CPU, and CUDA graphs elsewhere.

    Args:
        function: Operations on state and inputs.
        state: Tensors that it may change.
        inputs: Tensors that it only reads.

    Raises:
        Exception: Whatever stops inductor.
    """
    on_cpu = (state or inputs)[0].device.type == "cpu"
    examples = [*(tensor.detach().clone() for tensor in state), *inputs]
    options: dict[str, Any] = {"fallback_random": True}
    options["cpp_wrapper" if on_cpu else "triton.cudagraphs"] = True
    with _quietly():
        apart: Any = get_decompositions(_ELEMENTWISE)
        module = make_fx(function, decomposition_table=apart)(*examples)
        sink_expands(module)
        forget_values(module)
        given: list[Any] = examples
        made: Callable[..., list[Tensor]] = torch._inductor.standalone_compile(
            module,
            given,
            dynamic_shapes="from_example_inputs",
            options={"config_patches": options},
        )
        made(*examples)
    return made


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the compiler's remarks on its own work."""
    logger = logging.getLogger("torch._inductor")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
