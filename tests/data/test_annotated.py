"""AnnData objects as data: genes are found by name, and results have the names of the cells."""

import numpy as np
import pandas as pd
import pytest
import torch
from parts.extras import anndata, sparse

import ppl_vae
from ppl_vae import build, encode, fit, from_anndata
from ppl_vae.data.rows import Rows
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.negative_binomial import NegativeBinomialModel

anndata(), sparse()
RANDOM = np.random.default_rng(0)
COUNTS = RANDOM.poisson(2.0, (60, 7)).astype("float32")
HOW = {"epochs": 2, "batch_size": 20, "progress": False, "compile": False}


def cells(matrix=COUNTS, kind="csr"):
    values = {"csr": sparse().csr_matrix, "csc": sparse().csc_array, "dense": np.array}[kind]
    obs = pd.DataFrame({"total": COUNTS.sum(1), "kind": list("ab") * 30},
                       index=[f"cell{n}" for n in range(60)])  # fmt: skip
    var = pd.DataFrame(index=[f"gene{n}" for n in range(7)])
    made = anndata().AnnData(values(np.log1p(matrix)), obs=obs, var=var)
    made.layers["counts"] = values(matrix)
    return made


def read(made):
    return from_anndata(made, layer="counts", fields={"size": "total"})


def pair_for(data):
    torch.manual_seed(0)
    return build(NegativeBinomialModel, data, latents=2), build(NormalGuide, data, latents=2)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_results_are_those_of_the_matrix_with_the_names_of_the_cells(kind, tmp_path):
    made, plain = cells(kind=kind), {"x": COUNTS, "size": COUNTS.sum(1)}
    pair, peers = pair_for(read(made)), pair_for(plain)
    history, wanted = (fit(*p, d, **HOW) for p, d in ((pair, read(made)), (peers, plain)))
    assert history.frame["elbo"].equals(wanted.frame["elbo"])
    mixed = made[::-1, [3, 0, 6, 1, 2, 5, 4]].copy()  # genes in another order
    ppl_vae.save(*pair, tmp_path / "run", data=read(made))
    for halves in (pair, ppl_vae.load(tmp_path / "run")):
        codes = encode(*halves, read(mixed))
        assert codes.index.equals(mixed.obs_names)
        expected = encode(*peers, plain).to_numpy()[::-1]
        assert np.array_equal(codes.to_numpy(), expected)
    means = codes["z"]["mean"].add_prefix("z")
    mixed.obsm["codes"] = means  # by the names of the cells
    assert mixed.obsm["codes"].index[0] == "cell59"
    with pytest.raises(ValueError, match='none called "gene6"'):
        encode(*pair, read(made[:, :6]))


def test_an_object_itself_is_its_matrix():
    rows = Rows(cells())
    assert rows.names == ["x"]
    assert rows.index.equals(cells().obs_names)
    assert torch.equal(rows.take(torch.arange(60))["x"], torch.tensor(np.log1p(COUNTS)))
    alone = Rows(cells()[5:9])  # a view
    assert alone.index.tolist() == ["cell5", "cell6", "cell7", "cell8"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "count"}, "layer: .*did you mean counts"),
        ({"fields": ["totl"]}, "fields: .*did you mean total"),
        ({"fields": "kind"}, 'column "kind" of obs'),
        ({"fields": {"x": "total"}}, 'fields other than "x"'),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_anndata(cells(), **arguments)


def test_objects_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected an AnnData object, got"):
        from_anndata(COUNTS)
    empty = cells()
    empty.X = None
    with pytest.raises(ValueError, match="layer= names one of counts"):
        from_anndata(empty)
    made = cells()
    made.obs_names, made.var_names = (n.astype(object) for n in (made.obs_names, made.var_names))
    made.obs = made.obs.astype({"kind": object})
    made.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata().read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"to_memory\(\)"):
        from_anndata(backed)
    backed.file.close()
