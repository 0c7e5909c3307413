"""``LatentClassifier``: the semi-supervised pair, for rows of which few have a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ppl_vae.arguments import check_number, shown
from ppl_vae.data.rows import Rows
from ppl_vae.latents.codes import encode
from ppl_vae.sklearn.base import PairEstimator
from ppl_vae.sklearn.same_draws import in_groups

Floats = npt.NDArray[np.float64]

UNLABELLED = -1


class LatentClassifier(ClassifierMixin, PairEstimator):
    """A classifier that also learns from rows without a label, which are marked -1.

    The label is a latent of the model where it is not known, and the guide's network classifies.

    Args:
        model: Name of a model of the zoo with a label, or a function of the data ``{"x", "y"}``
            that returns ``(model, guide)``; -1 in ``y`` is no label. ``"auto"``:
            ``semisupervised`` for columns of 0 and 1, else ``semisupervised_gaussian``.
        guide: Name of a guide; ``"auto"`` for ``classifier``.
        latents: Number of latents beside the label; ``None`` for the model's own default, 8.
        model_arguments: More arguments of the model's class.
        guide_arguments: More arguments of the guide's class, such as ``{"weight": 10.0}``, the
            weight of the labels in training.
        label_share: Share of the rows of the fit that have a label, at least: labelled rows are
            repeated until there are so many, so that every batch has some.
        epochs: Passes over the data; ``None``: as many as make 5 updates for each row, 3,000 at
            most, and 20 passes at least.
        batch_size: Rows of one update.
        learning_rate: Step size of Adam, the optimizer where none is given.
        kl_weight: Weight of the latents' divergence from the prior.
        validation: Share of the rows to hold out; ``None`` for none: the best epoch of a
            classifier is seldom that of the best ELBO.
        patience: Epochs without a better held-out ELBO before the fit ends.
        clip_norm: Largest norm of a gradient.
        elbo: The objective.
        optimizer: Makes a torch optimizer of a list of parameters.
        scheduler: Makes a torch scheduler of the optimizer; ``None``: the rate falls in a straight
            line over the second half of the epochs.
        compile: ``"auto"``, ``True`` or ``False``, as for ``ppl_vae.fit``.
        random_state: Seed of the first weights, the fit and all draws.
        verbose: Whether to show a bar while fitting.

    Attributes:
        classes_: The labels, (classes,), without -1.
        model_: The fitted model.
        guide_: The fitted guide.
        history_: What the fit did, a ``History``; ``None`` after ``load``.
        n_features_in_: Number of columns of X.
        feature_names_in_: Their names, where X was a frame.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 2)) + np.repeat([[-4.0], [4.0]], 50, 0)
        >>> y = np.full(100, -1)
        >>> y[[0, 99]] = [3, 7]  # two labels
        >>> classifier = LatentClassifier(latents=1, epochs=100, random_state=0).fit(x, y)
        >>> classifier.predict([[-4, -4], [4, 4]])
        array([3, 7])
        >>> classifier.predict_proba([[-4, -4], [4, 4]]).round().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    TABLES = False

    def __init__(
        self,
        model: str | Callable[..., Any] = "auto",
        *,
        guide: str | None = "auto",
        latents: int | None = None,
        model_arguments: Mapping[str, Any] | None = None,
        guide_arguments: Mapping[str, Any] | None = None,
        label_share: float = 0.15,
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 3e-3,
        kl_weight: Any = 1.0,
        validation: Any = None,
        patience: int | None = None,
        clip_norm: float | None = 100.0,
        elbo: Any = None,
        optimizer: Callable[..., Any] | None = None,
        scheduler: Callable[..., Any] | None = None,
        compile: bool | str = "auto",  # noqa: A002  as fit has it
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            model, guide=guide, latents=latents, model_arguments=model_arguments,
            guide_arguments=guide_arguments, epochs=epochs, batch_size=batch_size,
            learning_rate=learning_rate, kl_weight=kl_weight, validation=validation,
            patience=patience, clip_norm=clip_norm, elbo=elbo, optimizer=optimizer,
            scheduler=scheduler, compile=compile, random_state=random_state, verbose=verbose,
        )  # fmt: skip
        self.label_share = label_share

    def fit(self, X: Any, y: Any, **others: Any) -> LatentClassifier:  # noqa: N803
        """Fit a new pair to rows, of which some have a label.

        Args:
            X: (rows, columns), an array of numbers or a frame of numbers.
            y: (rows,) labels, numbers or texts; -1 for rows without one.
            others: ``sample_weight`` and its like are refused.

        Returns:
            The classifier.

        Raises:
            ValueError: On bad data or parameters, or if fewer than two classes have a label.
        """
        self._check(others)
        if y is None:
            raise ValueError(
                "requires y to be passed, but the target y is None: labels, -1 for rows without one"
            )
        values = self._read(X, reset=True)
        check_consistent_length(values, y)
        labels = self._coded(y)
        model = self.model
        if self._is_auto():
            binary = bool(np.isin(values, (0, 1)).all())
            model = "semisupervised" if binary else "semisupervised_gaussian"
        self._fit_pair(self._with_repeats(values, labels), model, self.guide)
        return self

    def _check(self, others: dict[str, Any]) -> None:
        """Raise an error that names the first bad parameter."""
        super()._check(others)
        check_number("label_share", self.label_share, least=0)
        if self.label_share >= 1:
            raise ValueError(
                f"label_share: expected a share of at least 0 and below 1, got "
                f"{shown(self.label_share)}"
            )
        if self.patience is not None and self.validation is None:
            raise ValueError(
                f"patience: expected None where no rows are held out, got {shown(self.patience)}; "
                "give validation=0.1"
            )

    def _coded(self, y: Any) -> npt.NDArray[np.int64]:
        """Return labels as numbers of classes, -1 for none; sets ``classes_``.

        Raises:
            ValueError: If the labels are no classes, or of fewer than two classes.
        """
        y = column_or_1d(check_array(y, ensure_2d=False, dtype=None, ensure_all_finite=False,
                                     input_name="y"), warn=True)  # fmt: skip
        assert_all_finite(y, input_name="y")
        if y.dtype.kind in "OUS":
            known = np.array([not _is_none(label) for label in y.tolist()], dtype=bool)
        else:
            known = y != UNLABELLED
        check_classification_targets(y[known])
        self.classes_, codes = np.unique(y[known], return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "y: expected labels of two classes or more, got "
                f"{len(self.classes_)} class (-1 stands for no label): {shown(list(self.classes_))}"
            )
        labels = np.full(len(y), UNLABELLED, dtype=np.int64)
        labels[known] = codes
        return labels

    def _with_repeats(self, values: Any, labels: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Return the fields of the fit: all rows, and the labelled ones again where few are."""
        known = np.flatnonzero(labels != UNLABELLED)
        wanted = self.label_share * (len(labels) - len(known)) / (1 - self.label_share)
        copies = max(0, round(wanted / len(known)) - 1)
        order = np.concatenate([np.arange(len(labels)), np.tile(known, copies)])
        return {"x": np.asarray(values)[order], "y": labels[order]}

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """Return the probability of every class, (rows, classes), in the order of ``classes_``.

        Args:
            X: (rows, columns), with the columns of the fit.
        """
        check_is_fitted(self)
        values = self._read(X, reset=False)
        pair = self.pair_
        data = {"x": np.asarray(values), "y": np.full(len(values), UNLABELLED)}
        rows: Rows = pair.pair.rows(data, "X")

        def coded(positions: torch.Tensor) -> pd.DataFrame:
            codes = encode(
                pair.model, pair.guide, rows.subset(positions), seed=self.seed_, progress=False
            )
            return pd.DataFrame(codes["y"]["probability"])

        found = in_groups(rows, coded).to_numpy(dtype=np.float64)
        return np.asarray(found / found.sum(1, keepdims=True))

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the most probable class of every row, (rows,).

        Args:
            X: (rows, columns), with the columns of the fit.
        """
        probabilities = self.predict_proba(X)
        labels: npt.NDArray[Any] = self.classes_[probabilities.argmax(1)]
        return labels

    def _fit_options(self, rows: int) -> dict[str, Any]:
        """Return the arguments of ``ppl_vae.fit``, with a falling rate where none is given."""
        options = super()._fit_options(rows)
        if self.scheduler is None and self.optimizer is None:
            epochs = options["epochs"]
            options["scheduler"] = lambda adam: torch.optim.lr_scheduler.LambdaLR(
                adam, lambda epoch: min(1.0, 0.02 + 2 * (1 - epoch / epochs))
            )
        return options


def _is_none(label: Any) -> bool:
    """Return whether a label among objects stands for no label."""
    return isinstance(label, int | np.integer) and label == UNLABELLED
