"""Folders of Parquet files as data: the numbers are those of one frame, in bounded memory."""

import decimal
import re
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from parts.extras import pyarrow
from parts.worlds import answers, ended, start

import ppl_vae
from ppl_vae import build, fit, read_data
from ppl_vae.data import row_groups
from ppl_vae.data.rows import Rows
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel

pyarrow()
RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(RANDOM.normal(size=(220, 3)) * [1, 10, 0.1], columns=["a", "b", "c"])
COUNTS = pd.DataFrame({"n": RANDOM.poisson(3, 220), "m": RANDOM.poisson(9, 220).astype("uint16")})
MIXED = FRAME.assign(
    flag=RANDOM.random(220) > 0.5,
    count=pd.array([None, *range(219)], dtype="Int64"),
    half=FRAME["a"].astype("float16"),
    price=[decimal.Decimal(n) / 8 for n in range(220)],
)
GAPS = pd.DataFrame({"n": pd.array([*range(219), None], dtype="Int64")})
QUIET = {"progress": False, "compile": False}


@pytest.fixture
def small(monkeypatch):
    """Four row groups in memory, two of which are mixed, however small they are."""
    monkeypatch.setattr(row_groups, "MEMORY", 1)


def write(folder, frame, files=4, group=20, **more):
    """Write a frame as Parquet files, the last of which has fewer rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = -(-len(frame) // files)
    for number in range(files):
        part = frame.iloc[number * rows : (number + 1) * rows]
        part.to_parquet(
            folder / f"part-{number}.parquet", row_group_size=group, index=False, **more
        )
    return folder


@pytest.mark.parametrize("frame", [FRAME, COUNTS, GAPS, MIXED.drop(columns="price")],
                         ids=["floats", "counts", "gaps", "mixed"])  # fmt: skip
@pytest.mark.parametrize("memory", [1, row_groups.MEMORY], ids=["few groups", "whole"])
def test_rows_are_those_of_the_frame(frame, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(row_groups, "MEMORY", memory)
    rows, wanted = Rows(read_data(write(tmp_path / "rows", frame))), Rows(frame)
    assert rows.columns == wanted.columns
    assert rows.index.equals(wanted.index)
    index = torch.randperm(220)  # rows of more groups than are in memory
    (taken,), (expected,) = rows.take(index), wanted.take(index)
    assert taken.dtype == expected.dtype
    assert torch.equal(taken.nan_to_num(-1), expected.nan_to_num(-1))
    if memory > 1:
        assert rows.fingerprint() == wanted.fingerprint()


def test_numbers_of_every_kind_are_read(tmp_path):
    arrow = pyarrow()
    frame = write(tmp_path / "rows", MIXED)
    values = read_data(frame)["price"].take(torch.arange(220))
    assert values.tolist() == [n / 8 for n in range(220)]
    coded = arrow.table({"k": arrow.array([5, 7, None, 5]).dictionary_encode(),
                         "none": arrow.nulls(4)})  # fmt: skip
    (tmp_path / "coded").mkdir()
    pyarrow_parquet().write_table(coded, tmp_path / "coded" / "a.parquet")
    values = read_data(tmp_path / "coded").take(torch.arange(4))
    assert values[:, 0].nan_to_num(-1).tolist() == [5, 7, -1, 5]
    assert values[:, 1].isnan().all()


def pyarrow_parquet():
    return pytest.importorskip("pyarrow.parquet")


@pytest.mark.usefixtures("small")
def test_an_epoch_has_each_row_once_and_few_row_groups_at_a_time(tmp_path):
    table = read_data(write(tmp_path / "rows", FRAME))
    rows = Rows(table)
    for part in (rows, rows.subset(torch.arange(0, 220, 3)), rows.subset(torch.randperm(220)[:90])):
        order = part.order(torch.Generator().manual_seed(0))
        assert torch.equal(order, part.order(torch.Generator().manual_seed(0)))
        assert not torch.equal(order, part.order(torch.Generator().manual_seed(1)))
        assert torch.equal(order.sort().values, torch.arange(len(part)))
        group_of = torch.searchsorted(table._starts, part.positions_in_data(order), right=True) - 1
        first = {int(g): int((group_of == g).nonzero()[0]) for g in group_of.unique()}
        last = {int(g): int((group_of == g).nonzero()[-1]) for g in group_of.unique()}
        in_use = [sum(first[g] <= i <= last[g] for g in first) for i in range(len(part))]
        assert max(in_use) == table.groups_mixed == 2
    for batch in rows.order(None).split(7):
        rows.take(batch)
        assert len(table._in_memory) <= 4
    reads = []
    table._groups = [Counted(group, reads) for group in table._groups]
    for batch in rows.order(None).split(7):
        rows.take(batch)
    assert len(reads) <= 12  # 12 groups, of which some are in memory


class Counted:
    """A row group that notes when it is read."""

    def __init__(self, group, reads):
        self.group, self.reads = group, reads

    def read(self, names):
        self.reads.append(self.group)
        return self.group.read(names)

    def __getattr__(self, name):
        return getattr(self.group, name)


@pytest.mark.filterwarnings("ignore:.*k-hat")
def test_every_function_gives_the_numbers_of_the_frame(tmp_path):
    others = write(tmp_path / "others", FRAME[["c", "a", "b"]].assign(city="Bern"))
    table = read_data(write(tmp_path / "rows", FRAME))
    pairs = {}
    for name, data in {"table": table, "frame": FRAME}.items():
        torch.manual_seed(0)
        pair = build(GaussianModel, data, latents=2), build(NormalGuide, data, latents=2)
        pairs[name] = (pair, fit(*pair, data, epochs=2, batch_size=50, seed=0, **QUIET))
    (pair, history), (peers, wanted) = pairs["table"], pairs["frame"]
    assert history.frame["elbo"].equals(wanted.frame["elbo"])
    table = read_data(others, drop="city")  # columns are found by their names
    for name, more in {
        "encode": {},
        "log_likelihood": {"num_samples": 300},
        "elbo_terms": {},
        "reconstruct": {},
        "anomaly_scores": {"num_samples": 50},
    }.items():
        function = getattr(ppl_vae, name)
        found, expected = function(*pair, table, **more), function(*peers, FRAME, **more)
        found = found[list(expected)] if isinstance(expected, pd.DataFrame) else found
        pd.testing.assert_frame_equal(found, expected, check_exact=True, obj=name)
    checks = [
        ppl_vae.predictive_check(*p, data, num_samples=20).frame
        for p, data in ((pair, table), (peers, FRAME))
    ]
    pd.testing.assert_frame_equal(*checks, check_exact=True)
    assert str(ppl_vae.lint(*pair, table)) == str(ppl_vae.lint(*peers, FRAME))


@pytest.mark.filterwarnings("ignore:.*k-hat")
@pytest.mark.usefixtures("small")
def test_answers_do_not_depend_on_how_much_is_in_memory(tmp_path):
    table = read_data(write(tmp_path / "rows", FRAME))
    torch.manual_seed(0)
    pair = build(GaussianModel, FRAME, latents=2), build(NormalGuide, FRAME, latents=2)
    how = {"num_samples": 300}
    found, expected = (ppl_vae.log_likelihood(*pair, d, **how) for d in (table, FRAME))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    history = fit(*pair, table, epochs=30, batch_size=20, validation=0.2, patience=5, **QUIET)
    assert history.frame["elbo"].iloc[-1] > history.frame["elbo"].iloc[0]


def test_labels_fields_and_folders_give_columns(tmp_path):
    frame = FRAME.assign(id=[f"r{n:03d}" for n in range(220)], size=RANDOM.poisson(5, 220))
    folder = write(tmp_path / "rows", frame)
    data = read_data(folder, index="id", fields={"library": "size"}, drop="c")
    assert list(data["x"].columns) == ["a", "b"]
    rows = Rows(data)
    assert rows.index.tolist() == frame["id"].tolist()
    assert rows.take(torch.tensor([3]))["library"].tolist() == [frame["size"][3]]
    assert list(rows.restore(list(rows.take(torch.arange(2)).values()))["x"]) == ["a", "b"]
    write(tmp_path / "years" / "year=2023", FRAME)
    write(tmp_path / "years" / "year=2024", FRAME, files=1)
    table = read_data(tmp_path / "years")
    assert table["year"].take(torch.tensor([0, 219, 220])).tolist() == [2023, 2023, 2024]
    labelled = frame.set_index("id").drop(columns="size")
    (tmp_path / "labelled").mkdir()
    labelled.to_parquet(tmp_path / "labelled" / "a.parquet")
    assert read_data(tmp_path / "labelled").index.equals(labelled.index)


def test_an_arrow_data_set_is_data(tmp_path):
    dataset = pytest.importorskip("pyarrow.dataset")
    table = pyarrow().Table.from_pandas(FRAME)
    for data in (dataset.dataset(table), dataset.dataset(write(tmp_path / "rows", FRAME))):
        assert Rows(data).fingerprint() == Rows(FRAME).fingerprint()
    with pytest.raises(ValueError, match="one with a filter"):
        Rows(dataset.dataset(table).filter(dataset.field("a") > 0))


def test_a_data_set_of_hugging_face_is_data(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs datasets: pip install datasets")
    datasets.Dataset.from_pandas(FRAME).save_to_disk(tmp_path / "rows")
    stored = datasets.load_from_disk(tmp_path / "rows")
    assert Rows(stored).fingerprint() == Rows(FRAME).fingerprint()
    mixed = stored.shuffle(seed=0)
    assert torch.equal(
        Rows(mixed).take(torch.arange(5))[0], torch.tensor(mixed.to_pandas().to_numpy()[:5]).float()
    )


def test_the_rows_of_a_data_set_are_in_its_own_order(tmp_path):
    dataset = pytest.importorskip("pyarrow.dataset")
    folder = write(tmp_path / "rows", FRAME)
    turned = dataset.dataset([str(folder / f"part-{n}.parquet") for n in (2, 0, 3, 1)])
    joined = dataset.dataset([dataset.dataset(pyarrow().Table.from_pandas(FRAME[:9])), turned])
    parts = list(turned.get_fragments())
    chosen = [part.subset(row_group_ids=[1]) for part in parts[:2]]
    chosen += parts[3].split_by_row_group()
    more = turned.schema, turned.format, turned.filesystem
    some = dataset.FileSystemDataset(chosen, *more)
    for data in (turned, joined, some):
        wanted = data.to_table().to_pandas().reset_index(drop=True)
        assert Rows(data).fingerprint() == Rows(wanted[["a", "b", "c"]]).fingerprint()
    late = dataset.FileSystemDataset([p.subset(row_group_ids=[2]) for p in parts], *more)
    assert Rows(late).take(torch.arange(len(late.to_table())))[0].shape == (len(late.to_table()), 3)
    wider = turned.replace_schema(turned.schema.append(pyarrow().field("d", pyarrow().float64())))
    with pytest.raises(ValueError, match=r'part-2\.parquet: .* none called "d"'):
        Rows(wider)


def test_labels_that_pandas_has_stored_are_no_feature(tmp_path):
    dataset = pytest.importorskip("pyarrow.dataset")
    for labels in (RANDOM.permutation(220), [f"{n}" for n in range(220)]):
        folder = tmp_path / str(type(labels))
        folder.mkdir()
        FRAME.set_index(pd.Index(labels)).to_parquet(folder / "a.parquet")
        for table in (read_data(folder), dataset.dataset(folder)):
            rows = Rows(table)
            assert rows.columns["0"] == ["a", "b", "c"]
            assert rows.index.tolist() == list(labels)


def test_fields_with_the_same_labels_in_another_order_are_refused(tmp_path):
    folder = write(tmp_path / "rows", FRAME.assign(id=range(219, -1, -1)))
    table, y = read_data(folder, index="id"), pd.Series(np.zeros(220), index=range(220))
    for x in (table, FRAME.set_index(pd.Index(range(219, -1, -1)))):
        with pytest.raises(ValueError, match=r"one order.*row 0: 0 beside 219"):
            Rows({"x": x, "y": y})
        Rows({"x": x, "y": y.to_numpy()})
        Rows({"x": x, "y": y[::-1]})
        Rows({"x": x, "y": y.set_axis([f"other {n}" for n in y.index])})


def test_a_table_says_how_it_is_used(tmp_path, monkeypatch):
    table = read_data(write(tmp_path / "rows", FRAME))
    for wrong in (
        lambda: table[:10],
        lambda: table[0],
        lambda: list(table),
        lambda: np.asarray(table),
    ):
        with pytest.raises(TypeError, match=r"StoredTable|names of columns"):
            wrong()
    monkeypatch.chdir(tmp_path)
    near = read_data("rows")
    monkeypatch.chdir("/")
    assert torch.equal(near.take(torch.arange(3)), table.take(torch.arange(3)))
    with pytest.raises(ValueError, match="expected a file of sequences, got the folder"):
        read_data(tmp_path / "rows", index="a", step="b")
    with pytest.raises(ValueError, match="pass a frame in memory"):
        ppl_vae.sequences(table, id="a", step="b")
    arrow = pyarrow().table([pyarrow().array([1.0])] * 2, names=["a", "a"])
    pyarrow_parquet().write_table(arrow, tmp_path / "rows" / "part-0.parquet")
    with pytest.raises(ValueError, match=r'part-0\.parquet: .* two called "a"'):
        read_data(tmp_path / "rows")


@pytest.mark.usefixtures("small")
def test_a_killed_fit_ends_with_the_same_bits_on_one_process_or_two(tmp_path):
    folder, run = write(tmp_path / "rows", FRAME), str(tmp_path / "run")
    whole = answers("stored_fit", str(folder), size=1)[0]
    assert answers("stored_fit", str(folder)) == [whole, whole]
    ((code, _, err),) = ended(start("stored_fit", str(folder), run, 17, size=1))
    assert code == -signal.SIGKILL, err
    assert answers("stored_fit", str(folder), run, None, True, size=1) == [whole]


@pytest.mark.usefixtures("small")
def test_a_fit_is_not_resumed_on_row_groups_of_other_sizes(tmp_path):
    pair = GaussianModel(3, 2), NormalGuide(3, 2)
    how = {"run": tmp_path / "run", **QUIET}
    fit(*pair, read_data(write(tmp_path / "rows", FRAME)), epochs=1, **how)
    table = read_data(write(tmp_path / "others", FRAME, group=10))
    with pytest.raises(ValueError, match="data"):
        fit(*pair, table, epochs=2, resume=True, **how)


# Faults


def break_missing(file):
    FRAME[["a", "c"]].to_parquet(file)


def break_type(file):
    FRAME.astype({"b": str}).to_parquet(file)


def break_empty(file):
    file.write_bytes(b"")


def break_truncated(file):
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (break_missing, 'none called "b"'),
        (break_type, r'"b" \((large_)?string'),
        (break_empty, "not a Parquet file, or damaged"),
        (break_truncated, "not a Parquet file, or damaged"),
    ],
)
@pytest.mark.parametrize("number", [0, 2])
def test_a_bad_file_is_named(broken, words, number, tmp_path):
    folder, run = write(tmp_path / "rows", FRAME), tmp_path / "run"
    broken(folder / f"part-{number}.parquet")
    with pytest.raises(ValueError, match=rf"part-{number}\.parquet") as failure:
        fit(GaussianModel(3, 2), NormalGuide(3, 2), read_data(folder), run=run, **QUIET)
    assert number == 0 or re.search(words, str(failure.value))
    assert not run.exists()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("fault", ["removed", "changed", "cut"])
def test_a_file_that_changes_during_a_fit_is_named_and_the_fit_goes_on_later(fault, tmp_path):
    folder, run = write(tmp_path / "rows", FRAME), tmp_path / "run"
    file, kept = folder / "part-1.parquet", (folder / "part-1.parquet").read_bytes()
    words = {"removed": "it was removed", "changed": "was changed", "cut": "was changed"}[fault]

    def spoil(row, model, guide):
        if row["epoch"] == 2 and fault == "removed":
            file.unlink()
        elif row["epoch"] == 2:
            file.write_bytes(kept[:1000] if fault == "cut" else kept + b"x")

    torch.manual_seed(0)
    pair = GaussianModel(3, 2), NormalGuide(3, 2)
    how = {"epochs": 4, "run": run, "seed": 0, **QUIET}
    with pytest.raises(ValueError, match=rf"part-1\.parquet: .*{words}"):
        fit(*pair, read_data(folder), callbacks=[spoil], **how)
    assert not [name for name in run.iterdir() if name.suffix == ".part"]
    file.write_bytes(kept)
    history = fit(*pair, read_data(folder), resume=True, **how)
    assert len(history.frame) == 4


def test_values_at_fault_are_named_by_their_file(tmp_path):
    frame = FRAME.copy()
    frame.loc[60, "b"] = 1e300
    table = read_data(write(tmp_path / "rows", frame))
    with pytest.raises(ValueError, match=r'part-1\.parquet: column "b": .* in row 5'):
        table.take(torch.tensor([60]))
    text = read_data(write(tmp_path / "text", FRAME.assign(city="Bern")))
    with pytest.raises(ValueError, match='"city"'):
        fit(BernoulliModel(4, 2), NormalGuide(4, 2), text, **QUIET)
    with pytest.raises(ValueError, match='none called "d"'):
        text[["a", "d"]]
    with pytest.raises(ValueError, match=r"rows: expected .* pass read_data\(path\)"):
        Rows(str(tmp_path), "rows")
