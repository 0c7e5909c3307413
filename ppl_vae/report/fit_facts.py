"""What is known about a fit without any data: from its run, its history, the pair and its code."""

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ppl_vae.core.half import Half
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.report.run_facts import ending, half_as_call, read_history, recipe_as_call
from ppl_vae.saving.recipes import describe
from ppl_vae.saving.runs import read_run
from ppl_vae.saving.sources import source_of, source_text
from ppl_vae.saving.storage import read_bytes, sha256
from ppl_vae.training.history import History


@dataclass(frozen=True)
class Source:
    """The code of the model, of the guide, or of both where one file defines both.

    Attributes:
        title: ``"model"``, ``"guide"`` or ``"model and guide"``.
        text: The code; empty where there is none.
        note: Where the code is from, or why there is none.
    """

    title: str
    text: str
    note: str


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
            ValueError: If the directory is not a run, or is damaged.
        """
        opened = read_run(run)
        info = opened.info
        return cls(
            model=str(half_as_call(info, "model")), guide=half_as_call(info, "guide"),
            names=(str(info["model"]), info["guide"]), info=info,
            history=history or read_history(opened.path, info),
            sources=list(_sources_of_run(opened.path, info)),
        )  # fmt: skip

    @classmethod
    def of_pair(cls, model: Model, guide: Guide, history: History | None = None) -> Self:
        """Read the facts of a fit from the pair and the history that ``fit`` returned."""
        pair = Pair.of(model, guide, "data")
        has_guide = not pair.guide.is_prior
        return cls(
            model=_half_as_call(pair.model, pair),
            guide=_half_as_call(pair.guide, pair) if has_guide else None,
            names=(_half_name(pair.model), _half_name(pair.guide) if has_guide else None),
            history=history, info={}, sources=list(_sources_of_pair(pair)),
        )  # fmt: skip

    @property
    def ending(self) -> str:
        """How the fit ended, in words; empty where that is not known."""
        return ending(self.info, self.history)


def versions_now() -> dict[str, str]:
    """Return the versions of Python and of the packages that this process runs with."""
    found = {"python": platform.python_version()}
    for name in ("ppl-vae", "pyro-ppl", "torch", "numpy", "pandas", "matplotlib"):
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
        return _half_name(half)


# The code that defines the pair: the copies in a run, or the files of the live objects


def _sources_of_run(path: Path, info: Mapping[str, Any]) -> Iterator[Source]:
    """Yield the copies of the pair's files that a run holds.

    A copy that was edited after the fit, which its checksum shows, is marked as changed.

    Args:
        path: The run directory.
        info: The contents of ``run.json``.

    Raises:
        ValueError: Where a copy cannot be read.
    """
    files: dict[str, list[str]] = {}
    for name, checksum in info["sources"].items():
        files.setdefault(checksum, []).append(name)
    for checksum, names in files.items():  # two names with one checksum: a file that defines both
        title = " and ".join(Path(name).stem for name in names)
        content = read_bytes(path / names[0])
        changed = "" if sha256(content) == checksum else "; CHANGED since: not the code of the fit"
        note = f"as it was when the fit began, stored in {', '.join(names)}{changed}"
        yield Source(title, content.decode(errors="replace"), note)
    stored = {Path(name).stem for name in info["sources"]}
    for half in ("model", "guide"):
        if info[half] is not None and half not in stored:
            note = f"the run has no code of {info[half]}, which was not defined in a file"
            yield Source(half, "", note)


def _sources_of_pair(pair: Pair) -> Iterator[Source]:
    """Yield the files that define the model and the guide now."""
    texts: dict[str, list[Source]] = {}
    for half in (pair.model, pair.guide):
        if not half.is_prior:
            source = _source_of_half(half)
            texts.setdefault(source.text or source.note, []).append(source)
    for same in texts.values():
        yield Source(" and ".join(source.title for source in same), same[0].text, same[0].note)


def _source_of_half(half: Half) -> Source:
    """Return the file of a half; where it has none, the definition that Python remembers."""
    file, name = source_of(half.base), _half_name(half)
    if file is not None:
        text = file.read_bytes().decode(errors="replace")
        return Source(half.role, text, f"from {file.name}, as it is now")
    try:
        return Source(half.role, source_text(half.base), f"from {name}, as it is now")
    except (OSError, TypeError):  # a class or function made by exec, or in an interactive session
        return Source(half.role, "", f"no code of {name} can be found")


def _half_name(half: Half) -> str:
    """Return the name of the class or function of a model or guide."""
    name = getattr(half.base, "__qualname__", type(half.base).__qualname__)
    return str(name).replace("<locals>.", "")
