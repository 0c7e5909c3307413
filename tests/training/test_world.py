"""One fit on several processes: the same bits on any number of them, and one end for all."""

import shutil
import signal

import pytest
from parts import world_programs
from parts.worlds import answers, ended, start

from ppl_vae.core import blocks
from ppl_vae.predictive import replicates
from ppl_vae.saving import snapshots
from ppl_vae.training import stepper


@pytest.fixture(scope="module")
def on_two():
    """What two ranks found for every fit."""
    return answers("all_fits")


@pytest.mark.parametrize("name", world_programs.FITS)
def test_two_processes_end_with_the_bits_of_one(name, on_two, monkeypatch):
    monkeypatch.setattr(stepper, "TRACED_FROM", 1)
    alone = world_programs.fitted(name)
    assert [found[name] for found in on_two] == [alone, alone]


@pytest.mark.slow  # as with two processes, on machines that most often have fewer cores
def test_four_processes_end_with_the_bits_of_one():
    names = ["Trace, eager", "batch normalization, eager", "3 shards"]  # one rank has no shard
    alone = {name: world_programs.fitted(name) for name in names}
    assert answers("all_fits", *names, size=4) == [alone] * 4


@pytest.fixture(scope="module")
def failures():
    """How fits on two ranks end that fail."""
    return answers("failures")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("other data", "expected the same data on every rank"),
        ("another seed", "expected the same seed on every rank, got 0 on rank 0 and 1 on rank 1"),
        ("one shard", "shards: expected 2 or more for 2 processes"),
        ("a pair with faults", "expected at least 2 rows to fit to"),
        ("an error of rank 1", "no memory on this rank"),
        ("an error of rank 1, 2 shards", "no memory on this rank"),
        ("not finite, 2 shards", 'site "x" of the model: its value is not finite in 1 rows'),
        ("a callback", "the disk is full"),
        ("not finite", 'shard 2 of 4: site "x" of the model: its value is not finite in 1 rows'),
        ("another place", "rank 1 is at"),
    ],
)
def test_an_error_on_one_rank_ends_all_with_its_message(name, words, failures):
    for found in failures:
        assert words in found[name][1]


def test_a_fit_that_is_not_finite_says_the_same_on_any_number_of_processes(failures):
    (first, second) = failures
    assert first["not finite"] == second["not finite"] == first["not finite, alone"]
    assert first["not finite"][0] == "NotFiniteError"


def test_rank_0_alone_writes_and_calls_callbacks_and_all_ranks_follow_it(tmp_path):
    first, second = answers("fit_events", str(tmp_path / "run"))
    assert first["saved"]
    assert second["saved"]
    assert first["calls"] == [1, 40, 2, 40]
    assert second["calls"] == []
    assert first["stopped"] == second["stopped"] == "callback"
    assert first["weights"] == second["weights"] == first["loaded"] == second["loaded"]
    assert first["interrupted"] == second["interrupted"] == ["interrupted", [2, 4, 5]]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks and groups of replicates are small, as the programs set them."""
    monkeypatch.setattr(blocks, "LARGEST", blocks.LARGEST)
    monkeypatch.setattr(replicates, "GROUP_NUMBERS", replicates.GROUP_NUMBERS)


@pytest.fixture
def snapshots_at_once(monkeypatch):
    """A snapshot after every step, and steps that are traced, as the programs set it."""
    monkeypatch.setattr(snapshots, "SOONEST", snapshots.SOONEST)
    monkeypatch.setattr(snapshots, "SHARE", snapshots.SHARE)
    monkeypatch.setattr(stepper, "TRACED_FROM", stepper.TRACED_FROM)


@pytest.mark.usefixtures("small_blocks")
def test_evaluations_on_two_processes_give_the_numbers_of_one():
    (first, runs), (second, others) = answers("evaluations")
    alone, runs_alone = world_programs.evaluated(7)
    assert first == second == alone
    assert max(runs, others) < 0.75 * runs_alone


@pytest.mark.usefixtures("snapshots_at_once")
def test_a_killed_fit_resumes_on_one_or_two_processes_bit_for_bit(tmp_path):
    whole, run, copy = (str(tmp_path / name) for name in ("whole", "run", "copy"))
    killed = start("kept_fit", run, 7)
    (code, _, err), (killed_code, _, _) = ended(killed, seconds=60)
    assert code == 1
    assert "another process of this program has ended" in err
    assert killed_code == -signal.SIGKILL
    shutil.copytree(run, copy)
    expected = world_programs.kept(whole)
    assert world_programs.kept(copy, resume=True) == expected
    assert answers("kept_fit", run, None, True) == [expected, expected]
