"""Networks for models and guides: each maps (..., inputs) to (..., outputs).

A network acts on the last dimension only, so any number of dimensions may lead: rows, particles,
the values of an enumerated latent.
"""

from ppl_vae.nn.mlp import MLP
from ppl_vae.nn.scaling import Standardize

__all__ = ["MLP", "Standardize"]
