"""A mask that depends on what replicates draw is named; one that comes with the data is not."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.zoo import zoo_pair

import ppl_vae
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.predictive.factors import sites_masked_by_draws


def hurdle(by_draws):
    """Counts, masked where the other site is 0: as drawn, or as the data say."""

    def model(there, count):
        with pyro.plate("data", len(count)):
            half = 0.5 * torch.ones(len(count), 3)
            drawn = pyro.sample("there", dist.Bernoulli(half).to_event(1), obs=there)
            counts = dist.Poisson(6 * half).mask((drawn if by_draws else there) > 0)
            pyro.sample("count", counts.to_event(1), obs=count)

    return model


@pytest.mark.parametrize("by_draws", [True, False])
def test_a_hurdle_whose_mask_is_drawn_says_that_its_flags_are_no_findings(by_draws):
    there = (torch.arange(180).reshape(60, 3) % 7 < 4).float()
    data = {"there": there, "count": 3 * there}
    check = ppl_vae.predictive_check(hurdle(by_draws), None, data, num_samples=20)
    assert check.masked_by_draws == (["count"] if by_draws else [])
    said = 'site "count": a flag is no finding, because its mask depends on values' in str(check)
    assert said == by_draws


@pytest.mark.parametrize("model", ["deep_markov", "not_missing_at_random", "semisupervised"])
def test_masks_of_the_zoo_come_with_the_data(model):
    guide = {"deep_markov": "smoothing", "semisupervised": "classifier"}.get(model, "missing_cells")
    model, guide, data = zoo_pair(model, guide)
    names = list(
        ppl_vae.elbo_terms(model, guide, data).columns.intersection(["x", "seen", "label"])
    )
    assert "x" in names
    assert sites_masked_by_draws(Pair.of(model, guide, "data"), as_rows(data), names) == []
