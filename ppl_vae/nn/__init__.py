"""Networks for models and guides: each maps (..., inputs) to (..., outputs).

A network acts on the last dimension only, or on the last three of an image, so any number of
dimensions may lead: rows, particles, the values of an enumerated latent.
"""

from ppl_vae.nn.any_batch import AnyBatch
from ppl_vae.nn.checked import check_row, check_sizes, expanded
from ppl_vae.nn.condition import Condition
from ppl_vae.nn.convolutions import ConvDecoder, ConvEncoder, ResidualBlock
from ppl_vae.nn.corruption import GaussianNoise, MaskingNoise, SaltAndPepperNoise
from ppl_vae.nn.coupling import CouplingNetwork
from ppl_vae.nn.defaults import make_decoder, make_encoder
from ppl_vae.nn.flows import AutoregressiveFlow, PlanarFlow, SplineFlow, make_flow
from ppl_vae.nn.mlp import MLP
from ppl_vae.nn.partners import check_reads_rows, fields_read
from ppl_vae.nn.path_flows import PathFlow
from ppl_vae.nn.recurrent import GatedTransition, Recurrent, seen_cells, step_mask, turned
from ppl_vae.nn.row_keys import KnownRows, row_keys
from ppl_vae.nn.scaling import Standardize, spacing
from ppl_vae.nn.topics import TopicCounts, TopicMixture

__all__ = [
    "MLP",
    "AnyBatch",
    "AutoregressiveFlow",
    "Condition",
    "ConvDecoder",
    "ConvEncoder",
    "CouplingNetwork",
    "GatedTransition",
    "GaussianNoise",
    "KnownRows",
    "MaskingNoise",
    "PathFlow",
    "PlanarFlow",
    "Recurrent",
    "ResidualBlock",
    "SaltAndPepperNoise",
    "SplineFlow",
    "Standardize",
    "TopicCounts",
    "TopicMixture",
    "check_reads_rows",
    "check_row",
    "check_sizes",
    "expanded",
    "fields_read",
    "make_decoder",
    "make_encoder",
    "make_flow",
    "row_keys",
    "seen_cells",
    "spacing",
    "step_mask",
    "turned",
]
