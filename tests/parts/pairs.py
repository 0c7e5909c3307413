"""Pairs of many kinds, small: (model, guide, data) each, made anew at every call."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints

from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP

ROWS, FEATURES, LATENTS, CLASSES = 40, 5, 2, 3


def reals(seed=0, features=FEATURES):
    return torch.randn(ROWS, features, generator=torch.Generator().manual_seed(seed))


def bits(seed=0):
    return (reals(seed) > 0).to(torch.get_default_dtype())


def counts(seed=0):
    return reals(seed).abs().mul(3).round()


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


class Model(PyroModule):
    """z ~ Normal(0, I), x ~ likelihood(decoder(z)), by methods that pairs below change."""

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
    """The score function with a baseline made of the rows."""

    def __init__(self):
        super().__init__()
        self.level = MLP(FEATURES, 1, hidden=(4,))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            how = {"baseline": {"nn_baseline": lambda x: self.level(x)[..., 0],
                                "nn_baseline_input": x}}  # fmt: skip
            pyro.sample("z", dist.OneHotCategorical(logits=self.encoder(x)), infer=how)


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


def enumerated_in_the_model():
    return Clusters(), Guide(), reals()


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
    """An enumerated class with a continuous latent below it."""

    def __init__(self):
        super().__init__()
        self.chances = MLP(FEATURES, CLASSES, hidden=(8,))
        self.encoder = MLP(FEATURES + CLASSES, 2 * LATENTS, hidden=(8,))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            fn = dist.OneHotCategorical(logits=self.chances(x))
            k = pyro.sample("k", fn, infer={"enumerate": "parallel"})
            both = torch.cat([x.expand(*k.shape[:-1], FEATURES), k.expand(*k.shape[:-2], len(x), -1)], -1)
            loc, log_scale = self.encoder(both).chunk(2, -1)
            pyro.sample("z", normal(loc, (0.3 * log_scale).exp()))


def mixture():
    return Labeled(), LabeledGuide(), reals()


def with_global(guide=None):
    """A latent outside the rows."""

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
    """Cells that are missing: by ``poutine.mask`` or by ``obs_mask``."""

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
    def forward(self, x, extra):
        loc, log_scale = (self.encoder(x) + extra[:, None]).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(loc, (0.3 * log_scale).exp()))


def mapping():
    label = torch.arange(ROWS) % CLASSES
    return Two(), Reads(), {"extra": reals(2)[:, 0], "label": label, "x": reals()}


class ReadsBoth(Reads):
    def forward(self, x, label):
        return super().forward(x, label.to(x.dtype))


def in_a_tuple():
    return Two(), ReadsBoth(), (reals(), torch.arange(ROWS) % CLASSES)


def integers():
    model, guide, x = bernoulli()
    return model, guide, x.long()


def mapped(path):
    """Doubles in a memory map: gathered outside the program, cast to the default dtype."""
    array = np.memmap(path, np.float64, "w+", shape=(ROWS, FEATURES))
    array[:] = reals().numpy()
    return Model(), Guide(), array


class Rates(Model):
    def likelihood(self, out):
        return dist.Poisson(out.exp()).to_event(1)


class Positive(Model):
    def __init__(self):
        super().__init__(2 * FEATURES)

    def likelihood(self, out):
        shape, rate = out.exp().chunk(2, -1)
        return dist.Gamma(shape + 0.5, rate).to_event(1)


class Shares(Positive):
    def likelihood(self, out):
        left, right = out.exp().chunk(2, -1)
        return dist.Beta(left + 0.5, right + 0.5).to_event(1)


def poisson():
    return Rates(), Guide(), counts()


def gamma():
    return Positive(), Guide(), reals().exp()


def beta():
    return Shares(), Guide(), reals().sigmoid()


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
    """z from the row, then w from z."""

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


PAIRS = {
    make.__name__: make
    for make in (
        bernoulli, gaussian, sampled_class, baseline, enumerated_in_the_guide,
        enumerated_in_the_model, mixture, with_global, with_autoguide, pyro_param, functions,
        dropout, batch_norm, masked, obs_masked, mapping, in_a_tuple, integers, poisson, gamma,
        beta, gamma_latent, hierarchy,
    )
}  # fmt: skip


def made(make, seed=0):
    """A pair and its data, the same at every call."""
    torch.manual_seed(seed)
    return make()
