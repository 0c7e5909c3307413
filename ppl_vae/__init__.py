"""Deep latent-variable models written as Pyro model/guide pairs.

You write the generative model and the amortized guide as ordinary Pyro code; ``fit`` trains the
pair by stochastic variational inference; ``lint``, ``log_likelihood`` and ``predictive_check`` say
what is wrong with the pair, how good the fit is, and where the model differs from the data.

``import ppl_vae`` loads neither torch nor Pyro. A public name is imported from its file when the
name is first used. To add a public name, add its import below; nothing else here changes.
"""

import ast
import importlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_vae.compat.after_import import after_import

if TYPE_CHECKING:
    from ppl_vae.anomaly.detector import AnomalyDetector as AnomalyDetector
    from ppl_vae.anomaly.fitted_detector import fit_detector as fit_detector
    from ppl_vae.anomaly.scorer import Scorer as Scorer
    from ppl_vae.anomaly.scores import anomaly_scores as anomaly_scores
    from ppl_vae.arviz import to_arviz as to_arviz
    from ppl_vae.checks.predictive_checks import PredictiveCheck as PredictiveCheck
    from ppl_vae.checks.predictive_checks import predictive_check as predictive_check
    from ppl_vae.checks.privacy import PrivacyCheck as PrivacyCheck
    from ppl_vae.checks.privacy import privacy_check as privacy_check
    from ppl_vae.core.pair import Guide as Guide
    from ppl_vae.core.pair import Model as Model
    from ppl_vae.core.world import alone as alone
    from ppl_vae.data.annotated import from_anndata as from_anndata
    from ppl_vae.data.files import read_data as read_data
    from ppl_vae.data.mixed_tables import Table as Table
    from ppl_vae.data.mixed_tables import table as table
    from ppl_vae.data.rows import Data as Data
    from ppl_vae.data.schema import Schema as Schema
    from ppl_vae.data.sequences import sequences as sequences
    from ppl_vae.elbo.bounds import IWAE as IWAE
    from ppl_vae.elbo.bounds import RowELBO as RowELBO
    from ppl_vae.elbo.fivo import FIVO as FIVO
    from ppl_vae.elbo.refinement import refine as refine
    from ppl_vae.evaluation.calibration_table import GuideCalibration as GuideCalibration
    from ppl_vae.evaluation.compare import compare as compare
    from ppl_vae.evaluation.comparison import Comparison as Comparison
    from ppl_vae.evaluation.estimator_table import GradientEstimators as GradientEstimators
    from ppl_vae.evaluation.gradient_estimators import gradient_estimators as gradient_estimators
    from ppl_vae.evaluation.guide_calibration import guide_calibration as guide_calibration
    from ppl_vae.evaluation.inference_gap import InferenceGap as InferenceGap
    from ppl_vae.evaluation.inference_gap import inference_gap as inference_gap
    from ppl_vae.evaluation.likelihood import elbo_terms as elbo_terms
    from ppl_vae.evaluation.likelihood import log_likelihood as log_likelihood
    from ppl_vae.imputation.imputation import Imputation as Imputation
    from ppl_vae.imputation.imputation import impute as impute
    from ppl_vae.latents.codes import encode as encode
    from ppl_vae.latents.codes import generate as generate
    from ppl_vae.latents.codes import reconstruct as reconstruct
    from ppl_vae.latents.disentanglement import Disentanglement as Disentanglement
    from ppl_vae.latents.disentanglement import disentanglement as disentanglement
    from ppl_vae.latents.traversals import interpolate as interpolate
    from ppl_vae.latents.traversals import traverse as traverse
    from ppl_vae.latents.usage import LatentUsage as LatentUsage
    from ppl_vae.latents.usage import latent_usage as latent_usage
    from ppl_vae.linting.linter import Lint as Lint
    from ppl_vae.linting.linter import lint as lint
    from ppl_vae.predictive.draws import posterior_predictive as posterior_predictive
    from ppl_vae.predictive.draws import prior_predictive as prior_predictive
    from ppl_vae.predictive.forecasts import forecast as forecast
    from ppl_vae.report.page import write_report as write_report
    from ppl_vae.saving.loading import load as load
    from ppl_vae.saving.runs import save as save
    from ppl_vae.training.history import History as History
    from ppl_vae.training.svi import fit as fit
    from ppl_vae.zoo.build import build as build


def _modules_of_public_names() -> dict[str, str]:
    """Map each public name to the module that defines it, as ``{"fit": "ppl_vae.training.svi"}``.

    Type checkers and editors read the imports under ``TYPE_CHECKING`` above, but Python skips
    them, because they would load torch. The same imports serve here as the table of public
    names: this function parses the file's own text and collects them. So each name stands in one
    place only. The function relies on two facts: the source file is installed, which the zoo of
    models needs as well, and the file has exactly one ``if`` statement at its top level.
    """
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    (only_if,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in only_if.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


# torch modules record the arguments of their constructors from here on, for ``save`` and ``load``
after_import("torch", lambda: importlib.import_module("ppl_vae.saving.construction"))

_MODULES = _modules_of_public_names()
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name from its module at its first use; Python calls this (PEP 562).

    Example:
        >>> import ppl_vae
        >>> ppl_vae.__version__.count(".")
        2
    """
    if name == "__version__":  # the version in pyproject.toml, as it was installed
        return importlib.metadata.version("ppl-vae")
    if name not in _MODULES:
        raise AttributeError(f"module 'ppl_vae' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """List the public names, also those that have not been imported yet."""
    return sorted(_MODULES)
