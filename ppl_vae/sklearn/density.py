"""``LatentVariableModel``: a pair as a density and as a transformer of rows to codes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pyro import poutine
from sklearn.base import DensityMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted

from ppl_vae.arguments import check_count
from ppl_vae.core.blocks import quiet_look
from ppl_vae.data.rows import Rows
from ppl_vae.evaluation.likelihood import log_likelihood
from ppl_vae.evaluation.summary import UnreliableWarning, unreliable_rows
from ppl_vae.latents.codes import encode, generate
from ppl_vae.latents.traversals import decode
from ppl_vae.predictive.latent_draws import row_latents
from ppl_vae.sklearn.base import PairEstimator
from ppl_vae.sklearn.same_draws import in_groups

Floats = npt.NDArray[np.float64]


class LatentVariableModel(TransformerMixin, DensityMixin, PairEstimator):
    """A deep latent-variable model: the density of rows, and their codes as features.

    Args:
        model: Name of a model that ``ppl-vae list`` shows, ``"file.py:Class"``, or a function of
            the data that returns ``(model, guide)``. ``"auto"``: ``gaussian`` for numbers,
            ``table`` for a frame with text, dates or gaps.
        guide: Name of a guide; ``"auto"`` for the one that goes with the model; ``None`` for none.
        latents: Number of latents; ``None`` for the model's own default, most often 8.
        model_arguments: More arguments of the model's class, ``{"components": 3}``, or of the
            function.
        guide_arguments: More arguments of the guide's class.
        table_arguments: Arguments of ``ppl_vae.table`` for frames of mixed columns, such as
            ``{"missing": ["?"], "unseen": "missing"}``.
        epochs: Passes over the data; ``None``: as many as make 5 updates for each row, 3,000 at
            most, and 20 passes at least.
        batch_size: Rows of one update.
        learning_rate: Step size of Adam, the optimizer where none is given.
        kl_weight: Weight of the latents' divergence from the prior, a number or a function of the
            step; above 1 it is a beta-VAE.
        validation: Share of the rows to hold out; the fit ends with the weights of its best
            held-out ELBO. ``"auto"``: a tenth from 100 rows on. ``None``: none.
        patience: Epochs without a better held-out ELBO before the fit ends; ``None``: no end.
        clip_norm: Largest norm of a gradient; ``None`` leaves gradients alone.
        elbo: The objective, as ``ppl_vae.IWAE(5)``; ``None``: chosen from the pair's sites.
        optimizer: Makes a torch optimizer of a list of parameters; ``None`` for Adam.
        scheduler: Makes a torch scheduler of the optimizer.
        compile: ``"auto"``, ``True`` or ``False``, as for ``ppl_vae.fit``.
        num_samples: Draws of the latents for each row in ``score_samples``.
        random_state: Seed of the first weights, the fit and all draws.
        verbose: Whether to show a bar while fitting.

    Attributes:
        model_: The fitted model.
        guide_: The fitted guide.
        history_: What the fit did, a ``History``; ``None`` after ``load``.
        n_features_in_: Number of columns of X.
        feature_names_in_: Their names, where X was a frame.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> x = load_iris().data
        >>> density = LatentVariableModel("ppca", latents=2, epochs=50, random_state=0).fit(x)
        >>> density.transform(x).shape, density.score_samples(x).shape
        ((150, 2), (150,))
        >>> density.get_feature_names_out().tolist(), density.sample(3, random_state=0).shape
        (['z0', 'z1'], (3, 4))
        >>> density.inverse_transform(density.transform(x)).shape
        (150, 4)
    """

    def fit(self, X: Any, y: Any = None, **others: Any) -> LatentVariableModel:  # noqa: N803
        """Fit a new pair to rows.

        Args:
            X: (rows, columns), an array of numbers or a frame.
            y: Not read.
            others: ``sample_weight`` and its like are refused.

        Returns:
            The estimator.

        Raises:
            ValueError: On bad data or parameters, or on a pair with faults, as ``ppl_vae.fit``.
        """
        self._check(others)
        data = self._read(X, reset=True)
        name = self.model
        if self._is_auto():
            name = "table" if self.reads_table_ else "gaussian"
        self._fit_pair(data, name, self.guide)
        first = self.pair_.pair.rows(data, "X").subset(torch.arange(1))
        self.codes_ = [list(map(str, column)) for column in self._codes(first).columns]
        return self

    def score_samples(self, X: Any) -> Floats:  # noqa: N803
        """Return the log-likelihood of every row, (rows,), in nats, by importance sampling.

        A row has the same draws in every call.

        Args:
            X: (rows, columns), with the columns of the fit.

        Warns:
            UnreliableWarning: If few draws decide the estimate of some rows, which is then
                most often too low: raise ``num_samples``, or take a better guide.
        """
        rows = self._rows(X)
        pair = self.pair_

        def scored(positions: torch.Tensor) -> pd.DataFrame:
            with warnings.catch_warnings(action="ignore", category=UnreliableWarning):
                return log_likelihood(
                    pair.model, pair.guide, rows.subset(positions), num_samples=self.num_samples,
                    seed=self.seed_, progress=False,
                )  # fmt: skip

        frame = in_groups(rows, scored)
        few = int(unreliable_rows(frame, self.num_samples).sum())
        if few:
            warnings.warn(
                f"score_samples: few draws count in {few} of {len(frame)} rows, whose "
                "log-likelihoods are most often too low; raise num_samples, or take a better guide",
                UnreliableWarning,
                stacklevel=2,
            )
        return frame["log_prob"].to_numpy(dtype=np.float64, copy=True)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Return the mean log-likelihood of rows, in nats a row; higher is better.

        Args:
            X: (rows, columns).
            y: Not read.
        """
        return float(self.score_samples(X).mean())

    def transform(self, X: Any) -> npt.NDArray[np.float32]:  # noqa: N803
        """Return the codes of rows, (rows, codes): the means of their latents under the guide.

        A latent that is summed out has the probabilities of its values.

        Args:
            X: (rows, columns), with the columns of the fit.
        """
        rows = self._rows(X)
        values: npt.NDArray[np.float32] = self._codes(rows).to_numpy(dtype=np.float32, copy=True)
        return values

    def _codes(self, rows: Rows) -> pd.DataFrame:
        """Return the codes of rows, a column for each number of a latent."""
        pair = self.pair_

        def coded(positions: torch.Tensor) -> pd.DataFrame:
            return encode(
                pair.model, pair.guide, rows.subset(positions), seed=self.seed_, progress=False
            )

        frame = in_groups(rows, coded)
        return frame.loc[:, [column[1] != "sd" for column in frame.columns]]

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[Any]:
        """Return the names of the codes: the latent's name and a number, ``z0``, ``z1``, ....

        Args:
            input_features: Not read; the codes are no columns of X.
        """
        check_is_fitted(self)
        return np.asarray([f"{site}{index}" for site, _, index in self.codes_], dtype=object)

    def inverse_transform(self, Z: Any) -> Any:  # noqa: N803
        """Return the rows that the model expects for codes.

        Args:
            Z: (rows, codes), as ``transform`` returns them.

        Returns:
            (rows, columns) of numbers; of a table, a frame with its columns and categories.

        Raises:
            ValueError: If the number of codes is another one, or the latents are summed out, so
                that no code says their value.
        """
        check_is_fitted(self)
        codes = torch.as_tensor(check_array(Z, dtype=np.float64))
        rows = self.pair_.pair.rows(self.pair_.example)
        sizes = self._latent_shapes(rows)
        total = sum(shape.numel() for shape in sizes.values())
        if codes.shape[1] != total:
            raise ValueError(f"Z: expected {total} codes in each row, got {codes.shape[1]}")
        parts = codes.to(torch.get_default_dtype()).split([s.numel() for s in sizes.values()], 1)
        values = {
            name: part.reshape(len(codes), *sizes[name])
            for name, part in zip(sizes, parts, strict=True)
        }
        source = torch.zeros(len(codes), dtype=torch.long)
        made = decode(self.pair_.pair, rows, source, values, self.seed_)
        return self._given_back(made)

    def _latent_shapes(self, rows: Rows) -> dict[str, torch.Size]:
        """Return the shapes of the latents of a row, by site, in the order of the codes."""
        pair = self.pair_.pair
        shapes = {}
        if self.pair_.guide is not None:
            with quiet_look(pair, rows) as batch:
                trace = poutine.trace(pair.guide).get_trace(batch)
            shapes = {name: s["fn"].event_shape for name, s in row_latents(trace, pair).items()}
        if not shapes or any(moment != "mean" for _, moment, _ in self.codes_):
            raise ValueError(
                "inverse_transform: expected a pair whose latents have means as codes, got one "
                "with latents that are summed out, or without a guide; call sample for new rows"
            )
        return {name: shapes[name] for name in dict.fromkeys(site for site, _, _ in self.codes_)}

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Return new rows that the model draws.

        Args:
            n_samples: Number of rows.
            random_state: Seed of the draws; ``None`` for that of the fit, so that the same call
                gives the same rows.

        Returns:
            (n_samples, columns) of numbers; of a table, a frame with its columns and categories.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        seed = self.seed_
        if random_state is not None:
            seed = int(check_random_state(random_state).randint(2**31 - 1))
        pair = self.pair_
        return self._given_back(
            generate(
                pair.model, pair.guide, pair.example, num_samples=n_samples, seed=seed,
                progress=False,
            )
        )  # fmt: skip

    def _given_back(self, rows: Any) -> Any:
        """Return rows of the library in the form of X: a frame of a table, else an array."""
        if isinstance(rows, pd.DataFrame):
            return rows
        return np.asarray(rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = isinstance(self.model, str) and self.model == "table"
        tags.transformer_tags.preserves_dtype = []
        return tags
