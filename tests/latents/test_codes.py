"""``encode``, ``reconstruct`` and ``generate``: against closed forms, and what they refuse."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.latents import W, X, linear_guide, linear_model
from pyro.nn import PyroModule

from ppl_vae import encode, fit, generate, interpolate, reconstruct, traverse
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.conditional import ConditionalModel
from ppl_vae.models.gaussian import GaussianModel


def chain_guide(x):
    """a ~ N(x, 0.5^2), b ~ N(2 a, 0.6^2): the moments of b need draws of a."""
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(x[:, 0], 0.5))
        pyro.sample("b", dist.Normal(2 * a, 0.6))


def nothing(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=x)


def test_codes_are_exact_where_the_guide_knows_its_moments():
    codes = encode(linear_model, linear_guide, X)
    assert torch.equal(torch.tensor(codes["z"]["mean"].to_numpy()), X[:, :2])
    assert codes["z"]["sd"].to_numpy() == pytest.approx(0.3)
    assert codes.columns.names == ["site", "moment", "index"]


def test_codes_of_a_chain_follow_the_law_of_total_variance():
    codes = encode(nothing, chain_guide, X, num_samples=4000)
    assert codes["b"]["mean"].to_numpy()[:, 0] == pytest.approx(2 * X[:, 0].numpy(), abs=0.06)
    assert codes["b"]["sd"].to_numpy() == pytest.approx((4 * 0.5**2 + 0.6**2) ** 0.5, rel=0.04)


def test_codes_of_a_family_without_moments_come_from_draws():
    flow = dist.TransformedDistribution(
        dist.Normal(torch.zeros(40), 0.5), [dist.transforms.AffineTransform(1.0, 2.0)]
    )

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", flow)

    codes = encode(nothing, guide, X, num_samples=4000)
    assert codes["z"]["mean"].to_numpy() == pytest.approx(1.0, abs=0.08)
    assert codes["z"]["sd"].to_numpy() == pytest.approx(1.0, rel=0.06)


def test_a_categorical_latent_is_encoded_as_probabilities():
    probs = torch.tensor([[0.2, 0.8], [0.5, 0.5]])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(probs[:, None].expand(2, len(x), 2)[0]))

    codes = encode(nothing, guide, X)
    assert codes["y"]["probability"].to_numpy() == pytest.approx(
        probs[:1].expand(40, 2).numpy(), abs=1e-6
    )


def test_codes_have_the_index_of_the_frame():
    frame = pd.DataFrame(X.numpy(), index=[f"row {i}" for i in range(40)], columns=list("abc"))
    codes = encode(linear_model, linear_guide, frame)
    again = reconstruct(linear_model, linear_guide, frame)
    assert codes.index.tolist() == again.index.tolist() == frame.index.tolist()
    assert again.columns.tolist() == ["a", "b", "c"]


def test_results_do_not_depend_on_how_rows_are_blocked(monkeypatch):
    whole = encode(linear_model, linear_guide, X), reconstruct(linear_model, linear_guide, X)
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", 7)
    blocked = encode(linear_model, linear_guide, X), reconstruct(linear_model, linear_guide, X)
    pd.testing.assert_frame_equal(whole[0], blocked[0])
    assert torch.allclose(whole[1], blocked[1], atol=0.6)  # other draws, same expectation
    again = reconstruct(linear_model, linear_guide, X)
    assert torch.equal(blocked[1], again)


def test_reconstructions_are_expectations_under_the_guide():
    rows = reconstruct(linear_model, linear_guide, X, num_samples=3000)
    assert torch.allclose(rows, X[:, :2] @ W, atol=0.08)


def test_generated_rows_have_the_models_moments():
    rows = generate(linear_model, None, X, num_samples=20_000)
    covariance = W.T @ W + 0.01 * torch.eye(3)
    assert rows.shape == (20_000, 3)
    assert torch.allclose(rows.mean(0), torch.zeros(3), atol=0.12)
    assert torch.allclose(torch.cov(rows.T), covariance, rtol=0.06, atol=0.15)
    assert not (rows[:, None] == X).all(-1).any()


def test_the_seed_decides_the_draws_and_the_generators_are_restored():
    before = torch.get_rng_state()
    first, second, third = (generate(linear_model, None, X, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(before, torch.get_rng_state())


def test_each_block_has_draws_of_its_own(monkeypatch):
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", 8)
    rows = generate(linear_model, None, X, num_samples=16)
    assert not torch.isclose(rows[:8], rows[8:]).any()


def test_generate_returns_integer_fields_and_expected_values_as_floats():
    model = BernoulliModel(3, 2)
    data = (X > 0).to(torch.uint8)
    drawn = generate(model, None, data, num_samples=50)
    assert drawn.dtype == torch.uint8
    assert set(drawn.flatten().tolist()) == {0, 1}
    expected = generate(model, None, data, num_samples=50, expected=True)
    assert expected.is_floating_point()
    assert 0 < float(expected.min()) < float(expected.max()) < 1
    frame = generate(model, None, pd.DataFrame(data.numpy(), columns=list("abc")), num_samples=5)
    assert frame.dtypes.unique().tolist() == [data.numpy().dtype]


def mixed(x, dose):
    """Two sites that observe slices of one field, and a covariate in another field."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        kind = pyro.sample("kind", dist.Categorical(logits=torch.zeros(4)), obs=x[:, 2].long())
        loc = torch.stack([100 * dose + z, kind.to(x.dtype)], -1)
        pyro.sample("size", dist.Normal(loc, 0.01).to_event(1), obs=x[:, :2])


def mixed_data(count=30):
    kind = torch.arange(count) % 4
    dose = torch.linspace(0, 1, count)
    x = torch.stack([100 * dose, kind.float(), kind.float()], 1)
    return {"x": x + torch.tensor([0.3, 0.001, 0.0]), "dose": dose}


def test_values_of_sites_on_parts_of_a_field_return_to_their_cells():
    rows = generate(mixed, None, mixed_data(), num_samples=200)
    assert set(rows["x"][:, 2].tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert torch.allclose(rows["x"][:, 1], rows["x"][:, 2], atol=0.06)
    assert torch.allclose(rows["x"][:, 0], 100 * rows["dose"], atol=4.5)


def test_given_covariates_are_used():
    rows = generate(mixed, None, mixed_data(), num_samples=50, given={"dose": 0.25})
    assert rows["dose"].tolist() == [0.25] * 50
    assert torch.allclose(rows["x"][:, 0], torch.tensor(25.0), atol=4.5)
    doses = torch.linspace(0, 1, 50)
    rows = generate(mixed, None, mixed_data(), num_samples=50, given={"dose": doses})
    assert torch.equal(rows["dose"], doses)


@pytest.mark.parametrize("labels", [torch.arange(4) % 2, torch.arange(4) % 2 == 1])
def test_a_truth_value_is_given_as_a_label_of_0_or_1(labels):
    data = {"x": (X[:4] > 0).float(), "y": labels}
    model = ConditionalModel(3, latents=2, conditions=2)
    for value in (True, 1, [True] * 5, np.ones(5, dtype=bool)):
        rows = generate(model, None, data, num_samples=5, given={"y": value})
        assert rows["y"].dtype == labels.dtype
        assert rows["y"].tolist() == [1] * 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dose": "much"}, "expected numbers"),
        ({"mass": 1.0}, r"fields among \['x', 'dose'\], got 'mass'"),
        ({"dose": torch.ones(3)}, "50"),
        ({"x": 0.0}, "fields that the model reads and does not observe .* got 'x'"),
    ],
)
def test_wrong_covariates_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        generate(mixed, None, mixed_data(), num_samples=50, given=given)


def test_a_global_latent_is_drawn_once_and_from_its_posterior():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 100.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(x):
        pyro.sample("mu", dist.Normal(7.0, 0.01))

    rows = generate(model, guide, torch.zeros(5), num_samples=30_000)
    assert float(rows.mean()) == pytest.approx(7.0, abs=0.06)
    assert float(rows.std()) == pytest.approx(1.0, abs=0.02)
    prior = generate(model, None, torch.zeros(5), num_samples=30_000)
    assert abs(float(prior.mean()) - 7.0) > 1
    assert float(prior.std()) == pytest.approx(1.0, abs=0.02)


def test_a_site_that_observes_computed_values_is_an_error():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x.exp().sum(-1))

    with pytest.raises(
        ValueError, match='site "x": expected a site that observes cells of the data'
    ):
        generate(model, None, X)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encode(nothing, nothing, X), 'latent in the row plate "data" to encode, found'),
        (lambda: traverse(linear_model, None, X), 'row plate "data" to traverse, found none'),
        (lambda: interpolate(linear_model, None, X), 'row plate "data" to interpolate, found none'),
        (lambda: reconstruct(nothing, None, X), "expected a latent to reconstruct rows"),
        (lambda: generate(linear_model, None, X, num_samples=0), "num_samples: expected a whole"),
        (lambda: reconstruct(linear_model, linear_guide, X, num_samples=0), "num_samples"),
        (lambda: encode(linear_model, linear_guide, X, num_samples=0), "num_samples"),
        (lambda: interpolate(linear_model, linear_guide, X[:1]), "data: expected at least 2 rows"),
        (lambda: interpolate(linear_model, linear_guide, X, steps=1), "steps: expected a whole"),
        (lambda: traverse(linear_model, linear_guide, X, steps=0), "steps: expected a whole"),
        (lambda: traverse(linear_model, linear_guide, X, site="w"), "got 'w'"),
        (lambda: encode(linear_model, linear_guide, X, plate="rows"), 'row plate "rows"'),
    ],
)
def test_arguments_without_a_meaning_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_modes_of_modules_are_restored_and_dropout_is_off(digits):
    model = BernoulliModel(
        64, 2, torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 64))
    )
    guide = NormalGuide(64, 2)
    first, second = (reconstruct(model, guide, digits[:9]) for _ in range(2))
    assert torch.equal(first, second)
    assert model.training
    assert model.decoder.training


def test_memory_does_not_grow_with_the_rows(digits):
    """With ten times the rows the largest block has the same size."""
    model, guide = BernoulliModel(64, 2), NormalGuide(64, 2)
    sizes = []
    guide.encoder.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    encode(model, guide, digits.repeat(20, 1))
    assert max(sizes) <= 8192
    assert len(sizes) >= 5


def test_a_gaussian_pair_reconstructs_in_the_datas_units():
    data = 1000 + 50 * X
    model = GaussianModel(3, 2, loc=1000.0, scale=50.0)
    guide = NormalGuide(3, 2, loc=1000.0, scale=50.0)
    fit(model, guide, data, epochs=5, progress=False)
    rows = reconstruct(model, guide, data)
    assert 800 < float(rows.min()) < float(rows.max()) < 1200


def test_layers_of_plain_functions_run_in_evaluation_mode():
    encoder = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5))

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    codes = encode(linear_model, guide, X)
    assert (codes["z"]["sd"] == 1.0).all().all()
    assert encoder[1].training


class Linear(PyroModule):
    """Reads the first column and observes the others, as a converted copy."""

    def forward(self, x):
        x = x.float()
        factors = torch.tensor([1.0, 5.0, 9.0])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = factors * x[:, :1] + 0 * z[..., None]
            pyro.sample("y", dist.Normal(loc, 0.1).to_event(1), obs=x[:, 1:])


def scalar_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.0, 1.0))


def test_converted_columns_return_to_their_own_places():
    rows = torch.tensor([[1, 7, 5, 2], [3, 1, 5, 9], [2, 2, 8, 4]])
    expected = torch.tensor([[1.0, 1, 5, 9], [3, 3, 15, 27], [2, 2, 10, 18]])
    assert torch.equal(reconstruct(Linear(), scalar_guide, rows), expected)
    assert torch.equal(traverse(Linear(), scalar_guide, rows, steps=2), expected[[0, 0]])


def test_equal_integer_columns_are_refused_and_equal_float_columns_are_not():
    alike = torch.ones(5, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=r'site "y": columns .* hold the same values'):
        reconstruct(Linear(), scalar_guide, alike)
    assert reconstruct(Linear(), scalar_guide, alike.float())[0].tolist() == [1.0, 1.0, 5.0, 9.0]


def test_missing_cells_that_the_model_fills_are_imputed():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.nan_to_num()[:, :2], 0.01).to_event(1))

    def flat(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            likelihood = dist.Normal(z @ W, 0.1).mask(~x.isnan()).to_event(1)
            pyro.sample("x", likelihood, obs=x.nan_to_num())

    gappy = X.clone()
    gappy[3, 2] = torch.nan
    filled = reconstruct(flat, guide, gappy, num_samples=200)
    assert torch.allclose(filled, X[:, :2] @ W, atol=0.1)


def test_draws_beyond_small_integers_are_not_wrapped():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(torch.tensor([1.0, 400.0])).to_event(1), obs=x.float())

    counts = torch.zeros(9, 2, dtype=torch.uint8)
    rows = generate(model, None, counts + torch.arange(2, dtype=torch.uint8), num_samples=50)
    assert rows[:, 1].float().mean() == pytest.approx(400, rel=0.05)

    def grey(x):
        with pyro.plate("data", len(x)):
            loc = torch.tensor([-1.0, 0.4])
            pyro.sample("x", dist.Normal(loc, 0.01).to_event(1), obs=x.float())

    rows = generate(grey, None, counts + torch.arange(2, dtype=torch.uint8), num_samples=50)
    assert rows.is_floating_point()
    assert rows.mean(0).tolist() == pytest.approx([-1.0, 0.4], abs=0.01)


@pytest.mark.parametrize("bad", [X[:, :2], torch.where(X > 2, torch.nan, X)])
def test_an_error_explains_rows_that_the_pair_cannot_take(bad):
    guide = NormalGuide(3, 2)
    if bad.isnan().any():
        first = int(bad.isnan().any(1).nonzero()[0])
        message = f"got NaN or infinity, first in row {first}"
    else:
        message = r"expected rows of shape \(3,\), which the model gives, got rows of shape \(2,\)"
    with pytest.raises(ValueError, match=message):
        encode(linear_model, guide, bad)
