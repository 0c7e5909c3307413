"""Networks for models and guides: each maps (..., inputs) to (..., outputs).

A network acts on the last dimension only, or on the last three of an image, so any number of
dimensions may lead: rows, particles, the values of an enumerated latent.
"""

from ppl_vae.nn.any_batch import AnyBatch
from ppl_vae.nn.checked import check_row, check_sizes, cholesky_factors, expanded, shaped
from ppl_vae.nn.condition import Condition, beside, seen_labels
from ppl_vae.nn.convolutions import ConvDecoder, ConvEncoder, ResidualBlock
from ppl_vae.nn.corruption import GaussianNoise, MaskingNoise, RandomAffine, SaltAndPepperNoise
from ppl_vae.nn.coupling import CouplingNetwork
from ppl_vae.nn.defaults import make_code_decoder, make_code_encoder, make_decoder, make_encoder
from ppl_vae.nn.flows import AutoregressiveFlow, PlanarFlow, SplineFlow, make_flow
from ppl_vae.nn.grids import GridDecoder, GridEncoder, places_of
from ppl_vae.nn.mlp import MLP
from ppl_vae.nn.partners import check_reads_rows, fields_read
from ppl_vae.nn.path_flows import PathFlow
from ppl_vae.nn.quantization import nearest_code, straight_through
from ppl_vae.nn.recurrent import GatedTransition, Recurrent, seen_cells, step_mask, turned
from ppl_vae.nn.row_keys import KnownRows, row_keys
from ppl_vae.nn.scaling import Standardize, spacing
from ppl_vae.nn.table_columns import (
    ColumnGroup,
    TableInputs,
    cells_there,
    column_groups,
    with_covariates,
)
from ppl_vae.nn.topics import TopicCounts, TopicMixture

__all__ = [
    "MLP",
    "AnyBatch",
    "AutoregressiveFlow",
    "ColumnGroup",
    "Condition",
    "ConvDecoder",
    "ConvEncoder",
    "CouplingNetwork",
    "GatedTransition",
    "GaussianNoise",
    "GridDecoder",
    "GridEncoder",
    "KnownRows",
    "MaskingNoise",
    "PathFlow",
    "PlanarFlow",
    "RandomAffine",
    "Recurrent",
    "ResidualBlock",
    "SaltAndPepperNoise",
    "SplineFlow",
    "Standardize",
    "TableInputs",
    "TopicCounts",
    "TopicMixture",
    "beside",
    "cells_there",
    "check_reads_rows",
    "check_row",
    "check_sizes",
    "cholesky_factors",
    "column_groups",
    "expanded",
    "fields_read",
    "make_code_decoder",
    "make_code_encoder",
    "make_decoder",
    "make_encoder",
    "make_flow",
    "nearest_code",
    "places_of",
    "row_keys",
    "seen_cells",
    "seen_labels",
    "shaped",
    "spacing",
    "step_mask",
    "straight_through",
    "turned",
    "with_covariates",
]
