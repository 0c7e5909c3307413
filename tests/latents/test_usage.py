"""``latent_usage``: active latents, and the parts of the KL divergence by other computations."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal, init_to_value

from ppl_vae import latent_usage
from ppl_vae.callbacks import ActiveUnits
from ppl_vae.distributions import MarkovPath, SoftmaxNormal

PARTS = ["kl", "mutual_information", "marginal_kl"]


def rows(count, columns, seed=0):
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed))


def pair_of(prior, posterior):
    """A pair with the latent "z", from functions of the rows to distributions."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior(x))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", posterior(x))

    return model, guide


def normal(loc, scale):
    return dist.Normal(loc, scale).to_event(1)


def quadrature(loc, scale, prior_scale=1.0):
    """KL, mutual information and marginal KL of a latent Normal(loc_n, scale), on a grid."""
    z = np.linspace(loc.min() - 10 * scale, loc.max() + 10 * scale, 20001)
    each = np.exp(-(((z - loc[:, None]) / scale) ** 2) / 2) / (scale * math.sqrt(2 * math.pi))
    log_prior = -((z / prior_scale) ** 2) / 2 - math.log(prior_scale * math.sqrt(2 * math.pi))
    aggregate = each.mean(0)
    log_aggregate = np.log(aggregate)
    log_each = -(((z - loc[:, None]) / scale) ** 2) / 2 - math.log(scale * math.sqrt(2 * math.pi))
    step = z[1] - z[0]
    kl = (each * (log_each - log_prior)).sum(1).mean() * step
    information = (each * (log_each - log_aggregate)).sum(1).mean() * step
    return kl, information, (aggregate * (log_aggregate - log_prior)).sum() * step


def test_exactly_the_three_informative_latents_of_ten_are_found():
    x = rows(400, 3)
    planted = [1, 4, 8]

    def posterior(x):
        loc = x.new_zeros(len(x), 10)
        loc[:, planted] = 0.8 * x
        scale = torch.ones(10).index_fill(0, torch.tensor(planted), 0.6)
        return normal(loc, scale)

    usage = latent_usage(*pair_of(lambda x: normal(x.new_zeros(10), 1.0), posterior), x)
    assert usage.active == ["z[1]", "z[4]", "z[8]"]
    assert usage.collapsed == []
    idle = usage.frame[~usage.frame["active"]]
    assert idle[[*PARTS, "activity"]].abs().to_numpy().max() < 1e-6
    expected = 0.64 * x.var(0, correction=0)
    assert usage.frame["activity"][planted].to_numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("scale", "shift"), [(0.6, 0.0), (0.2, 0.0), (0.6, 1.0), (0.2, 2.0)])
def test_the_three_numbers_agree_with_quadrature(scale, shift):
    x = rows(500, 1)
    x = x + shift * x.sign()  # two clusters where the shift is large
    pair = pair_of(lambda x: normal(x.new_zeros(1), 1.0), lambda x: normal(x, scale))
    line = latent_usage(*pair, x, num_samples=20).frame.iloc[0]
    right = quadrature(x[:, 0].double().numpy(), scale)
    error = 4 * line["error"]
    assert 0 < line["error"] < 0.05
    assert line["kl"] == pytest.approx(right[0], rel=1e-5)
    assert line["mutual_information"] == pytest.approx(right[1], abs=error)
    assert line["marginal_kl"] == pytest.approx(right[2], abs=error)
    assert line["kl"] == pytest.approx(line["mutual_information"] + line["marginal_kl"])


@pytest.mark.parametrize("whole", [False, True], ids=["by dimension", "as a whole"])
def test_a_full_covariance_has_one_line_that_agrees_with_independent_dimensions(whole):
    x = rows(300, 2)

    def posterior(x):
        covariance = torch.diag(torch.tensor([0.25, 0.16])).expand(len(x), 2, 2)
        whole_one = dist.MultivariateNormal(x, covariance)
        return whole_one if whole else normal(x, torch.tensor([0.5, 0.4]))

    pair = pair_of(lambda x: normal(x.new_zeros(2), 1.0), posterior)
    frame = latent_usage(*pair, x).frame
    right = [quadrature(x[:, i].double().numpy(), s) for i, s in enumerate((0.5, 0.4))]
    assert frame["dimension"].isna().tolist() == [False, False] + whole * [True]
    assert frame["activity"][:2].to_numpy() == pytest.approx(x.var(0, correction=0), rel=1e-4)
    found = frame.iloc[2] if whole else frame[PARTS].sum()
    assert found["kl"] == pytest.approx(right[0][0] + right[1][0], rel=1e-4)
    # rows are independent in both dimensions up to chance: the sum is near, not equal
    near = 0.25 if whole else 0.1
    assert found["mutual_information"] == pytest.approx(right[0][1] + right[1][1], abs=near)


def test_activity_is_a_share_of_the_variance_of_the_prior():
    x = rows(300, 2)
    scale = torch.tensor([10.0, 0.1])
    pair = pair_of(lambda x: normal(x.new_zeros(2), scale), lambda x: normal(0.5 * x, 0.05))
    usage = latent_usage(*pair, x)
    expected = 0.25 * x.var(0, correction=0) / scale**2
    assert usage.frame["activity"].to_numpy() == pytest.approx(expected, rel=1e-4)
    assert usage.active == ["z[1]"]
    heavy = pair_of(lambda x: dist.Cauchy(x.new_zeros(2), 1.0).to_event(1), lambda x: normal(x, 1))
    share = x.var(0, correction=0) / (x.var(0, correction=0) + 1)
    found = latent_usage(*heavy, x, num_samples=200).frame["activity"]
    assert found.to_numpy() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("kind", ["categorical", "one-hot", "binary"])
def test_discrete_latents_have_the_sums_of_their_probabilities(kind):
    p = np.array([0.2, 0.8]) if kind == "binary" else np.array([0.2, 0.3, 0.5])
    q = rows(50, len(p)).softmax(-1)
    fns = {
        "categorical": dist.Categorical,
        "one-hot": dist.OneHotCategorical,
        "binary": lambda p: dist.Bernoulli(p[..., 1]),
    }
    prior = torch.tensor(p, dtype=torch.float)
    pair = pair_of(
        lambda x: fns[kind](prior.expand(len(x), -1)), lambda x: fns[kind](x.softmax(-1))
    )
    (line,) = latent_usage(*pair, rows(50, len(p))).frame.to_dict("records")
    q = q.double().numpy()
    mean = q.mean(0)
    assert line["kl"] == pytest.approx((q * np.log(q / p)).sum(1).mean(), rel=1e-5)
    assert line["mutual_information"] == pytest.approx(
        (q * np.log(q / mean)).sum(1).mean(), rel=1e-5
    )
    assert line["marginal_kl"] == pytest.approx((mean * np.log(mean / p)).sum(), rel=1e-4)
    assert line["activity"] == pytest.approx(q.var(0).sum() / (p * (1 - p)).sum(), rel=1e-5)


def test_a_category_that_the_model_sums_has_its_exact_posterior():
    center = torch.tensor([-1.0, 2.0])
    weight = torch.tensor([0.3, 0.7])

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weight), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(center[k], 1.0), obs=x)

    x = rows(80, 1)[:, 0] * 2
    q = (weight.log() - (x[:, None] - center) ** 2 / 2).softmax(-1).double().numpy()
    (line,) = latent_usage(model, None, x).frame.to_dict("records")
    mean, p = q.mean(0), weight.double().numpy()
    assert line["site"] == "k"
    assert line["mutual_information"] == pytest.approx(
        (q * np.log(q / mean)).sum(1).mean(), rel=1e-4
    )
    assert line["marginal_kl"] == pytest.approx((mean * np.log(mean / p)).sum(), rel=1e-3)


def test_shares_and_positive_latents_have_their_kl_by_draws():
    x = rows(200, 3)
    prior = dist.Dirichlet(torch.ones(3))
    shares = pair_of(lambda x: prior.expand([len(x)]), lambda x: SoftmaxNormal(x, 0.5 + 0 * x))
    frame = latent_usage(*shares, x, num_samples=30).frame
    assert frame["dimension"].isna().tolist() == [False, False, False, True]
    whole = frame.iloc[3]
    draws = SoftmaxNormal(x, 0.5 + 0 * x).sample((500,))
    log_q = SoftmaxNormal(x, 0.5 + 0 * x).log_prob(draws)
    assert whole["kl"] == pytest.approx((log_q - prior.log_prob(draws)).mean().item(), abs=0.03)
    assert whole["kl"] == pytest.approx(whole["mutual_information"] + whole["marginal_kl"])
    assert frame["activity"][0] == pytest.approx(
        draws.mean(0)[:, 0].var().item() / (2 / 36), rel=0.1
    )
    positive = pair_of(
        lambda x: dist.Gamma(2.0, 1.0).expand([len(x), 3]).to_event(1),
        lambda x: dist.LogNormal(x, 0.3).to_event(1),
    )
    frame = latent_usage(*positive, x, num_samples=50).frame
    right = quadrature(x[:, 0].double().numpy(), 0.3)[1]  # the logarithm tells as much of the row
    assert frame["mutual_information"][0] == pytest.approx(right, abs=4 * frame["error"][0])
    total = frame["mutual_information"] + frame["marginal_kl"]
    assert frame["kl"].to_numpy() == pytest.approx(total.to_numpy())


def test_a_prior_of_the_row_has_no_marginal_kl_and_is_no_activity():
    x = rows(300, 2)
    pair = pair_of(lambda x: normal(3 * x, 1.0), lambda x: normal(3 * x + 0 * x, 1.0))
    usage = latent_usage(*pair, x)
    assert usage.collapsed == ["z"]
    assert usage.frame["kl"].abs().max() < 1e-6
    assert usage.frame["marginal_kl"].isna().all()
    assert usage.frame["mutual_information"].min() > 0.5
    assert "prior differs from row to row" in str(usage)


def test_a_latent_drawn_given_another_one_has_no_information_of_its_own():
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", normal(x.new_zeros(1), 1.0))
            pyro.sample("b", normal(a, 1.0))

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", normal(x, 0.5))
            pyro.sample("b", normal(a + 0.5 * x, 0.5))

    x = rows(400, 1)
    usage = latent_usage(model, guide, x)
    a, b = usage.frame.to_dict("records")
    assert np.isfinite([a[part] for part in PARTS]).all()
    assert np.isnan([b[part] for part in PARTS]).tolist() == [False, True, True]
    kl = 0.5 * (0.25 + 0.25 * x.square().mean().item() - 1 - math.log(0.25))
    assert b["kl"] == pytest.approx(kl, rel=1e-4)
    # the mean given a is a + x / 2: beyond the prior's mean a, x / 2
    assert b["activity"] == pytest.approx(0.25 * x.var().item(), rel=0.05)
    assert 'site "b": the guide draws it given another latent' in str(usage)


def test_noise_of_draws_is_no_activity():
    flow = dist.transforms.Planar(10)
    pair = pair_of(
        lambda x: normal(x.new_zeros(10), 1.0),
        lambda x: dist.TransformedDistribution(normal(x.new_zeros(len(x), 10), 1.0), [flow]),
    )
    usage = latent_usage(*pair, rows(1000, 2), num_samples=2)
    assert usage.active == []
    assert usage.frame["mutual_information"].isna().all()  # the layer has no inverse
    watch = ActiveUnits(rows(400, 2))
    watch({"epoch": 1, "step": 1}, *pair)
    assert watch.frame["active"].tolist() == [0]
    assert "no density at other rows' draws" in str(usage)


def test_information_at_its_limit_is_marked():
    x = rows(40, 1) * 100
    usage = latent_usage(*pair_of(lambda x: normal(0 * x, 100), lambda x: normal(x, 1e-3)), x)
    assert usage.frame["mutual_information"][0] == pytest.approx(math.log(40), abs=1e-3)
    assert usage.at_limit.all()
    assert "at its limit" in str(usage)


def test_many_rows_are_looked_at_in_part_by_the_seed():
    pair = pair_of(lambda x: normal(x.new_zeros(1), 1.0), lambda x: normal(0.1 * x, 1.0))
    x = rows(2500, 1)
    first, again, other = (latent_usage(*pair, x, num_samples=1, seed=s) for s in (0, 0, 1))
    assert (first.rows, first.total) == (2000, 2500)
    assert "2000 rows of 2500" in str(first)
    assert first.frame.equals(again.frame)
    assert not first.frame.equals(other.frame)


def test_latents_that_all_rows_share_are_left_out_and_said():
    def model(x):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x.new_zeros(1), 1.0))
            pyro.sample("x", dist.Normal(m, 1.0).expand([len(x), 1]).to_event(1), obs=x)

    def guide(x):
        m = pyro.sample("m", dist.Normal(x.mean(), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x + m, 0.5))

    torch.manual_seed(1)
    state = torch.get_rng_state()
    usage = latent_usage(model, guide, rows(50, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert usage.frame["site"].tolist() == ["z"]
    assert usage.outside == ["m"]
    assert usage.frame[PARTS].notna().all().all()  # given one draw of m
    assert usage.notes == []
    assert "all rows share them: m" in str(usage)


def test_pairs_without_latents_and_single_rows_are_refused():
    model, guide = pair_of(lambda x: normal(0 * x, 1.0), lambda x: normal(x, 1.0))
    with pytest.raises(ValueError, match="data: expected two rows or more, got 1"):
        latent_usage(model, guide, rows(1, 2))
    with pytest.raises(ValueError, match="guide: expected a latent in the row plate"):
        latent_usage(model, None, rows(9, 2))


def one_code(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", normal(x.new_zeros(1), 1.0))
        pyro.sample("x", normal(z.expand(len(x), 2), 0.5), obs=x)


def test_autoguides_have_the_numbers_of_what_they_draw_or_are_refused():
    x = rows(50, 2)
    guide = AutoNormal(one_code, init_loc_fn=init_to_value(values={"z": x[:, :1]}), init_scale=0.4)
    (line,) = latent_usage(one_code, guide, x).frame.to_dict("records")
    right = quadrature(x[:, 0].double().numpy(), 0.4)
    assert line["mutual_information"] == pytest.approx(right[1], abs=4 * line["error"])
    assert line["kl"] == pytest.approx(right[0], abs=0.1)
    with pytest.raises(
        ValueError, match='site "z": expected the guide to draw it in the row plate'
    ):
        latent_usage(one_code, AutoDiagonalNormal(one_code), x)


def test_plates_inside_the_rows_have_a_line_for_each_place():
    def half(loc):
        def run(x):
            with pyro.plate("data", len(x)), pyro.plate("places", 2, dim=-2):
                pyro.sample("z", normal(loc(x), 0.5))

        return run

    def posterior(x):  # (places, rows, 2)
        return torch.stack([torch.stack([0 * x[:, 0], x[:, 0]], -1), 0 * x[:, :2]])

    x = rows(300, 2)
    frame = latent_usage(half(lambda x: x.new_zeros(2)), half(posterior), x).frame
    assert frame["active"].tolist() == [False, True, False, False]
    right = quadrature(x[:, 0].double().numpy(), 0.5, prior_scale=0.5)
    assert frame["kl"].to_numpy() == pytest.approx([0, right[0], 0, 0], abs=1e-4)
    assert frame["mutual_information"][1] == pytest.approx(right[1], abs=4 * frame["error"][1])


def test_masked_rows_and_steps_after_an_end_count_in_no_activity():
    x = rows(200, 1)
    kept = x[:, 0] < 0.5

    def half(loc):
        def run(x):
            with pyro.plate("data", len(x)), pyro.poutine.mask(mask=x[:, 0] < 0.5):
                pyro.sample("z", normal(loc * x, 1.0))

        return run

    usage = latent_usage(half(0), half(1), x)
    expected = x[kept].var(correction=0).item()
    assert usage.frame["activity"][0] == pytest.approx(expected, rel=1e-4)
    assert usage.frame["mutual_information"].isna().all()
    assert "the rows hide different cells" in str(usage)
    lengths = torch.arange(200) % 2 + 1

    def path(loc):
        def run(x, ends):
            first = normal(loc * x, 0.1)
            with pyro.plate("data", len(x)):
                pyro.sample("z", MarkovPath(first, lambda z: normal(z, 0.1), 2, ends))

        return run

    usage = latent_usage(path(0), path(1), {"x": x, "ends": lengths})
    first, second, whole = usage.frame.to_dict("records")
    assert np.isfinite(whole["kl"])
    assert np.isnan(whole["mutual_information"])
    assert "the rows have different lengths" in str(usage)
    assert first["activity"] == pytest.approx(x.var(correction=0).item() / 0.01, rel=0.05)
    longer = x[lengths == 2].var(correction=0).item()
    spread = x.var(correction=0).item()
    assert abs(longer - spread) > 0.05 * spread
    assert second["activity"] == pytest.approx(longer / 0.02, rel=0.08)
