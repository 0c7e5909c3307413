"""A damaged, foreign or hostile run gives an error, never a wrong pair, and executes no code."""

import random
import warnings

import pytest
import torch
from parts.runs import SETTINGS, X, pair, users_class

from ppl_vae import build, fit, load, save
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.nn import MLP


def test_a_users_file_is_executed_only_under_trust_code(tmp_path):
    flag = tmp_path / "flag"
    model = users_class(tmp_path / "mine.py", flag)(12)
    fit(model, None, X, epochs=1, progress=False, run=tmp_path / "run")
    flag.unlink()
    (tmp_path / "mine.py").unlink()
    with pytest.raises(
        ValueError,
        match=r"copied to source/model\.py; .* by load\(run, trust_code",
    ):
        load(tmp_path / "run")
    assert not flag.exists()
    again, guide = load(tmp_path / "run", trust_code=True)
    assert flag.exists()
    assert guide is None
    assert torch.equal(again.logits, model.logits)
    copy = tmp_path / "run" / "source" / "model.py"
    copy.write_text(copy.read_text() + "\nraise SystemExit\n")
    flag.unlink()
    with pytest.raises(ValueError, match="changed since the run was made"):
        load(tmp_path / "run", trust_code=True)
    assert not flag.exists()


def test_a_recipe_reaches_library_classes_only(tmp_path):
    """A forged recipe with a valid checksum cannot import other code."""
    from ppl_vae.saving.storage import read_json, write_json

    save(BernoulliModel(4), NormalGuide(4), tmp_path)
    info = read_json(tmp_path / "run.json")
    for name in (
        "os:system",
        "subprocess:Popen",
        "ppl_vae.nn.mlp:pairwise",
        "ppl_vae.nn.os:x",
        "ppl_vae.models.bernoulli:torch",
    ):
        info["recipe"]["model"] = {"class": name, "arguments": {}}
        write_json(tmp_path / "run.json", info)
        with pytest.raises(ValueError, match=r"recipe does not build"):
            load(tmp_path)


def test_a_run_executes_no_file_outside_its_directory(tmp_path):
    from ppl_vae.saving.storage import read_json, write_json

    mine = tmp_path / "mine.py"
    save(users_class(mine, tmp_path / "flag")(12), None, tmp_path / "run", data=X)
    info = read_json(tmp_path / "run" / "run.json")
    info["recipe"]["model"]["file"] = "source/../../mine.py"
    write_json(tmp_path / "run" / "run.json", info)
    with pytest.raises(ValueError, match="expected a file in source/"):
        load(tmp_path / "run", trust_code=True)


def test_no_pickle_is_ever_read(tmp_path, monkeypatch):
    import pickle

    def refuse(*args, **kwargs):
        raise AssertionError("a pickle was read")

    fit(*pair(), X, epochs=1, progress=False)  # so that torch has imported all that it imports late
    for name in ("load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    fit(*pair(), X, run=tmp_path / "run", **{**SETTINGS, "epochs": 1})
    fit(*pair(), X, run=tmp_path / "run", resume=True, **SETTINGS)
    load(tmp_path / "run", model=pair()[0], guide=pair()[1])


def test_flipped_and_cut_bytes_never_give_a_wrong_pair(tmp_path):
    """400 damaged files: each gives the same pair, or a ValueError that names the file."""
    model, guide = build(GaussianModel, X, latents=2), build(NormalGuide, X, latents=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant columns
        fit(model, guide, X, epochs=2, progress=False, run=tmp_path / "run", validation=0.1)
    truth = [*model.state_dict().values(), *guide.state_dict().values()]
    files = [
        path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != "lock"
    ]
    assert {path.name for path in files} >= {"run.json", "weights.safetensors", "model.py",
                                             "snapshot.safetensors", "metrics.csv"}  # fmt: skip
    chance = random.Random(0)
    refused = named = 0
    for _ in range(400):
        path = chance.choice(files)
        whole = path.read_bytes()
        broken = bytearray(whole)
        if chance.random() < 0.6:
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        else:
            del broken[chance.randrange(len(broken)) :]
        path.write_bytes(broken)
        try:
            again = load(tmp_path / "run")
        except ValueError as error:
            refused += 1
            named += str(path) in str(error)
        else:
            got = [*again[0].state_dict().values(), *again[1].state_dict().values()]
            assert all(torch.equal(a, b) for a, b in zip(truth, got, strict=True))
        path.write_bytes(whole)
    assert named == refused > 100


def test_the_error_for_damaged_weights_says_how_to_load_the_snapshot(tmp_path):
    fit(*pair(), X, run=tmp_path / "run", **SETTINGS)
    weights = tmp_path / "run" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    model, guide = pair()
    with pytest.raises(ValueError, match=r'snapshot.safetensors is sound: load\("') as caught:
        load(tmp_path / "run", model=model, guide=guide)
    file = str(caught.value).split('load("')[1].split('"')[0]
    load(file, model=model, guide=guide)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x80\x04K\x01.", b"{}", b"[1, 2]", b"\xff" * 99]
)
@pytest.mark.parametrize("name", ["run.json", "weights.safetensors"])
def test_the_error_for_a_foreign_file_says_that_the_file_is_foreign_or_damaged(
    content, name, tmp_path
):
    save(BernoulliModel(4), NormalGuide(4), tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="not a file of ppl_vae, or damaged"):
        load(tmp_path)


def test_weights_of_another_run_are_refused(tmp_path):
    for name in ("a", "b"):
        save(BernoulliModel(4), NormalGuide(4), tmp_path / name)
    (tmp_path / "a" / "weights.safetensors").write_bytes(
        (tmp_path / "b" / "weights.safetensors").read_bytes()
    )
    with pytest.raises(ValueError, match="belongs to another run"):
        load(tmp_path / "a")


@pytest.mark.parametrize("path", ["absent", "file"])
def test_an_absent_directory_and_a_file_are_no_run(path, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="no such run directory"):
        load(tmp_path / path)


def test_forged_bytecode_beside_a_source_file_is_not_executed(tmp_path):
    import importlib.util
    import py_compile

    model = users_class(tmp_path / "mine.py", tmp_path / "flag")(12)
    save(model, None, tmp_path / "run", data=X)
    source = tmp_path / "run" / "source" / "model.py"
    evil = tmp_path / "evil.py"
    evil.write_text("raise SystemExit")
    cached = importlib.util.cache_from_source(str(source))
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(evil), cached, invalidation_mode=unchecked)
    again, _ = load(tmp_path / "run", trust_code=True)
    assert torch.equal(again.logits, model.logits)


@pytest.mark.parametrize(
    "change",
    [{"recipe": 5}, {"recipe": {"model": 1}}, {"plate": 7, "recipe": None}, {"format": "1"}],
)
def test_a_forged_run_json_with_a_valid_checksum_is_refused(change, tmp_path):
    from ppl_vae.saving.storage import read_json, write_json

    save(BernoulliModel(4), NormalGuide(4), tmp_path, data=torch.zeros(9, 4))
    info = read_json(tmp_path / "run.json")
    write_json(tmp_path / "run.json", {**info, **change})
    with pytest.raises(ValueError, match=str(tmp_path)):
        load(tmp_path)


@pytest.mark.parametrize(
    "value",
    [{"type": "Linear"}, {"type": "Module"}, {"type": "MultiheadAttention"}, {"type": "init"},
     {"type": "modules"}, {"type": ["ReLU"]}, {"dtype": "load"},
     {"object": {"class": "torch.nn:F"}}, {"array": [0], "dtype": "O,O"},
     {"member": "os:system", "file": "source/model.py"}],
)  # fmt: skip
def test_a_value_of_a_recipe_is_one_of_the_listed_forms_and_nothing_else(value, tmp_path):
    from ppl_vae.saving.storage import read_json, write_json

    save(BernoulliModel(4, decoder=MLP(8, 4)), NormalGuide(4), tmp_path)
    info = read_json(tmp_path / "run.json")
    info["recipe"]["model"]["arguments"]["decoder"]["object"]["arguments"]["activation"] = value
    write_json(tmp_path / "run.json", info)
    with pytest.raises(ValueError, match=r"recipe does not build|own files|expected a file in"):
        load(tmp_path)


@pytest.mark.parametrize(
    "name", ["torch.nn:Module.forward", "torch.nn:functional", "torch.nn:init", "torch:load",
             "pyro.nn:PyroModule[os]", "pyro.nn.module:PyroModule",
             "pyro.infer.autoguide.guides:Trace", "torch.nn.modules.module:torch"],
)  # fmt: skip
def test_of_torch_and_pyro_a_recipe_reaches_layers_and_autoguides_only(name, tmp_path):
    from ppl_vae.saving.importable import importable_class

    with pytest.raises(ValueError, match="expected a class of the library"):
        importable_class(name)


def test_a_recipe_calls_no_method_of_a_class_that_is_imported(tmp_path):
    from ppl_vae.saving.storage import read_json, write_json

    save(BernoulliModel(4), NormalGuide(4), tmp_path)
    info = read_json(tmp_path / "run.json")
    for change in ({"method": "requires_grad_"}, {"method": "guide", "shared": True}):
        recipe = {**info["recipe"], "guide": {**info["recipe"]["guide"], **change}}
        write_json(tmp_path / "run.json", {**info, "recipe": recipe})
        with pytest.raises(ValueError, match="expected a method of the user's own class"):
            load(tmp_path)


@pytest.mark.parametrize(
    "shape", [[10**6, 10**6], [2**62, 2**62], [-4], ["4"], [4.5], "44", None, {"a": 1}, [10**400]]
)
def test_rows_are_made_only_as_large_as_a_template_may_ask(shape, tmp_path):
    import tracemalloc

    from ppl_vae.saving.runs import read_run
    from ppl_vae.saving.storage import read_json, write_json

    save(BernoulliModel(4), NormalGuide(4), tmp_path, data=torch.zeros(9, 4))
    info = read_json(tmp_path / "run.json")
    info["template"]["fields"][0]["shape"] = shape
    write_json(tmp_path / "run.json", info)
    tracemalloc.start()
    for opens in (lambda: read_run(tmp_path).example(), lambda: load(tmp_path)):
        with pytest.raises(ValueError, match=r"run\.json: form of the data"):
            opens()
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_folders_and_links_named_like_half_written_files_are_left_alone(tmp_path):
    """They appear within the fit, as another program may make them."""
    import os

    run, hers = tmp_path / "run", tmp_path / "hers.txt"
    hers.write_text("do not lose")
    names = ["weights.safetensors", "snapshot.safetensors", "previous.safetensors", "run.json"]

    def occupy(row, *_):
        for name in names if row["epoch"] == 1 else []:
            folder = run / f".{name}.{os.getpid()}.part"
            folder.mkdir()
            (folder / "thesis.txt").write_text("do not lose")
            (run / f".{name}.{os.getpid()}.00000001.part").symlink_to(hers)

    pair = BernoulliModel(12, 3), NormalGuide(12, 3)
    fit(*pair, X, epochs=3, progress=False, run=run, callbacks=[occupy])
    assert hers.read_text() == "do not lose"
    assert len(list(run.glob(".*.part/thesis.txt"))) == 4
    assert torch.equal(load(run)[0].decoder[0].weight, pair[0].decoder[0].weight)
