"""Small work runs on one thread, large work on all, and what the user set is restored."""

import pytest
import torch
from parts.pairs import PAIRS, made

from ppl_vae import fit
from ppl_vae.core import threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_operations_are_those_of_products_and_convolutions():
    x, weight = torch.ones(2, 3, requires_grad=True), torch.ones(3, 5, requires_grad=True)
    assert threads.operations_of(lambda: (x @ weight).sum().backward()) == 3 * 60
    images, kernel = torch.ones(4, 1, 5, 5), torch.ones(2, 1, 3, 3)
    found = threads.operations_of(lambda: torch.nn.functional.conv2d(images, kernel))
    assert found == 2 * 4 * 2 * 9 * 9
    assert threads.operations_of(x.exp) == 0


@pytest.mark.usefixtures("two_threads")
def test_small_steps_run_on_one_thread_and_large_ones_on_all(monkeypatch):
    seen = []

    def note(row, model, guide):
        seen.append(torch.get_num_threads())

    settings = {"epochs": 1, "progress": False, "compile": False, "callbacks": [note]}
    history = fit(*made(PAIRS["gaussian"]), **settings)
    assert (history.threads, seen, torch.get_num_threads()) == (1, [1], 2)
    assert "; 1 thread\n" in str(history)
    monkeypatch.setattr(threads, "ONE_THREAD_BELOW", 0)
    history = fit(*made(PAIRS["gaussian"]), **settings)
    assert (history.threads, seen, torch.get_num_threads()) == (2, [1, 2], 2)
    assert "; 2 threads\n" in str(history)


@pytest.mark.usefixtures("two_threads")
def test_a_resumed_fit_has_the_threads_that_it_began_with(monkeypatch, tmp_path):
    def stop(row, model, guide):
        return True

    settings = {"epochs": 2, "progress": False, "compile": False, "run": tmp_path / "run"}
    model, guide, x = made(PAIRS["gaussian"])
    assert fit(model, guide, x, **settings, callbacks=[stop]).threads == 1
    monkeypatch.setattr(threads, "ONE_THREAD_BELOW", 0)  # as another version might have it
    assert fit(model, guide, x, **settings, resume=True).threads == 1


def test_threads_are_restored_where_the_block_raises():
    before = torch.get_num_threads()

    def fails():
        with threads.on_threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert torch.get_num_threads() == before
    with threads.on_threads(None):
        assert torch.get_num_threads() == before
