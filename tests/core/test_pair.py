"""Pairs written in every style train, and share no parameters through a store."""

import copy
import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn

from ppl_vae import fit
from ppl_vae.core.pair import Pair
from ppl_vae.core.private_store import PrivateStore

X = torch.rand(70, 5, generator=torch.Generator().manual_seed(3)).bernoulli()


class Model(PyroModule):
    """A model without a name, whose attributes have the names of the guide's."""

    def __init__(self, name=""):
        super().__init__(name)
        self.net = nn.Linear(2, 5)
        self.shift = nn.Parameter(torch.zeros(5))
        self.temperature = PyroParam(torch.ones(()), dist.constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            logits = self.net(z) / self.temperature + self.shift
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self, name=""):
        super().__init__(name)
        self.net = nn.Linear(5, 4)
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        loc, log_scale = (self.net(x) + self.shift).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


class Decoder(nn.Module):
    def __init__(self, z_dim, hidden_dim):
        super().__init__()
        self.fc1, self.fc21 = nn.Linear(z_dim, hidden_dim), nn.Linear(hidden_dim, 5)

    def forward(self, z):
        return torch.sigmoid(self.fc21(nn.functional.softplus(self.fc1(z))))


class Encoder(nn.Module):
    def __init__(self, z_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(5, hidden_dim)
        self.fc21, self.fc22 = nn.Linear(hidden_dim, z_dim), nn.Linear(hidden_dim, z_dim)

    def forward(self, x):
        hidden = nn.functional.softplus(self.fc1(x.reshape(-1, 5)))
        return self.fc21(hidden), torch.exp(self.fc22(hidden))


class VAE(nn.Module):
    """As in Pyro's tutorial: one module, two methods, ``pyro.module`` statements."""

    def __init__(self, z_dim=3, hidden_dim=7):
        super().__init__()
        self.encoder, self.decoder = Encoder(z_dim, hidden_dim), Decoder(z_dim, hidden_dim)
        self.z_dim = z_dim

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            loc = x.new_zeros(torch.Size((x.shape[0], self.z_dim)))
            z = pyro.sample("latent", dist.Normal(loc, torch.ones_like(loc)).to_event(1))
            probs = self.decoder(z)
            pyro.sample(
                "obs", dist.Bernoulli(probs, validate_args=False).to_event(1), obs=x.reshape(-1, 5)
            )
            return probs

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = self.encoder(x)
            pyro.sample("latent", dist.Normal(loc, scale).to_event(1))


def unnamed_modules():
    return Model(), Guide()


def pyro_vae():
    vae = VAE()
    return vae.model, vae.guide


def plain_functions():
    decoder, encoder = nn.Linear(2, 5), nn.Linear(5, 4)

    def model(x):
        pyro.module("decoder", decoder)
        bias = pyro.param("bias", torch.zeros(5))
        tau = pyro.param("tau", torch.ones(()), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            logits = tau * decoder(z) + bias
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide


def encoder_beside_autoguide():
    class Hierarchical(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 5)

        def forward(self, x):
            shift = pyro.sample("shift", dist.Normal(torch.zeros(5), 1.0).to_event(1))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                logits = self.net(z) + shift
                pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    class EncoderAndAutoguide(PyroModule):
        def __init__(self, model):
            super().__init__()
            self.shared = AutoNormal(pyro.poutine.block(model, expose=["shift"]))
            self.net = nn.Linear(5, 4)

        def forward(self, x):
            self.shared(x)
            loc, log_scale = self.net(x).chunk(2, -1)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    model = Hierarchical()
    return model, EncoderAndAutoguide(model)


def lazy_layers():
    model, guide = Model(), Guide()
    model.net, guide.net = nn.LazyLinear(5), nn.LazyLinear(4)
    return model, guide


STYLES = [unnamed_modules, pyro_vae, plain_functions, encoder_beside_autoguide, lazy_layers]


def trained(style, seed=0):
    """Fit a pair for two epochs; return parameters before, parameters after and the history."""
    torch.manual_seed(1)
    model, guide = style()

    def without_change(parameters):
        return torch.optim.SGD(parameters, lr=0.0)  # the first fit makes parameters appear

    fit(
        model,
        guide,
        X,
        epochs=1,
        batch_size=32,
        progress=False,
        seed=seed,
        optimizer=without_change,
    )
    start = {n: v.detach().clone() for n, v in Pair.of(model, guide, "data").parameters().items()}
    history = fit(model, guide, X, epochs=2, batch_size=32, progress=False, seed=seed)
    end = {n: v.detach().clone() for n, v in Pair.of(model, guide, "data").parameters().items()}
    return start, end, history


@pytest.mark.parametrize("style", STYLES)
def test_every_parameter_moves(style):
    start, end, _ = trained(style)
    assert len(start) >= 4
    assert start.keys() == end.keys()
    assert [name for name in start if torch.equal(start[name], end[name])] == []


def test_an_encoder_beside_an_autoguide_trains_in_the_first_fit():
    model, guide = encoder_beside_autoguide()
    before = guide.net.weight.detach().clone(), model.net.weight.detach().clone()
    fit(model, guide, X, epochs=2, progress=False)
    assert not torch.equal(before[0], guide.net.weight)
    assert not torch.equal(before[1], model.net.weight)


@pytest.mark.parametrize("style", STYLES)
def test_three_fits_with_one_seed_are_equal_bit_for_bit(style):
    runs = [trained(style) for _ in range(3)]
    for _, end, history in runs[1:]:
        assert all(torch.equal(end[name], runs[0][1][name]) for name in end)
        assert history.frame["elbo"].tolist() == runs[0][2].frame["elbo"].tolist()


@pytest.mark.parametrize("style", STYLES)
def test_the_global_store_stays_empty(style):
    trained(style)
    assert len(pyro.get_param_store()) == 0


def test_two_pairs_in_one_process_train_independently():
    first, second = VAE(), VAE()
    before = [p.detach().clone() for p in second.parameters()]
    fit(first.model, first.guide, X, epochs=2, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, second.parameters(), strict=True))
    fit(second.model, second.guide, X, epochs=2, progress=False)
    assert not any(torch.equal(a, b) for a, b in zip(before, second.parameters(), strict=True))


def test_plain_svi_works_in_the_same_process():
    fit(*unnamed_modules(), X, epochs=1, progress=False)
    vae = VAE()
    before = [p.detach().clone() for p in vae.parameters()]
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    losses = [svi.step(X) for _ in range(30)]
    assert losses[-1] < losses[0]
    assert len(pyro.get_param_store()) == 10
    fit(*unnamed_modules(), X, epochs=1, progress=False)
    assert len(pyro.get_param_store()) == 10
    assert not any(torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))
    assert svi.step(X) < losses[0]


def test_a_pair_that_plain_pyro_trained_first_trains_in_fit():
    model, guide = Model("model"), Guide("guide")
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    svi.step(X)
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    fit(model, guide, X, epochs=1, progress=False)
    after = [*model.parameters(), *guide.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_store_of_a_function_outlives_fit():
    model, guide = plain_functions()
    fit(model, guide, X, epochs=1, progress=False)
    bias = Pair.of(model, guide, "data").parameters()["model.bias"].detach().clone()
    fit(model, guide, X, epochs=1, progress=False)
    again = Pair.of(model, guide, "data").parameters()["model.bias"]
    assert not torch.equal(bias, torch.zeros(5))
    assert not torch.equal(bias, again)


def test_a_bound_method_finds_its_store_again():
    vae = VAE()
    first, second = (Pair.of(vae.model, vae.guide, "data") for _ in range(2))
    assert first.model.store is second.model.store is not first.guide.store


def test_frozen_parameters_stay_frozen_and_unchanged():
    model, guide = Model(), Guide()
    model.requires_grad_(False)
    before = [p.detach().clone() for p in model.parameters()]
    fit(model, guide, X, epochs=2, progress=False)
    assert not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_replaced_parameter_is_the_one_that_trains():
    model, guide = Model(), Guide()
    fit(model, guide, X, epochs=1, progress=False)
    model.shift = nn.Parameter(torch.full((5,), 0.5))
    fit(model, guide, X, epochs=1, progress=False)
    assert not torch.equal(model.shift, torch.full((5,), 0.5))


def test_shared_parameters_are_optimized_once():
    model, guide = Model(), Guide()
    guide.partner = [model]  # held without being registered
    guide.tied = model.net
    parameters = Pair.of(model, guide, "data").parameters()
    assert len({id(p) for p in parameters.values()}) == len(parameters)
    fit(model, guide, X, epochs=1, progress=False)


def test_each_half_receives_the_fields_of_a_mapping_that_it_names():
    received = {}

    def model(x):
        received["model"] = True
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(label, x):
        loc = pyro.param("loc", torch.zeros(2))
        received["guide"] = label
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[label], 1.0))

    fit(
        model,
        guide,
        {"x": torch.randn(20), "label": torch.arange(20) % 2},
        epochs=1,
        progress=False,
    )
    assert received["guide"].dtype == torch.int64


def test_a_tuple_is_passed_by_position():
    def model(x, scale):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, scale), obs=x)

    def guide(x, scale):
        loc = pyro.param("loc", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc + scale, 1.0))

    fit(model, guide, (torch.randn(20), torch.rand(20) + 1), epochs=1, progress=False)


def test_private_stores_nest_and_survive_errors():
    outer, inner = PrivateStore(), PrivateStore()

    def fail_inside():
        with inner:
            pyro.param("b", torch.zeros(()))
            raise RuntimeError("on purpose")

    with outer:
        pyro.param("a", torch.zeros(()))
        with pytest.raises(RuntimeError, match="on purpose"):
            fail_inside()
        assert list(pyro.get_param_store().keys()) == ["a"]
    assert len(pyro.get_param_store()) == 0
    assert list(inner.tables.keys()) == ["b"]


def test_handlers_around_a_half_change_neither_its_store_nor_its_fields():
    vae = VAE()
    wrapped = pyro.infer.config_enumerate(vae.guide)
    assert (
        Pair.of(vae.model, wrapped, "data").guide.store
        is Pair.of(vae.model, vae.guide, "data").guide.store
    )

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("m", torch.zeros(())), 1.0))

    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("y", dist.Normal(z + x, 1.0), obs=y)

    data = {"x": torch.randn(20), "y": torch.randn(20)}
    fit(model, pyro.infer.config_enumerate(guide), data, epochs=1, progress=False)


def test_a_partial_of_a_function_can_be_a_model():
    def model(width, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("m", torch.zeros(())), width), obs=x)

    fit(functools.partial(model, 2.0), None, torch.randn(20), epochs=1, progress=False)


@pytest.mark.parametrize("mode", [True, False])
def test_recurrent_layers_have_no_dropout_in_evaluations_and_come_back_as_they_were(mode):
    guide = Guide()
    guide.rnn = nn.GRU(5, 4, num_layers=2, dropout=0.5).train(mode)
    rows = torch.randn(3, 7, 5)
    plain = copy.deepcopy(guide.rnn).eval()(rows)[0]
    modes = []
    pair = Pair.of(Model(), guide, "data")
    with pair.evaluating(), pair.evaluating():
        guide.rnn.register_forward_pre_hook(lambda rnn, _: modes.append(rnn.training))
        assert torch.equal(guide.rnn(rows)[0], plain)
        assert not guide.rnn.training
    assert modes == [True]  # cuDNN differentiates in training mode alone
    assert (guide.rnn.training, guide.rnn.dropout) == (mode, 0.5)
