"""``LatentImputer``: missing cells, filled from their posterior under a pair for tables."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ppl_vae.data.arrow import of_pandas
from ppl_vae.data.mixed_tables import Table
from ppl_vae.data.rows import Rows
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.imputation.imputation import impute
from ppl_vae.sklearn.base import PairEstimator
from ppl_vae.sklearn.same_draws import in_groups


class LatentImputer(OneToOneFeatureMixin, TransformerMixin, PairEstimator):
    """An imputer of missing cells: each gets the center of its posterior given the row's others.

    Columns may hold numbers, counts, dates, categories and text. Missing are NaN, ``None``, empty
    texts and what ``table_arguments={"missing": [...]}`` names. The columns of an array are real
    numbers, those of a frame are read by ``ppl_vae.table``.

    Args:
        model: ``"auto"`` for the model ``table``; the name of another model for tables, or a
            function of the data that returns ``(model, guide)``.
        guide: Name of a guide; this and all parameters below are those of ``LatentVariableModel``.
        latents: Number of latents; ``None`` for 8.
        model_arguments: More arguments of the model's class, such as ``{"hidden": (256, 256)}``.
        guide_arguments: More arguments of the guide's class: ``{"hide": 0.5}`` hides cells from the
            guide in training, for later rows with more gaps than those of the fit.
        table_arguments: Arguments of ``ppl_vae.table``: ``kinds``, ``missing``, ``ignore``,
            ``unseen``.
        epochs: Passes over the data.
        batch_size: Rows of one update.
        learning_rate: Step size of Adam.
        kl_weight: Weight of the latents' divergence from the prior.
        validation: Share of the rows that choose the best epoch.
        patience: Epochs without a better held-out ELBO before the fit ends.
        clip_norm: Largest norm of a gradient.
        elbo: The objective.
        optimizer: Makes a torch optimizer.
        scheduler: Makes a torch scheduler.
        compile: As for ``ppl_vae.fit``.
        num_samples: Draws of the latents for each row with gaps.
        random_state: Seed of the first weights, the fit and all draws.
        verbose: Whether to show a bar while fitting.

    Attributes:
        schema_: What each column is taken for.
        model_: The fitted model.
        guide_: The fitted guide.
        n_features_in_: Number of columns of X.
        feature_names_in_: Their names, where X was a frame.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> x = random.normal(size=(200, 1)) * [1.0, 2.0, -1.0] + random.normal(size=(200, 3))
        >>> linear = {"hidden": ()}  # a linear decoder
        >>> imputer = LatentImputer(
        ...     latents=1, model_arguments=linear, epochs=200, learning_rate=0.01, random_state=0
        ... ).fit(x)
        >>> bool(imputer.transform([[1.0, np.nan, -1.0]])[0, 1] > 0.5)
        True
    """

    TABLES = True

    def fit(self, X: Any, y: Any = None, **others: Any) -> LatentImputer:  # noqa: N803
        """Fit a new pair to the cells that are there.

        Args:
            X: (rows, columns), an array of numbers, NaN where missing, or a frame.
            y: Not read.
            others: ``sample_weight`` and its like are refused.

        Returns:
            The imputer.

        Raises:
            ValueError: On bad data or parameters, or on a pair with faults.
        """
        self._check(others)
        data = self._read(X, reset=True)
        self._fit_pair(data, "table" if self._is_auto() else self.model, self.guide)
        return self

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Return the rows with a value in each missing cell; the others stay as they are.

        A row's values do not depend on the other rows of the call, up to the last digit.

        Args:
            X: (rows, columns), with the columns of the fit.

        Returns:
            For an array, (rows, columns) of numbers; for a frame, one with the same columns. A cell
            whose category the fit did not have stays as it is.

        Warns:
            UnreliableWarning: If few draws decide the values of some rows.
        """
        check_is_fitted(self)
        given = of_pandas(X, "X")
        data = self._read(given, reset=False)
        frame = data.frame
        gaps = np.flatnonzero(~data["seen"].numpy().all(1))
        filled = frame if not len(gaps) else self._filled(data.part(slice(None)), frame, gaps)
        if isinstance(given, pd.DataFrame):
            made = filled.copy()
            made.columns, made.index = given.columns, given.index
            return made
        return filled.to_numpy(dtype=np.float64, copy=True)

    def _filled(self, data: Table, frame: pd.DataFrame, gaps: npt.NDArray[Any]) -> pd.DataFrame:
        """Return the frame with its missing cells filled.

        Args:
            data: The frame as a table.
            frame: The frame, numbered rows.
            gaps: Positions of the rows with gaps.
        """
        pair = self.pair_
        unsure: set[int] = set()

        def completed(positions: torch.Tensor) -> pd.DataFrame:
            part = frame.iloc[gaps[positions.numpy()]].reset_index(drop=True)
            with warnings.catch_warnings(action="ignore", category=UnreliableWarning):
                found = impute(
                    pair.model,
                    pair.guide,
                    part,
                    num_samples=self.num_samples,
                    seed=self.seed_,
                    progress=False,
                )
            lines = found.frame["row"].to_numpy()[found.unreliable]
            unsure.update(gaps[positions.numpy()[lines.astype(int)]].tolist())
            return found.completed  # type: ignore[no-any-return]

        rows: Rows = pair.pair.rows(data, "X").subset(torch.as_tensor(gaps))
        values = in_groups(rows, completed)
        if unsure:
            warnings.warn(
                f"transform: few draws decide the values of {len(unsure)} of {len(gaps)} rows with "
                "missing cells; raise num_samples, or fit for more epochs",
                UnreliableWarning,
                stacklevel=3,
            )
        made = frame.copy()
        for column in frame.columns:
            cells = values[column].set_axis(gaps)
            if cells.dtype != made[column].dtype:
                common = pd.concat([made[column].iloc[:0], cells.iloc[:0]]).dtype
                made[column] = made[column].astype(common)
            made.loc[gaps, column] = cells
        return made

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags
