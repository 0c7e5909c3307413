"""Deep latent-variable models written as Pyro model/guide pairs.

You write the generative model and the amortized guide as ordinary Pyro code; ``fit`` trains the
pair by stochastic variational inference; ``lint``, ``log_likelihood`` and ``predictive_check`` say
what is wrong with the pair, how good the fit is, and where the model differs from the data.

A public name is loaded when it is first used, so that ``import ppl_vae`` loads neither torch nor
Pyro. ``_HOME`` says in which file each name lives.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppl_vae.arviz import to_arviz as to_arviz
    from ppl_vae.checks.predictive_checks import PredictiveCheck as PredictiveCheck
    from ppl_vae.checks.predictive_checks import predictive_check as predictive_check
    from ppl_vae.core.pair import Guide as Guide
    from ppl_vae.core.pair import Model as Model
    from ppl_vae.data.files import read_data as read_data
    from ppl_vae.data.rows import Data as Data
    from ppl_vae.elbo.bounds import IWAE as IWAE
    from ppl_vae.elbo.bounds import RowELBO as RowELBO
    from ppl_vae.evaluation.likelihood import elbo_terms as elbo_terms
    from ppl_vae.evaluation.likelihood import log_likelihood as log_likelihood
    from ppl_vae.latents.codes import encode as encode
    from ppl_vae.latents.codes import generate as generate
    from ppl_vae.latents.codes import reconstruct as reconstruct
    from ppl_vae.latents.traversals import interpolate as interpolate
    from ppl_vae.latents.traversals import traverse as traverse
    from ppl_vae.linting.linter import Lint as Lint
    from ppl_vae.linting.linter import lint as lint
    from ppl_vae.predictive.draws import posterior_predictive as posterior_predictive
    from ppl_vae.predictive.draws import prior_predictive as prior_predictive
    from ppl_vae.report.page import write_report as write_report
    from ppl_vae.saving.runs import load as load
    from ppl_vae.saving.runs import save as save
    from ppl_vae.training.history import History as History
    from ppl_vae.training.svi import fit as fit
    from ppl_vae.zoo.build import build as build

_HOME = {
    "Data": "data.rows",
    "Guide": "core.pair",
    "History": "training.history",
    "IWAE": "elbo.bounds",
    "Lint": "linting.linter",
    "Model": "core.pair",
    "PredictiveCheck": "checks.predictive_checks",
    "RowELBO": "elbo.bounds",
    "build": "zoo.build",
    "elbo_terms": "evaluation.likelihood",
    "encode": "latents.codes",
    "fit": "training.svi",
    "generate": "latents.codes",
    "interpolate": "latents.traversals",
    "lint": "linting.linter",
    "load": "saving.runs",
    "log_likelihood": "evaluation.likelihood",
    "posterior_predictive": "predictive.draws",
    "predictive_check": "checks.predictive_checks",
    "prior_predictive": "predictive.draws",
    "read_data": "data.files",
    "reconstruct": "latents.codes",
    "save": "saving.runs",
    "to_arviz": "arviz",
    "traverse": "latents.traversals",
    "write_report": "report.page",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ppl_vae' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ppl_vae.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
