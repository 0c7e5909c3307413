"""What is known about a fit without any data: from its run, its history and the pair itself."""

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ppl_vae.core.half import Half
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.report.run_facts import ending, half_as_call, read_history, recipe_as_call
from ppl_vae.report.source_code import Source, half_name, sources_of_pair, sources_of_run
from ppl_vae.saving.recipe import describe
from ppl_vae.saving.runs import read_run
from ppl_vae.training.history import History


@dataclass(frozen=True)
class FitFacts:
    """A pair, and how the pair was fitted.

    Attributes:
        model: The model as a constructor call, ``GaussianModel(features=13, latents=2)``.
        guide: The guide as a constructor call; ``None`` for a pair without a guide.
        names: Names of model and guide.
        history: The history of the fit; ``None`` where it is not known.
        info: The contents of ``run.json``; empty without a run.
        sources: The code of the pair.
    """

    model: str
    guide: str | None
    names: tuple[str, str | None]
    history: History | None
    info: Mapping[str, Any]
    sources: list[Source]

    @classmethod
    def of_run(cls, run: str | Path, history: History | None = None) -> Self:
        """Read the facts of a fit from its run directory.

        Args:
            run: The run directory.
            history: Used in place of the history that the run recorded.

        Raises:
            ValueError: Where the directory is not a run, or is damaged.
        """
        opened = read_run(run)
        info = opened.info
        return cls(
            model=str(half_as_call(info, "model")),
            guide=half_as_call(info, "guide"),
            names=(str(info["model"]), info["guide"]),
            history=history or read_history(opened.path, info),
            info=info,
            sources=list(sources_of_run(opened.path, info)),
        )

    @classmethod
    def of_pair(cls, model: Model, guide: Guide, history: History | None = None) -> Self:
        """Read the facts of a fit from the pair and the history that ``fit`` returned."""
        pair = Pair.of(model, guide, "data")
        has_guide = not pair.guide.is_prior
        return cls(
            model=_half_as_call(pair.model, pair),
            guide=_half_as_call(pair.guide, pair) if has_guide else None,
            names=(half_name(pair.model), half_name(pair.guide) if has_guide else None),
            history=history,
            info={},
            sources=list(sources_of_pair(pair)),
        )

    @property
    def ending(self) -> str:
        """How the fit ended, in words; empty where that is not known."""
        return ending(self.info, self.history)


def versions_now() -> dict[str, str]:
    """Return the versions of Python and of the packages that this process runs with."""
    names = ("ppl-vae", "pyro-ppl", "torch", "numpy", "pandas", "matplotlib")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def _half_as_call(half: Half, pair: Pair) -> str:
    """Return a live model or guide as a constructor call; its name where arguments are unknown."""
    partners = {} if pair.guide.is_prior else {"model": pair.model.base, "guide": pair.guide.base}
    partners.pop(half.role, None)
    try:
        return recipe_as_call(describe(half.base, partners))
    except (ValueError, TypeError):  # a function, or a class whose attributes lack the arguments
        return half_name(half)
