"""Distributions for models and guides, and families whose parameters come from networks."""

from ppl_vae.distributions.additions import (
    CenteredUniform,
    ContinuousBernoulli,
    MixtureSameFamily,
    PaddedCategorical,
    RoundedLogistic,
)
from ppl_vae.distributions.autoregressive import AutoregressiveCategorical
from ppl_vae.distributions.code import code_distribution, code_mean
from ppl_vae.distributions.discrete import (
    BernoulliVector,
    CategoricalVector,
    RelaxedBernoulliVector,
    RelaxedCategoricalVector,
)
from ppl_vae.distributions.families import find_family, parameter_transforms, positive_transform
from ppl_vae.distributions.labels import Label, Taught
from ppl_vae.distributions.linear_gaussian import kalman_log_prob
from ppl_vae.distributions.markov import MarkovPath
from ppl_vae.distributions.mixed import WholeLogistic, WithAtoms
from ppl_vae.distributions.multinomial import Multinomial
from ppl_vae.distributions.simplex import SoftmaxNormal

__all__ = [
    "AutoregressiveCategorical",
    "BernoulliVector",
    "CategoricalVector",
    "CenteredUniform",
    "ContinuousBernoulli",
    "Label",
    "MarkovPath",
    "MixtureSameFamily",
    "Multinomial",
    "PaddedCategorical",
    "RelaxedBernoulliVector",
    "RelaxedCategoricalVector",
    "RoundedLogistic",
    "SoftmaxNormal",
    "Taught",
    "WholeLogistic",
    "WithAtoms",
    "code_distribution",
    "code_mean",
    "find_family",
    "kalman_log_prob",
    "parameter_transforms",
    "positive_transform",
]
