"""Missing categories, counts and zeros and ones of a mixture: probabilities in closed form."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import impute
from ppl_vae.distributions import AutoregressiveCategorical
from ppl_vae.imputation.moments import kind_of

CLASSES, ROWS = 3, 40
GENERATOR = torch.Generator().manual_seed(4)
SHARES = torch.tensor([0.5, 0.3, 0.2])
BITS = torch.rand(CLASSES, 2, generator=GENERATOR)
CHANCES = torch.rand(CLASSES, 2, 4, generator=GENERATOR).pow(3)
CHANCES = CHANCES / CHANCES.sum(-1, keepdim=True)
RATES = torch.tensor([[0.5, 2.0], [4.0, 2.5], [9.0, 1.0]])
FIELDS = {"b": slice(0, 2), "c": slice(2, 4), "n": slice(4, 6)}
"""Two bits, two categories of four, two counts."""


def likelihoods(y):
    return {
        "b": dist.Bernoulli(BITS[y]),
        "c": dist.Categorical(CHANCES[y]),
        "n": dist.Poisson(RATES[y]),
    }


def model(x, seen):
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Categorical(SHARES), infer={"enumerate": "parallel"})
        for name, fn in likelihoods(y).items():
            part = FIELDS[name]
            pyro.sample(name, fn.mask(seen[:, part]).to_event(1), obs=x[:, part])


def drawing(x, seen):
    """A guide that draws the class by itself, not from its posterior."""
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Categorical(torch.tensor([0.4, 0.3, 0.3]).expand(len(x), 3)))


def summing(x, seen):
    """A guide that asks to sum over the class."""
    with pyro.plate("data", len(x)):
        fn = dist.Categorical(torch.tensor([0.4, 0.3, 0.3]).expand(len(x), 3))
        pyro.sample("y", fn, infer={"enumerate": "parallel"})


def drawn_rows():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        y = dist.Categorical(SHARES).sample((ROWS,))
        parts = [fn.sample().float() for fn in likelihoods(y).values()]
        return {"x": torch.cat(parts, 1), "seen": torch.rand(ROWS, 6) > 0.5}


DATA = drawn_rows()


def class_posterior(x, seen):
    """p(y given the observed cells) of each row, (rows, classes)."""
    total = SHARES.log().expand(len(x), -1)
    for y in range(CLASSES):
        for name, fn in likelihoods(torch.full((len(x),), y)).items():
            log_prob = fn.log_prob(x[:, FIELDS[name]])
            total = total.clone()
            total[:, y] += (log_prob * seen[:, FIELDS[name]]).sum(1)
    return total.softmax(1)


@pytest.mark.parametrize("guide", [None, drawing, summing], ids=["no guide", "drawn", "summed"])
def test_values_and_probabilities_are_those_of_the_exact_posterior(guide):
    result = impute(model, guide, DATA, num_samples=5000)
    frame = result.frame
    posterior = class_posterior(**DATA).double()
    for line in frame.itertuples():
        of_class = posterior[line.row]
        if line.column < 2:
            chance = float(of_class @ BITS[:, line.column].double())
            assert line.probability == pytest.approx(max(chance, 1 - chance), abs=0.03)
            assert line.value == float(chance > 0.5) or abs(chance - 0.5) < 0.03
            assert line.sd == pytest.approx(math.sqrt(chance * (1 - chance)), abs=0.02)
        elif line.column < 4:
            chances = of_class @ CHANCES[:, line.column - 2].double()
            assert line.probability == pytest.approx(float(chances.max()), abs=0.03)
            assert float(chances.max() - chances[int(line.value)]) < 0.04
            assert np.isnan([line.sd, line.lower, line.upper]).all()
        else:
            rates = RATES[:, line.column - 4].double()
            mean = float(of_class @ rates)
            spread = math.sqrt(float(of_class @ (rates + rates**2)) - mean**2)
            assert abs(line.value - mean) < 0.5 + 0.15
            assert line.value == round(line.value)
            assert line.sd == pytest.approx(spread, rel=0.05)
            counts = torch.arange(40.0)[:, None]
            mass = (dist.Poisson(rates.float()).log_prob(counts).exp().double() @ of_class).cumsum(
                0
            )
            below = float(mass[int(line.lower) - 1]) if line.lower > 0 else 0.0
            assert below < 0.05 + 0.015
            assert float(mass[int(line.upper)]) > 0.95 - 0.015
    assert len(frame) == int((~DATA["seen"]).sum())
    for column, chances in ((0, torch.stack([1 - BITS[:, 0], BITS[:, 0]], 1)), (3, CHANCES[:, 1])):
        found = result.probabilities(column)
        assert found.columns.tolist() == list(range(chances.shape[1]))
        exact = posterior[found.index] @ chances.double()
        np.testing.assert_allclose(found, exact, atol=0.03)


def test_drawn_categories_come_from_one_class_for_the_whole_row():
    """Two cells are dependent through the class alone: their joint table is that of the model."""
    rows = {"x": torch.zeros(2000, 6), "seen": torch.zeros(2000, 6, dtype=torch.bool)}
    (drawn,) = impute(model, None, rows, num_samples=30).draw(1)
    table = torch.zeros(2, 4)
    pairs = drawn["x"][:, [0, 2]].long()
    table.index_put_((pairs[:, 0], pairs[:, 1]), torch.tensor(1 / 2000), accumulate=True)
    bits = torch.stack([1 - BITS[:, 0], BITS[:, 0]], 1)
    exact = torch.einsum("y,yb,yc->bc", SHARES, bits, CHANCES[:, 0])
    apart = exact.sum(1, keepdim=True) * exact.sum(0)
    assert (exact - apart).abs().max() > 0.05  # else the test would see nothing
    assert (table - exact).abs().max() < 0.025


def test_a_one_hot_vector_stays_one_hot():
    def vectors(x, seen):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(SHARES), infer={"enumerate": "parallel"})
            fn = dist.OneHotCategorical(CHANCES[y])
            pyro.sample("c", fn.mask(seen).to_event(1), obs=x)

    x = torch.eye(4)[torch.arange(20) % 4].repeat(1, 2).reshape(20, 2, 4)
    seen = torch.arange(40).reshape(20, 2) % 3 > 0
    result = impute(vectors, None, {"x": x, "seen": seen}, num_samples=400)
    for each in (result.completed, *result.draw(2)):
        assert torch.equal(each["x"].sort(-1).values[..., -1], torch.ones(20, 2))
        assert torch.equal(each["x"].sum(-1), torch.ones(20, 2))
        assert torch.equal(each["x"][seen], x[seen])
    by_vector = result.frame["probability"].to_numpy().reshape(-1, 4)
    assert (by_vector == by_vector[:, :1]).all()


def test_a_held_category_has_the_shares_of_its_draws():
    """A latent of the model holds the missing category, which another site depends on."""
    chances = torch.tensor([0.2, 0.5, 0.3])
    scores = torch.tensor([0.9, 0.1, 0.5])

    def held(x, seen):
        with pyro.plate("data", len(x)):
            fn = dist.Categorical(chances.expand(len(x), 3))
            rest = pyro.sample("rest", fn.mask(~seen))
            c = pyro.sample("c", fn.mask(seen), obs=x)
            pyro.sample("seen", dist.Bernoulli(scores[torch.where(seen, c, rest)]), obs=seen * 1.0)

    seen = torch.arange(12) % 2 == 0
    frame = impute(held, None, {"x": torch.zeros(12).long(), "seen": seen}, num_samples=4000).frame
    exact = chances * (1 - scores)
    exact = exact / exact.sum()
    assert (frame["value"] == 1).all()
    np.testing.assert_allclose(frame["probability"], float(exact[1]), atol=0.04)


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (dist.Normal(0.0, torch.ones(2)).to_event(1), "real"),
        (dist.Bernoulli(torch.ones(2) / 2).mask(False).to_event(1), "binary"),
        (dist.Categorical(torch.ones(3) / 3).expand([2]), "category"),
        (dist.Binomial(5, torch.ones(2) / 2), "count"),
        (dist.OneHotCategorical(torch.ones(3) / 3), "one-hot"),
        (AutoregressiveCategorical(**AutoregressiveCategorical.uniform(2, 3)), "category"),
    ],
)
def test_the_support_says_what_a_cell_holds(fn, kind):
    assert kind_of(fn) == kind
