"""Cells that are missing for reasons that lie in them: densities, and what a reason is worth."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.nn.functional import softplus

from ppl_vae import build, fit, impute, lint
from ppl_vae.core.pair import Pair
from ppl_vae.core.sites import traces
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.guides.missing_cells import MissingCellsGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.not_missing_at_random import NotMissingAtRandomModel

ROWS, FEATURES = 300, 5


def quietly(test):
    """A test without the warnings of short fits, and of a parameter that the model ignores."""
    for text in ("ignore:fit. ", "ignore:parameter .model", "ignore:impute. few draws"):
        test = pytest.mark.filterwarnings(text)(test)
    return test


def large_missing(seed):
    """Rows of one factor, in units of their own, without the large cells of the first columns."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(ROWS, 1, generator=generator)
    x = 100 + 10 * (0.9 * z + 0.45 * torch.randn(ROWS, FEATURES, generator=generator))
    seen = torch.ones(ROWS, FEATURES, dtype=torch.bool)
    seen[:, :2] = x[:, :2] < 100
    return x, {"x": torch.where(seen, x, torch.nan), "seen": seen}


class Ignoring(NotMissingAtRandomModel):
    """The model without its last statement."""

    def forward(self, x, seen):
        with poutine.block(hide=["seen"]):
            super().forward(x, seen)


def fitted(cls, data, seed, epochs=60):
    torch.manual_seed(seed)
    model = build(cls, data, latents=1)
    guide = build(MissingCellsGuide, data, model=model)
    fit(
        model, guide, data, epochs=epochs, batch_size=50, seed=seed, compile=False, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.01),
    )  # fmt: skip
    return model, guide


def error(cls, seed):
    """Root mean square of the errors of the missing cells, in the data's units."""
    x, data = large_missing(seed)
    model, guide = fitted(cls, data, seed)
    completed = impute(model, guide, data, num_samples=200).completed["x"]
    return float((completed - x)[~data["seen"]].square().mean().sqrt())


@quietly
def test_the_reason_makes_the_error_of_missing_cells_smaller():
    assert error(NotMissingAtRandomModel, 0) < 0.75 * error(Ignoring, 0)


@pytest.mark.slow
@quietly
def test_the_gain_is_larger_than_the_spread_over_five_data_sets_and_fits():
    known, ignored = (
        torch.tensor([error(cls, seed) for seed in range(5)])
        for cls in (NotMissingAtRandomModel, Ignoring)
    )
    gain = ignored - known
    assert gain.mean() > 2 * max(known.std(), ignored.std(), gain.std())


@quietly
def test_the_threshold_and_its_direction_are_learned():
    """All large cells of two columns are missing: the others are seen, whatever they are."""
    _, data = large_missing(0)
    model, _ = fitted(NotMissingAtRandomModel, data, 0, epochs=150)
    at = model.loc + model.scale * torch.tensor([[-2.0], [2.0]])
    logits = model.sign * softplus(model.slope) * ((at - model.loc) / model.scale - model.threshold)
    chances = logits.sigmoid()
    assert (chances[0] > 0.9).all()
    assert (chances[1, :2] < 0.2).all()
    assert (chances[1, 2:] > 0.7).all()


def test_the_density_is_its_formula():
    torch.manual_seed(1)
    model = NotMissingAtRandomModel(3, 2, loc=5.0, scale=2.0, floor=0.3, sign=1)
    with torch.no_grad():
        model.slope.normal_()
        model.threshold.normal_()
    z, x, other = torch.randn(7, 2), 5 + torch.randn(7, 3), 5 + torch.randn(7, 3)
    seen = torch.rand(7, 3) > 0.4
    given = poutine.condition(model, {"z": z, "missing": other})
    trace = poutine.trace(given).get_trace(torch.where(seen, x, torch.nan), seen.float())
    mean, log_variance = model.decoder(z).chunk(2, -1)
    cells = dist.Normal(5 + 2 * mean, (4 * log_variance.exp() + 0.09).sqrt())
    whole = torch.where(seen, x, other)
    rate = ((whole - 5) / 2 - model.threshold) * softplus(model.slope)
    exact = cells.log_prob(whole).sum() + dist.Normal(0, 1).log_prob(z).sum()
    exact = exact + dist.Bernoulli(logits=rate).log_prob(seen.float()).sum()
    torch.testing.assert_close(trace.log_prob_sum(), exact)


def test_the_missing_cells_cancel_in_the_weights():
    """A weight is p(x, seen, z) / q(z): the cells of the guide are those of the model."""
    _, data = large_missing(0)
    model = build(NotMissingAtRandomModel, data, latents=2)
    guide = build(MissingCellsGuide, data, model=model)
    pair = Pair.of(model, guide, "data")
    with pair.quiet_run():
        model_trace, guide_trace = traces(pair, data)
    draw = Draw(model_trace, guide_trace, "data", None, ROWS)
    names = {"z": 1, "x": 1, "seen": 1}
    parts = [draw.log_prob_of(model_trace.nodes[name]) for name in names]
    expected = sum(parts) - draw.log_prob_of(guide_trace.nodes["z"])
    torch.testing.assert_close(draw.log_weights(), expected, rtol=1e-4, atol=1e-3)
    assert not guide_trace.nodes["missing"]["value"].isnan().any()


def by_obs_mask(x, seen):
    """Pyro's own way to a latent for the missing cells."""
    with pyro.plate("data", len(x)), pyro.plate("features", FEATURES, dim=-2):
        cells = dist.Normal(100.0, 10.0).expand([FEATURES, len(x)])
        whole = pyro.sample("x", cells, obs=x.nan_to_num().T, obs_mask=seen.T)
        pyro.sample("seen", dist.Bernoulli(logits=(100 - whole) / 10), obs=seen.T.float())


def reading_itself(x, seen):
    """The chance that a cell is seen depends on whether it is."""
    with pyro.plate("data", len(x)):
        cells = dist.Normal(100.0, 10.0).expand(x.shape)
        missing = pyro.sample("missing", cells.mask(~seen).to_event(1))
        x = pyro.sample("x", cells.mask(seen).to_event(1), obs=x.nan_to_num())
        logits = (100 - torch.where(seen, x, missing)) / 10 + seen
        pyro.sample("seen", dist.Bernoulli(logits=logits).to_event(1), obs=seen.float())


def guide_of(name):
    """A guide that draws the missing cells alone."""

    def guide(x, seen):
        with pyro.plate("data", len(x)):
            loc = pyro.param("m", torch.full((FEATURES,), 100.0)).expand(x.shape)
            if name == "missing":
                pyro.sample(name, dist.Normal(loc, 10.0).mask(~seen).to_event(1))
                return
            with pyro.plate("features", FEATURES, dim=-2):
                pyro.sample(name, dist.Normal(loc.T, 10.0).mask(~seen.T))

    return guide


def test_lint_takes_a_reason_that_lies_in_the_cells_and_refuses_one_that_is_the_mask_itself():
    _, data = large_missing(0)
    model = build(NotMissingAtRandomModel, data, latents=1)
    guide = build(MissingCellsGuide, data, model=model)
    assert not lint(model, guide, data).findings
    sound = lint(by_obs_mask, guide_of("x_unobserved"), data).findings
    assert not any("cell that it scores" in str(finding) for finding in sound)
    faults = lint(reading_itself, guide_of("missing"), data).findings
    assert ["cell that it scores" in str(finding) for finding in faults] == [True]


def test_sizes_come_from_the_cells_that_are_seen():
    _, data = large_missing(0)
    zeros = {**data, "x": data["x"].nan_to_num()}
    model = build(NotMissingAtRandomModel, zeros)
    seen = torch.where(data["seen"], data["x"], torch.nan)
    torch.testing.assert_close(model.loc, seen.nanmean(0))


def test_the_direction_is_one_of_two_and_the_partner_has_cells():
    for sign in (0, 2.0, -3):
        with pytest.raises(ValueError, match="sign: expected -1 or 1"):
            NotMissingAtRandomModel(3, sign=sign)
    with pytest.raises(ValueError, match="model: expected the cells and latents"):
        MissingCellsGuide(3, BernoulliModel(3))
