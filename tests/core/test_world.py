"""The processes that work together, seen from one that works by itself, and what they exchange."""

import os
import subprocess
import sys

import pytest
import torch
from parts.worlds import answers

import ppl_vae
from ppl_vae.core.shared_rows import exchange_rows
from ppl_vae.core.world import World, WorldError, _exchange, as_bytes, from_bytes, world


def found_by(program, **environment):
    """Run a program in a process with more of the environment; returns the completed process."""
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_process_by_itself_is_given_back_what_it_sends():
    team, tensor = world(), torch.arange(3)
    assert team == World(0, 1)
    assert team.gather(tensor, "here").tolist() == [[0, 1, 2]]
    assert team.text("a", "here") == "a"
    assert team.seed(None, "here") is None
    results = exchange_rows(team, {"a": tensor}, [torch.tensor([0, 2]), torch.tensor([1])])
    assert results["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_numbers_of_any_dtype_survive_the_way_through_bytes(dtype):
    tensor = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).to(dtype)
    after_one_byte = torch.cat([torch.zeros(1, dtype=torch.uint8), as_bytes(tensor.T)])[1:]
    back = from_bytes(after_one_byte, tensor.T.contiguous())
    assert back.dtype == dtype
    assert torch.equal(back, tensor.T)


def test_an_environment_without_an_address_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(ValueError, match="got no MASTER_ADDR"):
        world()
    with ppl_vae.alone():
        assert world().size == 1


def test_a_program_that_a_process_starts_works_by_itself(monkeypatch):
    monkeypatch.setenv("PPL_VAE_WORLD_OF", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert world().size == 1


def test_ranks_exchange_in_their_order_and_meet_at_the_same_place():
    first, second = answers("exchanges")
    assert first["gathered"] == second["gathered"] == [[0, 1], [10, 11]]
    assert first["texts"] == second["texts"] == ["é0", "é1"]
    assert first["rows"] == second["rows"] == [0.0, 11.0, 2.0, 13.0, 4.0]
    assert first["broadcast"] == second["broadcast"] == [0.0, 0]
    assert first["seed"] == second["seed"]
    assert "rank 0 is at here; rank 1 is at there" in first["places"]
    assert first["places"] == second["places"]
    assert first["failed"] == "rank 1 of 2 failed: KeyError: 'lost'"
    assert second["failed"] == "'lost'"
    assert first["after"] == second["after"] == ["0", "1"]


def test_ranks_that_share_a_cuda_device_are_told_so():
    def collective(*_):
        raise RuntimeError("NCCL error\nLast error:\nDuplicate GPU detected : rank 0 and rank 1")

    with pytest.raises(WorldError, match=r"expected a CUDA device for each process.*rank 0 and"):
        _exchange(collective)
