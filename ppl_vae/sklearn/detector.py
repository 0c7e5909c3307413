"""``LatentAnomalyDetector``: the library's detector of strange rows, as an outlier detector."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.base import OutlierMixin

from ppl_vae.anomaly import conformal
from ppl_vae.anomaly.detector import FEWEST, AnomalyDetector
from ppl_vae.anomaly.fitted_detector import CALIBRATION, fit_table_pair
from ppl_vae.anomaly.pair_scores import SCORES
from ppl_vae.anomaly.scoring import Scoring
from ppl_vae.arguments import check_count, check_number, shown
from ppl_vae.data.rows import Rows, as_rows
from ppl_vae.sklearn.base import PairEstimator
from ppl_vae.sklearn.same_draws import in_groups

Floats = npt.NDArray[np.float64]

UPDATES = 1000  # of ``fit_detector``
UPDATES_EACH_ROW = 10  # at most: a small table has fewer


class LatentAnomalyDetector(OutlierMixin, PairEstimator):
    """A detector of strange rows, whose rate of false alarms is calibrated on rows kept apart.

    By default it is ``ppl_vae.fit_detector``: its pair, its score and its calibration on a fifth of
    the rows, which must be clean. With a number for ``contamination``, the rows of the fit may hold
    anomalies: the pair is fitted to all of them, and that share of them is flagged.

    Args:
        model: ``"auto"`` for the pair of ``fit_detector``, for tables of numbers; the name of a
            model of the zoo; or a function of the data that returns ``(model, guide)``.
        contamination: ``"auto"`` for a threshold that is calibrated at ``false_alarm_rate``; or the
            share of the rows of the fit to flag, above 0 and at most 0.5.
        false_alarm_rate: The share of clean rows that may be flagged.
        anomaly_score: A column of ``ppl_vae.anomaly_scores``, but for ``typicality``.
        updates: Updates of the pair of ``"auto"``; ``None``: 1,000, below 100 rows 10 for each row.
        guide: Guide of another model than ``"auto"``; so are all parameters below but
            ``num_samples``, ``random_state`` and ``verbose``. See ``LatentVariableModel``.
        latents: Number of latents.
        model_arguments: More arguments of the model.
        guide_arguments: More arguments of the guide.
        table_arguments: Arguments of ``ppl_vae.table``.
        epochs: Passes over the data.
        batch_size: Rows of one update.
        learning_rate: Step size of Adam.
        kl_weight: Weight of the latents' divergence from the prior.
        validation: Share of the rows of the fit that choose the best epoch.
        patience: Epochs without a better held-out ELBO before the fit ends.
        clip_norm: Largest norm of a gradient.
        elbo: The objective.
        optimizer: Makes a torch optimizer.
        scheduler: Makes a torch scheduler.
        compile: As for ``ppl_vae.fit``.
        num_samples: Draws of the latents for each row that is scored.
        random_state: Seed of the split, the first weights, the fit and all draws.
        verbose: Whether to show a bar while fitting.

    Attributes:
        offset_: ``decision_function`` is ``score_samples`` minus this number, in nats.
        calibrated_: Whether the threshold comes from rows that the pair was not fitted to.
        detector_: The ``ppl_vae.AnomalyDetector``, with p-values and ``drift``; ``None`` where the
            threshold is not calibrated.
        model_: The fitted model.
        guide_: The fitted guide.
        n_features_in_: Number of columns of X.
        feature_names_in_: Their names, where X was a frame.

    Example:
        >>> import numpy as np
        >>> clean = np.random.default_rng(0).normal(size=(200, 1)) * [1.0, 2.0, -1.0]
        >>> detector = LatentAnomalyDetector(updates=200, random_state=0).fit(clean)
        >>> detector.predict([[1.0, 2.0, -1.0], [1.0, -2.0, -1.0]]).tolist()
        [1, -1]
        >>> wrong, right = [[1.0, -2.0, -1.0]], [[1.0, 2.0, -1.0]]
        >>> bool(detector.score_samples(wrong) < detector.score_samples(right))
        True
        >>> bool(detector.decision_function(wrong) < 0), bool(detector.p_values(wrong) <= 0.1)
        (True, True)
    """

    def __init__(
        self,
        model: str | Callable[..., Any] = "auto",
        *,
        contamination: str | float = "auto",
        false_alarm_rate: float = 0.05,
        anomaly_score: str = "negative_log_likelihood",
        updates: int | None = None,
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
        super().__init__(
            model, guide=guide, latents=latents, model_arguments=model_arguments,
            guide_arguments=guide_arguments, table_arguments=table_arguments, epochs=epochs,
            batch_size=batch_size, learning_rate=learning_rate, kl_weight=kl_weight,
            validation=validation, patience=patience, clip_norm=clip_norm, elbo=elbo,
            optimizer=optimizer, scheduler=scheduler, compile=compile, num_samples=num_samples,
            random_state=random_state, verbose=verbose,
        )  # fmt: skip
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.anomaly_score = anomaly_score
        self.updates = updates

    def fit(self, X: Any, y: Any = None, **others: Any) -> LatentAnomalyDetector:  # noqa: N803
        """Fit a new pair to rows, and set the threshold.

        Args:
            X: (rows, columns), an array of numbers or a frame; clean rows, unless
                ``contamination`` is a number.
            y: Not read.
            others: ``sample_weight`` and its like are refused.

        Returns:
            The detector.

        Raises:
            ValueError: On bad data or parameters, or on a pair with faults.

        Warns:
            UserWarning: If there are too few rows to keep some apart for the calibration: the
                threshold then comes from the rows of the fit, and more than the rate of new clean
                rows are flagged.
        """
        self._check(others)
        data = self._read(X, reset=True)
        self.seed_ = self._new_seed()
        rows = as_rows(data, "X")
        if len(rows) < 4:
            raise ValueError(f"X: expected at least 4 rows, got n_samples={len(rows)}")
        enough = len(rows) * CALIBRATION >= FEWEST
        self.calibrated_ = self.contamination == "auto" and enough
        known, held_out = rows.split(CALIBRATION, self.seed_) if self.calibrated_ else (rows, None)
        self._fit_to(known, data)
        pair = self.pair_
        how: dict[str, Any] = {"score": self.anomaly_score, "num_samples": self.num_samples}
        self.detector_: Any = None
        self.scoring_: Scoring
        if held_out is not None:
            self.detector_ = AnomalyDetector(
                pair.model, pair.guide, held_out, **how, seed=self.seed_, progress=False
            )
            self.offset_ = -self.detector_.threshold(self.false_alarm_rate)
            self.scoring_ = self.detector_.scoring
            return self
        self.scoring_ = Scoring.of(
            pair.model, pair.guide, None, **how, seed=self.seed_, plate="data"
        )
        share = self.contamination
        if isinstance(share, str):
            share = self.false_alarm_rate
            warnings.warn(
                f"X: expected at least {int(FEWEST / CALIBRATION)} rows, a fifth of which "
                f"calibrate the threshold, got {len(rows)}: it is set on the rows of the fit, so "
                f"that more than {share:.0%} of new clean rows are flagged; fit more rows",
                UserWarning,
                stacklevel=2,
            )
        self.offset_ = float(np.percentile(-self._scores(rows), 100 * share))
        return self

    def _check(self, others: dict[str, Any]) -> None:
        """Raise an error that names the first bad parameter."""
        super()._check(others)
        check_number("false_alarm_rate", self.false_alarm_rate, positive=True)
        if self.false_alarm_rate >= 1:
            raise ValueError(
                "false_alarm_rate: expected a share above 0 and below 1, got "
                f"{shown(self.false_alarm_rate)}"
            )
        if not isinstance(self.anomaly_score, str) or self.anomaly_score not in SCORES:
            raise ValueError(
                f"anomaly_score: expected one of {', '.join(SCORES)}, got "
                f"{shown(self.anomaly_score)}"
            )
        if self.updates is not None:
            check_count("updates", self.updates)
        if self._is_auto():
            self._refuse_of_other_models()
        elif self.updates is not None:
            raise ValueError(
                f'updates: expected None for another model than "auto", got '
                f"{shown(self.updates)}; give epochs"
            )
        share = self.contamination
        if isinstance(share, str) and share == "auto":
            return
        number = isinstance(share, int | float | np.floating) and not isinstance(share, bool)
        if not number or not 0 < float(share) <= 0.5:
            raise ValueError(
                'contamination: expected "auto", or a share above 0 and at most 0.5, '
                f"got {shown(share)}"
            )

    def _fit_to(self, rows: Rows, data: Any) -> None:
        """Fit the pair to some rows of the data; sets ``pair_`` and ``history_``."""
        if not self._is_auto():
            self._fit_pair(rows, self.model, self.guide)
            return
        updates = self.updates
        if updates is None:
            updates = min(UPDATES, UPDATES_EACH_ROW * len(as_rows(data)))
        pair = fit_table_pair(rows, updates=updates, seed=self.seed_, progress=bool(self.verbose))
        self.history_ = None
        self._keep(*pair, rows, of_zoo=True)

    def _refuse_of_other_models(self) -> None:
        """Raise ``ValueError`` if a parameter is given that the pair of ``"auto"`` cannot take."""
        defaults = type(self)().get_params(deep=False)
        for name in OF_OTHER_MODELS:
            value, default = getattr(self, name), defaults[name]
            same = isinstance(value, int | float | str) and value == default
            if value is not default and not same:
                raise ValueError(
                    f'{name}: expected {default!r} for the model "auto", which has its own '
                    f"settings, got {shown(value)}; name another model, such as "
                    '"gaussian"'
                )

    def score_samples(self, X: Any) -> Floats:  # noqa: N803
        """Return minus the score of every row, (rows,), in nats: the lower, the stranger.

        A row has the same draws in every call.

        Args:
            X: (rows, columns), with the columns of the fit.
        """
        return -self._scores(self._rows(X))

    def _scores(self, rows: Rows) -> Floats:
        """Return the scores of rows, (rows,): the higher, the stranger."""
        pair = self.pair_

        def scored(positions: torch.Tensor) -> pd.DataFrame:
            return self.scoring_(pair.model, pair.guide, rows.subset(positions), name="X")

        return in_groups(rows, scored)["score"].to_numpy(dtype=np.float64, copy=True)

    def decision_function(self, X: Any) -> Floats:  # noqa: N803
        """Return ``score_samples`` minus ``offset_``, (rows,), in nats: below 0 it is an outlier.

        Args:
            X: (rows, columns), with the columns of the fit.
        """
        scores = self.score_samples(X)
        return np.asarray(scores - self.offset_)

    def predict(self, X: Any) -> npt.NDArray[np.int64]:  # noqa: N803
        """Return -1 for outliers and 1 for the other rows, (rows,).

        Args:
            X: (rows, columns), with the columns of the fit.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if state.get("detector_") is not None:  # which has the pair of ``pair_``
            state["detector_"] = copy.copy(state["detector_"])
            state["detector_"].model = state["detector_"].guide = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if getattr(self, "detector_", None) is not None:
            self.detector_.model, self.detector_.guide = self.pair_.model, self.pair_.guide

    def p_values(self, X: Any) -> Floats:  # noqa: N803
        """Return the share of calibration rows that are at least as strange, (rows,).

        Args:
            X: (rows, columns), with the columns of the fit.

        Raises:
            ValueError: If the threshold is not calibrated.
        """
        scores = self._scores(self._rows(X))
        if self.detector_ is None:
            raise ValueError(
                'contamination: expected "auto", and rows enough to calibrate on, for p-values; '
                f"got {shown(self.contamination)}"
            )
        return np.asarray(conformal.p_values(scores, self.detector_.scores))


OF_OTHER_MODELS = (
    "guide", "latents", "model_arguments", "guide_arguments", "table_arguments", "epochs",
    "batch_size", "learning_rate", "kl_weight", "validation", "patience", "clip_norm", "elbo",
    "optimizer", "scheduler", "compile",
)  # fmt: skip
"""Parameters that the pair of ``"auto"`` does not read."""
