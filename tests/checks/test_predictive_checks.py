"""The parts of a ``PredictiveCheck`` agree with each other and with the data."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.extras import load_wine
from parts.pairs import PAIRS, made
from parts.zoo import FEW_MODELS
from pyro.nn import PyroModule
from scipy.stats import kstest
from torch import nn

import ppl_vae
from ppl_vae.zoo.catalog import find_class

COLUMNS = [
    "feature", "observed", "mean", "lower", "upper", "p_value", "p_error", "p_adjusted", "flagged",
]  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("prior", [False, True], ids=["guide", "prior"])
def test_every_pair_can_be_checked(name, prior):
    model, guide, data = made(PAIRS[name])
    check = ppl_vae.predictive_check(model, None if prior else guide, data, num_samples=9)
    assert list(check.frame.columns) == COLUMNS
    assert check.frame["p_value"].between(0.1, 1).all()
    assert (check.frame["p_adjusted"] >= check.frame["p_value"]).all()
    assert np.isfinite(check.frame[["observed", "mean", "lower", "upper"]].to_numpy()).all()
    assert check.prior == prior


@pytest.mark.parametrize("name", FEW_MODELS)
@pytest.mark.parametrize("guide", ["linear", "normal"])
def test_pairs_of_the_zoo_can_be_checked(name, guide):
    torch.manual_seed(0)
    wine = load_wine(as_frame=True).data
    data = (wine > wine.mean()).astype(int) if name == "bernoulli" else wine
    pair = [
        ppl_vae.build(find_class(half, kind), data, latents=2)
        for half, kind in ((name, "models"), (guide, "guides"))
    ]
    check = ppl_vae.predictive_check(*pair, data, num_samples=19)
    assert check.frame["flagged"].any() or name == "bernoulli"  # the pair is not fitted
    assert set(check.frame["feature"]) & set(wine.columns)


class Images(PyroModule):
    """Images of one channel; the convolutional decoder accepts no particle dimension."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.ConvTranspose2d(2, 1, 4)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            logits = self.decoder(z.reshape(-1, 2, 1, 1))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(3), obs=x)


def image_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))


def test_images_can_be_checked():
    x = (torch.rand(30, 1, 4, 4) < 0.9).float()
    check = ppl_vae.predictive_check(Images(), image_guide, x, num_samples=40)
    assert check.frame.loc[("x", "rate"), "flagged"]
    assert check.features.loc[("x", "rate")].index[5] == "0,1,1"
    assert check.pit["x"].shape == (30, 16)


def test_the_frame_has_the_line_of_the_worst_feature():
    model, guide, x = made(PAIRS["gaussian"])
    x[:, 3] += 5
    check = ppl_vae.predictive_check(model, guide, x)
    line = check.frame.loc[("x", "mean")]
    assert line["feature"] == "3"
    assert line["observed"] == pytest.approx(float(x[:, 3].mean()), rel=1e-5)
    whole = check.features.loc[("x", "mean")]
    assert whole["observed"].to_numpy() == pytest.approx(x.mean(0).numpy(), rel=1e-4)
    assert whole.loc["3"].tolist()[:4] == line[["observed", "mean", "lower", "upper"]].tolist()
    replicated = check.replicated[("x", "mean")]
    assert line["mean"] == pytest.approx(replicated.mean())
    assert line[["lower", "upper"]].tolist() == pytest.approx(np.quantile(replicated, [0.05, 0.95]))


def test_flagged_statistics_come_first_in_the_frame_and_in_the_text():
    model, guide, x = made(PAIRS["gaussian"])
    x[:, 3] += 5
    check = ppl_vae.predictive_check(model, guide, x)
    flags = check.frame["flagged"].to_numpy()
    assert flags.any()
    assert not flags.all()
    assert (np.diff(flags.astype(int)) <= 0).all()
    text = str(check)
    assert text.count("FLAGGED") == flags.sum()
    assert "Latents were drawn given these very rows, also where the pair was not fitted" in text
    assert "Latents were drawn given" not in str(
        ppl_vae.predictive_check(model, None, x, num_samples=5)
    )
    assert "mean of 3" in [t.get_text() for t in check.plot().get_yticklabels()]


def wide_rows():
    """Return a model of 500 features and 200 rows of it, of which one row has a value far out."""

    def model(x):
        with pyro.plate("data", len(x)):
            mask = x[:, :1] > -9  # one row has no cells at all
            pyro.sample("x", dist.Normal(x.new_zeros(500), 1.0).mask(mask).to_event(1), obs=x)

    x = torch.randn(200, 500, generator=torch.Generator().manual_seed(0))
    x[101, 7], x[3] = 30.0, -10.0
    return model, x


@pytest.mark.parametrize("groups", [1 << 25, 600_000])
def test_values_of_a_flagged_feature_are_of_all_rows(groups, monkeypatch):
    monkeypatch.setattr("ppl_vae.predictive.replicates.GROUP_NUMBERS", groups)
    model, x = wide_rows()
    check = ppl_vae.predictive_check(model, None, x, statistics=["maximum", "mean"], num_samples=25)
    assert check.frame.loc[("x", "maximum"), "flagged"]
    assert len(check.sample["x"][0]) == 52
    observed, replicated = check.values("x", "7")
    assert replicated.shape[1:] == observed.shape == (200,)
    assert 1 <= len(replicated) <= 20
    assert observed[101] == 30
    assert np.isnan(observed[3])
    assert np.isnan(replicated[:, 3]).all()
    assert np.nanmax(replicated) < 8
    assert np.nanstd(replicated) == pytest.approx(1, abs=0.1)
    assert len(np.unique(replicated[:, 0])) == len(replicated)
    other = check.values("x", "8")
    assert other[0].shape == (52,)
    with pytest.raises(ValueError, match="feature: expected one of"):
        check.values("x", "800")


def test_values_of_a_flagged_category_are_of_all_rows():
    model, _, data = made(PAIRS["mapping"])
    data["label"][:] = 1
    check = ppl_vae.predictive_check(model, None, data, num_samples=30)
    assert check.frame.xs("label", level="site")["flagged"].any()
    observed, replicated = check.values("label", "label")
    assert observed.tolist() == [1.0] * 40
    assert replicated.shape == (20, 40)


def test_columns_of_a_frame_name_the_features():
    model, guide, x = made(PAIRS["gaussian"])
    frame = pd.DataFrame(x.numpy(), columns=list("abcde"))
    check = ppl_vae.predictive_check(model, guide, frame, num_samples=5)
    assert set(check.frame.drop("correlation", level=1)["feature"]) <= set("abcde")
    assert check.features_of == {"x": list("abcde")}
    assert check.coverage.loc["x"].index.tolist() == list("abcde")
    pairs = check.features.loc[("x", "correlation")].index
    assert (len(pairs), pairs[0], pairs[-1]) == (10, "a & b", "d & e")


@pytest.mark.parametrize("name", ["gaussian", "poisson", "bernoulli", "mapping"])
def test_pits_of_data_from_the_model_are_uniform(name):
    model, _, data = made(PAIRS[name])
    many = {k: v.repeat(25, *[1] * (v.ndim - 1)) for k, v in data.items()} if isinstance(
        data, dict
    ) else data.repeat(25, 1)  # fmt: skip
    sets = ppl_vae.prior_predictive(model, many, num_samples=1, seed=7)
    rows = (
        {**many, **{k: v[0] for k, v in sets.items()}} if isinstance(many, dict) else sets["x"][0]
    )
    check = ppl_vae.predictive_check(model, None, rows, num_samples=50)
    for values in check.pit.values():
        for feature in values.T:
            assert kstest(feature, "uniform").pvalue > 1e-4
    assert check.coverage["50 %"].between(0.42, 0.58).all()
    assert check.coverage["90 %"].between(0.85, 0.95).all()


def test_categories_have_no_pit():
    check = ppl_vae.predictive_check(*made(PAIRS["mapping"]), num_samples=5)
    assert set(check.pit) == {"x"}
    assert set(check.frame.loc["label"].index) == {"rate"}


def test_masked_cells_enter_no_statistic_and_no_pit():
    model, guide, data = made(PAIRS["masked"])
    first = ppl_vae.predictive_check(model, guide, data)
    masked = ~(data["seen"] & data["seen"][:, :1])
    data["x"][masked] = 1e6
    again = ppl_vae.predictive_check(model, guide, data)
    pd.testing.assert_series_equal(again.features["observed"], first.features["observed"])
    assert np.isnan(first.pit["x"][masked.numpy()]).all()
    assert first.coverage["cells"].tolist() == (~masked).sum(0).tolist()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_samples": 0}, "num_samples: expected a whole number"),
        ({"sites": "y"}, "sites: expected some of"),
        ({"statistics": "men"}, "statistics: expected functions, or names among"),
        ({"statistics": []}, "statistics: expected at least one"),
        ({"statistics": lambda x: "no"}, "to return numbers"),
        ({"statistics": lambda x: x[: torch.randint(1, 9, ())].flatten()}, "same number of values"),
        ({"plate": "rows"}, 'expected the site in the row plate "rows"'),
    ],
)
def test_bad_arguments_are_refused(wrong, message):
    model, guide, x = made(PAIRS["gaussian"])
    with pytest.raises(ValueError, match=message):
        ppl_vae.predictive_check(model, guide, x, **{"num_samples": 20, **wrong})
