"""The code that defines a pair: the copies in a run, or the files of the live objects."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppl_vae.core.half import Half
from ppl_vae.core.pair import Pair
from ppl_vae.saving.rebuild_check import source_of, source_text
from ppl_vae.saving.storage import read_bytes, sha256


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


def sources_of_run(path: Path, info: Mapping[str, Any]) -> Iterator[Source]:
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


def sources_of_pair(pair: Pair) -> Iterator[Source]:
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
    file, name = source_of(half.base), half_name(half)
    if file is not None:
        text = file.read_bytes().decode(errors="replace")
        return Source(half.role, text, f"from {file.name}, as it is now")
    try:
        return Source(half.role, source_text(half.base), f"from {name}, as it is now")
    except (OSError, TypeError):  # a class or function made by exec, or in an interactive session
        return Source(half.role, "", f"no code of {name} can be found")


def half_name(half: Half) -> str:
    """Return the name of the class or function of a model or guide."""
    name = getattr(half.base, "__qualname__", type(half.base).__qualname__)
    return str(name).replace("<locals>.", "")
