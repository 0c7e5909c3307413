"""Models and guides with a discrete latent, and the sizes that all small pairs share."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn

from ppl_vae.nn import MLP

ROWS, FEATURES, LATENTS, CLASSES = 40, 5, 2, 3


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


class Classes(PyroModule):
    """z ~ OneHotCategorical, x ~ Normal(decoder(z), 1)."""

    def __init__(self):
        super().__init__()
        self.decoder = MLP(CLASSES, FEATURES, hidden=(8,))
        self.prior = nn.Parameter(torch.zeros(CLASSES))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.OneHotCategorical(logits=self.prior))
            pyro.sample("x", normal(self.decoder(z)), obs=x)


class ClassesGuide(PyroModule):
    def __init__(self, **infer):
        super().__init__()
        self.infer = infer
        self.encoder = MLP(FEATURES, CLASSES, hidden=(8,))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.OneHotCategorical(logits=self.encoder(x)), infer=self.infer)


class Baselined(ClassesGuide):
    """A guide whose score function has a baseline, computed from the rows by a network."""

    def __init__(self):
        super().__init__()
        self.level = MLP(FEATURES, 1, hidden=(4,))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            how = {"nn_baseline": lambda x: self.level(x)[..., 0], "nn_baseline_input": x}
            fn = dist.OneHotCategorical(logits=self.encoder(x))
            pyro.sample("z", fn, infer={"baseline": how})


class Clusters(PyroModule):
    """k ~ Categorical, summed out; z | k ~ Normal; x | z ~ Normal."""

    def __init__(self):
        super().__init__()
        self.centers = nn.Parameter(torch.randn(CLASSES, LATENTS))
        self.decoder = MLP(LATENTS, FEATURES, hidden=(8,))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            chances = dist.Categorical(logits=x.new_zeros(CLASSES))
            k = pyro.sample("k", chances, infer={"enumerate": "parallel"})
            z = pyro.sample("z", normal(self.centers[k]))
            pyro.sample("x", normal(self.decoder(z)), obs=x)


class Labeled(PyroModule):
    """k ~ Categorical, z ~ Normal, x ~ Normal(decoder(z, k))."""

    def __init__(self):
        super().__init__()
        self.decoder = MLP(LATENTS + CLASSES, FEATURES, hidden=(8,))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.OneHotCategorical(logits=x.new_zeros(CLASSES)))
            z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
            shape = torch.broadcast_shapes(k.shape[:-1], z.shape[:-1])
            both = torch.cat([k.expand(*shape, CLASSES), z.expand(*shape, LATENTS)], -1)
            pyro.sample("x", normal(self.decoder(both)), obs=x)


class LabeledGuide(PyroModule):
    """An enumerated discrete latent, and a continuous latent that depends on it."""

    def __init__(self):
        super().__init__()
        self.chances = MLP(FEATURES, CLASSES, hidden=(8,))
        self.encoder = MLP(FEATURES + CLASSES, 2 * LATENTS, hidden=(8,))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            fn = dist.OneHotCategorical(logits=self.chances(x))
            k = pyro.sample("k", fn, infer={"enumerate": "parallel"})
            shape = (*k.shape[:-2], len(x))
            both = torch.cat([x.expand(*shape, FEATURES), k.expand(*shape, CLASSES)], -1)
            loc, log_scale = self.encoder(both).chunk(2, -1)
            pyro.sample("z", normal(loc, (0.3 * log_scale).exp()))
