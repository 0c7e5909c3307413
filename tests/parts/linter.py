"""What the tests of the linter share: a small pair, and assertions about findings."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

from ppl_vae.nn import MLP

ROWS, FEATURES, LATENTS = 40, 3, 2
X = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


def code(x, name="z", latents=LATENTS, **how):
    """Draw a latent of each row from its prior."""
    return pyro.sample(name, normal(x.new_zeros(latents)).expand([len(x)]), **how)


def observe(x, z):
    pyro.sample("x", normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], FEATURES)), obs=x)


def model(x):
    with pyro.plate("data", len(x)):
        observe(x, code(x))


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", normal(x[:, :LATENTS]))


def assert_finding(verdict, severity, where, *pieces):
    """Assert that there is one finding at this place, of this severity, with these words."""
    findings = [finding for finding in verdict.findings if finding.where == where]
    assert [finding.severity for finding in findings] == [severity], str(verdict)
    for piece in pieces:
        assert piece in str(findings[0])
    assert str(findings[0]) in str(verdict)
    assert findings[0].fix
    if severity == "error":
        with pytest.raises(ValueError, match="expected") as raised:
            verdict.raise_if_failed()
        assert str(findings[0]) in str(raised.value)
    else:
        assert findings[0] in verdict.warnings
        assert not verdict.errors
        verdict.raise_if_failed()


def assert_only_finding(verdict, severity, where, *pieces):
    """Assert what ``assert_finding`` does, and that there is no other finding."""
    assert_finding(verdict, severity, where, *pieces)
    assert len(verdict.findings) == 1, str(verdict)


class Model(PyroModule):
    """z ~ Normal(0, 1), x ~ Normal(decoder(z), 1)."""

    def __init__(self):
        super().__init__()
        self.net = MLP(LATENTS, FEATURES)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            self.rows(x)

    def rows(self, x):
        z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
        pyro.sample("x", normal(self.net(z)), obs=x)


class Guide(PyroModule):
    """z ~ Normal(encoder(x), 1)."""

    def __init__(self, inputs=FEATURES):
        super().__init__()
        self.net = MLP(inputs, LATENTS)

    def forward(self, x):
        loc = self.net(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(loc))
