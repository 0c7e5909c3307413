"""Real features of which cells are missing for reasons that depend on the cells' own values.

    z ~ Normal(0, I)                                             z: (latents,)
    m, v = decoder(z)                                            (features,) each, no units
    x ~ Normal(loc + scale m, sqrt(scale^2 exp(v) + floor^2))    x: (features,), data's units
    seen ~ Bernoulli(sigmoid(sign softplus(w) ((x - loc) / scale - b)))      seen: (features,)

Slopes w and thresholds b are learned; whether large or small cells go missing is given: no data
tell. Missing cells are the latent "missing", on which "seen" depends. Without the last statement of
``forward``, the model ignores why cells are missing; nothing else changes. ``impute`` fills cells.

Rows: vectors of real numbers, x; x is any number or NaN where ``seen`` is 0.

Source: Ipsen, Mattei & Frellsen (2021), sections 2 and 3, arXiv:2006.12871 (not-MIWAE).
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.nn import check_sizes, expanded, make_decoder


class NotMissingAtRandomModel(PyroModule):
    """p(x, seen, z). Plate "data"; latent sites "z", "missing"; observed sites "x", "seen".

    Args:
        features: Number of features in a row.
        latents: Size of the latent code z.
        decoder: Network (..., latents) -> (..., 2 features) that gives m and v, the mean and the
            log-variance without units; one hidden layer if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.
        floor: Least standard deviation, likewise; ``0.01 * scale`` if ``None``.
        sign: -1 if large cells go missing, 1 if small ones do.

    Example:
        >>> model = NotMissingAtRandomModel(features=3, latents=2)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(5, 3), torch.eye(5, 3))
        >>> trace.nodes["missing"]["value"].shape
        torch.Size([5, 3])
    """

    def __init__(
        self, features: int, latents: int = 8, decoder: nn.Module | None = None,
        loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
        floor: float | Tensor | None = None, sign: float = -1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(features=features, latents=latents)
        self.features, self.latents, self.sign = features, latents, sign
        self.decoder = decoder or make_decoder(latents, features, heads=2)
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        floor = 0.01 * self.get_buffer("scale") if floor is None else floor
        self.register_buffer("floor", expanded("floor", floor, features, least=0))
        if sign not in (-1, 1):
            raise ValueError(f"sign: expected -1 or 1, got {sign!r}")
        self.slope, self.threshold = (nn.Parameter(torch.zeros(features)) for _ in range(2))

    def cells(self, z: Tensor) -> dist.Normal:
        """Return p(x given z), each cell on its own: (..., rows, features)."""
        loc, scale, floor = (self.get_buffer(name) for name in ("loc", "scale", "floor"))
        mean, log_variance = self.decoder(z).chunk(2, -1)
        return dist.Normal(loc + scale * mean, (scale**2 * log_variance.exp() + floor**2).sqrt())

    def forward(self, x: Tensor, seen: Tensor) -> None:
        """Draw codes and missing cells, and score rows x and which are seen, (rows, features)."""
        there, loc = seen.bool(), self.get_buffer("loc")
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc.new_zeros(self.latents), 1.0).to_event(1))
            cells = self.cells(z)
            missing = pyro.sample("missing", cells.mask(~there).to_event(1))
            x = pyro.sample("x", cells.mask(there).to_event(1), obs=x.to(loc.dtype).nan_to_num())
            x = (torch.where(there, x, missing) - loc) / self.get_buffer("scale")
            logits = self.sign * softplus(self.slope) * (x - self.threshold)
            pyro.sample("seen", dist.Bernoulli(logits=logits).to_event(1), obs=seen.to(loc.dtype))
