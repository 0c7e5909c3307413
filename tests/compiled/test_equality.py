"""The traced graph's loss, gradients, buffers and draws are those of the eager step."""

import pytest
import torch
from parts.pairs import PAIRS, made, mapped
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.bounds import IWAE, RowELBO
from ppl_vae.elbo.loss import LossAndGradient
from ppl_vae.linting.linter import lint_pair
from ppl_vae.training.step import EagerStep, TracedStep
from ppl_vae.zoo.catalog import find_class, zoo

SIZE = 16
ELBOS = {
    "Trace": Trace_ELBO,
    "MeanField": TraceMeanField_ELBO,
    "Graph": TraceGraph_ELBO,
    "Enum": lambda **k: TraceEnum_ELBO(strict_enumeration_warning=False, **k),
}
BOUNDS = {
    "iwae": IWAE(4),
    "doubly": IWAE(4, doubly_reparameterized=True),
    "in runs": IWAE(3, vectorize_particles=False),
    "rows": RowELBO(2),
    "sticking": RowELBO(2, sticking_the_landing=True),
    "free bits": RowELBO(free_bits=0.2),
}
PARTICLES = {
    "one": {},
    "three": {"num_particles": 3},
    "vectorized": {"num_particles": 3, "vectorize_particles": True},
}


def zoo_pair(name):
    torch.manual_seed(0)
    model = find_class(name, "models")(5, 2)
    return (
        model,
        find_class("normal", "guides")(5, 2),
        (torch.randn(40, 5) > 0).to(torch.get_default_dtype()),
    )


class Sides:
    """The eager loss and gradient of one pair, and its traced step."""

    def __init__(self, model, guide, data, elbo=None, weighted=False):
        self.pair, self.rows = Pair.of(model, guide, "data"), as_rows(data)
        report = lint_pair(self.pair, self.rows, elbo=elbo, kl_weight=1.0, seed=0)
        report.raise_if_failed()
        self.objective, self.weighted = report.objective, weighted
        self.parameters = list(self.pair.trainable().values())
        self.derivative = LossAndGradient(
            self.pair, self.objective, len(self.rows), self.parameters
        )
        eager = EagerStep(self.derivative, torch.optim.Adam(self.parameters), None)
        self.traced_step = TracedStep(eager, self.rows, torch.arange(SIZE), weighted=weighted)

    def shake(self):
        """Move the weights away from those that were traced with."""
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():
            for p in self.parameters:
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))

    def compare(self, weight=1.0, seed=5):
        """Compare on other rows, weights and draws than those that were traced with."""
        index = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(1))[:SIZE]
        constants = [c.clone() for c in self.traced_step.graph.constants]
        torch.manual_seed(seed)
        traced = self.traced_step.derivative(
            self.parameters, constants, index, weight, interpreted=True
        )
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        tensor = torch.tensor(weight) if self.weighted else None
        eager = self.derivative(self.rows.take(index), tensor)
        assert torch.equal(state, torch.get_rng_state()), "the steps draw differently often"
        for now, expected in zip(constants, self.traced_step.graph.constants, strict=True):
            torch.testing.assert_close(now, expected)
        assert_equal(traced, eager)
        return traced


def assert_equal(traced, eager):
    """Equal to rounding; a gradient also to a share of the norm of all gradients."""
    tolerance = 8 * torch.finfo(eager[0].dtype).eps
    assert traced[0].dtype == eager[0].dtype
    assert ((traced[0] - eager[0]).abs() <= tolerance * eager[0].abs()).all()
    total = torch.cat([g.flatten() for g in eager[1] if g is not None]).norm()
    assert total > 0
    for left, right in zip(traced[1], eager[1], strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype
            assert (left - right).norm() <= 2 * tolerance * (right.norm() + total / 100)


DTYPES = [
    pytest.param(torch.float32, id="single", marks=pytest.mark.slow),  # the wider tolerances
    pytest.param(torch.float64, id="double"),
]


@pytest.fixture(params=DTYPES)
def dtype(request):
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("elbo", ELBOS)
@pytest.mark.parametrize("model", zoo("models"))
def test_the_zoo_under_every_objective(model, elbo):
    sides = Sides(*zoo_pair(model), ELBOS[elbo]())
    sides.shake()
    sides.compare()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(
    ("model", "weighted"), [("bernoulli", False), *((model, True) for model in zoo("models"))]
)
def test_traced_equals_eager_for_every_bound(model, bound, weighted):
    sides = Sides(*zoo_pair(model), BOUNDS[bound], weighted=weighted)
    sides.shake()
    sides.compare(0.4 if weighted else 1.0)


@pytest.mark.parametrize("particles", ["three", "vectorized"])
@pytest.mark.parametrize("elbo", ELBOS)
def test_the_zoo_with_particles(elbo, particles):
    sides = Sides(*zoo_pair("bernoulli"), ELBOS[elbo](**PARTICLES[particles]))
    sides.shake()
    sides.compare()


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("elbo", ELBOS)
def test_one_graph_holds_every_kl_weight(elbo):
    sides = Sides(*zoo_pair("gaussian"), ELBOS[elbo](), weighted=True)
    sides.shake()
    results = [sides.compare(weight) for weight in (0.3, 0.0, 1.0)]
    assert len({losses[1].item() for losses, _ in results}) == 3
    gradients = [g[-1] for _, g in results]
    assert not any(torch.equal(gradients[i], gradients[j]) for i in range(3) for j in range(i))
    torch.testing.assert_close(results[0][0][0], results[2][0][0])  # the ELBO ignores the weight
    torch.testing.assert_close(results[2][0][0], results[2][0][1])


@pytest.mark.usefixtures("dtype")
@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_every_kind(name):
    sides = Sides(*made(PAIRS[name]))
    sides.shake()
    sides.compare()


WEIGHTED = ["sampled_class", "baseline", "enumerated_in_the_guide", "enumerated_in_the_model",
            "mixture", "with_global", "obs_masked", "hierarchy"]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Converting a tensor")  # Pyro reads a scale; fit silences it
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", WEIGHTED)
def test_pairs_of_every_kind_at_every_kl_weight(name):
    sides = Sides(*made(PAIRS[name]), weighted=True)
    sides.shake()
    for weight in (0.3, 0.0, 1.0):
        sides.compare(weight)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("particles", ["vectorized"])
@pytest.mark.parametrize(
    ("name", "elbo"),
    [
        ("sampled_class", "Graph"), ("sampled_class", "Trace"), ("sampled_class", "Enum"),
        ("enumerated_in_the_guide", "Enum"), ("enumerated_in_the_model", "Enum"),
        ("mixture", "Enum"), ("with_global", "MeanField"),
        ("obs_masked", "Trace"), ("hierarchy", "Graph"), ("gamma_latent", "Trace"),
    ],
)  # fmt: skip
def test_pairs_of_every_kind_with_particles(name, elbo, particles):
    sides = Sides(*made(PAIRS[name]), ELBOS[elbo](**PARTICLES[particles]))
    sides.shake()
    sides.compare()


@pytest.mark.usefixtures("dtype")
def test_rows_of_a_memory_map(tmp_path):
    sides = Sides(*made(lambda: mapped(tmp_path / "rows")))
    assert not sides.traced_step.gathers
    sides.shake()
    sides.compare()


def test_training_rows_are_gathered_by_their_positions_in_the_data():
    """The traced step gathers from the whole data, by the training rows' positions in it."""
    model, guide, x = made(PAIRS["gaussian"])
    train, _ = as_rows(x).split(0.3, 0)
    sides = Sides(model, guide, train)
    assert sides.traced_step.gathers
    sides.compare()


@pytest.mark.filterwarnings("ignore:.*was not registered in the param store")
def test_frozen_parameters_have_no_gradient():
    model, guide, x = made(PAIRS["gaussian"])
    model.requires_grad_(False)
    sides = Sides(model, guide, x)
    assert len(sides.compare()[1]) == len(list(guide.parameters()))


def test_the_traced_step_holds_no_tensor_of_the_pair():
    """Called with copies of the state it leaves the pair alone, and follows the copies."""
    sides = Sides(*made(PAIRS["batch_norm"]))
    before = {name: t.clone() for name, t in sides.pair.tensors().items()}
    copies = [p.detach().clone() for p in sides.parameters]
    constants = [c.clone() for c in sides.traced_step.graph.constants]
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        call = copies, constants, torch.arange(SIZE), 1.0
        losses.append(sides.traced_step.derivative(*call, interpreted=True)[0])
        copies = [c + 0.1 for c in copies]
    assert (losses[0] != losses[1]).all()
    assert all(torch.equal(before[n], t) for n, t in sides.pair.tensors().items())


def test_every_call_draws_anew():
    for name in ("gaussian", "dropout", "sampled_class", "gamma_latent"):
        sides = Sides(*made(PAIRS[name]))
        constants = [c.clone() for c in sides.traced_step.graph.constants]
        call = sides.parameters, constants, torch.arange(SIZE), 1.0
        calls = [sides.traced_step.derivative(*call, interpreted=True) for _ in range(5)]
        losses = {tuple(losses.tolist()) for losses, _ in calls}
        assert len(losses) == 5
