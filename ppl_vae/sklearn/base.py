"""What the estimators share: constructor parameters to ``fit``, data to rows, seeds, errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.random import RandomState
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ppl_vae.arguments import (
    check_arguments,
    check_count,
    check_flag,
    check_name,
    check_number,
    check_seed,
    shown,
)
from ppl_vae.core.pair import Guide, Model
from ppl_vae.data.arrow import of_pandas
from ppl_vae.data.mixed_tables import Table, by_schema, table
from ppl_vae.data.rows import Rows, as_rows
from ppl_vae.data.schema import Schema
from ppl_vae.sklearn import stored
from ppl_vae.sklearn.pairs import FittedPair, make_pair, refuse_unknown
from ppl_vae.training.history import History
from ppl_vae.training.svi import fit

MOST_UPDATES, EACH_ROW = 3000, 5  # updates by default: 5 for each row, 3,000 at most,
FEWEST_EPOCHS = 20  # but no fewer than 20 passes over the data, nor than 50 updates
FEWEST_UPDATES = 50
FEWEST_TO_HOLD_OUT = 100  # rows; of fewer, none are held out by default


class PairEstimator(BaseEstimator):
    """The base of the estimators: a pair that is made from the data and fitted by ``ppl_vae.fit``.

    Parameters are stored as they are given, and read when ``fit`` is called. They are explained in
    ``LatentVariableModel``.
    """

    schema_: Schema
    pair_: FittedPair
    seed_: int

    TABLES: ClassVar[bool | None] = None  # whether the data are a table; None: see _wants_table

    def __init__(
        self,
        model: str | Callable[..., Any] = "auto",
        *,
        guide: str | None = "auto",
        latents: int | None = None,
        model_arguments: Mapping[str, Any] | None = None,
        guide_arguments: Mapping[str, Any] | None = None,
        table_arguments: Mapping[str, Any] | None = None,
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 3e-3,
        kl_weight: Any = 1.0,
        validation: Any = "auto",
        patience: int | None = 50,
        clip_norm: float | None = 100.0,
        elbo: Any = None,
        optimizer: Callable[..., Any] | None = None,
        scheduler: Callable[..., Any] | None = None,
        compile: bool | str = "auto",  # noqa: A002  as fit has it
        num_samples: int = 100,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.guide = guide
        self.latents = latents
        self.model_arguments = model_arguments
        self.guide_arguments = guide_arguments
        self.table_arguments = table_arguments
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.kl_weight = kl_weight
        self.validation = validation
        self.patience = patience
        self.clip_norm = clip_norm
        self.elbo = elbo
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.compile = compile
        self.num_samples = num_samples
        self.random_state = random_state
        self.verbose = verbose

    def _check(self, others: dict[str, Any]) -> None:
        """Raise an error that names the first bad parameter, or an argument that no fit takes.

        The other parameters are checked by ``ppl_vae.fit`` and by the classes of the pair.

        Args:
            others: Further arguments of the estimator's ``fit``.
        """
        refuse_others(type(self).__name__, others)
        for name in ("model_arguments", "guide_arguments", "table_arguments"):
            check_keywords(name, getattr(self, name))
        refuse_unknown("table_arguments", table, self.table_arguments or {})
        for name in ("latents", "epochs", "patience"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.guide is not None:
            check_name("guide", self.guide)
        check_number("learning_rate", self.learning_rate, positive=True)
        check_flag("verbose", self.verbose)
        check_arguments(
            num_samples=self.num_samples, batch_size=self.batch_size, compile=self.compile
        )

    def _is_auto(self) -> bool:
        """Return whether the estimator is to choose the model."""
        return isinstance(self.model, str) and self.model == "auto"

    # Data

    def _read(self, X: Any, *, reset: bool) -> Any:  # noqa: N803  scikit-learn's name
        """Return X as data of the library: an array of finite numbers, or a table.

        Args:
            X: (rows, columns), an array or a frame.
            reset: Whether the columns are those of a new fit; else they are compared with the fit.

        Raises:
            ValueError: If X is not two-dimensional, has no rows or other columns than the fit, or,
                where it is no table, holds text, NaN or infinity.
        """
        X = of_pandas(X, "X")  # noqa: N806
        if reset:
            self.reads_table_ = self._wants_table(X)
            if self.table_arguments and not self.reads_table_:
                raise ValueError(
                    "table_arguments: expected None for a model of numbers, got "
                    f'{shown(self.table_arguments)}; take the model "table"'
                )
        if not self.reads_table_:
            return validate_data(self, X, reset=reset, ensure_min_samples=2 if reset else 1)
        if isinstance(X, pd.DataFrame):
            if not len(X):
                raise ValueError(f"Found array with 0 sample(s) (shape={X.shape})")
            validate_data(self, X, reset=reset, skip_check_array=True)
            frame = X.set_axis(list(map(str, X.columns)), axis=1).reset_index(drop=True)
        else:
            values = validate_data(
                self, X, reset=reset, ensure_all_finite="allow-nan",
                ensure_min_samples=2 if reset else 1,
            )  # fmt: skip
            frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(values.shape[1])])
        return self._table(frame, is_array=not isinstance(X, pd.DataFrame), reset=reset)

    def _table(self, frame: pd.DataFrame, *, is_array: bool, reset: bool) -> Table:
        """Return a frame as a table: of its own schema, or of that of the fit."""
        if not reset:
            return by_schema(frame, self.schema_, "X")
        given = dict(self.table_arguments or {})
        if is_array:  # whose cells do not say more than that they are numbers
            given["kinds"] = {**dict.fromkeys(frame.columns, "real"), **given.get("kinds", {})}
        read = table(frame, **given)
        self.schema_ = read.schema
        return read

    def _wants_table(self, X: Any) -> bool:  # noqa: N803
        """Return whether data are to be read as a table, by the model's name or the columns."""
        if self.TABLES is not None:
            return self.TABLES
        model = self.model
        if isinstance(model, str) and model == "table":
            return True
        if not (self._is_auto() or callable(model)):
            return False
        if self.table_arguments:
            return True
        if not isinstance(X, pd.DataFrame):
            return False
        numeric = all(pd.api.types.is_numeric_dtype(dtype) for dtype in X.dtypes)
        return not numeric or bool(X.isna().to_numpy().any())

    def _rows(self, X: Any) -> Rows:  # noqa: N803
        """Return new data as rows of the fitted pair.

        Raises:
            NotFittedError: If the estimator is not fitted.
            ValueError: If the columns are not those of the fit.
        """
        check_is_fitted(self)
        return self.pair_.pair.rows(self._read(X, reset=False), "X")

    # Fit

    def _fit_pair(self, data: Any, model: Any, guide: Any) -> None:
        """Make the pair and fit it to data; sets ``pair_``, ``history_`` and ``seed_``."""
        self.seed_ = self._new_seed()
        rows = as_rows(data, "X")
        made = make_pair(
            data, model, guide, latents=self.latents, seed=self.seed_,
            model_arguments=self.model_arguments, guide_arguments=self.guide_arguments,
        )  # fmt: skip
        self.history_: History | None = fit(*made, data, **self._fit_options(len(rows)))
        self._keep(*made, rows, of_zoo=isinstance(model, str))

    def _keep(self, model: Model, guide: Guide, rows: Rows, *, of_zoo: bool) -> None:
        """Store a pair that was fitted to rows."""
        for half in (model, guide):
            if isinstance(half, torch.nn.Module):
                half.eval()
        self.pair_ = FittedPair(model, guide, rows.template(), of_zoo=of_zoo)

    def _fit_options(self, rows: int) -> dict[str, Any]:
        """Return the arguments of ``ppl_vae.fit`` for so many rows."""
        validation = self.validation
        if isinstance(validation, str):
            if validation != "auto":
                raise ValueError(
                    'validation: expected "auto", a share of the rows, or None, '
                    f"got {shown(validation)}"
                )
            validation = 0.1 if rows >= FEWEST_TO_HOLD_OUT else None
        rate = self.learning_rate
        optimizer = self.optimizer
        if optimizer is None:
            optimizer = lambda parameters: torch.optim.Adam(parameters, rate)  # noqa: E731
        epochs = self.epochs
        return {
            "epochs": default_epochs(rows, self.batch_size) if epochs is None else epochs,
            "batch_size": self.batch_size, "kl_weight": self.kl_weight, "validation": validation,
            "patience": None if validation is None else self.patience,
            "clip_norm": self.clip_norm, "elbo": self.elbo, "optimizer": optimizer,
            "scheduler": self.scheduler, "compile": self.compile, "seed": self.seed_,
            "progress": bool(self.verbose),
        }  # fmt: skip

    def _new_seed(self) -> int:
        """Return the seed of a fit: ``random_state`` itself, or drawn where it is no number."""
        if isinstance(self.random_state, int | np.integer):
            check_seed("random_state", self.random_state)
            return int(self.random_state)
        if self.random_state is not None and not isinstance(self.random_state, RandomState):
            raise ValueError(
                "random_state: expected a whole number, a numpy.random.RandomState or None, got "
                f"{shown(self.random_state)}"
            )
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    @property
    def model_(self) -> Model:
        """The fitted model."""
        check_is_fitted(self)
        return self.pair_.model

    @property
    def guide_(self) -> Guide:
        """The fitted guide; ``None`` for a model without one."""
        check_is_fitted(self)
        return self.pair_.guide

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "pair_")

    # Files

    def save(self, path: str | Path) -> None:
        """Store the fitted estimator in a new folder, without a pickle; ``load`` opens it.

        Parameters that JSON cannot hold, such as functions, are left out with a warning, and have
        to be given to ``load``. The history of the fit is not stored.

        Args:
            path: A folder that does not exist yet, or is empty.

        Raises:
            NotFittedError: If the estimator is not fitted.
            ValueError: If the folder is not empty.
        """
        check_is_fitted(self)
        stored.write(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, trust_code: bool = False, **parameters: Any) -> Any:
        """Return the estimator of a folder.

        Args:
            path: The folder, as ``save`` left it.
            trust_code: Whether to execute copies of the user's own files in the folder; see
                ``ppl_vae.load``.
            parameters: The parameters that the folder could not hold.

        Raises:
            ValueError: If the folder is no estimator of this class, or damaged, or a parameter
                that it could not hold is not given.
        """
        return stored.read(cls, Path(path), parameters, trust_code=trust_code)


def default_epochs(rows: int, batch_size: int) -> int:
    """Return the epochs of a fit for which none were asked for.

    Args:
        rows: Number of rows.
        batch_size: Rows of a batch.

    Example:
        >>> default_epochs(178, 128), default_epochs(30_000, 128)
        (445, 20)
    """
    batches = max(1, math.ceil(rows / batch_size))
    updates = max(FEWEST_UPDATES, min(MOST_UPDATES, EACH_ROW * rows))
    return max(FEWEST_EPOCHS, math.ceil(updates / batches))


def check_keywords(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless a value is a mapping with texts as its keys, or ``None``."""
    right = value is None or isinstance(value, Mapping)
    if not right or not all(isinstance(key, str) for key in value or ()):
        raise ValueError(
            f"{name}: expected a dictionary of arguments by their names, or None, got "
            f"{shown(value)}"
        )


def refuse_others(name: str, others: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for arguments of ``fit`` that scikit-learn has and a pair cannot take.

    Args:
        name: Name of the estimator's class.
        others: The arguments.
    """
    if others.pop("sample_weight", None) is not None:  # type: ignore[attr-defined]
        raise ValueError(
            f"sample_weight: expected None, got weights: {name} counts every row once; repeat rows "
            "that are to count more"
        )
    if others:
        raise TypeError(f"{name}.fit() got an unexpected keyword argument {next(iter(others))!r}")
