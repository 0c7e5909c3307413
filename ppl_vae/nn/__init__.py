"""Networks for models and guides: (..., in) -> (..., out), so that particles may lead."""

from ppl_vae.nn.mlp import MLP
from ppl_vae.nn.scaling import Standardize

__all__ = ["MLP", "Standardize"]
