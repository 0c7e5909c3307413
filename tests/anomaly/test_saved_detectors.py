"""A saved detector opens with its pair and its calibration, or is refused."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import AnomalyDetector, fit, load, save
from ppl_vae.core.pair import Pair
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.saving import storage
from ppl_vae.saving.runs import WEIGHTS, read_run, write_weights

FILE = "detector.safetensors"


def rows(count, seed=0):
    values = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return pd.DataFrame(values.numpy(), columns=["a", "b", "c"])


def pair():
    return GaussianModel(3, latents=2), NormalGuide(3, latents=2)


def detector_of(*halves, **options):
    return AnomalyDetector(*halves, rows(40), num_samples=10, seed=3, **options)


@pytest.fixture
def detector():
    return detector_of(*pair())


def assert_same(opened, detector):
    """Both give the same frame, for columns in any order, and speak the same words."""
    new = rows(30, seed=1)
    pd.testing.assert_frame_equal(opened(new[["c", "a", "b"]]), detector(new))
    assert str(opened) == str(detector)
    assert np.array_equal(opened.scores, detector.scores)


def test_a_detector_in_a_new_directory_opens_with_its_pair(detector, tmp_path):
    detector.save(tmp_path / "run")
    opened = AnomalyDetector.load(tmp_path / "run")
    assert_same(opened, detector)
    assert type(opened.model) is GaussianModel
    assert load(tmp_path / "run")[0].latents == 2


def test_a_detector_is_one_more_file_in_the_run_of_its_fit(tmp_path):
    model, guide = pair()
    fit(model, guide, rows(100, seed=2), epochs=2, run=tmp_path / "run", progress=False)
    before = {path.name for path in (tmp_path / "run").iterdir()}
    detector = detector_of(model, guide)
    detector.save(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == before | {FILE}
    assert_same(AnomalyDetector.load(tmp_path / "run"), detector)


def test_typicality_keeps_its_center_and_infinite_scores_stay(tmp_path):
    far = rows(40)
    far.iloc[0] = 1e30
    with pytest.warns(UserWarning, match="calibration: 1 of 40 rows have an infinite score"):
        detector = AnomalyDetector(*pair(), far, score="typicality", reference=rows(30, seed=5))
    detector.save(tmp_path / "run")
    assert detector.scores[-1] == math.inf
    assert_same(AnomalyDetector.load(tmp_path / "run"), detector)


def test_an_ensemble_is_a_run_for_each_member(tmp_path):
    pairs = [pair() for _ in range(3)]
    detector = detector_of(pairs, None)
    detector.save(tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == [FILE, "lock", "member-0", "member-1", "member-2"]
    opened = AnomalyDetector.load(tmp_path / "run")
    assert_same(opened, detector)
    assert opened.guide is None
    assert len(opened.model) == 3
    assert "an ensemble of 3 pairs" in str(opened)
    given = AnomalyDetector.load(tmp_path / "run", model=[pair() for _ in range(3)])
    assert_same(given, detector)


def test_given_halves_take_the_stored_weights(detector, tmp_path):
    detector.save(tmp_path / "run")
    model, guide = pair()
    for given in ({"model": model}, {"guide": guide}, {"model": model, "guide": guide}):
        opened = AnomalyDetector.load(tmp_path / "run", **given)
        assert_same(opened, detector)
        assert all(getattr(opened, role) is half for role, half in given.items())


def test_a_list_of_one_pair_is_saved_as_a_pair(tmp_path):
    detector = detector_of([pair()], None)
    detector.save(tmp_path / "run")
    assert_same(AnomalyDetector.load(tmp_path / "run"), detector)


def test_an_ensemble_that_was_saved_in_part_is_completed(tmp_path):
    detector = detector_of([pair(), pair()], None)
    detector.save(tmp_path / "run")
    (tmp_path / "run" / FILE).unlink()
    shutil.rmtree(tmp_path / "run/member-1")
    detector.save(tmp_path / "run")
    assert_same(AnomalyDetector.load(tmp_path / "run"), detector)


def test_parameters_that_appear_at_the_first_call_belong_to_the_weights(tmp_path):
    import pyro
    import pyro.distributions as dist

    def model(x):
        center = pyro.param("center", torch.zeros(3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(center + z[..., None], 1.0).to_event(1), obs=x)

    detector = detector_of(model, None)
    with pytest.warns(UserWarning, match="holds the weights without a recipe"):
        detector.save(tmp_path / "run")

    def again(x):
        return model(x)

    opened = AnomalyDetector.load(tmp_path / "run", model=again, guide=None)
    assert_same(opened, detector)


# What is refused


def contents_of(run):
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_nothing_is_overwritten(detector, tmp_path):
    run = tmp_path / "run"
    detector.save(run)
    before = contents_of(run)
    with pytest.raises(
        ValueError, match=r"run: .*detector\.safetensors exists; overwrite=True replaces"
    ):
        detector.save(run)
    assert contents_of(run) == before
    (run / FILE).unlink()
    detector.save(run)


def test_a_detector_is_replaced_on_purpose_and_weights_never(detector, tmp_path):
    model, guide = detector.model, detector.guide
    other = AnomalyDetector(model, guide, rows(40, seed=5), score="reconstruction")
    ensembles = [
        AnomalyDetector([(model, guide)] * 2, None, rows(count, seed=5)) for count in (30, 40)
    ]
    for first, second in ((detector, other), ensembles):
        run = tmp_path / str(len(first._members()))
        first.save(run)
        before = contents_of(run)
        second.save(run, overwrite=True)
        assert_same(AnomalyDetector.load(run), second)
        after = contents_of(run)
        changed = [name for name in before if before[name] != after[name]]
        assert changed == ["detector.safetensors"]
    changed_pair = detector_of(*pair())
    with pytest.raises(ValueError, match="holds other weights"):
        changed_pair.save(tmp_path / "1", overwrite=True)
    with pytest.raises(ValueError, match="overwrite: expected True or False"):
        detector.save(tmp_path / "1", overwrite="yes")


@pytest.mark.parametrize("members", [1, 2])
def test_a_directory_with_other_weights_or_files_is_left_alone(members, tmp_path):
    pairs = [pair() for _ in range(members)]
    detector = detector_of(*(pairs[0] if members == 1 else (pairs, None)))
    save(*pair(), tmp_path / "other")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/plan.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("other", "notes", "file"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=rf"{name}"):
            detector.save(tmp_path / name)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_run_whose_fit_has_not_ended_is_refused(detector, tmp_path):
    save(detector.model, detector.guide, tmp_path / "run")
    (tmp_path / "run" / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="holds no weights: its fit has not ended"):
        detector.save(tmp_path / "run")


def test_other_weights_of_the_same_run_are_refused(detector, tmp_path):
    run = tmp_path / "run"
    detector.save(run)
    other = Pair.of(*pair(), "data").tensors()
    write_weights(run, other, read_run(run).info)  # sound by itself: right run, right checksum
    load(run)
    with pytest.raises(ValueError, match="holds other weights than those that the calibration"):
        AnomalyDetector.load(run)


def test_a_changed_byte_is_refused(detector, tmp_path):
    run = tmp_path / "run"
    detector.save(run)
    for name in (FILE, WEIGHTS, "run.json"):
        content = (run / name).read_bytes()
        for position in (len(content) // 2, len(content) - 3):
            changed = bytearray(content)
            changed[position] ^= 1
            (run / name).write_bytes(changed)
            with pytest.raises(ValueError, match=name):
                AnomalyDetector.load(run)
        (run / name).write_bytes(content[:-10])
        with pytest.raises(ValueError, match=name):
            AnomalyDetector.load(run)
        (run / name).write_bytes(content)
    AnomalyDetector.load(run)


@pytest.mark.parametrize(
    "info",
    [None, {"format": 99}, {"format": 1}, {"format": 1, "scoring": {"new": 1}, "form": {}}],
)
def test_a_file_of_another_version_is_refused(info, detector, tmp_path):
    detector.save(tmp_path / "run")
    storage.write_tensors(tmp_path / "run" / FILE, {"scores": torch.zeros(20)}, info)
    with pytest.raises(ValueError, match=FILE):
        AnomalyDetector.load(tmp_path / "run")


def test_runs_without_a_detector_are_refused(detector, tmp_path):
    with pytest.raises(ValueError, match=r"run: .*absent: no such run directory"):
        AnomalyDetector.load(tmp_path / "absent")
    save(*pair(), tmp_path / "run")
    with pytest.raises(ValueError, match=r"run: .*no detector\.safetensors in it; detector\.save"):
        AnomalyDetector.load(tmp_path / "run")
    with pytest.raises(ValueError, match="run: expected a path"):
        detector.save("")


def test_a_loaded_pair_that_is_changed_is_refused_at_its_next_use(detector, tmp_path):
    detector.save(tmp_path / "run")
    opened = AnomalyDetector.load(tmp_path / "run")
    with torch.no_grad():
        next(opened.model.parameters()).add_(1.0)
    with pytest.raises(ValueError, match="detector: expected the weights"):
        opened(rows(5))


def test_the_number_of_given_pairs_must_be_that_of_the_run(detector, tmp_path):
    detector.save(tmp_path / "run")
    with pytest.raises(ValueError, match=r"model: expected 1 pairs, as .* holds, got 2"):
        AnomalyDetector.load(tmp_path / "run", model=[pair(), pair()])
