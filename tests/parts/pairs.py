"""Small pairs of many kinds: each function makes a new (model, guide, data)."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints

from parts.discrete import (
    CLASSES,
    FEATURES,
    LATENTS,
    ROWS,
    Baselined,
    Classes,
    ClassesGuide,
    Clusters,
    Labeled,
    LabeledGuide,
    normal,
)  # fmt: skip
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP


def reals(seed=0, features=FEATURES):
    return torch.randn(ROWS, features, generator=torch.Generator().manual_seed(seed))


def bits(seed=0):
    return (reals(seed) > 0).to(torch.get_default_dtype())


def counts(seed=0):
    return reals(seed).abs().mul(3).round()


class Model(PyroModule):
    """z ~ Normal(0, I), x ~ likelihood(decoder(z)); subclasses change the methods."""

    def __init__(self, outputs=FEATURES):
        super().__init__()
        self.decoder = MLP(LATENTS, outputs, hidden=(8,))

    def likelihood(self, out):
        return normal(out, 0.5)

    def code(self, x):
        return pyro.sample("z", normal(x.new_zeros(LATENTS)))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", self.likelihood(self.decoder(self.code(x))), obs=x)


class Guide(PyroModule):
    """z ~ Normal(m(x), exp(s(x)))."""

    def __init__(self, encoder=None):
        super().__init__()
        self.encoder = encoder or MLP(FEATURES, 2 * LATENTS, hidden=(8,))

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(loc, (0.3 * log_scale).exp()))


def bernoulli():
    return BernoulliModel(FEATURES, LATENTS), NormalGuide(FEATURES, LATENTS), bits()


def gaussian():
    return Model(), Guide(), reals()


def sampled_class():
    return Classes(), ClassesGuide(), reals()


def baseline():
    return Classes(), Baselined(), reals()


def enumerated_in_the_guide():
    return Classes(), ClassesGuide(enumerate="parallel"), reals()


def enumerated_in_the_model():
    return Clusters(), Guide(), reals()


def mixture():
    return Labeled(), LabeledGuide(), reals()


def with_global(guide=None):
    """A latent outside the row plate."""

    def model(x):
        loc = pyro.sample("loc", normal(torch.zeros(FEATURES), 3.0))
        scale = pyro.param("scale", torch.ones(FEATURES), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(loc, scale), obs=x)

    def by_hand(x):
        loc = pyro.param("m", torch.zeros(FEATURES))
        scale = pyro.param("s", torch.full((FEATURES,), 0.3), constraint=constraints.positive)
        pyro.sample("loc", normal(loc, scale))

    return model, (AutoNormal(model) if guide == "auto" else by_hand), reals()


def with_autoguide():
    return with_global("auto")


class Constrained(Model):
    """A learned noise scale under a constraint."""

    def __init__(self):
        super().__init__()
        self.noise = PyroParam(torch.full((FEATURES,), 0.7), constraint=constraints.positive)

    def likelihood(self, out):
        return normal(out, self.noise)


def pyro_param():
    return Constrained(), Guide(), reals()


def functions():
    """Plain functions that register their networks, as Pyro's own examples do."""
    decoder, encoder = MLP(LATENTS, FEATURES, (8,)), MLP(FEATURES, LATENTS, (8,))

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
            pyro.sample("x", normal(decoder(z)), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        scale = pyro.param("scale", torch.full((LATENTS,), 0.4), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(encoder(x), scale))

    return model, guide, reals()


def layered(*layers):
    return nn.Sequential(nn.Linear(FEATURES, 8), *layers, nn.Tanh(), nn.Linear(8, 2 * LATENTS))


def dropout():
    model = Model()
    model.decoder = nn.Sequential(nn.Dropout(0.3), model.decoder)
    return model, Guide(layered(nn.Dropout(0.2))), reals()


def batch_norm():
    return Model(), Guide(layered(nn.BatchNorm1d(8))), reals()


class Gaps(Model):
    """Missing cells, by ``poutine.mask`` and ``.mask`` or by ``obs_mask``."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x, seen):
        with pyro.plate("data", len(x)):
            out = self.decoder(self.code(x))
            if self.how == "obs_mask":
                pyro.sample("x", normal(out), obs=x, obs_mask=seen[:, 0])
            else:
                with pyro.poutine.mask(mask=seen[:, 0]):
                    pyro.sample("x", dist.Normal(out, 1.0).mask(seen).to_event(1), obs=x)


class GapsGuide(Guide):
    def forward(self, x, seen):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(loc, (0.3 * log_scale).exp()))
            if self.how == "obs_mask":
                with pyro.poutine.mask(mask=~seen[:, 0]):
                    pyro.sample("x_unobserved", normal(x.new_zeros(FEATURES), 1.0))


def masked(how="mask"):
    guide = GapsGuide()
    guide.how = how
    return Gaps(how), guide, {"x": reals(), "seen": reals(1) > -0.5}


def obs_masked():
    return masked("obs_mask")


class Two(Model):
    """Two observed sites; the guide reads a field that the model does not."""

    def __init__(self):
        super().__init__()
        self.labels = MLP(LATENTS, CLASSES, (8,))

    def forward(self, x, label):
        with pyro.plate("data", len(x)):
            z = self.code(x)
            pyro.sample("x", normal(self.decoder(z)), obs=x)
            pyro.sample("label", dist.Categorical(logits=self.labels(z)), obs=label)


class Reads(Guide):
    def forward(self, x, label=None, extra=None):
        loc, log_scale = (self.encoder(x) + (label if extra is None else extra)[:, None]).chunk(
            2, -1
        )
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(loc, (0.3 * log_scale).exp()))


class ReadsExtra(Reads):
    def forward(self, x, extra):
        return super().forward(x, extra=extra)


def mapping():
    label = torch.arange(ROWS) % CLASSES
    return Two(), ReadsExtra(), {"extra": reals(2)[:, 0], "label": label, "x": reals()}


def in_a_tuple():
    return Two(), Reads(), (reals(), torch.arange(ROWS) % CLASSES)


def integers():
    model, guide, x = bernoulli()
    return model, guide, x.long()


def mapped(path):
    """Doubles in a memory map: gathered outside the traced step, cast to the default dtype."""
    array = np.memmap(path, np.float64, "w+", shape=(ROWS, FEATURES))
    array[:] = reals().numpy()
    return Model(), Guide(), array


class Likely(Model):
    """A likelihood whose parameters are positive functions of the decoder's output."""

    def __init__(self, likelihood, numbers=1):
        super().__init__(numbers * FEATURES)
        self.make, self.numbers = likelihood, numbers

    def likelihood(self, out):
        return self.make(*(0.1 + out.exp()).chunk(self.numbers, -1)).to_event(1)


def poisson():
    return Likely(dist.Poisson), Guide(), counts()


def gamma():
    return Likely(dist.Gamma, 2), Guide(), reals().exp()


def beta():
    return Likely(dist.Beta, 2), Guide(), reals().sigmoid()


class GammaCode(Model):
    """z ~ Gamma(2, 2), reparameterized by torch's implicit gradient."""

    def code(self, x):
        return pyro.sample("z", dist.Gamma(x.new_full((LATENTS,), 2.0), 2.0).to_event(1))


class GammaGuide(Guide):
    def forward(self, x):
        shape, rate = self.encoder(x).exp().chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(shape + 0.3, rate).to_event(1))


def gamma_latent():
    return GammaCode(), GammaGuide(), reals()


class Deep(PyroModule):
    """w ~ Normal, z | w ~ Normal, x | z ~ Normal."""

    def __init__(self):
        super().__init__()
        self.middle, self.decoder = MLP(LATENTS, LATENTS, (8,)), MLP(LATENTS, FEATURES, (8,))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", normal(x.new_zeros(LATENTS)))
            z = pyro.sample("z", normal(self.middle(w)))
            pyro.sample("x", normal(self.decoder(z)), obs=x)


class BottomUp(Guide):
    """Draws z given the row, then w given z."""

    def __init__(self):
        super().__init__()
        self.up = MLP(LATENTS, LATENTS, (8,))

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(loc, (0.3 * log_scale).exp()))
            pyro.sample("w", normal(self.up(z), 0.7))


def hierarchy():
    return Deep(), BottomUp(), reals()


MAKERS = (
    bernoulli, gaussian, sampled_class, baseline, enumerated_in_the_guide, enumerated_in_the_model,
    mixture, with_global, with_autoguide, pyro_param, functions, dropout, batch_norm, masked,
    obs_masked, mapping, in_a_tuple, integers, poisson, gamma, beta, gamma_latent, hierarchy,
)  # fmt: skip
PAIRS = {make.__name__: make for make in MAKERS}


def made(make, seed=0):
    """Make a pair and its data, equal at every call."""
    torch.default_generator.manual_seed(seed)
    return make()
