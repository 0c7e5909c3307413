"""Networks and parameters that neither model nor guide registers are named by ``lint``."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import fit, lint
from ppl_vae.nn import MLP

ROWS, FEATURES, LATENTS = 40, 3, 2
X = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
        pyro.sample("x", normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], FEATURES)), obs=x)


def guide_of(encoder, register=True):
    def guide(x):
        if register:
            pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(encoder(x)))

    return guide


def assert_only_finding(verdict, where, *pieces):
    """Assert that the only finding is an error at this place, with these words."""
    assert [str(finding.where) for finding in verdict.findings] == [where], str(verdict)
    assert verdict.findings[0].severity == "error"
    for piece in pieces:
        assert piece in str(verdict)


def test_network_of_a_function_that_is_not_registered():
    guide = guide_of(MLP(FEATURES, LATENTS), register=False)
    pieces = ("would never train", 'pyro.module("encoder", ...)', "requires_grad_(False)")
    for _ in range(2):
        assert_only_finding(lint(model, guide, X), 'layer "encoder"', *pieces)
    with pytest.raises(ValueError, match='layer "encoder": expected'):
        fit(model, guide, X, epochs=1, progress=False)
    assert not lint(model, guide_of(MLP(FEATURES, LATENTS)), X).findings


@pytest.mark.parametrize("elbo", [Trace_ELBO(), TraceGraph_ELBO()], ids=["trace", "graph"])
def test_network_of_a_function_under_an_elbo_of_the_users(elbo):
    guide = guide_of(nn.Linear(FEATURES, LATENTS), register=False)
    assert_only_finding(lint(model, guide, X, elbo=elbo), 'layer "encoder"')


class Methods(nn.Module):
    """Bound methods: ``model`` and ``bare`` do not register all that they use."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = MLP(FEATURES, LATENTS), MLP(LATENTS, FEATURES)
        self.gain = nn.Parameter(torch.ones(FEATURES))

    def model(self, x, gain=1.0):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
            pyro.sample("x", normal(self.decoder(z) * gain), obs=x)

    def registered(self, x):
        pyro.module("decoder", self.decoder)
        self.model(x)

    def bare(self, x):
        pyro.module("decoder", self.decoder)
        self.model(x, self.gain)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(self.encoder(x)))


def test_network_of_a_method_that_is_not_registered():
    vae = Methods()
    assert_only_finding(
        lint(vae.model, vae.guide, X), 'layer "decoder"', 'pyro.module("decoder", ...)'
    )
    assert not lint(vae.registered, vae.guide, X).findings


def test_parameter_of_a_method_that_is_not_registered():
    vae = Methods()
    assert_only_finding(lint(vae.bare, vae.guide, X), 'parameter "gain"', 'pyro.param("gain", ...)')


def test_parameter_of_a_function_that_is_not_registered():
    gain = torch.ones(LATENTS, requires_grad=True)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x[:, :LATENTS] * gain))

    assert_only_finding(lint(model, guide, X), 'parameter "gain"', "would never train")


class Listed(PyroModule):
    """A guide with its networks in a list, where torch does not find them."""

    def __init__(self, partner=None):
        super().__init__()
        self.networks = [nn.Sequential(nn.Linear(FEATURES, 4), nn.Linear(4, LATENTS))]
        self.partners = [partner]
        self.own = nn.Parameter(torch.zeros(LATENTS))

    def forward(self, x):
        networks = self.networks if self.partners == [None] else [self.partners[0].net]
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(networks[0](x) + self.own))


def test_network_in_a_list():
    assert_only_finding(
        lint(model, Listed(), X), 'layer "Sequential"', "an attribute of the PyroModule"
    )


def test_partner_in_a_list_counts_as_registered():
    class Partner(PyroModule):
        def __init__(self):
            super().__init__()
            self.net, self.decoder = nn.Linear(FEATURES, LATENTS), nn.Linear(LATENTS, FEATURES)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
                pyro.sample("x", normal(self.decoder(z)), obs=x)

    partner = Partner()
    assert not lint(partner, Listed(partner), X).findings


def test_only_the_outermost_layer_is_named():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = MLP(FEATURES, 4), MLP(4, LATENTS)

        def forward(self, x):
            return self.two(self.one(x))

    net = guide_of(Twice(), register=False)
    assert_only_finding(lint(model, net, X), 'layer "encoder"')


@pytest.mark.parametrize("how", ["frozen", "without gradients", "detached"])
def test_network_that_does_not_train_need_not_be_registered(how):
    features, own = MLP(FEATURES, LATENTS), nn.Linear(LATENTS, LATENTS)
    if how == "frozen":
        features.requires_grad_(False)

    def guide(x):
        pyro.module("own", own)
        with torch.set_grad_enabled(torch.is_grad_enabled() and how != "without gradients"):
            code = features(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(own(code.detach() if how == "detached" else code)))

    assert not lint(model, guide, X).findings


def test_tensor_made_in_the_call_is_no_parameter():
    encoder = nn.Linear(FEATURES, LATENTS)

    def refined(x):
        pyro.module("encoder", encoder)
        step = x.new_zeros(LATENTS).requires_grad_(torch.is_grad_enabled())
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(encoder(x) + step))

    assert not lint(model, refined, X).findings


def test_encoder_beside_an_autoguide_counts_as_registered_in_the_first_lint():
    class Shifted(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(LATENTS, FEATURES)

        def forward(self, x):
            shift = pyro.sample("shift", normal(x.new_zeros(FEATURES)))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
                pyro.sample("x", normal(self.net(z) + shift), obs=x)

    class Both(PyroModule):
        def __init__(self, shifted):
            super().__init__()
            self.shared = AutoNormal(pyro.poutine.block(shifted, expose=["shift"]))
            self.net = nn.Linear(FEATURES, LATENTS)

        def forward(self, x):
            self.shared(x)
            with pyro.plate("data", len(x)):
                pyro.sample("z", normal(self.net(x)))

    shifted = Shifted()
    pair = shifted, Both(shifted), X
    assert not lint(*pair).findings
    assert not lint(*pair).findings


def test_network_of_a_pair_without_parameters_that_sums_out_its_latent():
    decoder = nn.Linear(1, FEATURES)

    def mixture(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(x.new_ones(4)), infer={"enumerate": "parallel"})
            pyro.sample("x", normal(decoder(k.unsqueeze(-1).float())), obs=x)

    assert_only_finding(lint(mixture, None, X), 'layer "decoder"', "would never train")
