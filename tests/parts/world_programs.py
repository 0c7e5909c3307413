"""What the processes of ``parts/worlds.py`` run. Each program runs on one process as well."""

import math
import os
import signal
import warnings

import pyro
import torch

from parts import pairs
from parts.worlds import checksum, rank, seed_by_rank, tell, weights_of
from ppl_vae import IWAE, fit, schedules
from ppl_vae.training import stepper

torch.set_num_threads(1)

QUICK = {"epochs": 3, "batch_size": 24, "shards": 4, "progress": False, "seed": 5}


def decaying(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


def by_plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)


FITS = {
    "Trace, eager": (pairs.gaussian, {"compile": False}),
    "Trace, traced": (pairs.gaussian, {}),
    "Trace, compiled": (
        pairs.gaussian,
        {"compile": True, "kl_weight": schedules.linear(4), "clip_norm": 1.0},
    ),
    "Graph": (pairs.sampled_class, {"compile": False}),
    "a network as baseline": (pairs.baseline, {}),
    "Enum": (pairs.mixture, {"scheduler": decaying, "validation": 0.3}),
    "IWAE": (pairs.bernoulli, {"elbo": IWAE(num_particles=3), "clip_norm": 0.5}),
    "a global latent": (pairs.with_global, {"scheduler": by_plateau}),
    "an autoguide": (pairs.with_autoguide, {"validation": 0.3, "patience": 2, "compile": False}),
    "batch normalization, eager": (pairs.batch_norm, {"compile": False}),
    "batch normalization, traced": (pairs.batch_norm, {"batch_size": 25}),
    "3 shards": (pairs.dropout, {"shards": 3, "batch_size": 23, "compile": False}),
    "no seed": (pairs.gaussian, {"seed": None, "compile": False}),
}
"""Fits of every kind, each with a ragged last batch: ``{name: (pair, arguments of fit)}``."""


def fitted(name, **more):
    """Fit one of ``FITS``; returns its checksum, its history and its kind of step."""
    make, options = FITS[name]
    pyro.clear_param_store()
    torch.manual_seed(0)
    model, guide, data = make()
    if rank():  # other initial weights than those of rank 0, which the fit must take
        seed_by_rank()
        model, guide, _ = make()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a gradient that could be less noisy
        history = fit(model, guide, data, **{**QUICK, **options, **more})
    numbers = history.frame.drop(columns="seconds").to_numpy()
    return [weights_of(model, guide), checksum(torch.tensor(numbers)), history.step, history.shards]


def all_fits(*names):
    stepper.TRACED_FROM = 1
    tell({name: fitted(name) for name in names or FITS})
