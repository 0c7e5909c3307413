"""``latent_usage`` of the pairs of the zoo, and of pairs whose posterior collapsed in a fit."""

import numpy as np
import pyro
import pytest
import torch
from parts.extras import sklearn
from parts.zoo import EVERY_TIME, refusal, zoo_names, zoo_pair
from torch import nn

from ppl_vae import RowELBO, fit, latent_usage, schedules
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP

PARTS = ["kl", "mutual_information", "marginal_kl"]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(n, marks=[] if n[0] in EVERY_TIME.get(n[1], (n[0],)) else pytest.mark.slow)
        for n in zoo_names()
    ],
    ids="-".join,
)
def test_the_pairs_of_the_zoo_have_a_line_for_each_latent(names):
    if reason := refusal(*names):
        pytest.skip(reason)
    if names[0] == "flow":
        with pytest.raises(ValueError, match="expected a latent"):
            latent_usage(*zoo_pair(*names))
        return
    usage = latent_usage(*zoo_pair(*names), num_samples=3)
    frame = usage.frame
    single = frame[frame["dimension"].notna()]
    assert np.isfinite(single["activity"]).all()
    for site, lines in frame.groupby("site"):
        known = lines[PARTS].notna().any(axis=1).any()
        assert known or f'site "{site}": ' in str(usage)
        if not lines[PARTS].notna().any().all():  # a number that is missing has its reason
            assert f'site "{site}": ' in str(usage)
    split = frame[frame[PARTS].notna().all(axis=1)]
    total = split["mutual_information"] + split["marginal_kl"]
    assert split["kl"].to_numpy() == pytest.approx(total.to_numpy(), abs=1e-5)


def collapsed_fit(layers, epochs, lr, **settings):
    pyro.set_rng_seed(0)
    x = torch.as_tensor(sklearn("datasets").load_digits().data > 7).float()
    hidden = (64,) * layers
    model = BernoulliModel(64, 10, MLP(10, 64, hidden, nn.Sigmoid))
    guide = NormalGuide(64, 10, MLP(64, 20, hidden, nn.Sigmoid))
    fit(
        model, guide, x, epochs=epochs, compile=False, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=lr), **settings,
    )  # fmt: skip
    return latent_usage(model, guide, x, num_samples=1)


def test_a_collapsed_posterior_is_named_and_free_bits_bring_its_latents_back():
    usage = collapsed_fit(2, 30, 0.003)
    assert usage.collapsed == ["z"]
    last = str(usage).splitlines()[-1]
    for words in ('collapse at site "z"', "kl_weight=", "free_bits=0.1", "weaker decoder"):
        assert words in last
    assert len(collapsed_fit(2, 30, 0.003, elbo=RowELBO(free_bits=0.1)).active) >= 8


@pytest.mark.slow
def test_a_kl_warm_up_brings_latents_back():
    assert collapsed_fit(3, 60, 0.01).active == []
    weight = schedules.linear(60 * 15 // 2)
    assert len(collapsed_fit(3, 60, 0.01, kl_weight=weight).active) >= 2
