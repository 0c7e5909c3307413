"""Optional packages: a test that needs an absent one is skipped, with a reason in words."""

import importlib.util
import warnings

import pytest

REASON = "needs {}, which is not installed: pip install 'ppl-vae[{}]'"

needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason=REASON.format("pyarrow", "parquet")
)
PARQUET = pytest.param("parquet", marks=needs_pyarrow)
"""The word ``parquet`` among the values of a parametrized test."""


def arviz():
    """ArviZ; its version 0.x warns once a day, on import, that 1.x is coming."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return pytest.importorskip("arviz", reason=REASON.format("ArviZ", "arviz"))


def sklearn(module):
    """A module of scikit-learn, as ``datasets``."""
    reason = REASON.format("scikit-learn", "examples")
    return pytest.importorskip(f"sklearn.{module}", reason=reason)


def load_wine(**options):
    """scikit-learn's 178 wines with 13 measurements."""
    return sklearn("datasets").load_wine(**options)


def load_digits(**options):
    """scikit-learn's 1797 images of 8 x 8 pixels."""
    return sklearn("datasets").load_digits(**options)


def sparse():
    """The module ``scipy.sparse``."""
    return pytest.importorskip("scipy.sparse", reason=REASON.format("scipy", "sparse"))


def scipy_stats():
    """The module ``scipy.stats``."""
    return pytest.importorskip("scipy.stats", reason=REASON.format("scipy", "dev"))


def pyarrow():
    """The module ``pyarrow``."""
    return pytest.importorskip("pyarrow", reason=REASON.format("pyarrow", "parquet"))


def polars():
    """The module ``polars``."""
    return pytest.importorskip("polars", reason=REASON.format("polars", "dev"))


def duckdb():
    """The module ``duckdb``."""
    return pytest.importorskip("duckdb", reason=REASON.format("duckdb", "dev"))


def anndata():
    """The package AnnData."""
    return pytest.importorskip("anndata", reason=REASON.format("anndata", "anndata"))
