"""Missing cells of a linear Gaussian model, whose posterior is known: five ways to write the model.

Errors of a mean are judged by its standard error, from the effective number of draws.
"""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from parts import missing

from ppl_vae import impute

ROWS, DRAWS = 30, 4000
X, SEEN = missing.drawn_rows(ROWS)
MEAN = torch.cat([missing.exact(x, seen)[0] for x, seen in zip(X, SEEN, strict=True)]).numpy()
VARIANCE = [missing.exact(x, seen)[1].diagonal() for x, seen in zip(X, SEEN, strict=True)]
SD = torch.cat(VARIANCE).sqrt().numpy()
FORMS = ("masked", "around", "obs_mask", "complement")


def fields(fill=9.0):
    return {"x": torch.where(SEEN, X, fill), "seen": SEEN}


def imputed(form, guide=missing.guide, data=None, **options):
    data = fields() if data is None else data
    return impute(getattr(missing, form), guide, data, **{"num_samples": DRAWS, **options})


@pytest.mark.parametrize("form", FORMS)
def test_mean_spread_and_interval_are_those_of_the_exact_posterior(form):
    frame = imputed(form).frame
    row, column = (~SEEN).nonzero().numpy().T
    assert frame["row"].tolist() == row.tolist()
    assert frame["column"].tolist() == column.tolist()
    error = SD / math.sqrt(DRAWS / 4)  # at least a quarter of the draws counts
    assert np.abs((frame["value"] - MEAN) / error).max() < 4
    np.testing.assert_allclose(frame["sd"], SD, rtol=0.06)
    half = 1.645 * SD
    np.testing.assert_allclose(frame["lower"], MEAN - half, atol=0.15 * SD.max())
    np.testing.assert_allclose(frame["upper"], MEAN + half, atol=0.15 * SD.max())
    assert frame["probability"].isna().all()
    assert (frame["k_hat"] < 0.5).all()


def test_nan_in_a_frame_is_missing_as_a_mask_is():
    frame = pd.DataFrame(torch.where(SEEN, X, torch.nan).numpy(), columns=list("abcde"))
    by_nan, by_mask = imputed("nan_cells", data=frame), imputed("masked")
    np.testing.assert_array_equal(by_nan.frame["value"], by_mask.frame["value"])
    assert by_nan.frame["column"].tolist() == ["abcde"[c] for c in by_mask.frame["column"]]


def test_what_stands_in_a_missing_cell_does_not_matter():
    one, other = imputed("complement"), imputed("complement", data=fields(-50.0))
    pd.testing.assert_frame_equal(one.frame, other.frame)


def test_the_weights_correct_a_guide_that_draws_the_missing_cells_badly():
    rows = SEEN.sum(1) > 2  # few of the vague draws count where many cells are missing
    data = {name: field[rows] for name, field in fields().items()}
    frame = imputed("complement", missing.guide_of_cells, data, num_samples=20_000).frame
    wanted = np.isin((~SEEN).nonzero()[:, 0].numpy(), rows.nonzero().flatten().numpy())
    assert np.abs((frame["value"] - MEAN[wanted]) / SD[wanted]).max() < 0.25
    np.testing.assert_allclose(frame["sd"], SD[wanted], rtol=0.25)


def test_intervals_cover_as_often_as_they_say():
    x, seen = missing.drawn_rows(400, seed=3)
    data = {"x": torch.where(seen, x, 0.0), "seen": seen}
    for level in (0.5, 0.9):
        frame = imputed("masked", data=data, num_samples=300, level=level).frame
        truth = x[~seen].numpy()
        covered = ((frame["lower"] <= truth) & (truth <= frame["upper"])).mean()
        error = 2 * math.sqrt(level * (1 - level) / len(truth))  # cells of a row go together
        assert abs(covered - level) < 2.5 * error


@pytest.mark.parametrize("form", FORMS)
def test_drawn_data_sets_have_the_joint_distribution_of_the_posterior(form):
    """Two missing cells of one row, repeated: mean, spread and correlation of single draws."""
    row = next(r for r in range(2, ROWS) if (~SEEN[r]).sum() == 2)
    mean, covariance = missing.exact(X[row], SEEN[row])
    data = {name: field[row].repeat(300, 1) for name, field in fields().items()}
    sets = imputed(form, data=data, num_samples=200).draw(5, seed=1)
    drawn = torch.cat([each["x"][:, ~SEEN[row]] for each in sets])
    exact = float(covariance[0, 1] / covariance.diagonal().prod().sqrt())
    assert abs(exact) > 0.15  # else the test would not see draws of single cells
    assert float(drawn.T.corrcoef()[0, 1]) == pytest.approx(exact, abs=0.08)
    assert ((drawn.mean(0) - mean) / covariance.diagonal().sqrt()).abs().max() < 0.1
    torch.testing.assert_close(drawn.std(0), covariance.diagonal().sqrt(), rtol=0.08, atol=0)


def test_draws_follow_the_seed_and_leave_observed_cells_and_other_draws_alone():
    state = torch.get_rng_state()
    sets = imputed("masked", num_samples=50).draw(3, seed=2)
    again = imputed("masked", num_samples=50).draw(3, seed=2)
    for one, same in zip(sets, again, strict=True):
        assert torch.equal(one["x"], same["x"])
        assert torch.equal(one["x"][SEEN], X[SEEN])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(sets[0]["x"], sets[1]["x"])


def test_a_row_of_which_nothing_is_seen_gets_the_mean_of_the_model():
    frame = imputed("masked").frame
    own = frame[frame["row"] == 0]
    assert len(own) == X.shape[1]
    assert own["value"].abs().max() < 0.15


def test_a_guide_off_the_posterior_is_warned_of():
    def off(x, seen):
        with missing.pyro.plate("data", len(x)):
            code = missing.dist.Normal(x.new_zeros(missing.LATENTS) + 3.0, 0.2)
            missing.pyro.sample("z", code.to_event(1))

    with pytest.warns(UserWarning, match="few draws count in 2. of 27 rows"):
        result = imputed("masked", off, num_samples=500)
    assert result.unreliable.sum() > 40
    assert "rows are unreliable" in str(result)


def test_a_result_does_not_depend_on_the_size_of_a_block(monkeypatch):
    """Blocks have seeds of their own, so that only the draws differ."""
    monkeypatch.setattr("ppl_vae.imputation.posterior.NUMBERS", 5 * DRAWS * 4)
    frame = imputed("masked").frame
    assert np.abs((frame["value"] - MEAN) / SD).max() < 4 / math.sqrt(DRAWS / 4)
