"""``compare`` refuses pairs whose nats are not those of the same numbers in the same units."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta

from ppl_vae import compare
from ppl_vae.distributions import Multinomial, RoundedLogistic
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.negative_binomial import NegativeBinomialModel
from ppl_vae.models.poisson import PoissonModel

COUNTS = torch.poisson(3 * torch.ones(20, 4), generator=torch.Generator().manual_seed(0))
REALS = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))


def scoring(*sites):
    """A pair without latents: each site is (name, distribution of x, what of x it observes)."""

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            for name, likelihood, part in sites:
                value = part(x) if y is None else part(x, y)
                pyro.sample(name, likelihood(value).to_event(1), obs=value)

    return model, None


def whole(x, y=None):
    return x


def poisson(x):
    return dist.Poisson(torch.full_like(x, 3.0))


def normal(x):
    return dist.Normal(torch.zeros_like(x), 3.0)


def refused(pairs, data, words):
    with pytest.raises(ValueError, match=words):
        compare(pairs, data)


def test_a_density_beside_a_probability_is_refused_with_the_site():
    pairs = {
        "poisson": (PoissonModel(4), NormalGuide(4)),
        "gaussian": (GaussianModel(4), NormalGuide(4)),
    }
    words = (
        r'site "x": expected densities in all pairs, or probabilities, got a probability \(Poisson'
        r'\) in pairs\["poisson"\] and a density \(Normal\) in pairs\["gaussian"\]: .* likelihood '
        "of whole numbers"
    )
    refused(pairs, COUNTS, words)


def test_a_density_beside_a_probability_is_refused_whatever_the_sites_are_called():
    pairs = {"a": scoring(("x", poisson, whole)), "b": scoring(("counts", normal, whole))}
    refused(pairs, COUNTS, 'site "x": expected densities in all pairs, or probabilities')
    halves = lambda x: x[:, :2], lambda x: x[:, 2:]
    pairs = {
        "a": scoring(("p", poisson, halves[0]), ("q", poisson, halves[1])),
        "b": scoring(("r", poisson, halves[0]), ("s", normal, halves[1])),
    }
    words = r'pairs\["b"\]: expected as many densities .* got 2 densities and not 0 in row 0'
    refused(pairs, COUNTS, words)


def test_counts_given_their_total_are_refused_beside_counts():
    def given_total(x):
        return Multinomial(x.sum(-1), torch.zeros_like(x))

    def multinomial(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", given_total(x), obs=x)

    pairs = {"poisson": scoring(("x", poisson, whole)), "shares": (multinomial, None)}
    words = r'site "x": .* tied to one another \(Multinomial\) in pairs\["shares"\]: .* given'
    refused(pairs, COUNTS, words)


def test_numbers_of_the_simplex_are_refused_beside_real_numbers():
    def shares(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Dirichlet(torch.ones_like(x)), obs=x)

    pairs = {"shares": (shares, None), "normal": scoring(("x", normal, whole))}
    refused(pairs, COUNTS.add(1).softmax(-1), r'site "x": .* \(Dirichlet\) in pairs\["shares"\]')


@pytest.mark.parametrize("columns", [[0, 1], [0, 1, 2, 3, 0]])
def test_other_numbers_of_cells_are_refused(columns):
    some = scoring(("x", normal, lambda x: x[:, columns]))
    words = (
        rf'pairs\["b"\]: expected as many observed numbers .* got {len(columns)} and not 4 in row'
    )
    refused({"a": scoring(("x", normal, whole)), "b": some}, REALS, words)


def test_a_mask_that_hides_cells_of_a_later_row_is_refused():
    def masked(x):
        seen = torch.ones_like(x, dtype=torch.bool)
        seen[17:, 0] = False
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(x).mask(seen).to_event(1), obs=x)

    words = r"got 3 and not 4 in row 17 \(site \"x\"\); compare pairs that .* same mask"
    refused({"a": scoring(("x", normal, whole)), "b": (masked, None)}, REALS, words)


def test_other_fields_are_refused():
    data = {"x": REALS, "y": REALS.flip(0)}
    first = scoring(("x", normal, whole))
    other = scoring(("y", normal, lambda x, y: y))
    words = r'expected the observed values of pairs\["a"\], got others in row 0 \(site "y"; pairs'
    refused({"a": first, "b": other}, data, words)
    both = scoring(("x", normal, whole), ("y", normal, lambda x, y: y))
    refused({"a": first, "b": both}, data, r'got 8 and not 4 in row 0 \(sites "x" and "y"; pairs')


def test_other_columns_of_as_many_are_refused():
    first, other = lambda x: x[:, :2], lambda x: x[:, 2:]
    pairs = {"a": scoring(("x", normal, first)), "b": scoring(("x", normal, other))}
    refused(pairs, REALS, "expected the observed values")


def test_a_model_that_scales_the_data_before_it_scores_them_is_refused():
    scaled = scoring(("x", normal, lambda x: 2 * x))
    words = "its density is one of other units, so scale inside the distribution"
    refused({"a": scoring(("x", normal, whole)), "b": scaled}, REALS, words)


def test_scaling_inside_the_distribution_is_compared():
    def transformed(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros_like(x), 1.0)
            affine = dist.transforms.AffineTransform(0.0, 3.0)
            each = dist.TransformedDistribution(base, [affine])
            pyro.sample("x", each.to_event(1), obs=x)

    found = compare({"a": scoring(("x", normal, whole)), "b": (transformed, None)}, REALS)
    np.testing.assert_allclose(found.rows["a"], found.rows["b"], rtol=1e-5)


def test_sites_may_have_other_names_and_other_cuts():
    cuts = [(f"x_{i}", normal, lambda x, i=i: x[:, i : i + 1]) for i in range(4)]
    pairs = {"a": scoring(("x", normal, whole)), "b": scoring(*cuts)}
    found = compare(pairs, REALS)
    np.testing.assert_allclose(found.rows["a"], found.rows["b"], rtol=1e-5)


def test_two_likelihoods_of_counts_are_compared_whatever_dtype_they_convert_to():
    pairs = {
        "poisson": (PoissonModel(4), NormalGuide(4)),
        "nb": (NegativeBinomialModel(4), NormalGuide(4)),
        "rounded": scoring(("x", lambda x: RoundedLogistic(x * 0 + 3, 1.0), lambda x: x.float())),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(compare(pairs, COUNTS.long(), num_samples=30).frame) == 3


def test_probabilities_of_other_values_are_warned_of():
    def bernoulli(x):
        return dist.Bernoulli(torch.full_like(x, 0.5))

    coarse = scoring(("x", bernoulli, lambda x: (x > 2).float()))
    pairs = {"poisson": scoring(("x", poisson, whole)), "coarse": coarse}
    with pytest.warns(
        UserWarning, match=r'compare: pairs\["coarse"\] observes other values'
    ) as seen:
        compare(pairs, COUNTS)
    assert seen[0].filename == __file__


def test_a_factor_is_warned_of():
    def factored(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(x).to_event(1), obs=x)
            pyro.factor("bonus", 9.0 + 0 * x[:, 0])

    pairs = {"plain": scoring(("x", normal, whole)), "factored": (factored, None)}
    words = r'compare: pairs\["factored"\]: site "bonus" is a factor'
    with pytest.warns(UserWarning, match=words) as seen:
        compare(pairs, REALS)
    assert seen[0].filename == __file__


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "pairs: expected a mapping"),
        ({"a": scoring(("x", normal, whole))}, "of two pairs or more"),
        ({1: scoring(), 2: scoring()}, "pairs: expected names as text, got 1"),
        ({"a": scoring(("x", normal, whole)), "b": normal}, r'pairs\["b"\]: expected a tuple'),
        (
            {"a": scoring(("x", normal, whole)), "b": (GaussianModel, None)},
            r'pairs\["b"\]: model: expected an instance',
        ),
        (
            {"a": scoring(("x", normal, whole)), "b": (GaussianModel(7), NormalGuide(7))},
            r'pairs\["b"\]: ',
        ),
        (
            {"a": scoring(("x", poisson, whole)), "b": scoring(("x", normal, whole))},
            r'pairs\["a"\]: site "x": expected values in the support of Poisson',
        ),
    ],
)
def test_what_is_no_pair_is_refused_by_its_name(pairs, words):
    refused(pairs, REALS, words)


def test_what_log_likelihood_refuses_is_refused_with_the_pairs_name():
    model = GaussianModel(4)
    pairs = {"a": scoring(("x", normal, whole)), "point": (model, AutoDelta(model))}
    refused(pairs, REALS, r'pairs\["point"\]: site "z": .* no log-likelihood')
    pairs = {"a": scoring(("x", normal, whole)), "b": scoring(("x", normal, whole))}
    holed = REALS.clone()
    holed[3, 1] = torch.nan
    refused(pairs, holed, r'pairs\["a"\]: .*got NaN')
    with pytest.raises(ValueError, match=r'pairs\["b"\]: .*particle filter'):
        compare(pairs, REALS, method={"b": "particle_filter"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": 1.0}, "level: expected a probability between 0 and 1, got 1.0"),
        ({"level": 0.0}, "level: expected a positive number"),
        ({"method": "exact"}, "method: expected importance or particle_filter, got 'exact'"),
        ({"method": {"c": "importance"}}, "method: expected names of pairs"),
        ({"num_samples": 0}, "num_samples: expected"),
    ],
)
def test_wrong_options_are_refused(options, words):
    pairs = {"a": scoring(("x", normal, whole)), "b": scoring(("x", normal, whole))}
    with pytest.raises(ValueError, match=words):
        compare(pairs, REALS, **options)


def test_frames_are_read_by_the_columns_of_each_fit():
    """A pair that was fitted to fewer columns explains fewer cells."""
    from ppl_vae import fit

    frame = pd.DataFrame(REALS.numpy(), columns=list("abcd"))
    pairs = {}
    for name, columns in {"all": list("abcd"), "turned": list("dcba"), "some": list("abc")}.items():
        pairs[name] = (GaussianModel(len(columns), 2), NormalGuide(len(columns), 2))
        fit(*pairs[name], frame[columns], epochs=1, progress=False)
    refused(pairs, frame, r'pairs\["some"\]: .* got 3 and not 4 in row 0')
    del pairs["some"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(pairs, frame, num_samples=30)
