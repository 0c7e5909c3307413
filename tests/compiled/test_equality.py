"""The traced graph's loss, gradients, buffers and draws are those of the eager step."""

import pytest
import torch
from parts.pairs import PAIRS, made, mapped
from parts.steps import SIZE, Sides
from parts.zoo import FEW_MODELS
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.bounds import IWAE, RowELBO
from ppl_vae.zoo.catalog import find_class

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
@pytest.mark.parametrize(  # every time, each model is traced in models/test_zoo.py
    "model", [pytest.param(m, marks=[pytest.mark.slow] * (m != "bernoulli")) for m in FEW_MODELS]
)
def test_the_zoo_under_every_objective(model, elbo):
    sides = Sides(*zoo_pair(model), ELBOS[elbo]())
    sides.shake()
    sides.compare()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(
    ("model", "weighted"),
    [
        ("bernoulli", False),
        *(
            pytest.param(model, True, marks=[pytest.mark.slow] * (model != "gaussian"))
            for model in FEW_MODELS
        ),
    ],  # every time: each bound without a KL weight and with one
)
def test_traced_equals_eager_for_every_bound(model, bound, weighted):
    sides = Sides(*zoo_pair(model), BOUNDS[bound], weighted=weighted)
    sides.shake()
    sides.compare(0.4 if weighted else 1.0)


@pytest.mark.parametrize(  # every time, the other ELBOs are vectorized for pairs of every kind
    ("elbo", "particles"),
    [
        *((elbo, "three") for elbo in ELBOS),
        ("Trace", "vectorized"),
        *(
            pytest.param(elbo, "vectorized", marks=pytest.mark.slow)
            for elbo in ("MeanField", "Graph", "Enum")
        ),
    ],
)
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


WEIGHTED = [
    "sampled_class", "baseline", "enumerated_in_the_guide", "mixture", "with_global", "obs_masked",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("enumerated_in_the_model", "hierarchy")),
]  # fmt: skip
"""Kinds of terms that a KL weight scales; the slow tests have a second one of two kinds."""


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
        ("sampled_class", "Graph"), ("sampled_class", "Trace"),
        ("enumerated_in_the_guide", "Enum"), ("mixture", "Enum"), ("with_global", "MeanField"),
        ("obs_masked", "Trace"),
        *(
            pytest.param(*names, marks=pytest.mark.slow)
            for names in (
                ("sampled_class", "Enum"), ("enumerated_in_the_model", "Enum"),
                ("hierarchy", "Graph"), ("gamma_latent", "Trace"),
            )
        ),
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
