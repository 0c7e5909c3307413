"""``LatentVariableModel``: exact densities, codes and rows, and its place among scikit-learn's."""

import numpy as np
import pandas as pd
import pytest
import torch
from parts.extras import load_wine, sklearn
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ppl_vae import build, log_likelihood
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.guides.linear import LinearGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.ppca import PPCAModel
from ppl_vae.sklearn import LatentVariableModel

sklearn("base")
pytestmark = pytest.mark.filterwarnings(
    "ignore:(score_samples|log_likelihood)"
)  # few epochs leave rows unreliable
QUICK = {"epochs": 3, "random_state": 0, "compile": False}


@pytest.fixture(scope="module")
def wine():
    return StandardScaler().fit_transform(load_wine().data)


def with_exact_posterior(fitted, pca):
    """Give a fitted PPCA pair the parameters of scikit-learn's PCA, and its exact posterior."""
    model, guide = fitted.model_, fitted.guide_
    noise = pca.noise_variance_
    weight = pca.components_.T * np.sqrt(pca.explained_variance_ - noise)  # data's units
    scale = model.scale.item()
    inner = np.eye(weight.shape[1]) + weight.T @ weight / noise
    gain = np.linalg.inv(inner) @ weight.T / noise  # E[z given x] = gain (x - mean)
    loc, spread = guide.standardize.loc.numpy(), guide.standardize.scale.numpy()
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(weight / scale))
        model.shift.copy_(torch.as_tensor((pca.mean_ - model.loc.numpy()) / scale))
        model.log_sigma.copy_(torch.as_tensor(np.log(np.sqrt(noise) / scale)))
        guide.encoder.weight.copy_(torch.as_tensor(gain * spread))
        guide.encoder.bias.copy_(torch.as_tensor(gain @ (loc - pca.mean_)))
    guide.scale_tril = torch.as_tensor(np.linalg.cholesky(np.linalg.inv(inner))).to(model.loc.dtype)
    return fitted


def test_ppca_scores_rows_as_pca_does(wine, double):
    pca = PCA(3).fit(wine)
    fitted = LatentVariableModel("ppca", latents=3, **QUICK).fit(wine)
    assert np.abs(fitted.score_samples(wine) - pca.score_samples(wine)).max() > 0.1
    fitted = with_exact_posterior(fitted, pca)
    np.testing.assert_allclose(
        fitted.score_samples(wine), pca.score_samples(wine), rtol=0, atol=1e-6
    )
    assert fitted.score(wine) == pytest.approx(pca.score(wine), abs=1e-6)


def test_a_fit_of_ppca_comes_near_to_pca(wine):
    fitted = LatentVariableModel(
        "ppca", latents=3, epochs=1500, learning_rate=0.01, validation=None, random_state=0
    ).fit(wine)
    assert fitted.score(wine) == pytest.approx(PCA(3).fit(wine).score(wine), abs=0.05)


def test_the_mixture_scores_rows_as_gaussian_mixture_does(wine, double):
    known = GaussianMixture(3, covariance_type="diag", random_state=0).fit(wine)
    fitted = LatentVariableModel(
        "mixture", model_arguments={"components": 3, "floor": 0.0}, **QUICK
    ).fit(wine)
    model = fitted.model_
    with torch.no_grad():
        model.logits.copy_(torch.as_tensor(known.weights_).log())
        model.centers.copy_((torch.as_tensor(known.means_) - model.loc) / model.scale)
        model.log_spreads.copy_((torch.as_tensor(known.covariances_).sqrt() / model.scale).log())
    np.testing.assert_allclose(fitted.score_samples(wine), known.score_samples(wine), atol=1e-8)
    np.testing.assert_allclose(fitted.transform(wine), known.predict_proba(wine), atol=1e-6)
    assert fitted.get_feature_names_out().tolist() == ["k0", "k1", "k2"]
    with pytest.raises(ValueError, match="inverse_transform: expected a pair whose latents"):
        fitted.inverse_transform(fitted.transform(wine))


def test_unreliable_scores_are_told_once_with_their_number(wine):
    fitted = LatentVariableModel("ppca", latents=3, **QUICK).fit(wine)
    with pytest.warns(UnreliableWarning, match=r"score_samples: few draws count in \d+ of 178"):
        fitted.score_samples(wine)


def test_a_rows_score_does_not_depend_on_the_other_rows(wine):
    fitted = LatentVariableModel("gaussian", latents=2, **QUICK).fit(wine)
    whole = fitted.score_samples(wine)
    order = np.random.default_rng(0).permutation(len(wine))
    assert (fitted.score_samples(wine[order]) == whole[order]).all()
    assert (fitted.score_samples(wine[40:43]) == whole[40:43]).all()
    assert (fitted.transform(wine[order]) == fitted.transform(wine)[order]).all()
    plain = log_likelihood(fitted.model_, fitted.guide_, wine, num_samples=1000)["log_prob"]
    assert np.abs(whole - plain).max() > 0  # other draws
    assert whole.mean() == pytest.approx(plain.mean(), abs=0.1)


@pytest.mark.slow
def test_a_grid_search_chooses_the_likelihood_that_explains_held_out_rows():
    random = np.random.default_rng(0)
    x = random.standard_t(2, size=(600, 1)) * [1.0, 2.0] + random.standard_t(2, size=(600, 2))
    grid = {"model": ["gaussian", "student"], "latents": [1, 2]}
    estimator = LatentVariableModel(epochs=60, validation=None, num_samples=30, random_state=0)
    search = GridSearchCV(estimator, grid, cv=2).fit(x)
    assert search.best_params_["model"] == "student"
    assert search.score(x) == search.best_estimator_.score(x)


def test_codes_go_back_to_rows_and_rows_are_drawn(wine):
    fitted = LatentVariableModel("ppca", latents=4, epochs=300, random_state=0).fit(wine)
    codes = fitted.transform(wine)
    assert codes.shape == (178, 4)
    assert fitted.get_feature_names_out().tolist() == ["z0", "z1", "z2", "z3"]
    error = ((fitted.inverse_transform(codes) - wine) ** 2).mean()
    best = ((PCA(4).fit(wine).inverse_transform(PCA(4).fit_transform(wine)) - wine) ** 2).mean()
    assert best < error < 1.2 * best
    drawn = fitted.sample(2000)
    assert drawn.shape == (2000, 13)
    assert np.abs(np.corrcoef(drawn.T) - np.corrcoef(wine.T)).mean() < 0.12
    assert (fitted.sample(5) == fitted.sample(5)).all()
    assert (fitted.sample(5, random_state=1) != fitted.sample(5)).any()
    with pytest.raises(ValueError, match="Z: expected 4 codes in each row, got 3"):
        fitted.inverse_transform(codes[:, :3])


def test_frames_with_text_are_tables_and_give_frames():
    random = np.random.default_rng(0)
    city = random.choice(["Oslo", "Rome"], 300)
    people = pd.DataFrame(
        {"city": city, "pay": 50 + 20 * (city == "Oslo") + random.normal(size=300)}
    )
    people.loc[3, "pay"] = np.nan
    fitted = LatentVariableModel(latents=2, **QUICK).fit(people)
    assert type(fitted.model_).__name__ == "TableModel"
    assert fitted.feature_names_in_.tolist() == ["city", "pay"]
    assert np.isfinite(fitted.score_samples(people)).all()
    drawn = fitted.sample(20)
    assert list(drawn.columns) == ["city", "pay"]
    assert set(drawn["city"]) <= {"Oslo", "Rome"}
    assert list(fitted.inverse_transform(fitted.transform(people.head(4)))) == ["city", "pay"]
    with pytest.raises(ValueError, match="feature names"):
        fitted.transform(people.rename(columns={"pay": "wage"}))
    pandas = clone(fitted).set_output(transform="pandas").fit(people).transform(people)
    assert list(pandas.columns) == ["z0", "z1"]
    assert pandas.index.equals(people.index)


def pair_of_mine(data, latents=3):
    return build(GaussianModel, data, latents=latents), build(NormalGuide, data, latents=latents)


def test_a_function_of_the_data_makes_the_pair(wine):
    fitted = LatentVariableModel(pair_of_mine, latents=2, **QUICK).fit(wine)
    assert fitted.transform(wine).shape == (178, 2)
    assert LatentVariableModel(pair_of_mine, **QUICK).fit(wine).transform(wine).shape == (178, 3)
    with pytest.raises(ValueError, match=r"model: expected a function that returns \(model, guide"):
        LatentVariableModel(lambda data: build(PPCAModel, data), **QUICK).fit(wine)
    with pytest.raises(ValueError, match='guide: expected "auto"'):
        LatentVariableModel(pair_of_mine, guide="normal", **QUICK).fit(wine)


def test_what_cannot_be_is_refused_by_name(wine):
    for parameters, words in [
        ({"model": "gausian"}, "did you mean gaussian"),
        ({"model": "mixture", "latents": 3}, "latents: expected None for the model mixture"),
        ({"validation": "some"}, 'validation: expected "auto"'),
        ({"learning_rate": 0}, "learning_rate: expected a positive number"),
        ({"num_samples": 0}, "num_samples: expected a whole number"),
        ({"model": "ppca", "model_arguments": {"hidden": 3}}, "expected arguments of PPCAModel"),
    ]:
        with pytest.raises(ValueError, match=words):
            LatentVariableModel(**{**QUICK, **parameters}).fit(wine)
    with pytest.raises(ValueError, match="sample_weight"):
        make_pipeline(StandardScaler(), LatentVariableModel(**QUICK)).fit(
            wine, latentvariablemodel__sample_weight=np.ones(len(wine))
        )


def test_the_knobs_reach_the_fit(wine):
    short = LatentVariableModel("gaussian", latents=2, **{**QUICK, "epochs": 7}).fit(wine)
    assert short.history_.frame["epoch"].iloc[-1] == 7
    heavy = clone(short).set_params(kl_weight=200.0, epochs=100).fit(wine)
    light = clone(short).set_params(epochs=100).fit(wine)
    assert heavy.transform(wine).std() < 0.3 * light.transform(wine).std()
    again = clone(short).fit(wine)
    assert (again.transform(wine) == short.transform(wine)).all()
    other = clone(short).set_params(random_state=1).fit(wine)
    assert (other.transform(wine) != short.transform(wine)).any()


def test_the_guide_goes_with_the_model(wine):
    assert isinstance(LatentVariableModel("ppca", latents=2, **QUICK).fit(wine).guide_, LinearGuide)
    assert LatentVariableModel("mixture", **QUICK).fit(wine).guide_ is None
