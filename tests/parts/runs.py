"""A small pair, its data and its fit, which the tests of run directories share."""

import textwrap

import pandas as pd
import torch
from torch.optim import lr_scheduler

from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP
from ppl_vae.schedules import linear
from ppl_vae.zoo.catalog import find_class

X = torch.rand(300, 12, generator=torch.Generator().manual_seed(0)).bernoulli()
SETTINGS = {
    "validation": 0.2,
    "epochs": 5,
    "batch_size": 48,
    "progress": False,
    "patience": 4,
    "clip_norm": 50.0,
    "kl_weight": linear(20),
    "scheduler": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
}


def pair():
    """A model with dropout and its guide, with the same initial weights at each call."""
    torch.default_generator.manual_seed(0)
    dropout = torch.nn.Sequential(torch.nn.Dropout(0.2), MLP(3, 12, (16,)))
    return BernoulliModel(12, 3, dropout), NormalGuide(12, 3, MLP(12, 6, (16,)))


def outcome(model, guide, history):
    """Weights and history of a fit, to compare by ``same``."""
    weights = [*model.state_dict().values(), *guide.state_dict().values()]
    return [w.clone() for w in weights], history.frame.drop(columns="seconds")


def same(left, right):
    """Whether two outcomes agree bit for bit, but for the seconds."""
    pd.testing.assert_frame_equal(left[1], right[1], check_exact=True)
    return all(torch.equal(a, b) for a, b in zip(left[0], right[0], strict=True))


USERS_FILE = """
import pyro, pyro.distributions as dist, torch
from pyro.nn import PyroModule
__import__("pathlib").Path({flag!r}).write_text("executed")

class Mine(PyroModule):
    def __init__(self, features):
        super().__init__()
        self.features = features
        self.logits = torch.nn.Parameter(torch.zeros(features))
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=self.logits).to_event(1), obs=x)
"""


def users_class(path, flag):
    """A model class in a user's file, which writes the file ``flag`` when it is executed."""
    path.write_text(textwrap.dedent(USERS_FILE.format(flag=str(flag))))
    return find_class(f"{path}:Mine", "models")
