"""Distributions for models and guides, and families whose parameters come from networks."""

from ppl_vae.distributions.additions import (
    CenteredUniform,
    ContinuousBernoulli,
    MixtureSameFamily,
    PaddedCategorical,
    RoundedLogistic,
)
from ppl_vae.distributions.code import code_distribution
from ppl_vae.distributions.families import find_family, parameter_transforms, positive_transform

__all__ = [
    "CenteredUniform",
    "ContinuousBernoulli",
    "MixtureSameFamily",
    "PaddedCategorical",
    "RoundedLogistic",
    "code_distribution",
    "find_family",
    "parameter_transforms",
    "positive_transform",
]
