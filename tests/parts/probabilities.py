"""Pairs whose discrete distributions are given by ``probs=``, as in many of Pyro's examples.

Pyro's examples with the same distributions: the VAE (Bernoulli), AIR (a Bernoulli that switches),
the Gaussian mixture and LDA (enumerated categories).
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from parts.discrete import CLASSES, FEATURES, LATENTS, ClassesGuide, normal
from parts.pairs import Guide, Likely, Model, bits, counts, reals


class Shares(Likely):
    """A likelihood whose parameters lie between 0 and 1."""

    def likelihood(self, out):
        return self.make(*torch.sigmoid(out).chunk(self.numbers, -1)).to_event(1)


def bernoulli():
    return Shares(lambda p: dist.Bernoulli(probs=p)), Guide(), bits()


def binomial():
    return Shares(lambda p: dist.Binomial(20, probs=p)), Guide(), counts()


def negative_binomial():
    return Shares(lambda p: dist.NegativeBinomial(4.0, probs=p)), Guide(), counts()


def continuous_bernoulli():
    return Shares(lambda p: dist.ContinuousBernoulli(probs=p)), Guide(), reals().sigmoid()


class Tabled(Model):
    """One category for each feature: (rows, features) of Categorical."""

    def likelihood(self, out):
        chances = out.unflatten(-1, (FEATURES, CLASSES)).softmax(-1)
        return dist.Categorical(probs=chances).to_event(1)


class TabledGuide(Guide):
    def forward(self, x):
        super().forward(x.float())


def categorical():
    return Tabled(FEATURES * CLASSES), TabledGuide(), (counts() % CLASSES).long()


WORDS = 30


def words():
    """Counts of words: every row has equally many."""
    chances = reals().softmax(-1)
    return dist.Multinomial(WORDS, probs=chances).sample()


class Documents(Model):
    def likelihood(self, out):
        return dist.Multinomial(WORDS, probs=out.softmax(-1))


def multinomial():
    return Documents(), Guide(), words()


class Switched(Model):
    """A Bernoulli latent switches the code on; drawn, with the score function's gradient."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            on = pyro.sample("on", dist.Bernoulli(probs=x.new_tensor(0.7)))
            z = self.code(x)
            pyro.sample("x", normal(self.decoder(z * on[..., None])), obs=x)


class SwitchedGuide(Guide):
    def __init__(self):
        super().__init__()
        self.chance = nn.Linear(FEATURES, 1)

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("on", dist.Bernoulli(probs=self.chance(x).sigmoid()[..., 0]))
            pyro.sample("z", normal(loc, (0.3 * log_scale).exp()))


def switch():
    return Switched(), SwitchedGuide(), reals()


class Mixture(nn.Module):
    """Categories that are summed out in the model, with probabilities that are learned."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(CLASSES))
        self.centers = nn.Parameter(torch.randn(CLASSES, FEATURES))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            chances = dist.Categorical(probs=self.weights.softmax(-1))
            k = pyro.sample("k", chances, infer={"enumerate": "parallel"})
            pyro.sample("x", normal(self.centers[k]), obs=x)


def mixture():
    return Mixture(), None, reals()


class Coded(nn.Module):
    """A category that the guide sums out."""

    def __init__(self):
        super().__init__()
        self.centers = nn.Parameter(torch.randn(CLASSES, FEATURES))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.OneHotCategorical(probs=x.new_full((CLASSES,), 1 / CLASSES)))
            pyro.sample("x", normal(z @ self.centers), obs=x)


class CodedGuide(ClassesGuide):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            fn = dist.OneHotCategorical(probs=self.encoder(x).softmax(-1))
            pyro.sample("z", fn, infer={"enumerate": "parallel"})


def guided_classes():
    return Coded(), CodedGuide(), reals()


class Topics(nn.Module):
    """Shares of topics for each row, and words that are drawn from mixed topics."""

    def __init__(self):
        super().__init__()
        self.topics = nn.Parameter(torch.randn(LATENTS, FEATURES))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            shares = pyro.sample("shares", dist.Dirichlet(x.new_ones(LATENTS)))
            chances = shares @ self.topics.softmax(-1)
            pyro.sample("x", dist.Multinomial(WORDS, probs=chances), obs=x)


class TopicsGuide(Guide):
    def forward(self, x):
        shape = self.encoder(x)[..., :LATENTS].exp()
        with pyro.plate("data", len(x)):
            pyro.sample("shares", dist.Dirichlet(shape + 0.3))


def topics():
    return Topics(), TopicsGuide(), words()


class Relaxed(Model):
    """Bits of a relaxed code."""

    def code(self, x):
        fn = dist.RelaxedBernoulli(x.new_tensor(0.7), probs=x.new_full((LATENTS,), 0.3))
        return pyro.sample("z", fn.to_event(1))


class RelaxedGuide(Guide):
    def forward(self, x):
        chances = self.encoder(x)[..., :LATENTS].sigmoid()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.RelaxedBernoulli(x.new_tensor(0.7), probs=chances).to_event(1))


def relaxed():
    return Relaxed(), RelaxedGuide(), reals()


PAIRS = {
    make.__name__: make
    for make in (
        bernoulli, binomial, negative_binomial, continuous_bernoulli, categorical,
        multinomial, switch, mixture, guided_classes, topics, relaxed,
    )
}  # fmt: skip
