"""Pairs and data from which missing cells would be wrong in silence are refused, with the mend."""

import re

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts import missing

from ppl_vae import impute
from ppl_vae.guides.delta import DeltaGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

X, SEEN = missing.drawn_rows(20)
FIELDS = {"x": torch.where(SEEN, X, 0.0), "seen": SEEN}


def refused(text, model, guide=missing.guide, data=None, **options):
    with pytest.raises(ValueError, match=re.escape(text)) as error:
        impute(model, guide, FIELDS if data is None else data, num_samples=30, **options)
    return str(error.value)


def test_a_nan_that_no_mask_hides_is_named_by_row_and_column():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1.0, np.nan, 2.0]}, index=["u", "v", "w"])

    def model(x):
        with pyro.plate("data", len(x)):
            fn = dist.Normal(0.0, 1.0).expand(x.shape)
            pyro.sample("x", fn.to_event(1), obs=x)

    text = refused("row 'v', column \"b\": expected missing cells", model, None, frame)
    assert ".mask(seen)" in text
    pair = GaussianModel(2, 1), NormalGuide(2, 1)
    text = refused("row 'v', column \"b\": expected a pair that runs", *pair, frame)
    assert ".mask(seen)" in text


@pytest.mark.parametrize("held", [False, True])
def test_a_model_that_reads_what_stands_in_a_missing_cell(held):
    """Whether a cell is seen depends on the cell: on 0 where it is missing, without the latent."""

    def model(x, seen):
        with pyro.plate("data", len(x)):
            fn = dist.Normal(missing.code(x) @ missing.weight(x).T, 1.0)
            if held:
                pyro.sample("rest", fn.mask(~seen).to_event(1))
            pyro.sample("x", fn.mask(seen).to_event(1), obs=x)
            pyro.sample("seen", dist.Bernoulli(logits=x).to_event(1), obs=seen.float())

    text = refused('site "seen": expected a model that does not read', model)
    assert "a latent that holds the missing cells" in text


def test_a_guide_of_points():
    class Model(GaussianModel):
        def forward(self, x, seen):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                loc, scale = self.decoder(z).chunk(2, -1)
                pyro.sample("x", dist.Normal(loc, scale.exp()).mask(seen).to_event(1), obs=x)

    text = refused('site "z": expected a guide that draws', Model(5, 2), DeltaGuide(5, 2))
    assert "missing cells have no posterior" in text


def test_masked_values_that_are_no_cells_of_the_data():
    def model(x, seen):
        missing.masked(x.exp(), seen)

    refused('site "x": expected a site that observes cells of the data', model)


def test_masks_that_depend_on_draws():
    def by_latent(x, seen):
        with pyro.plate("data", len(x)):
            z = missing.code(x)
            fn = dist.Normal(z @ missing.weight(x).T, 1.0).mask(seen & (z[..., :1] > 0))
            pyro.sample("x", fn.to_event(1), obs=x)

    refused("masks that hide the same cells in every run", by_latent)


def test_a_row_that_the_model_cannot_have():
    def bounded(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))[..., None, None]
            chances = torch.cat([z, 1 - z, 0 * z], -1).expand(*z.shape[:-2], 2, 3)
            pyro.sample("x", dist.Categorical(logits=chances.log()).mask(seen).to_event(1), obs=x)

    x = torch.tensor([[0, 0], [1, 0], [2, 0], [0, 0]])
    data = {"x": x, "seen": torch.tensor([True, False]).expand(4, 2)}
    text = refused("row 2: expected observed cells that the pair can score", bounded, None, data)
    assert "leave it out" in text


def test_two_latents_that_could_hold_the_same_cells():
    def model(x, seen):
        with pyro.plate("data", len(x)):
            fn = dist.Normal(missing.code(x) @ missing.weight(x).T, 1.0)
            for name in ("rest", "other"):
                pyro.sample(name, fn.mask(~seen).to_event(1))
            pyro.sample("x", fn.mask(seen).to_event(1), obs=x)

    refused('site "x": expected one latent that holds its missing cells', model)


def test_a_latent_outside_the_rows_that_reads_them():
    def model(x, seen):
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            fn = dist.Normal(shift, torch.ones_like(x)).mask(seen)
            pyro.sample("x", fn.to_event(1), obs=x)

    def guide(x, seen):
        pyro.sample("shift", dist.Normal(x.mean(), 0.1))

    refused('site "shift": expected latents outside the row plate', model, guide)


@pytest.mark.parametrize("level", [0, 1, -0.5, 2, "high", None])
def test_levels_are_probabilities(level):
    refused("level: expected", missing.masked, level=level)


def test_numbers_of_data_sets_are_counts():
    result = impute(missing.masked, missing.guide, FIELDS, num_samples=30)
    for wrong in (0, 1.5, "two"):
        with pytest.raises(ValueError, match="m: expected"):
            result.draw(wrong)
    with pytest.raises(ValueError, match=r"m: .*fits into memory"):
        result.draw(10**12)
    with pytest.raises(ValueError, match="seed: expected"):
        result.draw(2, seed="x")
