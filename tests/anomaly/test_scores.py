"""Anomaly scores against closed forms, against the library's other numbers, and on odd pairs."""

import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.discrete import Classes, ClassesGuide
from parts.zoo import binaries, reals

from ppl_vae import anomaly_scores, build, elbo_terms, log_likelihood
from ppl_vae.anomaly.scores import RowScorer
from ppl_vae.guides.conditional import ConditionalGuide
from ppl_vae.guides.delta import DeltaGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.conditional import ConditionalModel
from ppl_vae.models.flow import FlowModel
from ppl_vae.models.full_covariance import FullCovarianceModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.isotropic import IsotropicModel
from ppl_vae.models.mixture import MixtureModel

pytestmark = pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
ALL = [
    "reconstruction", "expected_reconstruction", "divergence", "negative_elbo",
    "negative_log_likelihood",
]  # fmt: skip
W = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.0, -1.0]], dtype=torch.double)
NOISE, SPREAD = 0.7, torch.tensor([0.4, 0.6], dtype=torch.double)


def linear_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W, NOISE).to_event(1), obs=x)


def linear_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, :2] / 3, SPREAD).to_event(1))


@pytest.mark.usefixtures("double")
def test_scores_of_a_linear_pair_are_its_closed_forms():
    x = torch.randn(7, 3)
    found = anomaly_scores(linear_model, linear_guide, x, num_samples=40_000)
    loc, noise = x[:, :2] / 3 @ W, NOISE**2 * torch.eye(3)
    given_row = dist.MultivariateNormal(loc, W.T @ torch.diag(SPREAD**2) @ W + noise)
    np.testing.assert_allclose(found["reconstruction"], -given_row.log_prob(x), atol=0.05)
    spread = (SPREAD[:, None] ** 2 * W**2).sum() / (2 * NOISE**2)  # E of the squared error
    mean = -dist.Normal(loc, NOISE).log_prob(x).sum(1) + spread
    np.testing.assert_allclose(found["expected_reconstruction"], mean, atol=0.15)
    guide = dist.Normal(x[:, :2] / 3, SPREAD)
    kl = torch.distributions.kl_divergence(guide, dist.Normal(0.0, 1.0)).sum(1)
    np.testing.assert_allclose(found["divergence"], kl, atol=1e-9)
    row = dist.MultivariateNormal(torch.zeros(3), W.T @ W + noise)
    np.testing.assert_allclose(found["negative_log_likelihood"], -row.log_prob(x), atol=0.05)
    total = found["expected_reconstruction"] + found["divergence"]
    np.testing.assert_allclose(found["negative_elbo"], total)


@pytest.mark.parametrize("compile_", [False, True])
def test_scores_are_the_numbers_of_log_likelihood_and_elbo_terms(compile_):
    x = reals()
    model, guide = build(GaussianModel, x, latents=2), build(NormalGuide, x, latents=2)
    settings = {"num_samples": 70, "seed": 3}
    found = anomaly_scores(model, guide, x, compile=compile_, **settings)
    likelihood = log_likelihood(model, guide, x, compile=compile_, **settings)
    terms = elbo_terms(model, guide, x, **settings)
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(found["negative_log_likelihood"], -likelihood["log_prob"], **close)
    for name in ("ess", "k_hat"):
        np.testing.assert_allclose(found[name], likelihood[name], rtol=0.01, atol=0.01)
    if not compile_:  # a graph draws other random numbers than the pair's Python
        np.testing.assert_allclose(found["expected_reconstruction"], -terms["x"], **close)
    np.testing.assert_allclose(found["divergence"], -terms["z"], **close)
    assert list(found.columns) == [*ALL, "ess", "k_hat"]
    assert found.attrs["k_hat_threshold"] == likelihood.attrs["k_hat_threshold"]


@pytest.mark.parametrize("how", ["parallel", "sequential"])
def test_a_class_that_the_guide_sums_is_summed_in_the_reconstruction(how):
    model, guide, x = Classes(), ClassesGuide(enumerate=how, expand=True), torch.randn(9, 5)
    found = anomaly_scores(model, guide, x, num_samples=3)
    with torch.no_grad():
        q = guide.encoder(x).softmax(-1)
        each = dist.Normal(model.decoder(torch.eye(3)), 1.0).log_prob(x[:, None]).sum(-1)
        prior = model.prior.log_softmax(-1)
    right = {
        "reconstruction": -(q * each.exp()).sum(1).log(),
        "expected_reconstruction": -(q * each).sum(1),
        "divergence": (q * (q.log() - prior)).sum(1),
        "negative_log_likelihood": -(prior + each).logsumexp(1),
    }
    for name, value in right.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
    assert (found["k_hat"].isna() | (found["k_hat"] == -math.inf)).all()


@pytest.mark.parametrize("kind", [MixtureModel, FlowModel])
def test_scores_of_a_model_without_drawn_latents_are_its_exact_density(kind):
    x = reals()
    model = build(kind, x)
    found = anomaly_scores(model, None, x, num_samples=30)
    exact = -log_likelihood(model, None, x, num_samples=30)["log_prob"]
    for name in ALL:
        right = 0 * exact if name == "divergence" else exact
        np.testing.assert_allclose(found[name], right, rtol=1e-5, atol=1e-4)


def test_a_point_has_reconstructions_and_nothing_else():
    x = reals()
    model, guide = build(IsotropicModel, x, latents=2), build(DeltaGuide, x, latents=2)
    found = anomaly_scores(model, guide, x, reference=x, attribution=True)
    assert list(found.columns[:4]) == [*ALL[:2], "ess", "k_hat"]
    terms = elbo_terms(model, guide, x)
    np.testing.assert_allclose(found["reconstruction"], -terms["x"], rtol=1e-5)
    np.testing.assert_allclose(found["expected_reconstruction"], -terms["x"], rtol=1e-5)


def test_typicality_is_the_distance_from_the_mean_of_the_reference():
    x = reals()
    model, guide = build(GaussianModel, x), build(NormalGuide, x)
    found = anomaly_scores(model, guide, x[:9], reference=x, num_samples=30)
    center = anomaly_scores(model, guide, x, num_samples=30)["negative_log_likelihood"].mean()
    right = (found["negative_log_likelihood"] - center).abs()
    np.testing.assert_allclose(found["typicality"], right, rtol=1e-6)
    assert "typicality" not in anomaly_scores(model, guide, x, num_samples=2)


def test_an_ensemble_averages_probabilities_and_divergences():
    x = reals()
    pairs = [(build(GaussianModel, x), build(NormalGuide, x)) for _ in range(3)]
    together = anomaly_scores(pairs, None, x, num_samples=30)
    alone = [anomaly_scores(*pair, x, num_samples=30) for pair in pairs]
    for name in ("reconstruction", "negative_elbo", "negative_log_likelihood"):
        right = -np.log(np.mean([np.exp(-each[name]) for each in alone], 0))
        np.testing.assert_allclose(together[name], right, rtol=1e-6)
    for name in ("expected_reconstruction", "divergence"):
        right = np.mean([each[name] for each in alone], 0)
        np.testing.assert_allclose(together[name], right, rtol=1e-6)
    np.testing.assert_array_equal(together["k_hat"], np.max([e["k_hat"] for e in alone], 0))


def test_attribution_is_what_the_score_falls_by_at_best_with_a_quantile_in_a_cell():
    frame = pd.DataFrame(reals().numpy(), columns=["age", "height", "dose", "time"])
    model, guide = build(GaussianModel, frame, latents=1), build(NormalGuide, frame, latents=1)
    rows = frame.copy()
    rows.loc[5, "dose"] += 500
    found = anomaly_scores(model, guide, rows, reference=frame, attribution=True)
    shares = found.filter(like="attribution:")
    assert list(shares.columns) == [f"attribution:{name}" for name in frame]
    assert shares.loc[5].idxmax() == "attribution:dose"
    for name in frame:
        rising = frame[name].sort_values().to_numpy()
        others = [
            anomaly_scores(model, guide, rows.assign(**{name: rising[round(q * 59)]}))
            for q in (0.1, 0.3, 0.5, 0.7, 0.9)
        ]
        lowest = np.min([other["negative_log_likelihood"] for other in others], 0)
        right = found["negative_log_likelihood"] - lowest
        np.testing.assert_allclose(shares[f"attribution:{name}"], right, atol=1e-9)


def test_a_cell_that_is_strange_only_beside_the_others_is_found():
    x = torch.randn(200, 1).expand(200, 3) + 0.05 * torch.randn(200, 3)
    rows = x[:5].clone()
    rows[:, 1] += torch.where(rows[:, 1] > 0, -1.0, 1.0)  # no column is outside its range

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None].expand(*z.shape, 3), 0.1).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.median(1).values, 0.2))

    found = anomaly_scores(model, guide, rows, reference=x, attribution=True)
    shares = found.filter(like="attribution:").to_numpy()
    assert (np.argsort(-shares, 1)[:, 0] == 1).all()


def test_attribution_is_of_the_cells_that_the_sites_observe():
    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("steps", 2, dim=-2):
                pyro.sample("late", dist.Normal(z, 1.0), obs=x[:, 2:].T)
            pyro.sample("first", dist.Normal(z, 1.0), obs=x[:, 0])
            pyro.sample("count", dist.Poisson(z.exp()), obs=y)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 1], 1e-6))  # known: the parts have closed forms

    x, y = torch.randn(7, 4), torch.arange(7.0)
    found = anomaly_scores(model, guide, (x, y), reference=(x, y), attribution=True)
    z = x[:, 1]
    cells = [lambda v, i=i: -dist.Normal(z, 1.0).log_prob(v) for i in (0, 2, 3)]
    cells.append(lambda v: -dist.Poisson(z.exp()).log_prob(v))
    places = [round(q * 6) for q in (0.1, 0.3, 0.5, 0.7, 0.9)]
    right = []
    for cell, v in zip(cells, [x[:, 0], x[:, 2], x[:, 3], y], strict=True):
        ordinary = torch.stack([cell(value) for value in v.sort().values[places]])
        right.append(cell(v) - ordinary.amin(0))
    names = ["attribution:0:0", "attribution:0:2", "attribution:0:3", "attribution:1:0"]
    assert [name for name in found if name.startswith("attribution:")] == names
    np.testing.assert_allclose(found[names], torch.stack(right, 1), atol=1e-3)


def test_masked_cells_have_no_share():
    seen = torch.tensor([True, False, True])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            cells = dist.Normal(z[..., None].expand(*z.shape, 3), 1.0)
            pyro.sample("x", cells.mask(seen).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0], 1.0))

    x = torch.randn(6, 3)
    found = anomaly_scores(model, guide, x, reference=torch.randn(9, 3), attribution=True)
    assert (found["attribution:1"] == 0).all()
    assert (found["attribution:0"] != 0).all()


def test_images_and_covariates_are_scored():
    images = binaries().reshape(60, 1, 2, 2)
    pair = build(BernoulliModel, images), build(NormalGuide, images)
    found = anomaly_scores(*pair, images, reference=images, attribution=True, num_samples=4)
    assert list(found.columns[-2:]) == ["attribution:0,1,0", "attribution:0,1,1"]
    rows = {"x": binaries(), "y": torch.eye(3).repeat(20, 1)}
    pair = build(ConditionalModel, rows), build(ConditionalGuide, rows)
    found = anomaly_scores(*pair, rows, reference=rows, attribution=True, num_samples=4)
    assert list(found.columns[-4:]) == [f"attribution:{i}" for i in range(4)]


def test_a_far_row_is_strange_and_leaves_the_other_scores_as_they_were():
    x = reals()
    model, guide = build(GaussianModel, x), build(NormalGuide, x)
    before = anomaly_scores(model, guide, x, num_samples=20)
    far = x.clone()
    far[4] = 1e7
    after = anomaly_scores(model, guide, far, num_samples=20)
    others = [i for i in range(60) if i != 4]
    pd.testing.assert_frame_equal(before.loc[others], after.loc[others])
    assert after["negative_log_likelihood"].idxmax() == 4

    def overflowing(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(8), x[:, :1].exp()).to_event(1))

    with pytest.warns(UserWarning, match="scores are infinite"):
        found = anomaly_scores(model, overflowing, far / 100, num_samples=20)
    assert (found.loc[4, ALL] == math.inf).all()
    assert math.isnan(found.loc[4, "k_hat"])
    assert np.isfinite(found.loc[others, ALL]).to_numpy().all()


def test_columns_of_reference_frames_are_found_by_their_names():
    """A pair that was made by hand knows no columns: the data's own are those to find."""
    x = reals()
    data = pd.DataFrame(x.numpy(), columns=list("abcd"))
    known = pd.DataFrame(reals().numpy()[::-1] + np.arange(4), columns=list("abcd"))
    pair = GaussianModel(4, latents=2), NormalGuide(4, latents=2)
    right = anomaly_scores(*pair, data, reference=known, attribution=True)
    for other in (known[list("dcba")], known.to_numpy()):
        found = anomaly_scores(*pair, data, reference=other, attribution=True)
        pd.testing.assert_frame_equal(found, right)
    with pytest.raises(ValueError, match=r'reference: expected the columns of the data.* "d"'):
        anomaly_scores(*pair, data, reference=known.rename(columns={"d": "e"}))
    with pytest.raises(ValueError, match=r"reference: expected rows of shape \(4,\), as the data"):
        anomaly_scores(*pair, x, reference=x[:, :3])


def test_bad_input_is_refused_by_name():
    x = reals()
    model, guide = build(GaussianModel, x), build(NormalGuide, x)
    with pytest.raises(ValueError, match="attribution: expected reference="):
        anomaly_scores(model, guide, x, attribution=True)
    with pytest.raises(ValueError, match="guide: expected None beside a list of pairs"):
        anomaly_scores([(model, guide)], guide, x)
    with pytest.raises(ValueError, match="model: expected a model, or a list"):
        anomaly_scores([], None, x)
    bad = x.clone()
    bad[3, 1] = math.inf
    with pytest.raises(ValueError, match=r"NaN or infinity, first in row 3 in column 1"):
        anomaly_scores(model, guide, bad)
    frame = pd.DataFrame(x.numpy(), columns=list("abcd"))
    pair = build(GaussianModel, frame), build(NormalGuide, frame)
    with pytest.raises(ValueError, match='"c"'):
        anomaly_scores(*pair, frame.drop(columns="c"))


@pytest.mark.usefixtures("double")
def test_attribution_of_joint_likelihoods_and_of_summed_latents():
    x = reals()
    pairs = [
        (build(FullCovarianceModel, x), build(NormalGuide, x), x),
        (build(MixtureModel, x), None, x),
        (Classes(), ClassesGuide(enumerate="parallel"), torch.randn(60, 5)),
    ]
    for model, guide, rows in pairs:
        strange = rows.clone()
        strange[7, 2] += 40 * rows[:, 2].std()
        found = anomaly_scores(
            model, guide, strange, reference=rows, attribution=True, num_samples=30
        )
        assert found.loc[7].filter(like="attribution:").idxmax() == "attribution:2"


def test_rows_whose_cells_cannot_be_replaced_alone_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Dirichlet(torch.ones(3)), obs=x)

    x = torch.distributions.Dirichlet(torch.ones(3)).sample((40,))
    with pytest.raises(ValueError, match="attribution: expected rows whose cells can be replaced"):
        anomaly_scores(model, None, x, reference=x, attribution=True)


@pytest.mark.parametrize("compile_", [False, True])
def test_scores_are_the_same_bit_for_bit_however_the_rows_are_cut(compile_, monkeypatch):
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", 7)
    x = reals()
    model, guide = build(GaussianModel, x), build(NormalGuide, x)
    settings = {"num_samples": 20, "seed": 5, "compile": compile_}
    whole = anomaly_scores(model, guide, x, **settings)
    scorer = RowScorer(model, guide, x[:14], **settings)
    assert scorer.size == 7
    for rows in (7, 14, 21):
        parts = [scorer(x[i : i + rows], first_row=i) for i in range(0, 60, rows)]
        found = pd.concat(parts, ignore_index=True)
        pd.testing.assert_frame_equal(found, whole, check_exact=True)
