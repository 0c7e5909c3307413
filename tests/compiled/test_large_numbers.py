"""Whole numbers beyond 32 bits that no input enters: compiled code reads them and never makes them.

Made in a loop of C++, such numbers leave 64 bits, which C++ forbids; gcc then compiled loops that
gave wrong numbers and wrote past the end of tensors. All graphs but the one of the keys run
operation by operation here, as they are given to inductor.
"""

import pytest
import torch

from ppl_vae import fit, refine
from ppl_vae.compat import of_torch
from ppl_vae.compiled.graphs import compile_graph
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.evaluation.particle_terms import ParticleTerms
from ppl_vae.guides.local import LocalGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn.row_keys import row_keys

FACTOR = -7046029254386353131


def product(x):
    return FACTOR * torch.arange(1, 101) ^ x


def product_of_products(x):
    return 2**30 * (2**30 * (30 * torch.arange(100, dtype=torch.int32).long())) ^ x


def sums(x):
    return torch.full((100,), 2**60).cumsum(0) ^ x


def expanded(x):
    return (FACTOR * torch.arange(100).expand(7, 100)).reshape(7, 100) ^ x


def small_in_the_end(x):
    return ((FACTOR * torch.arange(100)) >> 40) * x


@pytest.fixture
def graphs(monkeypatch):
    """The graphs as they would be compiled; they run without the compiler."""
    seen = []
    monkeypatch.setattr(of_torch, "compile_with_inductor", lambda m, *o: seen.append(m) or m)
    return seen


def made_in(graph):
    """The whole numbers beyond 32 bits that the operations of a graph make from no input."""
    values, large = {}, []
    for node in graph.graph.nodes:
        if node.op == "call_function" and all(n in values for n in node.all_input_nodes):
            value = node.target(*torch.fx.map_arg(node.args, values.get), **node.kwargs)
            values[node] = value
            if isinstance(value, torch.Tensor) and not value.is_floating_point():
                large += [node] if (value != value.int()).any() else []
    return large


@pytest.mark.parametrize(
    "function", [product, product_of_products, sums, expanded, small_in_the_end]
)
def test_large_numbers_are_inputs_of_the_compiled_graph(function, graphs):
    x = torch.randint(-9, 9, (7, 100))
    assert torch.equal(compile_graph(lambda x: [function(x)], [], [x])(x)[0], function(x))
    assert made_in(graphs[0]) == []


def test_small_counters_stay_in_the_graph(graphs):
    x = torch.randn(7, 100)
    assert torch.equal(compile_graph(lambda x: [x[:, torch.arange(9)]], [], [x])(x)[0], x[:, :9])
    assert len([n for n in graphs[0].graph.nodes if n.op == "placeholder"]) == 1


@pytest.mark.usefixtures("graphs")
def test_large_numbers_that_are_drawn_or_written_are_made_at_every_call():
    def drawn_and_written(x):
        largest = torch.full((3,), 2**40)
        largest[0] = x[0]
        return [torch.randint(2**40, 2**50, (50,)), largest]

    compiled = compile_graph(drawn_and_written, [], [torch.tensor([5])])
    first, second = compiled(torch.tensor([6])), compiled(torch.tensor([7]))
    assert not torch.equal(first[0], second[0])
    assert [first[1].tolist(), second[1].tolist()] == [[n, 2**40, 2**40] for n in (6, 7)]


def test_keys_of_rows_are_right_in_compiled_code():
    counts, sizes = torch.randint(0, 50, (7, 100)), torch.rand(7)
    compiled = compile_graph(lambda *fields: [row_keys(*fields)], [], [counts, sizes])
    assert torch.equal(compiled(counts, sizes)[0], row_keys(counts, sizes))


def test_pairs_that_know_their_rows_are_compiled(graphs):
    x, model = torch.rand(40, 20).round(), BernoulliModel(20, 2)
    rows, settings = {"x": x, "index": torch.arange(40)}, {"epochs": 2, "progress": False}
    history = fit(model, LocalGuide(40, 2), rows, batch_size=20, compile=True, **settings)
    assert history.step == "compiled"
    refined = refine(model, NormalGuide(20, 2), x, steps=2)
    weights = ParticleTerms(Pair.of(model, refined, "data"), as_rows(x), 8)
    weights.prepare(40, 10**6, "auto")
    assert weights.kind == "compiled"
    assert [made_in(graph) for graph in graphs] == [[], []]
