"""The arguments of constructors are recorded as they are given, and cost and keep nothing else."""

import copy
import gc
import pickle
import subprocess
import sys
import time
import weakref
from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.runs import X
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import build, fit, load, log_likelihood, save
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.nn import MLP
from ppl_vae.saving.construction import Unrecorded, arguments_of


class Forgetful(PyroModule):
    """A decoder model that stores none of its arguments."""

    def __init__(self, features, *widths, layer=nn.Tanh, start=None, options=None, **more):
        super().__init__()
        sizes = (3, *widths)
        kind = more.get("kind", nn.Linear)
        layers = [part for a, b in pairwise(sizes) for part in (kind(a, b), layer())]
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], features))
        self.register_buffer("shift", torch.zeros(features) if start is None else start)
        self._act = more.get("act", torch.nn.Identity())
        self.factor = sum((options or {}).values()) + more.get("factor", 1.0)
        if isinstance(options, dict):
            options.clear()  # a constructor may consume what it is given

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            logits = self._act(self.net(z)) * self.factor + self.shift
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


class Act(nn.Module):
    def forward(self, x):
        return torch.sin(x)


def both(pair, run):
    """Log-likelihoods of a pair, and of the pair that its run gives."""
    save(*pair, run, data=X)
    again = load(run, trust_code=True)
    return [log_likelihood(*p, X[:6], num_samples=4, seed=0, progress=False)["log_prob"]
            for p in (pair, again)]  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ((), {}),
        ((7, 5), {}),
        ((4,), {"layer": nn.ReLU, "start": torch.arange(12.0) / 12}),
        ((np.int64(4),), {"factor": np.float32(0.5), "options": {"a": 0.5, "b": 1.5}}),
        ((4,), {"layer": Act}),
        ((4,), {"kind": nn.Linear, "act": torch.tanh}),
        ((4,), {"kind": MLP, "act": nn.functional.softplus}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # high k-hat
def test_arguments_that_no_attribute_holds_make_the_pair_again(arguments, tmp_path):
    args, kwargs = arguments
    scores = both((Forgetful(12, *args, **kwargs), NormalGuide(12, 3)), tmp_path / "run")
    assert scores[0].equals(scores[1])


@pytest.mark.parametrize(
    "decoder",
    [
        lambda: nn.Sequential(nn.Linear(3, 12, bias=False), nn.Dropout(0.3), nn.SiLU()),
        lambda: nn.Sequential(OrderedDict(norm=nn.LayerNorm(3), last=nn.Linear(3, 12))),
        lambda: nn.Sequential(Act(), nn.Linear(3, 12)),
        lambda: PyroModule[nn.Sequential](PyroModule[nn.Linear](3, 12)),
        lambda: MLP(3, 12, (5,), nn.ELU),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")  # high k-hat
def test_layers_of_torch_and_own_networks_are_arguments_like_others(decoder, tmp_path):
    scores = both((BernoulliModel(12, 3, decoder()), NormalGuide(12, 3)), tmp_path / "run")
    assert scores[0].equals(scores[1])
    before, again = BernoulliModel(12, 3, decoder()), load(tmp_path / "run", trust_code=True)[0]
    assert str(before.decoder) == str(again.decoder)  # the p of a dropout, too


@pytest.mark.filterwarnings("ignore::UserWarning")  # high k-hat
def test_a_pair_with_an_autoguide_opens_again(tmp_path):
    model = Shared(2.0)
    guide = AutoNormal(model, init_scale=0.2)
    fit(model, guide, X, epochs=1, progress=False, run=tmp_path / "run")
    again = load(tmp_path / "run", trust_code=True)
    assert type(again[1]) is AutoNormal
    assert arguments_of(again[1])["model"] is again[0]
    assert torch.equal(again[1].median()["loc"], guide.median()["loc"])


@pytest.mark.filterwarnings("ignore::UserWarning")  # high k-hat
def test_an_autoguide_that_was_saved_without_rows_has_its_weights_from_the_first_call_on(tmp_path):
    model = Shared(2.0)
    guide = AutoNormal(model, init_scale=0.2)
    fit(model, guide, X, epochs=1, progress=False)
    save(model, guide, tmp_path / "run")  # without rows to run the pair on
    again = load(tmp_path / "run", trust_code=True)
    scores = [log_likelihood(*pair, X[:6], num_samples=4) for pair in ((model, guide), again)]
    assert scores[0].equals(scores[1])


class Shared(PyroModule):
    """A model whose one latent all rows share."""

    def __init__(self, spread):
        super().__init__()
        self.prior = dist.Normal(torch.zeros(12), spread).to_event(1)

    def forward(self, x):
        loc = pyro.sample("loc", self.prior)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=loc).to_event(1), obs=x)


class VAE(nn.Module):
    """Model and guide as methods of one module, as in Pyro's tutorials."""

    def __init__(self, latents=2, hidden=5):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(latents, 12), nn.Linear(12, 2 * latents)
        self.z_dim = latents

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.z_dim), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def model_function(x):
    loc = pyro.param("loc", torch.zeros(12))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(logits=loc).to_event(1), obs=x)


@pytest.mark.filterwarnings("ignore::UserWarning")  # high k-hat
def test_methods_of_one_module_and_functions_of_a_file_open_again(tmp_path):
    vae = VAE(4)
    fit(vae.model, vae.guide, X, epochs=1, progress=False, run=tmp_path / "vae")
    again = load(tmp_path / "vae", trust_code=True)
    assert again[0].__self__ is again[1].__self__
    assert torch.equal(again[0].__self__.decoder.weight, vae.decoder.weight)
    fit(vae.model, vae.guide, X, epochs=2, progress=False, run=tmp_path / "vae", resume=True)
    fit(model_function, None, X, epochs=2, progress=False, run=tmp_path / "function")
    model, _ = load(tmp_path / "function", trust_code=True)
    scores = [log_likelihood(m, None, X[:6], seed=0, progress=False)["log_prob"]
              for m in (model_function, model)]  # fmt: skip
    assert scores[0].equals(scores[1])


def test_an_object_changed_after_its_construction_is_not_what_its_arguments_make(tmp_path):
    changed = BernoulliModel(12, 3, nn.Sequential(nn.Linear(3, 12), nn.Dropout(0.1)))
    changed.decoder[1].p = 0.9
    with pytest.warns(UserWarning, match=r"model.decoder.1.p was changed after the pair was made"):
        save(changed, NormalGuide(12, 3), tmp_path / "attribute", data=X)
    changed = BernoulliModel(12, 3, MLP(3, 12, (4,)))
    changed.decoder[1] = nn.ReLU()
    with pytest.warns(UserWarning, match="the rebuilt pair gives other numbers"):
        save(changed, NormalGuide(12, 3), tmp_path / "layer", data=X)


@pytest.mark.parametrize(
    "value", [lambda w: w, print, {1, 2}, object(), torch.zeros(2, dtype=torch.complex64)]
)
def test_a_value_that_json_cannot_hold_is_named_when_saving(value, tmp_path):
    with pytest.warns(UserWarning, match=r"Forgetful: argument more: .*load\(run\) will ask for"):
        save(Forgetful(12, 4, thing=value), NormalGuide(12, 3), tmp_path, data=X)


def test_layers_that_torch_has_rewritten_are_named_when_saving(tmp_path):
    from torch.nn.utils.parametrizations import weight_norm

    decoder = nn.Sequential(weight_norm(nn.Linear(3, 12)))
    with pytest.warns(
        UserWarning, match="ParametrizedLinear of torch.*none that a recipe may name"
    ):
        save(BernoulliModel(12, 3, decoder), NormalGuide(12, 3), tmp_path / "norm", data=X)
    assert not (tmp_path / "norm" / "source" / "modules").exists()
    lazy = BernoulliModel(12, 3, nn.LazyLinear(12))
    with pytest.raises(ValueError, match=r"model: expected parameters that have shapes, got model"):
        save(lazy, NormalGuide(12, 3), tmp_path / "lazy")
    assert not (tmp_path / "lazy").exists()


def test_what_was_never_recorded_is_read_from_attributes(tmp_path):
    class_ = type("Own", (BernoulliModel,), {"__new__": lambda cls, *a, **k: object.__new__(cls)})
    assert arguments_of(class_(12)) is None
    unpickled = pickle.loads(pickle.dumps(BernoulliModel(12, latents=3)))
    assert arguments_of(unpickled) is None
    save(unpickled, NormalGuide(12, 3), tmp_path / "run", data=X)
    assert load(tmp_path / "run")[0].latents == 3


def test_copies_have_the_arguments_of_the_original():
    model = BernoulliModel(12, 3, MLP(3, 12))
    pair = model, AutoNormal(model)
    for twin in (copy.copy(model), copy.deepcopy(model)):
        assert arguments_of(twin)["decoder"] is twin.decoder
    twins = copy.deepcopy(pair)
    assert arguments_of(twins[1])["model"] is twins[0]


def test_a_record_keeps_nothing_alive_that_the_module_does_not_keep():
    class Taker(nn.Module):
        def __init__(self, frame, teacher, tensor):
            super().__init__()

    class Held:
        pass

    frame, teacher, tensor, held = (
        pd.DataFrame({"a": [1]}),
        nn.Linear(2, 2),
        torch.zeros(10**6),
        Held(),
    )
    weak = [weakref.ref(thing) for thing in (frame, teacher, tensor, held)]
    taker = Taker([frame, held], teacher, tensor)
    assert arguments_of(taker)["teacher"] is teacher
    del frame, teacher, tensor, held
    gc.collect()
    assert [ref() for ref in weak] == [None] * 4
    given = arguments_of(taker)
    assert [type(given[name]) for name in ("teacher", "tensor")] == [Unrecorded] * 2
    assert given["frame"][0].type_name == "DataFrame"


def test_a_tensor_is_recorded_as_given_though_training_writes_into_it():
    class Start(nn.Module):
        def __init__(self, start):
            super().__init__()
            self.start = nn.Parameter(start)

    module = Start(torch.zeros(3))
    with torch.no_grad():
        module.start += 1
    assert torch.equal(arguments_of(module)["start"], torch.zeros(3))


def test_recording_begins_with_the_import_though_torch_is_imported_later():
    code = (
        "import ppl_vae, torch, sys; from torch import nn;"
        "init = lambda self, width: nn.Module.__init__(self);"
        "Own = type('Own', (nn.Module,), {'__init__': init});"
        "from ppl_vae.saving.construction import arguments_of; own = Own(3);"
        "print(arguments_of(own), type(torch.__spec__.loader).__name__)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "{'width': 3} SourceFileLoader"


def test_torch_takes_modules_with_a_record_as_before():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    x = torch.ones(1, 2)
    twin = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    twin.load_state_dict(net.state_dict())
    assert list(net.state_dict()) == list(twin.state_dict())
    assert torch.equal(torch.fx.symbolic_trace(net)(x), net(x))
    assert torch.equal(torch.export.export(net, (x,)).module()(x), net(x))
    assert str(net) == str(twin)
    assert "ppl_vae" not in str(pickle.dumps(nn.Linear(2, 3))).replace("_ppl_vae_arguments", "")


def test_bases_beside_the_module_are_constructed_as_before():
    class Table(nn.Module, dict):
        def __init__(self, rows, name=""):
            nn.Module.__init__(self)
            dict.__init__(self, rows)

    table = Table([("a", 1)], name="b")
    assert table["a"] == 1
    assert arguments_of(table)["name"] == "b"
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        type("Bare", (nn.Module,), {})(3)


def test_a_record_costs_little_beside_the_construction():
    def fastest(make):
        times = []
        for _ in range(200):
            start = time.perf_counter()
            make()
            times.append(time.perf_counter() - start)
        return min(times)

    recorded = fastest(lambda: nn.Module.__new__(nn.Linear, 30, 30, bias=True))
    assert recorded < 0.5 * fastest(lambda: nn.Linear(30, 30, bias=True))


@pytest.mark.filterwarnings("ignore::UserWarning")  # high k-hat
def test_a_pair_made_by_build_opens_again_with_the_numbers_of_its_data(tmp_path):
    pair = build(GaussianModel, X, latents=2), build(NormalGuide, X, latents=2)
    scores = both(pair, tmp_path / "run")
    assert scores[0].equals(scores[1])
    assert load(tmp_path / "run")[0].features == 12
