"""``PyodDetector``: the detector of strange rows, with the methods of pyod's detectors.

    pyod:            decision_function higher = stranger;  predict 1 = outlier, 0 = inlier
    scikit-learn:    decision_function below 0 = outlier;  predict -1 = outlier, 1 = inlier

The two contracts share names and contradict each other, so that each has a class of its own. pyod
itself is not needed.

Sources: Zhao, Nasrullah & Li (2019), PyOD, arXiv:1901.01588; Kriegel et al. (2011), Interpreting
and Unifying Outlier Scores, section 3 (``method="unify"``); Perini, Vercruyssen & Davis (2020),
Quantifying the Confidence of Anomaly Detectors in Their Example-Wise Predictions, section 3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binom
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from ppl_vae.arguments import shown
from ppl_vae.sklearn.detector import LatentAnomalyDetector

Floats = npt.NDArray[np.float64]


class PyodDetector(BaseEstimator):
    """The anomaly detector for programs that are written for pyod's detectors.

    Args:
        contamination: Share of the rows of the fit to call outliers, above 0 and at most 0.5.
        detector: A ``LatentAnomalyDetector`` with other settings; ``None`` for the default ones.

    Attributes:
        decision_scores_: Scores of the rows of the fit, (rows,), in nats; the higher, the stranger.
        threshold_: The score above which a row is an outlier.
        labels_: 1 for the outliers among the rows of the fit, else 0, (rows,).
        detector_: The fitted ``LatentAnomalyDetector``.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(200, 1)) * [1.0, 2.0, -1.0]
        >>> quick = LatentAnomalyDetector(updates=200, random_state=0)
        >>> detector = PyodDetector(contamination=0.05, detector=quick).fit(x)
        >>> int(detector.labels_.sum()), detector.predict([[1, 2, -1], [1, -2, -1]]).tolist()
        (10, [0, 1])
    """

    def __init__(
        self, contamination: float = 0.1, *, detector: LatentAnomalyDetector | None = None
    ) -> None:
        self.contamination = contamination
        self.detector = detector

    def fit(self, X: Any, y: Any = None) -> PyodDetector:  # noqa: N803  pyod's name
        """Fit the detector to all rows, outliers among them.

        Args:
            X: (rows, columns) of numbers.
            y: Not read.

        Raises:
            ValueError: On bad data or parameters.
        """
        if isinstance(self.contamination, str):  # "auto" would keep rows apart
            raise ValueError(
                "contamination: expected a share above 0 and at most 0.5, got "
                f"{shown(self.contamination)}"
            )
        if self.detector is not None and not isinstance(self.detector, LatentAnomalyDetector):
            raise ValueError(
                f"detector: expected a LatentAnomalyDetector or None, got {shown(self.detector)}"
            )
        detector = LatentAnomalyDetector() if self.detector is None else clone(self.detector)
        self.detector_ = detector.set_params(contamination=self.contamination).fit(X)
        self.decision_scores_ = -self.detector_.score_samples(X)
        self.threshold_ = -self.detector_.offset_
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        return self

    def decision_function(self, X: Any) -> Floats:  # noqa: N803
        """Return the score of every row, (rows,), in nats: the higher, the stranger.

        Args:
            X: (rows, columns), with the columns of the fit.
        """
        check_is_fitted(self)
        return np.asarray(-self.detector_.score_samples(X))

    def predict(self, X: Any, return_confidence: bool = False) -> Any:  # noqa: N803
        """Return 1 for outliers and 0 for the other rows, (rows,).

        Args:
            X: (rows, columns), with the columns of the fit.
            return_confidence: Whether to return ``predict_confidence`` beside it.
        """
        scores = self.decision_function(X)
        strange = np.asarray(scores > self.threshold_, dtype=np.int64)
        return (strange, self._confidence(scores)) if return_confidence else strange

    def predict_confidence(self, X: Any) -> Floats:  # noqa: N803
        """Return how sure the prediction of each row is, (rows,), from 0 to 1.

        It is the probability that the same prediction is made after a fit to other rows of the same
        kind, by the place of the row's score among those of the fit. It says nothing of whether
        the prediction is right.

        Args:
            X: (rows, columns), with the columns of the fit.
        """
        return self._confidence(self.decision_function(X))

    def _confidence(self, scores: Floats) -> Floats:
        """Return the probabilities that scores stay on their side of the threshold."""
        known = np.sort(self.decision_scores_)
        count = len(known)
        below = (1 + np.searchsorted(known, scores, side="right")) / (2 + count)
        inliers = count - int(count * self.contamination)
        strange = 1 - binom.cdf(inliers, count, below)
        return np.asarray(np.where(scores > self.threshold_, strange, 1 - strange))

    def fit_predict(self, X: Any, y: Any = None) -> npt.NDArray[np.int64]:  # noqa: N803
        """Fit the detector, and return 1 for the outliers and 0 for the other rows, (rows,).

        Args:
            X: (rows, columns) of numbers.
            y: Not read.
        """
        return np.asarray(self.fit(X).labels_, dtype=np.int64)

    def predict_proba(
        self,
        X: Any,  # noqa: N803
        method: str = "linear",
        return_confidence: bool = False,
    ) -> Any:
        """Return what pyod calls probabilities, (rows, 2): of an inlier and of an outlier.

        Args:
            X: (rows, columns), with the columns of the fit.
            method: ``"linear"`` for the place of the score between the lowest and the highest of
                the fit; ``"unify"`` for the error function of how many standard deviations it is
                above the mean of the fit.
            return_confidence: Whether to return ``predict_confidence`` beside it.

        Raises:
            ValueError: If there is no such method.
        """
        scores, known = self.decision_function(X), self.decision_scores_
        if method == "linear":
            spread = float(np.ptp(known)) or 1.0
            strange = (scores - known.min()) / spread
        elif method == "unify":
            deviations = (scores - known.mean()) / (float(known.std()) or 1.0)
            strange = torch.erf(torch.as_tensor(deviations) / math.sqrt(2)).numpy()
        else:
            raise ValueError(f'method: expected "linear" or "unify", got {shown(method)}')
        strange = strange.clip(0, 1)
        both = np.column_stack([1 - strange, strange])
        return (both, self._confidence(scores)) if return_confidence else both
