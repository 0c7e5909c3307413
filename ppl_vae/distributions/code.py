"""The distribution of a code that another guide gives, for a prior that is made of it."""

from typing import Any

from pyro.distributions import Delta
from pyro.poutine.trace_struct import Trace


def code_mean(trace: Trace, latents: int) -> Any:
    """Return the mean of the code at the site "z" of a guide's trace, (rows, latents).

    Args:
        trace: A trace of the guide.
        latents: Size of the latent code z in the model.

    Raises:
        ValueError: If the guide has no site "z", draws a point, a code of another size, or from a
            distribution without a mean in closed form.

    Example:
        >>> import pyro
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> trace = pyro.poutine.trace(NormalGuide(4, latents=2)).get_trace(torch.zeros(5, 4))
        >>> code_mean(trace, latents=2).shape
        torch.Size([5, 2])
    """
    code = code_distribution(trace, latents)
    try:
        return code.mean
    except NotImplementedError as error:
        raise ValueError(
            f"guide: expected a distribution at z whose mean is known, got {type(code).__name__}; "
            "use another guide, such as NormalGuide"
        ) from error


def code_distribution(trace: Trace, latents: int) -> Any:
    """Return the distribution at the site "z" of a guide's trace: batch (rows,), event (latents,).

    Args:
        trace: A trace of the guide.
        latents: Size of the latent code z in the model.

    Raises:
        ValueError: If the guide has no site "z", draws a point, or a code of another size.

    Example:
        >>> import pyro
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> trace = pyro.poutine.trace(NormalGuide(4, latents=2)).get_trace(torch.zeros(5, 4))
        >>> code = code_distribution(trace, latents=2)
        >>> code.batch_shape, code.event_shape
        (torch.Size([5]), torch.Size([2]))
    """
    if "z" not in trace.nodes:
        raise ValueError(
            f"guide: expected a latent site z, got the sites {trace.stochastic_nodes}; use a guide "
            "that draws z"
        )
    code: Any = trace.nodes["z"]["fn"]
    if isinstance(code, Delta):
        raise ValueError("guide: expected a distribution at z, got a point; use another guide")
    if tuple(code.event_shape) != (latents,):
        size = ", ".join(str(number) for number in code.event_shape)
        raise ValueError(
            f"latents: expected {size}, the size of the guide's code, got {latents} in the model; "
            "build model and guide with the same latents="
        )
    return code
