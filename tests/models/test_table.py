"""The model and the guide of tables: exact in known cases, in the units of the data, with gaps."""

import math

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from pyro import poutine
from torch import nn

import ppl_vae
from ppl_vae import build, elbo_terms, fit, generate, lint, log_likelihood, reconstruct, table
from ppl_vae.guides.table import TableGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.table import LIKELIHOODS, TableModel

RANDOM = np.random.default_rng(0)
ROWS = 300
CLASS = RANDOM.integers(0, 3, ROWS)
DAY = pd.Timestamp("2020-01-01")
FRAME = pd.DataFrame({
    "height": RANDOM.normal([150, 170, 190], 3, (ROWS, 3))[np.arange(ROWS), CLASS],
    "income": np.exp(RANDOM.normal(8, 0.3, ROWS) + CLASS), "city": np.array(list("abc"))[CLASS],
    "visits": RANDOM.poisson(3 + 5 * CLASS), "member": RANDOM.random(ROWS) < 0.1 + 0.4 * CLASS,
    "size": pd.Categorical(np.array(list("SML"))[CLASS], list("SML"), ordered=True),
    "gain": np.where(RANDOM.random(ROWS) < 0.7, 0.0, RANDOM.lognormal(5, 1, ROWS)),
    "since": DAY + pd.to_timedelta(300 * CLASS + RANDOM.integers(0, 50, ROWS), "D"),
})  # fmt: skip
HOW = {"kinds": {"gain": "positive", "visits": "count"}}
QUICK = {"progress": False, "compile": False}


def pair_of(data, **arguments):
    pyro.set_rng_seed(0)
    arguments = {"latents": 3, "hidden": (32,), **arguments}
    return tuple(build(cls, data, **arguments) for cls in (TableModel, TableGuide))


@pytest.fixture(scope="module")
def fitted():
    data = table(FRAME, **HOW)
    pair = pair_of(data)
    optimizer = {"optimizer": lambda p: torch.optim.Adam(p, lr=0.01)}
    fit(*pair, data, epochs=60, batch_size=50, **optimizer, **QUICK)
    return pair


def log_prob(model, z, *fields):
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(*fields)
    trace.compute_log_prob()
    sites = [s for s in trace.nodes.values() if s["type"] == "sample" and s["name"] in LIKELIHOODS]
    return sum(site["log_prob"] for site in sites)


def test_a_complete_row_of_real_columns_has_the_density_of_the_gaussian_model():
    frame = pd.DataFrame(RANDOM.normal(size=(40, 4)) * [1, 10, 1e-3, 50] + [0, 5, 0.01, 100])
    data = table(frame, kinds=dict.fromkeys(range(4), "real"))
    gaussian = build(GaussianModel, frame, latents=2, decoder=nn.Linear(2, 8))
    model = build(TableModel, data, latents=2, decoder=nn.Linear(2, 8))
    model.decoder.load_state_dict(gaussian.decoder.state_dict())
    z = torch.randn(40, 2)
    trace = poutine.trace(poutine.condition(gaussian, {"z": z})).get_trace(
        torch.tensor(frame.values)
    )
    trace.compute_log_prob()
    found = log_prob(model, z, data["x"], data["seen"])
    torch.testing.assert_close(found, trace.nodes["x"]["log_prob"], rtol=1e-4, atol=1e-4)


def test_a_cell_that_is_missing_takes_only_its_own_term():
    model, _ = pair_of(table(FRAME, **HOW))
    data = table(FRAME, **HOW)
    z = torch.randn(ROWS, 3)
    whole = log_prob(model, z, data["x"], data["seen"])
    for place in range(data["x"].shape[1]):
        seen = data["seen"].clone()
        seen[:, place] = False
        alone = torch.zeros_like(seen)
        alone[:, place] = True
        term = log_prob(model, z, data["x"], alone)
        assert term.abs().min() > 0
        torch.testing.assert_close(
            log_prob(model, z, data["x"], seen), whole - term, rtol=1e-4, atol=1e-3
        )


def test_a_row_without_cells_has_the_prior_as_posterior_and_probability_one(fitted):
    nothing = FRAME.iloc[:4].astype(object)
    nothing.loc[:, :] = None
    scores = log_likelihood(*fitted, nothing, num_samples=50, progress=False)
    assert scores["log_prob"].abs().max() < 1e-6
    assert scores["elbo"].abs().max() < 1e-6
    x, seen = torch.zeros(3, 8), torch.zeros(3, 8, dtype=torch.bool)
    posterior = poutine.trace(fitted[1]).get_trace(x, seen).nodes["z"]["fn"].base_dist
    assert (posterior.mean == 0).all()
    assert (posterior.stddev == 1).all()


def test_a_row_without_cells_has_the_prior_also_beside_covariates():
    data = table(FRAME, covariates=["city", "visits"], **HOW)
    _, guide = pair_of(data)
    guide.eval()
    seen = torch.zeros_like(data["seen"])
    posterior = (
        poutine.trace(guide).get_trace(data["x"], seen, data["y"]).nodes["z"]["fn"].base_dist
    )
    assert (posterior.mean == 0).all()


@pytest.mark.parametrize(
    ("column", "factor"), [("height", 10), ("height", 1e-6), ("income", 10), ("gain", 1e3)]
)
def test_log_probabilities_are_in_the_units_of_the_data(column, factor):
    frame = FRAME[[column, "city"]]
    other = frame.assign(**{column: factor * frame[column]})
    numbers = []
    for each in (frame, other):
        data = table(each, **{"kinds": {"gain": "positive"} if column == "gain" else {}})
        pair = pair_of(data)
        numbers.append(log_likelihood(*pair, data, num_samples=10, progress=False)["log_prob"])
    moved = numbers[0] - numbers[1]
    atom = FRAME["gain"] == 0 if column == "gain" else np.zeros(ROWS, bool)
    assert np.allclose(moved[~atom], math.log(factor), atol=1e-2)
    assert np.allclose(moved[atom], 0, atol=1e-4)


def test_categories_and_counts_have_probabilities():
    frame = FRAME[["city", "visits", "member", "size"]]
    data = table(frame, kinds={"visits": "count"})
    model, _ = pair_of(data)
    z, total = torch.randn(1, 3), 0.0
    column = {c.name: i for i, c in enumerate(data.schema.modelled)}
    for city in range(3):
        for member in range(2):
            for size in range(3):
                x = torch.zeros(200, 4)
                x[:, [column["city"], column["member"], column["size"]]] = torch.tensor(
                    [city, member, size]
                ).float()
                x[:, column["visits"]] = torch.arange(200.0)
                rows = log_prob(model, z.expand(200, -1), x, torch.ones_like(x).bool())
                total += rows.exp().sum().item()
    assert total == pytest.approx(1, abs=1e-4)


def test_a_fit_learns_what_the_columns_have_in_common(fitted):
    made = generate(*fitted, FRAME, num_samples=4000, progress=False)
    for name in ("height", "income", "visits"):
        for city in "abc":
            found, wanted = (f.loc[f["city"] == city, name].mean() for f in (made, FRAME))
            spread = FRAME[name].std()
            assert abs(found - wanted) < 0.5 * spread, (name, city)
    assert abs((made["gain"] == 0).mean() - (FRAME["gain"] == 0).mean()) < 0.1
    assert abs((made["size"] == "S").mean() - (FRAME["size"] == "S").mean()) < 0.1
    assert made["since"].min() > pd.Timestamp("2018-01-01")


def test_the_posterior_of_few_cells_knows_the_others(fitted):
    rows = FRAME.astype({"visits": "Int64", "member": "boolean"})
    known = rows.copy()
    known[[c for c in FRAME if c not in ("height", "income")]] = None
    known = known.astype(object)
    filled = reconstruct(*fitted, known, num_samples=100, progress=False)
    agree = (filled["city"].to_numpy() == FRAME["city"].to_numpy()).mean()
    assert agree > 0.8
    assert np.corrcoef(filled["visits"].astype(float), FRAME["visits"])[0, 1] > 0.7


def test_lint_finds_nothing_in_a_table():
    holes = FRAME.astype({"visits": "Int64", "member": "boolean"})
    holes.iloc[::5, 0] = None
    holes.iloc[1::5, 2] = None
    for data in (table(FRAME, **HOW), table(holes, **HOW)):
        report = lint(*pair_of(data), data)
        assert not report.findings
        assert set(report.sites["site"]) == {"z", *LIKELIHOODS}


def test_terms_of_the_elbo_are_named_by_kind(fitted):
    terms = elbo_terms(*fitted, FRAME, num_samples=5, progress=False)
    assert set(LIKELIHOODS) <= set(terms.columns)
    assert np.isfinite(terms).all().all()


def test_rows_of_numbers_alone_need_no_table():
    x = torch.randn(60, 3)
    x[::4, 1] = torch.nan
    pair = pair_of(x)
    fit(*pair, x, epochs=2, **QUICK)
    assert np.isfinite(log_likelihood(*pair, x, num_samples=5, progress=False)["log_prob"]).all()


def test_nan_beside_a_mask_is_refused_with_its_mend():
    x = torch.randn(60, 3)
    x[::4, 1] = torch.nan
    data = {"x": x, "seen": ~x.isnan()}
    with pytest.raises(ValueError, match=r'field "x": .*row 0 in column 1.*x\.nan_to_num'):
        fit(*pair_of(data), data, epochs=2, **QUICK)


def test_labels_of_a_frame_that_is_no_table_say_what_to_do():
    with pytest.raises(ValueError, match=r"ppl_vae\.table\(frame\)"):
        ppl_vae.build(TableModel, FRAME)
