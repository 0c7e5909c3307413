"""Bad input to ``fit`` raises an error that names the argument, what was expected, what came."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import ReweightedWakeSleep

from ppl_vae import fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel

GOOD = torch.rand(40, 6, generator=torch.Generator().manual_seed(0)).bernoulli()


def assert_refused(message, *, model=None, guide=None, data=GOOD, **settings):
    with pytest.raises(ValueError, match=message):
        fit(
            model or BernoulliModel(6, 2),
            guide or NormalGuide(6, 2),
            data,
            **{"epochs": 1, "progress": False, **settings},
        )


def with_nan(row):
    data = GOOD.clone()
    data[row, 2] = float("nan")
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD[:0], "data: expected at least one row, got none"),
        (GOOD[:1], "data: expected at least 2 rows to fit to, got 1"),
        (np.array([["a"], ["b"]]), "data: expected numbers, got an array of dtype <U1"),
        (pd.DataFrame({"name": ["u", "v"]}), 'expected numeric columns, got "name"'),
        (with_nan(37), "got NaN or infinity in 1 of 40 rows, the first is row 37"),
        (GOOD + 0.5, r"support \(0 or 1\), got values outside it in 40 of 40 rows"),
        ({"x": GOOD, "weight": GOOD}, 'field "weight": expected an argument of this name'),
        ({"rows": GOOD}, 'field "x": expected data with this field'),
        ([GOOD], "got list"),
    ],
)
def test_bad_data(data, message):
    assert_refused(message, data=data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs: expected a whole number of at least 1, got 0"),
        ({"epochs": 1.5}, "epochs: expected a whole number"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"patience": 0, "validation": 0.2}, "patience: expected"),
        ({"patience": 3}, "patience: needs held-out rows"),
        ({"clip_norm": 0.0}, "clip_norm: expected a positive number"),
        ({"kl_weight": -1.0}, "kl_weight: expected a number of at least 0"),
        ({"kl_weight": float("nan")}, "kl_weight: expected"),
        ({"validation": 0.0}, "validation: expected a fraction"),
        ({"validation": 1.0}, "validation: expected a fraction"),
        ({"validation": 0.001}, "validation: expected a fraction"),
        ({"validation": GOOD[:, :5]}, r"validation: expected rows like the data's.*\(6,\).*\(5,\)"),
        ({"epochs": True}, "epochs: expected a whole number"),
        ({"clip_norm": "x"}, "clip_norm: expected a positive number, got 'x'"),
        ({"kl_weight": "x"}, "kl_weight: expected a number of at least 0, got 'x'"),
        ({"kl_weight": lambda step: -1.0}, "kl_weight: .* at step 0, got -1.0"),
        ({"kl_weight": lambda step: None}, "kl_weight: .* at step 0, got None"),
        ({"validation": 1}, "validation: expected a fraction"),
        ({"callbacks": print}, "callbacks: expected a list of functions"),
        ({"optimizer": pyro.optim.Adam({"lr": 0.01})}, "optimizer: .* got PyroOptim"),
        ({"optimizer": "adam"}, "optimizer: expected a function, got str; pass a function"),
        ({"optimizer": lambda p: None}, "to return a torch optimizer, got NoneType"),
        ({"optimizer": torch.optim.LBFGS}, "LBFGS evaluates the loss itself"),
        ({"scheduler": torch.optim.lr_scheduler.StepLR}, "scheduler: expected a function"),
        ({"elbo": ReweightedWakeSleep()}, "ReweightedWakeSleep has no differentiable loss"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"elbo": "Trace_ELBO"}, "elbo: expected one of Pyro's ELBOs"),
        (
            {"plate": "rows"},
            'expected the site in the row plate "rows" of the model, got plate "data"',
        ),
    ],
)
def test_bad_settings(settings, message):
    assert_refused(message, **settings)


def other_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("code", dist.Normal(pyro.param("m", torch.zeros(())), 1.0))


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (other_guide, r'site "code": expected the guide to draw the model.s latents \("z"\)'),
        (NormalGuide(6, 3), r"expected the model's event_shape \(2,\), got \(3,\)"),
        (NormalGuide(5, 2), "guide: expected to run on a batch of shapes"),
        (NormalGuide, "guide: expected an instance, got the class NormalGuide"),
        ("NormalGuide", "guide: expected a callable, got str"),
    ],
)
def test_a_guide_for_another_model(guide, message):
    assert_refused(message, guide=guide)


def test_nothing_to_train():
    model, guide = BernoulliModel(6, 2).requires_grad_(False), NormalGuide(6, 2)
    assert_refused("nothing to train", model=model, guide=guide.requires_grad_(False))


def test_errors_leave_the_pair_and_the_generators_as_they_were():
    model, guide = BernoulliModel(6, 2), NormalGuide(6, 2)
    before = torch.get_rng_state(), [p.detach().clone() for p in model.parameters()]
    assert_refused("NaN", model=model, guide=guide, data=with_nan(3))
    assert torch.equal(before[0], torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before[1], model.parameters(), strict=True))
    assert len(pyro.get_param_store()) == 0


def test_held_out_columns_of_other_names():
    data = pd.DataFrame(GOOD.numpy(), columns=list("abcdef"))
    assert_refused("expected the data's columns", data=data, validation=data.add_prefix("x"))
    missing = data.rename(columns={"b": "x"})
    assert_refused('validation: .* none called "b"', data=data, validation=missing)
