"""Expands that are computed after what acts on them: no result changes, and no pair is refused.

The graphs run operation by operation here, as they are given to inductor: an operation that would
write into all copies of an expanded tensor at once raises. One pair is compiled in earnest.
"""

import pytest
import torch
from parts import pairs, probabilities
from parts.pairs import made

from ppl_vae import fit
from ppl_vae.compat import of_torch
from ppl_vae.compiled.graphs import compile_graph

pytestmark = pytest.mark.filterwarnings("ignore:layer .*BatchNorm1d")
QUICK = {"epochs": 2, "batch_size": 20, "progress": False}


def written_itself(x, y):
    inside = x.expand(4, 3) >= 0.1
    inside.logical_and_(y > 0)
    return [inside.float().sum(), torch.where(inside, y, 0 * y)]


def written_through_a_view(x, y):
    shifted = x.expand(4, 3) + 1
    shifted.view(-1)[2:5].add_(1.0)
    return [shifted * y]


def written_through_a_piece(x, y):
    shifted = x.expand(4, 3) + 1
    left, right = shifted.split(2, 0)
    left.add_(right)
    return [shifted * y]


def written_in_a_list(x, y):
    shifted = x.expand(4, 3) + 1
    torch._foreach_add_([shifted], 1.0)
    return [shifted * y]


def written_as_out(x, y):
    shifted = x.expand(4, 3) + 1
    torch.exp(y, out=shifted)
    return [shifted * y]


def viewed(x, y):
    return [(x.expand(4, 3) + 1).view(-1) * y.view(-1)]


def copied_and_viewed(x, y):
    return [x.expand(4, 3).contiguous().view(-1) * y.view(-1)]


FUNCTIONS = (
    written_itself, written_through_a_view, written_through_a_piece, written_in_a_list,
    written_as_out, viewed, copied_and_viewed,
)  # fmt: skip


EVERY_TIME = (
    pairs.mixture, pairs.batch_norm, pairs.masked, probabilities.categorical,
    probabilities.negative_binomial,
)  # fmt: skip
"""Pairs whose distributions write in place or expand, one of each kind; the other pairs run with
the slow tests."""
KINDS = [
    pytest.param(make, marks=[] if make in EVERY_TIME else pytest.mark.slow)
    for make in (*pairs.PAIRS.values(), *probabilities.PAIRS.values())
]


@pytest.fixture
def not_compiled(monkeypatch):
    """Graphs run as they would be compiled, without the compiler."""
    monkeypatch.setattr(of_torch, "compile_with_inductor", lambda module, *others: module)


@pytest.mark.usefixtures("not_compiled")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_gives_the_same_numbers(function):
    x, y = torch.randn(3), torch.randn(4, 3)
    results = compile_graph(function, [], [x, y])(x, y)
    for result, expected in zip(results, function(x, y), strict=True):
        torch.testing.assert_close(result, expected)


def test_an_expand_still_sinks_where_nothing_writes(monkeypatch):
    graphs = []
    monkeypatch.setattr(of_torch, "compile_with_inductor", lambda m, *o: graphs.append(m) or m)
    x, y = torch.randn(3), torch.randn(4, 3)
    compile_graph(lambda x, y: [x.expand(4, 3).exp() * y], [], [x, y])
    (exp,) = [n for n in graphs[0].graph.nodes if n.target is torch.ops.aten.exp.default]
    assert exp.args[0].op == "placeholder"


def test_more_results_are_stored_where_sinking_spares_much(monkeypatch):
    options = []
    keep = lambda module, examples, given: options.append(given) or module  # noqa: E731
    monkeypatch.setattr(of_torch, "compile_with_inductor", keep)
    x, y = torch.randn(3, 1, 5), torch.randn(3, 4, 5)
    compile_graph(lambda x, y: [x.expand(3, 4, 5).exp().log1p() * y], [], [x, y])
    compile_graph(lambda x, y: [x.expand(3, 1, 5).exp().log1p() * y], [], [x, y])
    assert ["realize_opcount_threshold" in given for given in options] == [True, False]


@pytest.mark.usefixtures("not_compiled")
@pytest.mark.parametrize("make", KINDS)
def test_pairs_of_every_kind_compile(make):
    """The comparison with the eager step, which ``fit`` makes, finds no difference."""
    history = fit(*made(make), compile=True, **QUICK)
    assert (history.step, history.step_reason) == ("compiled", "compile=True")


def test_a_bernoulli_given_by_probabilities_is_compiled_in_earnest(capfd):
    history = fit(*made(probabilities.bernoulli), compile=True, **QUICK)
    assert history.step == "compiled"
    assert capfd.readouterr() == ("", "")
