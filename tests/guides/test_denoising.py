"""A denoising guide reads corrupted rows in train mode, and clean rows everywhere else."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from ppl_vae import build, elbo_terms, encode, fit, lint, load, log_likelihood, save
from ppl_vae.guides.conditional import ConditionalGuide
from ppl_vae.guides.delta import DeltaGuide
from ppl_vae.guides.denoising import DenoisingGuide
from ppl_vae.guides.local import LocalGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.guides.top_down import TopDownGuide
from ppl_vae.models.conditional import ConditionalModel
from ppl_vae.models.continuous_bernoulli import ContinuousBernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.hierarchical import HierarchicalModel
from ppl_vae.models.negative_binomial import NegativeBinomialModel
from ppl_vae.models.vampprior import VampPriorModel
from ppl_vae.nn import GaussianNoise, MaskingNoise, SaltAndPepperNoise

STILL = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0), "progress": False}
"""A fit that computes the objective and moves nothing."""


def rows(count=60):
    return 100 + 30 * torch.randn(count, 4, generator=torch.Generator().manual_seed(1))


def pair_with(inside, corruption=None):
    """A Gaussian model with a denoising guide around another guide, and the rows."""
    x = rows()
    torch.manual_seed(0)
    model, guide = build(GaussianModel, x, latents=2), build(inside, x, latents=2)
    return model, build(DenoisingGuide, x, guide=guide, corruption=corruption), x


class Reader(nn.Module):
    """A guide without latents that stores what it is given."""

    def forward(self, x, **fields):
        self.read = x, fields


def test_a_guide_with_parameters_for_single_rows_is_refused():
    """At once: a fit of it would end with a pair that refuses its own rows."""
    for inside in (LocalGuide(60, 2), nn.Sequential(LocalGuide(60, 2))):
        with pytest.raises(ValueError, match=r"^guide: expected a guide that reads its rows, got"):
            DenoisingGuide(4, guide=inside)
        with pytest.raises(ValueError, match=r"^guide: expected a guide that reads its rows, got"):
            VampPriorModel(4, inside)


@pytest.mark.parametrize("noise", [MaskingNoise(), GaussianNoise(), SaltAndPepperNoise()])
def test_a_guide_reads_a_corrupted_row_in_train_mode_only(noise):
    x, reader = rows(), Reader()
    guide = build(DenoisingGuide, x, guide=reader, corruption=noise)
    guide(x)
    first = reader.read[0]
    guide(x)
    assert (first != x).any()
    assert (reader.read[0] != first).any()  # fresh noise at each call
    guide.eval()(x)
    assert reader.read[0] is x


def test_corruption_is_in_standard_deviations_of_the_data():
    """Margins: four standard errors of 40,000 cells or more."""
    x = rows(10_000)
    loc, scale = x.mean(0), x.std(0)

    def moved(noise):
        y = build(DenoisingGuide, x, guide=Reader(), corruption=noise).corrupted(x)
        changed = y != x
        return ((y - loc) / scale)[changed], float(changed.float().mean())

    values, share = moved(MaskingNoise(0.3))
    assert share == pytest.approx(0.3, abs=0.01)
    assert values.abs().max() < 1e-4
    values, share = moved(SaltAndPepperNoise(0.2, low=-1.5, high=2.5))
    assert share == pytest.approx(0.2, abs=0.01)
    assert values.mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_allclose(values.min(), -1.5, atol=1e-3)
    np.testing.assert_allclose(values.max(), 2.5, atol=1e-3)
    y = build(DenoisingGuide, x, guide=Reader(), corruption=GaussianNoise(0.4)).corrupted(x)
    assert float(((y - x) / scale).std()) == pytest.approx(0.4, abs=0.01)


def test_missing_cells_stay_missing_and_others_stay_as_they_are():
    codes = torch.tensor([[0, 1, 2, 7]] * 50)
    guide = DenoisingGuide(4, guide=Reader(), corruption=MaskingNoise(0.5), loc=0.3, scale=1.7)
    corrupted = guide.corrupted(codes)
    masked = (corrupted - 0.3).abs() < 1e-6
    assert 0.4 < float(masked.float().mean()) < 0.6
    assert torch.equal(corrupted[~masked], codes[~masked].float())
    gaps = rows().masked_fill(rows() > 120, torch.nan)
    for noise in (MaskingNoise(0.5), GaussianNoise(0.5), SaltAndPepperNoise(0.5)):
        guide = DenoisingGuide(4, guide=Reader(), corruption=noise)
        assert torch.equal(guide.corrupted(gaps).isnan(), gaps.isnan())


def test_every_evaluation_is_that_of_the_guide_inside():
    model, guide, x = pair_with(NormalGuide, GaussianNoise(2.0))
    assert guide.training
    for function in (encode, elbo_terms, log_likelihood):
        with_noise, without = (function(model, g, x, num_samples=20) for g in (guide, guide.guide))
        assert with_noise.equals(without)
    settings = {"validation": x, "epochs": 1, "compile": False, **STILL}
    noisy, clean = (fit(model, g, x, **settings) for g in (guide, guide.guide))
    assert noisy.validation_elbo == clean.validation_elbo
    assert noisy.frame["elbo"][0] < clean.frame["elbo"][0]


def objectives(corruption, **settings):
    """The objective of eight full batches of a pair that draws nothing but the corruption.

    All rows are the same, so that their order, which is drawn in every epoch, has no effect.
    """
    model, guide, x = pair_with(DeltaGuide, corruption)
    settings = {"epochs": 8, "batch_size": len(x), **STILL, **settings}
    history = fit(model, guide, x[:1].repeat(60, 1), **settings)
    return history.step, history.frame["objective"].to_numpy()


@pytest.mark.parametrize(
    ("step", "compiled"),
    [("eager", False), ("traced", "auto"), pytest.param("compiled", True, marks=pytest.mark.slow)],
)
def test_every_step_has_fresh_noise_that_a_seed_repeats(step, compiled, monkeypatch):
    monkeypatch.setattr("ppl_vae.training.stepper.TRACED_FROM", 1)
    kind, values = objectives(GaussianNoise(0.5), compile=compiled)
    assert kind == step
    assert len(set(values.round(4))) == 8  # with the same noise in every step: 1
    again, other = (objectives(GaussianNoise(0.5), compile=compiled, seed=s)[1] for s in (0, 1))
    assert (again == values).all()
    assert (other != values).all()


def test_fields_reach_a_guide_that_takes_them():
    reader, x, y = Reader(), rows(), torch.arange(60) % 3
    DenoisingGuide(4, guide=reader)(x, y=y)
    assert reader.read[1]["y"] is y
    bits = (rows() > 100).float()
    data = {"x": bits, "y": y}
    model, inside = build(ConditionalModel, data), build(ConditionalGuide, data)
    guide = build(DenoisingGuide, data, guide=inside)
    assert not lint(model, guide, data).findings
    assert elbo_terms(model, guide, data).equals(elbo_terms(model, inside, data))
    counts = {"x": torch.poisson(rows()), "size": torch.ones(60)}
    inside = build(NormalGuide, counts)  # takes no size
    guide = build(DenoisingGuide, counts, guide=inside)
    assert not lint(build(NegativeBinomialModel, counts), guide, counts).findings


def test_a_run_holds_the_corruption_and_the_guide_inside(tmp_path):
    bits = (rows() > 100).float()
    model = build(HierarchicalModel, bits, latents=(3, 2))
    inside = build(TopDownGuide, bits, model=model)
    guide = build(DenoisingGuide, bits, guide=inside, corruption=SaltAndPepperNoise(0.3, 0.0, 1.0))
    fit(model, guide, bits, epochs=1, compile=False, progress=False)
    save(model, guide, tmp_path / "run")
    again = load(tmp_path / "run")
    assert elbo_terms(*again, bits).equals(elbo_terms(model, guide, bits))
    noise = again[1].corruption
    assert (type(noise), noise.share, noise.low, noise.high) == (SaltAndPepperNoise, 0.3, 0.0, 1.0)
    assert again[1].guide.model is again[0]


def test_images_are_corrupted_cell_by_cell():
    images = torch.rand(20, 2, 8, 8)
    model, guide = build(ContinuousBernoulliModel, images), build(DenoisingGuide, images)
    assert not lint(model, guide, images).findings
    changed = guide.corrupted(images) != images
    assert 0.2 < float(changed.float().mean()) < 0.3
    assert (changed[:, 0] != changed[:, 1]).any()


def test_a_plain_function_may_be_inside():
    def inside(x):
        scale = pyro.param("scale", torch.ones(()), dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2] / 100, scale).to_event(1))

    x = rows()
    guide = build(DenoisingGuide, x, guide=inside)
    fit(build(GaussianModel, x, latents=2), guide, x, epochs=1, compile=False, progress=False)
    loc = poutine.trace(guide.eval()).get_trace(x).nodes["z"]["fn"].mean
    torch.testing.assert_close(loc, x[:, :2] / 100)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskingNoise(1.5), "share: expected a probability, from 0 to 1, got 1.5"),
        (lambda: MaskingNoise(-0.1), "share: expected a number of at least 0, got -0.1"),
        (lambda: GaussianNoise(0.0), "sd: expected a positive number, got 0.0"),
        (lambda: SaltAndPepperNoise(low=1.0, high=0.0), "high: expected a number above low=1"),
    ],
)
def test_wrong_corruptions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
