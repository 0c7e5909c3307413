"""Pairs without a fault that have masks, mappings, several sites or other plates: no finding."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import FEATURES, LATENTS, ROWS, Guide, Model, X, normal
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import lint
from ppl_vae.nn import MLP

BINARY = (X > 0).float()


def observed_by_mask():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            observed = x[:, 0] > -0.5
            pyro.sample("y", dist.Normal(z, 1.0), obs=x[:, 0], obs_mask=observed)

    def guide(x):
        observed = x[:, 0] > -0.5
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.where(observed, x[:, 0], 0.0), 1.0))
            with poutine.mask(mask=~observed):
                pyro.sample("y_unobserved", dist.Normal(x.new_zeros(len(x)), 1.0))

    return model, guide, X


def covariate():
    class Conditional(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = MLP(LATENTS + 1, FEATURES)

        def forward(self, x, age):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", normal(x.new_zeros(len(x), LATENTS)))
                age = age[:, None].expand(*z.shape[:-1], 1)
                pyro.sample("x", normal(self.net(torch.cat([z, age], -1))), obs=x)

    return Conditional(), Guide(), {"x": X, "age": X[:, 0].square()}


def label_of_the_guide():
    class Labelled(Guide):
        def forward(self, x, label):
            super().forward(torch.cat([x, label[:, None].float()], -1))

    return Model(), Labelled(FEATURES + 1), {"x": X, "label": torch.arange(ROWS) % 2}


def masked_pair():
    class MaskedModel(Model):
        def forward(self, x):
            with poutine.mask(mask=x[:, 0] > 0):
                super().forward(x)

    class MaskedGuide(Guide):
        def forward(self, x):
            with poutine.mask(mask=x[:, 0] > 0):
                super().forward(x)

    return MaskedModel(), MaskedGuide(), X


def missing_values(mask):
    """A pair that fills NaN with 0 and masks these cells."""
    data = X.clone()
    data[[5, 30], [0, 1]] = float("nan")
    loc = nn.Parameter(torch.zeros(FEATURES))

    def model(x):
        pyro.param("loc", loc)
        observed, filled = ~x.isnan(), x.nan_to_num()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(x.new_zeros(FEATURES)))
            if mask == "handler":
                with poutine.mask(mask=observed.all(-1)):
                    pyro.sample("x", normal(z + loc), obs=filled)
            else:
                fn = dist.Normal(z + loc, 1.0).mask(observed).to_event(1)
                pyro.sample("x", fn, obs=filled)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x.nan_to_num()))

    return model, guide, data


def missing_rows():
    return missing_values("handler")


def missing_numbers():
    return missing_values("distribution")


def out_of_support_under_a_mask():
    def model(x):
        with pyro.plate("data", len(x)), poutine.mask(mask=x[:, 0] > 0):
            z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
            rate = z.sum(-1).exp()
            pyro.sample("x", dist.Exponential(rate, validate_args=False), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data", len(x)), poutine.mask(mask=x[:, 0] > 0):
            pyro.sample("z", normal(x[:, :LATENTS]))

    return model, guide, X


def two_observed_sites():
    class TwoSites(PyroModule):
        def __init__(self):
            super().__init__()
            self.net, self.label = MLP(LATENTS, FEATURES), MLP(FEATURES, 2)

        def forward(self, x, label):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
                x = pyro.sample("x", normal(self.net(z)), obs=x)
                pyro.sample("label", dist.Categorical(logits=self.label(x)), obs=label)

    class First(Guide):
        def forward(self, x, label):
            super().forward(x)

    return TwoSites(), First(), (X, (X[:, 0] > 0).long())


def site_that_reads_its_own_total():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(x.new_zeros(FEATURES)))
            first = pyro.sample("first", dist.Poisson(z[..., 0].exp()), obs=x[:, 0])
            total = x[:, 1:].sum(-1).max()  # as for counts with a known total
            fn = dist.Multinomial(int(total), logits=z[..., 1:] + first[..., None])
            assert fn.total_count == total
            pyro.sample("rest", fn, obs=x[:, 1:])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x))

    counts = torch.stack([X[:, 0].exp().round(), BINARY[:, 0], 1 - BINARY[:, 0]], -1)
    return model, guide, counts


def nothing_latent():
    class Density(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(FEATURES))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", normal(self.loc), obs=x)

    return Density(), None, X


def subsampling_plate():
    class Whole(Model):
        def forward(self, x):
            with pyro.plate("data", ROWS, subsample_size=len(x)):
                self.rows(x)

    return Whole(), Guide(), X


def plate_on_the_left_of_the_rows():
    def model(x):
        rows = pyro.plate("data", len(x), dim=-1)
        with rows:
            z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
        with pyro.plate("times", FEATURES, dim=-2), rows:
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x.T)

    return model, Guide(), X


def guide_with_a_flow():
    class Flow(Guide):
        def __init__(self):
            super().__init__()
            self.flow = dist.transforms.planar(LATENTS)

        def forward(self, x):
            fn = dist.TransformedDistribution(normal(self.net(x)), [self.flow])
            with pyro.plate("data", len(x)):
                pyro.sample("z", fn)

    return Model(), Flow(), X


def guide_with_auxiliary_site():
    class Auxiliary(Guide):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                how = {"infer": {"is_auxiliary": True}}
                base = pyro.sample("base", normal(self.net(x)), **how)
                pyro.sample("z", dist.Delta(2.0 * base, event_dim=1))

    return Model(), Auxiliary(), X


PAIRS = [
    observed_by_mask,
    covariate,
    label_of_the_guide,
    masked_pair,
    missing_rows,
    missing_numbers,
    out_of_support_under_a_mask,
    two_observed_sites,
    site_that_reads_its_own_total,
    nothing_latent,
    subsampling_plate,
    plate_on_the_left_of_the_rows,
    guide_with_a_flow,
    guide_with_auxiliary_site,
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.__name__)
def test_a_pair_without_a_fault_has_no_finding(pair):
    verdict = lint(*pair())
    assert not verdict.findings, str(verdict)
    assert verdict.objective is not None
    verdict.raise_if_failed()
