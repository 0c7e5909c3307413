"""A saved pair loads with the same numbers, also in another process."""

import os
import subprocess
import sys

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.runs import X, pair
from pyro.nn import PyroModule

from ppl_vae import build, elbo_terms, encode, fit, generate, load, log_likelihood, save
from ppl_vae.core.pair import Pair
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.nn import MLP
from ppl_vae.saving.runs import read_run


@pytest.mark.parametrize("form", ["tensor", "frame", "mapping"])
def test_a_loaded_pair_gives_the_same_numbers(form, tmp_path):
    data = {"tensor": X, "frame": pd.DataFrame(X.numpy(), columns=list("abcdefghijkl")),
            "mapping": {"x": X}}[form]  # fmt: skip
    model = build(GaussianModel, data, latents=2, decoder=MLP(2, 24, (9, 9), torch.nn.ReLU))
    guide = build(NormalGuide, data, latents=2)
    fit(model, guide, data, epochs=2, progress=False, run=tmp_path / "run")
    again = load(tmp_path / "run")
    assert [type(half) for half in again] == [GaussianModel, NormalGuide]
    pd.testing.assert_frame_equal(encode(model, guide, data), encode(*again, data))
    example = read_run(tmp_path / "run").example()
    assert type(example) is type(data)
    assert type(generate(*again, example, num_samples=4)) is type(data)


def test_loading_costs_the_caller_no_draws(tmp_path):
    save(BernoulliModel(4), NormalGuide(4), tmp_path)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_double_precision_survives(tmp_path):
    model, guide = BernoulliModel(4).double(), NormalGuide(4).double()
    save(model, guide, tmp_path)
    again = load(tmp_path)
    assert next(again[0].parameters()).dtype == torch.float64
    assert torch.equal(model.decoder[0].weight, again[0].decoder[0].weight)


def test_an_argument_that_cannot_be_written_leaves_weights_without_a_recipe(tmp_path):
    model, guide = pair()
    model = Watched(model.decoder, print)
    with pytest.warns(UserWarning, match=r"Watched: argument watch: a builtin.* cannot be written"):
        save(model, guide, tmp_path, data=X)
    with pytest.raises(ValueError, match=r"weights without a recipe.*load\(run, model=..., guide"):
        load(tmp_path)
    fresh = Watched(pair()[0].decoder, print), pair()[1]
    with torch.no_grad():
        fresh[0].decoder[1][0].weight.zero_()
    again = load(tmp_path, model=fresh[0], guide=fresh[1])
    assert torch.equal(again[0].decoder[1][0].weight, model.decoder[1][0].weight)
    with pytest.raises(ValueError, match=r"weights: expected .* of shape"):
        load(tmp_path, model=pair()[0], guide=NormalGuide(12, 3, MLP(12, 6, (5,))))


class Watched(BernoulliModel):
    """A model that takes a function of Python's own, which it does not store."""

    def __init__(self, decoder, watch):
        super().__init__(12, 3, decoder)
        self._watch = watch


def test_a_recipe_that_rebuilds_another_pair_is_not_stored(tmp_path):
    """The decoder has the sizes of the network that was given, but another activation."""
    model = BernoulliModel(12, 3, MLP(3, 12))
    model.decoder[1] = torch.nn.ReLU()
    with pytest.warns(UserWarning, match="gives other numbers"):
        save(model, NormalGuide(12, 3), tmp_path / "with", data=X)
    with pytest.raises(ValueError, match="gives other numbers"):
        load(tmp_path / "with")


def test_shared_parameters_are_stored_once(tmp_path):
    model, guide = BernoulliModel(4, 2), NormalGuide(4, 2)
    guide.tied = model.decoder
    save(model, guide, tmp_path)
    separate = tmp_path / "separate"
    save(BernoulliModel(4, 2), NormalGuide(4, 2), separate)
    sizes = [os.path.getsize(folder / "weights.safetensors") for folder in (tmp_path, separate)]
    assert sizes[0] == pytest.approx(sizes[1], abs=200)


def test_parameters_of_plain_functions_are_stored(tmp_path):
    def make():
        def model(x):
            loc = pyro.param("loc", torch.zeros(12))
            scale = pyro.param("scale", torch.ones(()), constraint=dist.constraints.positive)
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)

        return model

    model = make()
    with pytest.warns(
        UserWarning, match=r"make\.<locals>\.model is not .* at the top level of a file"
    ):
        fit(
            model,
            None,
            X,
            epochs=3,
            progress=False,
            run=tmp_path / "run",
            optimizer=lambda p: torch.optim.Adam(p, 0.1),
        )
    fresh = make()
    again, guide = load(tmp_path / "run", model=fresh)
    assert guide is None
    histories = [
        fit(m, None, X, epochs=1, progress=False, optimizer=lambda p: torch.optim.SGD(p, 0.0))
        for m in (model, again)
    ]
    elbos = [history.frame["elbo"].item() for history in histories]
    assert elbos[0] == elbos[1]


def test_a_loaded_pair_agrees_in_another_process_with_other_threads(tmp_path):
    model, guide = build(GaussianModel, X, latents=2), build(NormalGuide, X, latents=2)
    save(model, guide, tmp_path / "run", data=X)
    torch_file = tmp_path / "x.npy"
    import numpy as np

    np.save(torch_file, X.numpy())
    code = (
        "import sys, numpy, torch; torch.set_num_threads(2); from ppl_vae import load, encode;"
        "codes = encode(*load(sys.argv[1]), numpy.load(sys.argv[2]));"
        "numpy.save(sys.argv[3], codes.to_numpy())"
    )
    arguments = [str(tmp_path / "run"), str(torch_file), str(tmp_path / "codes.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    codes = encode(model, guide, X).to_numpy()
    assert np.load(tmp_path / "codes.npy") == pytest.approx(codes, rel=1e-5, abs=1e-6)


class Partner(PyroModule):
    """A guide that takes its model as a constructor argument."""

    def __init__(self, model, width):
        super().__init__()
        self.model, self.width = model, width
        self.encoder = torch.nn.Linear(12, 2 * width)

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def test_a_guide_that_takes_its_model_is_rebuilt_with_the_rebuilt_model(tmp_path):
    model = BernoulliModel(12, 3)
    guide = Partner(model, 3)
    save(model, guide, tmp_path / "run", data=X)
    again = load(tmp_path / "run", trust_code=True)
    assert again[1].model is again[0]
    assert torch.equal(again[1].encoder.weight, guide.encoder.weight)


def test_buffers_of_networks_of_plain_functions_are_stored(tmp_path):
    def make():
        norm = torch.nn.BatchNorm1d(12)

        def model(x):
            weight = pyro.param("weight", torch.ones(12))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
                pyro.sample("x", dist.Normal(z[:, None] * weight, 1.0).to_event(1), obs=x)

        def guide(x):
            pyro.module("norm", norm)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(norm(x).mean(1), 1.0))

        return model, guide, norm

    model, guide, norm = make()
    with (
        pytest.warns(UserWarning, match="BatchNorm1d"),
        pytest.warns(UserWarning, match="weights without a recipe"),
    ):
        fit(model, guide, 3 + X, epochs=2, progress=False, run=tmp_path / "run")
    again, encoder, other = make()
    load(tmp_path / "run", model=again, guide=encoder)
    assert norm.running_mean.mean() > 0.5
    assert torch.equal(norm.running_mean, other.running_mean)


class Outer:
    class Inner(PyroModule):
        def __init__(self, width=1):
            super().__init__()
            self.width = width
            self.loc = torch.nn.Parameter(torch.zeros(12))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.loc, self.width).to_event(1), obs=x)


def test_a_nested_class_has_no_recipe_and_the_error_of_load_says_why(tmp_path):
    with pytest.warns(UserWarning, match="Outer.Inner is not a torch module class at the top"):
        save(Outer.Inner(), None, tmp_path, data=X)
    with pytest.raises(
        ValueError, match=r"Outer.Inner is not a torch module class at the top level"
    ):
        load(tmp_path, trust_code=True)


XY = (X, 1 - X)


class HalfFrozen(torch.nn.Module):
    """A classic pair: methods that register their object with ``pyro.module``.

    ``pyro.module`` passes over frozen parameters, here those of the network ``baseline``.
    """

    def __init__(self):
        super().__init__()
        self.baseline = torch.nn.Linear(12, 2).requires_grad_(False)
        self.decoder, self.encoder = torch.nn.Linear(2, 12), torch.nn.Linear(12, 2)

    def model(self, x, y):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.baseline(x), 1.0).to_event(1))
            pyro.sample("y", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=y)

    def guide(self, x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


@pytest.mark.parametrize("called", [True, False], ids=["fitted", "never called"])
@pytest.mark.parametrize("data", [XY, None], ids=["with data", "without data"])
def test_frozen_parameters_that_pyro_module_passes_over_are_stored(data, called, tmp_path):
    pair, fresh = HalfFrozen(), HalfFrozen()
    if called:
        fit(pair.model, pair.guide, XY, epochs=1, progress=False)
    save(pair.model, pair.guide, tmp_path, data=data)
    model, guide = load(tmp_path, model=fresh.model, guide=fresh.guide)
    assert torch.equal(fresh.baseline.weight, pair.baseline.weight)
    terms = elbo_terms(pair.model, pair.guide, XY)
    pd.testing.assert_frame_equal(terms, elbo_terms(model, guide, XY))


def test_a_run_without_frozen_parameters_leaves_those_of_the_pair_alone(tmp_path, monkeypatch):
    pair, fresh = HalfFrozen(), HalfFrozen()
    fit(pair.model, pair.guide, XY, epochs=1, progress=False)
    with monkeypatch.context() as older:  # as versions stored it that did not know these parameters
        older.setattr(Pair, "unregistered", lambda self: {})
        with pytest.warns(UserWarning, match="the weights without a recipe"):
            save(pair.model, pair.guide, tmp_path, data=XY)
    before = fresh.baseline.weight.clone()
    load(tmp_path, model=fresh.model, guide=fresh.guide)
    assert torch.equal(fresh.baseline.weight, before)
    assert torch.equal(fresh.decoder.weight, pair.decoder.weight)


@pytest.mark.parametrize("kept_by", ["save", "fit"])
def test_frozen_parameters_of_a_rebuilt_pair_stay_frozen(kept_by, tmp_path):
    model, guide = BernoulliModel(6, 2), NormalGuide(6, 2)
    model.requires_grad_(False)
    x = (torch.rand(30, 6) > 0.5).float()
    if kept_by == "fit":
        fit(model, guide, x, epochs=1, compile=False, progress=False, run=tmp_path / "run")
    else:
        save(model, guide, tmp_path / "run", data=x)
    loaded, loaded_guide = load(tmp_path / "run")
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(p.requires_grad for p in loaded_guide.parameters())


def test_a_run_made_under_another_default_dtype_says_which(tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        pair = BernoulliModel(6, 2), NormalGuide(6, 2)
        x = (torch.rand(30, 6) > 0.5).double()
        save(*pair, tmp_path / "run", data=x)
        scores = log_likelihood(*load(tmp_path / "run"), x, num_samples=3)
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(ValueError, match=r"torch.set_default_dtype\(torch.float64\) before load"):
        load(tmp_path / "run")
    assert scores["log_prob"].notna().all()
