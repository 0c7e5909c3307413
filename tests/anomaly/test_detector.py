"""A detector flags clean rows as often as it says, and refuses rows it was not calibrated for."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import AnomalyDetector, anomaly_scores
from ppl_vae.anomaly import conformal
from ppl_vae.anomaly.scores import RowScorer
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.ppca import PPCAModel

FEATURES = 4
COLUMNS = ["speed", "load", "heat", "noise"]


def clean_rows(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    code = torch.randn(count, 2, generator=generator)
    mixing = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 1.0, 1.0, 0.5]])
    return code @ mixing + 0.3 * torch.randn(count, FEATURES, generator=generator)


def exact_model():
    """A model whose likelihood is exact, fitted in closed form to 500 rows of their own."""
    model = PPCAModel(FEATURES, latents=2)
    model.solve(clean_rows(500, seed=99))
    return model


@pytest.fixture(scope="module")
def detector():
    return AnomalyDetector(exact_model().marginal, None, clean_rows(199))


@pytest.fixture(scope="module")
def pool():
    """(8000,) scores of clean rows under one exact pair."""
    detector = AnomalyDetector(exact_model().marginal, None, clean_rows(8000))
    return np.random.default_rng(0).permutation(detector.scores)


# What the numbers promise


def splits(pool, n, m, draws=200):
    """Calibration and test scores, drawn from the pool anew each time."""
    random = np.random.default_rng(1)
    for _ in range(draws):
        part = random.choice(pool, n + m, replace=False)
        yield part[:n], part[n:]


def test_p_values_of_clean_rows_are_uniform_over_their_levels(pool):
    shares = np.stack(
        [np.bincount(conformal.levels(new, known) - 1, minlength=20) / len(new)
         for known, new in splits(pool, 19, 200)]
    )  # fmt: skip
    error = shares.std(0, ddof=1) / len(shares) ** 0.5
    assert (abs(shares.mean(0) - 1 / 20) < 4 * error).all()


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (99, 0.1), (199, 0.05)])
def test_the_mean_false_alarm_rate_is_the_rate(pool, n, rate):
    alarms = [
        (new > conformal.threshold(known, rate)).mean() for known, new in splits(pool, n, 300)
    ]
    error = np.std(alarms, ddof=1) / len(alarms) ** 0.5
    assert abs(np.mean(alarms) - rate) < 3.5 * error


@pytest.mark.parametrize(("n", "rate"), [(99, 0.1), (199, 0.05)])
def test_single_draws_lie_in_the_interval_as_often_as_it_says(pool, n, rate):
    m = 300
    low, high = conformal.alarms_interval(n, rate, m)
    alarms = [(new > conformal.threshold(known, rate)).sum() for known, new in splits(pool, n, m)]
    inside = np.mean([low <= count <= high for count in alarms])
    assert abs(inside - 0.9) < 0.07  # 200 draws: a standard error of 0.021, and whole numbers


def test_the_detector_flags_about_the_share_of_clean_rows_that_print_states(detector):
    low, high = conformal.alarms_interval(199, 0.05, 2000, level=0.999)
    assert low <= detector(clean_rows(2000, seed=1))["flagged"].sum() <= high


def test_strange_rows_are_found_and_false_discoveries_stay_below_the_rate(detector):
    discoveries = []
    for seed in range(20):
        rows = clean_rows(200, seed=seed + 1)
        rows[:60] = rows[:60].flip(1) * 3  # not on the plane of the clean rows
        flagged = detector(rows, false_discovery_rate=0.2)["flagged"].to_numpy()
        assert flagged[:60].mean() > 0.7
        discoveries.append(flagged[60:].sum() / max(1, flagged.sum()))
    assert np.mean(discoveries) < 0.2


def test_calibration_on_the_training_rows_gives_false_alarms_too_many():
    train = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    model = PPCAModel(20, latents=15)
    model.solve(train)
    new = torch.randn(1000, 20, generator=torch.Generator().manual_seed(1))
    trained_on = AnomalyDetector(model.marginal, None, train)(new)["flagged"].mean()
    held_out = AnomalyDetector(model.marginal, None, new[:500])(new[500:])["flagged"].mean()
    assert held_out < 0.1
    assert trained_on > 0.5


# The frame


def test_the_frame_has_the_index_and_its_columns_agree(detector):
    rows = pd.DataFrame(clean_rows(50, seed=3).numpy(), index=[f"row {i}" for i in range(50)])
    rows.iloc[7] = 20.0
    frame = detector(rows, false_alarm_rate=0.1)
    assert list(frame) == ["score", "p_value", "q_value", "flagged", "k_hat", "reliable"]
    assert frame.index.tolist() == rows.index.tolist()
    assert np.array_equal(frame["p_value"], conformal.p_values(frame["score"], detector.scores))
    assert np.allclose(frame["q_value"], conformal.q_values(frame["p_value"]))
    assert (frame["flagged"] == (frame["score"] > detector.threshold(0.1))).all()
    assert frame["flagged"].dtype == frame["reliable"].dtype == bool
    assert frame.loc["row 7", "p_value"] == 1 / 200
    assert frame.attrs["k_hat_threshold"] == 0.5  # min(1 - 1/log10(100), 0.7)
    exact = -exact_model().log_prob(torch.tensor(rows.to_numpy())).detach().numpy()
    assert np.allclose(frame["score"], exact, rtol=1e-4)


def test_the_rate_is_5_percent_by_default(detector):
    rows = clean_rows(500, seed=4)
    by_default, at_5 = detector(rows), detector(rows, false_alarm_rate=0.05)
    pd.testing.assert_frame_equal(by_default, at_5)
    assert not by_default["flagged"].equals(detector(rows, false_alarm_rate=0.2)["flagged"])


def test_false_discoveries_are_judged_by_the_q_values(detector):
    rows = torch.cat([clean_rows(50, seed=5), clean_rows(50, seed=6).flip(1) * 3])
    frame = detector(rows, false_discovery_rate=0.1)
    assert (frame["flagged"] == (frame["q_value"] <= 0.1)).all()
    assert 0 < frame["flagged"].sum() < 100


def test_rows_are_scored_alike_with_the_calibration_rows_and_after_them():
    torch.manual_seed(0)
    rows = clean_rows(30)
    detector = AnomalyDetector(GaussianModel(4), NormalGuide(4), rows, num_samples=20)
    frame = detector(rows)
    assert np.array_equal(np.sort(frame["score"]), detector.scores)
    pd.testing.assert_frame_equal(frame, detector(rows))
    assert frame["p_value"].min() == 2 / 31  # each row ties with itself


def test_unreliable_log_likelihoods_are_marked_and_other_scores_are_not():
    torch.manual_seed(0)
    model = GaussianModel(4)
    for parameter in model.parameters():  # the prior is a bad proposal for a sharp posterior
        parameter.data *= 5
    rows = clean_rows(30)
    frame = AnomalyDetector(model, None, rows)(rows)
    above = frame["k_hat"] > 0.5
    assert above.any()
    assert not frame.loc[above, "reliable"].all()
    elbo = AnomalyDetector(model, None, rows, score="negative_elbo")(rows)
    assert elbo["reliable"].all()


@pytest.mark.parametrize(
    ("k_hat", "ess", "reliable"),
    [(0.4, 5.0, True), (0.9, 5.0, False), (0.9, 60.0, True), (math.nan, 5.0, False)],
)
def test_a_likelihood_is_reliable_unless_few_draws_may_decide_it(k_hat, ess, reliable, monkeypatch):
    original = RowScorer.__call__
    monkeypatch.setattr(
        RowScorer, "__call__", lambda *a, **o: original(*a, **o).assign(k_hat=k_hat, ess=ess)
    )
    frame = AnomalyDetector(exact_model().marginal, None, clean_rows(20))(clean_rows(3))
    assert frame["reliable"].tolist() == [reliable] * 3


def test_exact_likelihoods_are_reliable(detector):
    frame = detector(clean_rows(20, seed=7))
    assert np.isneginf(frame["k_hat"]).all()
    assert frame["reliable"].all()


# Infinite and missing scores


def test_infinite_values_are_refused_that_the_pair_would_take():
    marginal = exact_model().marginal

    def model(x):
        marginal(x.clamp(-9, 9))

    detector, rows = AnomalyDetector(model, None, clean_rows(30)), clean_rows(10)
    rows[4, 1] = math.inf
    assert np.isfinite(anomaly_scores(model, None, rows)).loc[4, "negative_log_likelihood"]
    for use in (detector, detector.drift):
        with pytest.raises(
            ValueError, match="data: expected finite numbers, got infinity in row 4"
        ):
            use(rows)


def test_infinite_calibration_rows_are_refused():
    rows = clean_rows(30)
    rows[4, 1] = -math.inf
    with pytest.raises(ValueError, match=r"calibration: .*infinity in row 4 in column 1"):
        AnomalyDetector(exact_model().marginal, None, rows)


def far_rows(count):
    rows = clean_rows(count, seed=8)
    rows[:2] = 1e30  # whose square is no float
    return rows


def test_calibration_rows_that_overflow_count_as_strange_and_are_warned_of():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = AnomalyDetector(exact_model().marginal, None, far_rows(99))
    (message,) = [str(w.message) for w in caught if str(w.message).startswith("calibration: ")]
    assert "2 of 99 rows have an infinite score" in message
    assert "below a false-alarm rate of 0.03" in message
    assert np.isposinf(detector.scores[-2:]).all()
    assert detector.threshold(0.02) == math.inf
    assert not detector(clean_rows(500, seed=9), false_alarm_rate=0.02)["flagged"].any()
    assert "inf nats" in str(detector)


def test_a_new_row_that_overflows_is_the_strangest(detector):
    with pytest.warns(UserWarning, match="overflow"):
        frame = detector(far_rows(20))
    assert frame["score"][:2].tolist() == [math.inf] * 2
    assert frame["p_value"][:2].tolist() == [1 / 200] * 2
    assert frame["flagged"][:2].all()
    assert not frame["reliable"][:2].any()
    assert frame["reliable"][2:].all()


def test_a_score_of_nan_is_refused(monkeypatch):
    original = RowScorer.__call__

    def with_nan(*args, **options):
        frame = original(*args, **options)
        frame.iloc[3] = math.nan
        return frame

    monkeypatch.setattr(RowScorer, "__call__", with_nan)
    with pytest.raises(ValueError, match=r"calibration: .*NaN in 1 of 50 rows, first in row 3"):
        AnomalyDetector(exact_model().marginal, None, clean_rows(50))


# Rows of another form


def framed(rows):
    return pd.DataFrame(rows.numpy(), columns=COLUMNS)


@pytest.fixture(scope="module")
def of_frames():
    return AnomalyDetector(exact_model().marginal, None, framed(clean_rows(50)))


def test_columns_are_found_by_their_names(of_frames):
    rows = framed(clean_rows(20, seed=1))
    swapped = of_frames(rows[COLUMNS[::-1]])
    pd.testing.assert_frame_equal(swapped, of_frames(rows))
    pd.testing.assert_frame_equal(of_frames(rows.to_numpy()), of_frames(rows))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns="heat"), 'got none called "heat"; add or rename'),
        (lambda f: f.rename(columns={"heat": "cold"}), 'got none called "heat", but "cold"; add'),
        (lambda f: f.set_axis(list("abcd"), axis=1), 'got none called "speed", "load", "heat"'),
        (lambda f: f.assign(dust=0.0), 'the calibration rows alone, got "dust" as well'),
        (lambda f: f.to_numpy()[:, :3], r"rows of shape \(4,\), as .*, got \(3,\)"),
        (lambda f: {"x": f}, 'expected the fields of the calibration rows, "0", got "x"'),
        (lambda f: f.assign(heat=math.inf), 'infinity.*row 0 in column "heat"'),
        (lambda f: f.assign(heat=math.nan), 'NaN.*row 0 in column "heat"'),
    ],
)
def test_rows_of_another_form_are_refused_by_the_name_of_the_column(of_frames, change, words):
    with pytest.raises(ValueError, match=f"data: .*{words}"):
        of_frames(change(framed(clean_rows(20))))


def test_other_fields_of_a_mapping_are_refused():
    def model(x, size=None):
        return exact_model_marginal(x if size is None else x / size[:, None])

    exact_model_marginal = exact_model().marginal
    rows = {"x": clean_rows(30), "size": torch.ones(30)}
    detector = AnomalyDetector(model, None, rows)
    with pytest.raises(ValueError, match=r'expected the fields .*"x", "size", got "x"'):
        detector({"x": clean_rows(30)})
    reordered = detector({"size": torch.ones(30), "x": clean_rows(30)})
    pd.testing.assert_frame_equal(reordered, detector(rows))


# Drift


def test_drift_is_seen_where_rows_have_changed_and_not_where_they_have_not(detector):
    same = detector.drift(clean_rows(300, seed=10))
    assert same.holds
    assert same.p_value > 0.01
    assert same.expected[0] <= same.beyond <= same.expected[1]
    assert "the calibration holds" in str(same)
    changed = detector.drift(clean_rows(300, seed=10) * 1.5)
    assert not changed.holds
    assert changed.p_value < 1e-3
    assert changed.beyond > changed.expected[1]
    assert "calibrate again" in str(changed)
    assert f"{changed.beyond} rows ({changed.beyond / 3:.1f} %), expected" in str(changed)


# Arguments


def test_print_states_the_score_the_rows_the_threshold_and_its_error(detector):
    text = str(detector)
    low, high = conformal.rate_interval(199, 0.05)
    for words in (
        "negative_log_likelihood; 100 draws for each row, seed 0",
        "199 rows",
        f"{detector.threshold(0.05):.4g} nats at a false-alarm rate of 5%",
        f"with a probability of 90 %, this one flags {low:.1%} to {high:.1%} of clean rows",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score": "loss"}, "score: expected one of reconstruction, .*, got 'loss'"),
        ({"score": np.zeros(2)}, r"score: expected one of reconstruction, .*, got array"),
        ({"score": "typicality"}, 'reference: expected rows for the score "typicality"'),
        ({"reference": torch.zeros(3, 4)}, "reference: .*got rows with"),
        ({"num_samples": 0}, "num_samples: expected a whole number of at least 1"),
        ({"seed": -1}, "seed: expected"),
        ({"plate": ""}, "plate: expected a name"),
    ],
)
def test_wrong_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        AnomalyDetector(GaussianModel(4), NormalGuide(4), clean_rows(30), **options)


def test_too_few_calibration_rows_are_refused():
    with pytest.raises(ValueError, match=r"calibration: expected at least 19 rows.*got 18"):
        AnomalyDetector(exact_model().marginal, None, clean_rows(18))


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"false_alarm_rate": 0.1, "false_discovery_rate": 0.1}, "pass one of the two"),
        ({"false_alarm_rate": 0.001}, "false_alarm_rate: .*calibrate on at least 999 rows"),
        ({"false_discovery_rate": 0.001}, "false_discovery_rate: .*at least 999 rows"),
        ({"false_alarm_rate": 1.0}, "false_alarm_rate: expected a number above 0 and below 1"),
        ({"false_discovery_rate": 0}, "false_discovery_rate: expected a number above 0"),
        ({"progress": 1}, "progress: expected True, False or None"),
    ],
)
def test_wrong_rates_are_refused(detector, rates, words):
    with pytest.raises(ValueError, match=words):
        detector(clean_rows(5), **rates)


def test_a_pair_that_has_changed_since_the_calibration_is_refused():
    model, rows = exact_model(), clean_rows(30)
    detector = AnomalyDetector(model.marginal, None, rows)
    detector(rows)
    model.shift.data += 1e-3
    for use in (detector, detector.drift, lambda _: detector.save("never")):
        with pytest.raises(ValueError, match="detector: expected the weights that the calibration"):
            use(rows)


def test_typicality_is_the_distance_from_the_mean_of_the_reference_rows():
    model, reference, rows = exact_model(), clean_rows(100, seed=20), clean_rows(30)
    detector = AnomalyDetector(model.marginal, None, rows, score="typicality", reference=reference)
    center = -model.log_prob(reference).detach().double().mean()
    expected = (-model.log_prob(rows).detach().double() - center).abs()
    assert np.allclose(detector(rows)["score"], expected, atol=1e-5)
    assert f"typicality, from {center:.4g} nats" in str(detector)


def test_the_plot_has_the_calibration_scores_and_the_threshold(detector):
    ax = detector.plot()
    assert ax.lines[0].get_xdata()[0] == detector.threshold(0.05)
    assert sum(bar.get_height() for bar in ax.containers[0]) == 199
    assert "negative_log_likelihood (nats; higher is stranger)" in ax.get_xlabel()
