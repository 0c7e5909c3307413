"""Deep latent-variable models written as Pyro model/guide pairs.

Write the generative model and the amortized guide as ordinary Pyro code; ``fit`` trains the pair
by stochastic variational inference. Names are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppl_vae.arviz import to_arviz as to_arviz
    from ppl_vae.bounds import IWAE as IWAE
    from ppl_vae.bounds import RowELBO as RowELBO
    from ppl_vae.checks import PredictiveCheck as PredictiveCheck
    from ppl_vae.checks import predictive_check as predictive_check
    from ppl_vae.history import History as History
    from ppl_vae.latents import encode as encode
    from ppl_vae.latents import generate as generate
    from ppl_vae.latents import reconstruct as reconstruct
    from ppl_vae.likelihood import elbo_terms as elbo_terms
    from ppl_vae.likelihood import log_likelihood as log_likelihood
    from ppl_vae.linter import Lint as Lint
    from ppl_vae.linter import lint as lint
    from ppl_vae.predictive import posterior_predictive as posterior_predictive
    from ppl_vae.predictive import prior_predictive as prior_predictive
    from ppl_vae.recipe import build as build
    from ppl_vae.report import write_report as write_report
    from ppl_vae.runs import load as load
    from ppl_vae.runs import save as save
    from ppl_vae.training import fit as fit
    from ppl_vae.traversals import interpolate as interpolate
    from ppl_vae.traversals import traverse as traverse

_HOME = {
    "History": "history",
    "IWAE": "bounds",
    "Lint": "linter",
    "PredictiveCheck": "checks",
    "RowELBO": "bounds",
    "build": "recipe",
    "elbo_terms": "likelihood",
    "encode": "latents",
    "fit": "training",
    "generate": "latents",
    "interpolate": "traversals",
    "lint": "linter",
    "load": "runs",
    "log_likelihood": "likelihood",
    "posterior_predictive": "predictive",
    "predictive_check": "checks",
    "prior_predictive": "predictive",
    "reconstruct": "latents",
    "save": "runs",
    "to_arviz": "arviz",
    "traverse": "traversals",
    "write_report": "report",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ppl_vae' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ppl_vae.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
