"""The benchmark of left-out digits runs, goes on where it was cut off, and its density is right."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal


@pytest.fixture(scope="module")
def digits(imported):
    return imported("anomaly_digits")


def test_every_method_and_score_has_an_area_and_those_of_the_file_are_kept(digits, tmp_path):
    out = tmp_path / "rows.jsonl"
    words = ["--tiny", "--digits", "7", "--out", str(out)]
    table = digits.main(words)
    assert set(table.index.get_level_values(0)) == set(digits.SCORES)
    assert table.to_numpy().min() >= 0
    assert table.to_numpy().max() <= 1
    lines = out.read_text()
    again = digits.main(words)
    assert out.read_text() == lines  # nothing was measured again
    np.testing.assert_array_equal(again, table)
    assert json.loads(lines.splitlines()[0])["tiny"]


def test_a_shape_that_was_left_out_is_found_by_its_divergence_and_by_the_classics(digits):
    table = digits.main(["--tiny", "--digits", "3", "--methods", "exemplar", "kernel"])
    assert table.loc[("exemplar", "divergence"), 3] > 0.95
    assert table.loc[("kernel", "negative_log_likelihood"), 3] > 0.95


def test_choosing_reads_no_test_image(digits, monkeypatch):
    data = digits.tiny()
    hidden = {"x_test": None, "y_test": None}
    monkeypatch.setattr(digits, "tiny", lambda: data | hidden)
    table = digits.main(["--tiny", "--choose", "--digits", "3", "--methods", "neighbours"])
    assert table.loc[("neighbours", "distance"), 3] > 0.95
    parts = digits.for_choosing(data | hidden)
    seen = np.concatenate([parts["x_train"], parts["x_test"]])
    np.testing.assert_array_equal(seen, data["x_train"])  # each is on one side alone


def test_when_fitted_the_prior_stands_around_the_codes_of_all_training_rows(digits):
    rows = digits.in_form("shape", torch.from_numpy(digits.tiny()["x_train"]))
    how = {"updates": 2, "seed": 0}
    model, guide = digits.exemplar_pair(digits.METHODS["exemplar"], rows, rows[:40], how)
    codes = guide.encoder(guide.standardize(rows)).chunk(2, -1)[0]
    torch.testing.assert_close(model.prior().centers, codes)
    torch.testing.assert_close(model.prior().width, model.log_spread.exp())


def test_the_mean_is_missing_where_a_digit_is(digits):
    lines = [{"method": "kernel", "digit": digit, "auroc": {"error": 0.5}} for digit in (0, 1)]
    lines.append({"method": "bernoulli", "digit": 0, "auroc": {"error": 0.7}})
    means = digits.table(lines)["mean"]
    assert means["kernel", "error"] == 0.5
    assert np.isnan(means["bernoulli", "error"])


def test_kernels_have_the_density_of_a_mixture_of_normals(digits):
    rows, centers, width = torch.randn(2, 5, 3), torch.randn(7, 3), torch.tensor([0.4, 0.6, 1.1])
    density = digits.Kernels(centers, width).log_prob(rows)
    each = [multivariate_normal(center, np.diag(width**2)).pdf(rows) for center in centers.numpy()]
    np.testing.assert_allclose(density, np.log(np.mean(each, 0)), rtol=1e-4)


def test_kernels_draw_from_the_normals_that_they_score(digits):
    centers, width = torch.tensor([[-3.0, 0.0], [3.0, 0.0]]), torch.tensor([0.5, 2.0])
    torch.manual_seed(0)
    drawn = digits.Kernels(centers, width).expand([4000]).sample()
    np.testing.assert_allclose(drawn.std(0), [np.hypot(3, 0.5), 2], rtol=0.05)


def test_a_shape_is_the_same_in_faint_ink(digits):
    images = torch.randint(0, 120, (4, 28, 28), dtype=torch.uint8)
    torch.testing.assert_close(digits.in_form("shape", 2 * images), digits.in_form("shape", images))


def test_the_figure_is_drawn_from_the_lines_of_the_file(digits, tmp_path):
    out, figure = tmp_path / "rows.jsonl", tmp_path / "digits.png"
    digits.main(["--tiny", "--methods", "neighbours", "--digits", "0", "1", "--out", str(out)])
    digits.main(["--draw", str(out), str(figure)])
    assert figure.stat().st_size > 10000
