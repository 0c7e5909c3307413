"""Networks that a plain function holds in any way are stored, and evaluated as layers should be."""

import functools
import types
import weakref

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_vae import fit, lint, load, log_likelihood, save
from ppl_vae.core.held_modules import held_modules

X = 3 * torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + 2


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(torch.cat([z, z], -1), 1.0).to_event(1), obs=x)


def draw(parameters):
    loc, log_scale = parameters.chunk(2, -1)
    with pyro.plate("data", len(parameters)):
        pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def guide_of(net, x):
    pyro.module("net", net)
    draw(net(x))


def in_partial(net):
    return functools.partial(guide_of, net)


def in_keyword(net):
    return functools.partial(lambda x, net: guide_of(net, x), net=net)


def in_list(net):
    nets = [net]
    return lambda x: guide_of(nets[0], x)


def in_dictionary(net):
    nets = {"net": net}
    return lambda x: guide_of(nets["net"], x)


def in_default(net):
    def guide(x, net=net):
        guide_of(net, x)

    return guide


def in_another_function(net):
    def encode(x):
        pyro.module("net", net)
        return net(x)

    return lambda x: draw(encode(x))


def in_list_of_object(net):
    class Holder:
        def __init__(self):
            self.nets = [net]

        def guide(self, x):
            guide_of(self.nets[0], x)

    return Holder().guide


def in_callable(net):
    class Callable:
        def __init__(self):
            self.net = net

        def __call__(self, x):
            guide_of(self.net, x)

    return Callable()


def in_namespace(net):
    parts = types.SimpleNamespace(net=net)
    return lambda x: guide_of(parts.net, x)


def in_file(net):
    file = types.ModuleType("networks")
    file.encoder = net
    return eval("lambda x: guide_of(file.encoder, x)", {"file": file, "guide_of": guide_of})


PLACES = (
    in_partial, in_keyword, in_list, in_dictionary, in_default, in_another_function,
    in_list_of_object, in_callable, in_namespace, in_file,
)  # fmt: skip


def normalized():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.filterwarnings("ignore:layer .*BatchNorm1d")
@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
@pytest.mark.filterwarnings("ignore:run. .*holds the weights without a recipe")
@pytest.mark.parametrize("place", PLACES)
def test_a_loaded_guide_has_the_buffers_of_the_fitted_one(place, tmp_path):
    net, other = normalized(), normalized()
    guide, again = place(net), place(other)
    fit(model, guide, X, epochs=2, batch_size=30, compile=False, progress=False)
    save(model, guide, tmp_path / "run")
    load(tmp_path / "run", model=model, guide=again)
    torch.testing.assert_close(other[1].running_var, net[1].running_var)
    scores = [log_likelihood(model, g, X, num_samples=5)["log_prob"] for g in (guide, again)]
    np.testing.assert_array_equal(*scores)
    first = log_likelihood(model, guide, X[:10], num_samples=5, seed=1)["log_prob"]
    assert np.isfinite(first).all()
    assert net.training  # evaluation restores the mode


def test_each_module_has_one_name():
    net = normalized()
    assert list(held_modules(functools.partial(guide_of, net))) == ["net"]
    assert list(held_modules(in_list(net))) == ["nets.0"]
    assert list(held_modules(in_another_function(net))) == ["encode.net"]


def test_a_function_that_calls_itself_ends():
    def guide(x, depth=0):
        return guide(x, depth + 1) if depth < 3 else draw(x)

    assert held_modules(guide) == {}


@pytest.mark.filterwarnings("ignore:layer .*BatchNorm1d")
def test_a_layer_that_nothing_holds_is_a_finding():
    net = normalized()
    reference = weakref.ref(net)

    def guide(x):
        guide_of(reference(), x)

    findings = lint(model, guide, X).findings
    (finding,) = [f for f in findings if "neither holds" in f.problem]
    assert finding.where == 'layer "BatchNorm1d"'
