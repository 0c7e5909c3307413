"""The pair of an estimator: made from names of the zoo or by a function, and copied."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ppl_vae.arguments import shown
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import as_rows
from ppl_vae.data.templates import example_rows
from ppl_vae.saving.kept_code import KeptCode
from ppl_vae.saving.recipes import NoRecipeError, describe, rebuild_pair
from ppl_vae.zoo.build import build
from ppl_vae.zoo.catalog import find_class, zoo

GUIDES: Mapping[str, str] = {
    "table": "table", "ppca": "linear", "factor_analysis": "linear", "topics": "dirichlet",
    "hierarchical": "top_down", "discrete": "categorical", "sigmoid_belief": "bernoulli",
    "vector_quantized": "nearest_code", "not_missing_at_random": "missing_cells",
    "bayesian_decoder": "mean_field", "semisupervised": "classifier",
    "semisupervised_gaussian": "classifier",
}  # fmt: skip
"""The guide that ``guide="auto"`` takes, by the model's name; ``normal`` for the other models."""

Maker = Callable[..., tuple[Model, Guide]]


def make_pair(
    data: Any,
    model: str | Maker,
    guide: str | None,
    *,
    latents: int | None,
    model_arguments: Mapping[str, Any] | None,
    guide_arguments: Mapping[str, Any] | None,
    seed: int,
) -> tuple[Model, Guide]:
    """Return a new pair for some data.

    Args:
        data: The rows.
        model: Name of a model of the zoo, ``"file.py:Class"``, or a function of the data that
            returns the model and the guide.
        guide: Name of a guide; ``"auto"`` for the one that fits the model; ``None`` for none.
        latents: Number of latents, for both; ``None`` for the classes' own default.
        model_arguments: More arguments of the model's class, or of the function.
        guide_arguments: More arguments of the guide's class.
        seed: Seeds the first weights.

    Raises:
        ValueError: If a name is unknown, or an argument does not belong to the class.
    """
    more, of_guide = dict(model_arguments or {}), dict(guide_arguments or {})
    if callable(model) and not isinstance(model, type):
        if guide != "auto" or of_guide:
            raise ValueError(
                'guide: expected "auto" and no guide_arguments beside a function for the model, '
                f"which returns model and guide, got {shown(guide)}"
            )
        given = more if latents is None else {**more, "latents": latents}
        _check_maker(model, more, given)
        with forked(seed):
            return _two_halves(model(data, **given))
    if not isinstance(model, str):
        raise ValueError(
            "model: expected a name of the zoo or a function of the data that returns (model, "
            f"guide), got {shown(model)}"
        )
    model_class = _found("model", model, "models")
    guide_class = _guide_class(model, guide)
    if latents is not None:
        halves = ((model_class, more), (guide_class, of_guide))
        takers = [arguments for cls, arguments in halves if cls is not None and _has_latents(cls)]
        if not takers:
            raise ValueError(
                f"latents: expected None for the model {model}, whose latents have no size to "
                f"choose, got {shown(latents)}; its other sizes are model_arguments"
            )
        for arguments in takers:
            arguments.setdefault("latents", latents)
    refuse_unknown("model_arguments", model_class, more)
    if guide_class is not None:
        refuse_unknown("guide_arguments", guide_class, of_guide)
    with forked(seed):
        return _built(data, model_class, guide_class, more, of_guide)


def refuse_unknown(argument: str, taker: Callable[..., Any], given: Iterable[str]) -> None:
    """Raise ``ValueError`` for names that a class or a function has no arguments for.

    Args:
        argument: The estimator's parameter that holds the names.
        taker: The class, or the function, whose first argument is the data.
        given: The names.
    """
    parameters = inspect.signature(taker).parameters
    known = list(parameters)[0 if isinstance(taker, type) else 1 :]
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    if unknown := [name for name in given if name not in known]:
        name = getattr(taker, "__name__", shown(taker))
        raise ValueError(f"{argument}: expected arguments of {name} among {known}, got {unknown}")


def _check_maker(model: Maker, more: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless a user's function takes the data and what is given beside them.

    Args:
        model: The function.
        more: The arguments of ``model_arguments``.
        given: These, and the latents where their number is given.
    """
    refuse_unknown("model_arguments", model, more)
    try:
        refuse_unknown("latents", model, given)
    except ValueError as error:
        raise ValueError(
            "model: expected a function of the data with the argument latents, whose number is "
            f"given, got {shown(model)}; or latents=None"
        ) from error
    try:
        inspect.signature(model).bind(None, **given)
    except TypeError as error:
        raise ValueError(
            f"model: expected a function of the data{''.join(f' and {name}' for name in given)}, "
            f"got one with a {error}"
        ) from error


def _found(argument: str, name: str, kind: str) -> type[Any]:
    """Return the class that a name stands for; an error names the estimator's parameter."""
    try:
        return find_class(name, kind)
    except ValueError as error:
        raise ValueError(f"{argument}: {str(error).removeprefix(f'{kind}: ')}") from error


def _has_latents(cls: type[Any]) -> bool:
    """Return whether the constructor of a class has the argument ``latents``."""
    return "latents" in inspect.signature(cls).parameters


def _two_halves(made: Any) -> tuple[Model, Guide]:
    """Return what a user's function returned; raise ``ValueError`` if it is no pair."""
    if not isinstance(made, tuple) or len(made) != 2 or not callable(made[0]):
        raise ValueError(
            f"model: expected a function that returns (model, guide), got one that returned "
            f"{shown(made)}; the guide is None where the model has no latents to draw"
        )
    return made[0], made[1]


def _guide_class(model: str, guide: str | None) -> type[Any] | None:
    """Return the class of the guide that goes with a model; ``None`` where it needs none."""
    if guide == "auto":
        entry = zoo("models").get(model)
        if entry is not None and not entry.needs_guide:
            return None
        guide = GUIDES.get(model, "normal")
    return None if guide is None else _found("guide", guide, "guides")


def _built(
    data: Any,
    model_class: type[Any],
    guide_class: type[Any] | None,
    of_model: dict[str, Any],
    of_guide: dict[str, Any],
) -> tuple[Model, Guide]:
    """Return the pair of two classes; a half that is built around the other is made after it."""
    if guide_class is None:
        return build(model_class, data, **of_model), None
    if "guide" in inspect.signature(model_class).parameters and "guide" not in of_model:
        guide = build(guide_class, data, **of_guide)
        return build(model_class, data, guide=guide, **of_model), guide
    model = build(model_class, data, **of_model)
    partner = {"model": model} if "model" in inspect.signature(guide_class).parameters else {}
    return model, build(guide_class, data, **{**partner, **of_guide})


class FittedPair:
    """A fitted pair that can be copied and pickled, and what the library remembers of its fit.

    Names of columns, the schema of a table and weights of ``pyro.param`` are stored by the library
    beside the pair, so that a pickle of the two halves would lack them. A pair of the zoo is
    written as its recipe and its weights, and made anew from these; the halves of any other pair
    are pickled as they are, which takes classes and functions that pickle finds by their names.

    Args:
        model: The model.
        guide: The guide, or ``None``.
        form: The form of the rows of the fit (``Rows.template``).
        of_zoo: Whether the two halves are as their constructors made them, but for the weights.

    Attributes:
        model: The model.
        guide: The guide, or ``None``.
    """

    def __init__(self, model: Model, guide: Guide, form: dict[str, Any], *, of_zoo: bool) -> None:
        self.model, self.guide, self.form, self.of_zoo = model, guide, form, of_zoo

    @property
    def pair(self) -> Pair:
        """The two halves together."""
        return Pair.of(self.model, self.guide, "data")

    @property
    def example(self) -> Any:
        """Two rows of zeros in the form of the rows of the fit."""
        return example_rows(self.form)

    def _recipe(self) -> dict[str, Any] | None:
        """Return the recipe of a pair of the zoo; ``None`` where it has none."""
        if not self.of_zoo:
            return None
        of_model = {} if self.guide is None else {"guide": self.guide}
        try:
            model = describe(self.model, of_model)
            guide = None if self.guide is None else describe(self.guide, {"model": self.model})
            return {"model": model, "guide": guide}
        except NoRecipeError:
            return None

    def __getstate__(self) -> dict[str, Any]:
        pair, recipe = self.pair, self._recipe()
        halves = (pair.model, pair.guide)
        tensors = {name: tensor.detach().cpu() for name, tensor in pair.tensors().items()}
        return {
            "recipe": recipe,
            "halves": (self.model, self.guide) if recipe is None else None,
            "tensors": {name: tensor.clone() for name, tensor in tensors.items()},
            "frozen": [n for n, p in pair.parameters().items() if not p.requires_grad],
            "columns": [half.columns for half in halves],
            "fields": pair.model.fitted_fields,
            "form": self.form,
            "of_zoo": self.of_zoo,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["recipe"] is None:
            self.model, self.guide = state["halves"]
        else:
            self.model, self.guide = rebuild_pair(state["recipe"], KeptCode(Path(), {}))
        self.form, self.of_zoo = state["form"], state["of_zoo"]
        pair = self.pair
        pair.load_tensors(state["tensors"], as_rows(self.example).take(torch.arange(2)))
        pair.freeze(state["frozen"])
        for half, columns in zip((pair.model, pair.guide), state["columns"], strict=True):
            half.remember_columns(columns)
        if state["fields"] is not None:
            pair.model.remember_fields(state["fields"])
