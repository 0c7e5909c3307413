"""What is known of a fit without any data: from its run, its history and the pair itself."""

from __future__ import annotations

import importlib.metadata
import io
import math
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ppl_vae.core.pair import Half, Pair
from ppl_vae.data.rows import Rows
from ppl_vae.saving.rebuild_check import source_of, source_text
from ppl_vae.saving.recipe import describe
from ppl_vae.saving.runs import read_run
from ppl_vae.saving.snapshots import METRICS
from ppl_vae.saving.storage import read_bytes, sha256
from ppl_vae.training.history import History

Function = Callable[..., Any]
Fact = tuple[str, str]
ENDED = {
    "epochs": "the number of epochs that was asked for",
    "patience": "patience: no better held-out ELBO for long enough",
    "callback": "a callback ended it",
    "interrupted": "interrupted by Ctrl-C",
}
STATUS = {
    "running": "running, or cut off before its end",
    "not finite": "ended by a loss or gradient that was not finite",
    "saved": "saved; it was not fitted in this directory",
}
OPTIONS = ("lr", "betas", "weight_decay", "momentum", "alpha")  # of an optimizer, worth a line


@dataclass(frozen=True)
class Source:
    """Text that defines a half of the pair.

    Attributes:
        title: Which half, and the file's name.
        text: The text; empty where there is none.
        note: Where it is from, or why there is none.
    """

    title: str
    text: str
    note: str


@dataclass(frozen=True)
class FitFacts:
    """A pair and how it came to be.

    Attributes:
        model: The model as a call, ``GaussianModel(features=13, latents=2)``.
        guide: The guide likewise; ``None`` for a pair without one.
        names: Names of model and guide.
        history: The fit's history; ``None`` where it is not known.
        info: ``run.json``; empty without a run.
        sources: The code of the pair.
    """

    model: str
    guide: str | None
    names: tuple[str, str | None]
    history: History | None
    info: Mapping[str, Any]
    sources: list[Source]

    @classmethod
    def of(
        cls, model: Function | None, guide: Function | None, history: History | None, run: Any
    ) -> FitFacts:
        """Read a run (which wins), or look at the pair itself.

        Raises:
            ValueError: Where the run is none, or damaged.
        """
        if run is None:
            assert model is not None
            pair = Pair.of(model, guide, "data")
            halves = [pair.model, pair.guide]
            calls = [None if half.is_prior else _call_of(half, pair) for half in halves]
            names = [None if half.is_prior else _name(half.base) for half in halves]
            return cls(
                str(calls[0]), calls[1], (str(names[0]), names[1]), history, {},
                list(_live_sources(pair)),
            )  # fmt: skip
        held = read_run(run)
        info, recipe = held.info, held.info["recipe"] or {}
        calls = [
            recipe_as_call(recipe[half]) if recipe.get(half) else info[half]
            for half in ("model", "guide")
        ]
        return cls(
            str(calls[0]), calls[1], (str(info["model"]), info["guide"]),
            history or _history(held.path, info), info, list(_kept_sources(held.path, info)),
        )  # fmt: skip

    @property
    def ending(self) -> str:
        """How the fit ended, in words; empty where it is not known."""
        kept = self.info.get("history") or {}
        if "error" in kept:
            return f"{STATUS['not finite']}: {kept['error']}"
        if self.info.get("status") in STATUS:
            return STATUS[self.info["status"]]
        if self.history is None:
            return ""
        return ENDED.get(self.history.stopped, self.history.stopped)

    def settings(self) -> Iterator[Fact]:
        """The fit's settings, in the words of its arguments."""
        kept = self.info.get("settings") or {}
        if not kept:
            return
        options = ", ".join(
            f"{name} {kept['optimizer_defaults'][name]}"
            for name in OPTIONS
            if name in kept["optimizer_defaults"]
        )
        yield "optimizer", f"{kept['optimizer']}{f' ({options})' if options else ''}"
        if kept["scheduler"] != "NoneType":
            yield "scheduler", kept["scheduler"]
        yield "batch size", f"{kept['batch_size']} rows"
        yield "KL weight", f"{kept['kl_weight']}"
        if kept["clip_norm"] is not None:
            yield "clip norm", f"{kept['clip_norm']:g}"
        yield "particles", f"{kept['num_particles']}"
        count = sum(math.prod(shape) for _, shape in kept["trained"])
        yield "trained", f"{count:,} numbers in {len(kept['trained'])} parameters"

    def versions(self) -> tuple[dict[str, str], dict[str, str]]:
        """What the fit ran with (empty where it is not known), and what this process runs with."""
        names = ("ppl-vae", "pyro-ppl", "torch", "numpy", "pandas", "matplotlib")
        now = {"python": platform.python_version()}
        for name in names:
            try:
                now[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                now[name] = "unknown"
        return dict(self.info.get("versions") or {}), now


def recipe_as_call(recipe: Mapping[str, Any]) -> str:
    """A recipe as the call that it stands for."""
    name = str(recipe["class"]).partition(":")[2]
    arguments = ", ".join(f"{key}={_short(item)}" for key, item in recipe["arguments"].items())
    return f"{name}({arguments})"


def describe_fields(template: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...], list[str]]]:
    """Each field of the data: its name (empty for the only one), shape of a row, columns."""
    fields = template["fields"]
    names = template["keys"] or (
        [""] if template["single"] else [f"field {i}" for i in range(len(fields))]
    )
    return [
        (str(name), tuple(field["shape"]), _labels(field))
        for name, field in zip(names, fields, strict=True)
    ]


def split_of(rows: Rows, info: Mapping[str, Any]) -> dict[str, Tensor]:
    """Which of the rows a fit was made on and which it held out: their positions.

    The checksums of a run tell; a fraction that was held out is split off again and compared.

    Args:
        rows: All rows.
        info: ``run.json``.

    Returns:
        ``{"fitted": (rows,), "held out": (rows,)}``, without what is not there; empty where these
        are other rows, or nothing is known.
    """
    kept = info.get("settings") or {}
    every = torch.arange(len(rows))
    whole = rows.fingerprint()
    for name, key in (("fitted", "data"), ("held out", "validation")):
        if kept and whole == kept[key]:
            return {name: every}
    fraction = 1 - (info.get("rows") or len(rows)) / len(rows)
    if not kept or kept["validation"] is None or kept["seed"] is None or not 0 < fraction < 1:
        return {}
    try:
        fitted, held_out = rows.split(fraction, kept["seed"])
    except ValueError:
        return {}
    if fitted.fingerprint() != kept["data"]:
        return {}
    return {
        "fitted": fitted.positions_in_data(every[: len(fitted)]),
        "held out": held_out.positions_in_data(every[: len(held_out)]),
    }


# The history of a run


def _history(path: Path, info: Mapping[str, Any]) -> History | None:
    """From the record that grows during a fit; ``None`` before its first epoch."""
    frame = _metrics(path / METRICS)
    if frame is None or "objective" not in info:
        return None
    kept = info.get("history") or {}
    held_out = frame["validation_elbo"]
    best = int(held_out.argmax()) if held_out.notna().any() else -1
    return History(
        frame=frame,
        objective=info["objective"],
        reason=info["reason"],
        stopped=kept.get("stopped", ""),
        best_epoch=int(kept.get("best_epoch") or frame["epoch"].iloc[best]),
        step=kept.get("step_kind", ""),
        step_reason=kept.get("step_reason", ""),
    )


def _metrics(path: Path) -> pd.DataFrame | None:
    """The whole lines of a record, whose last one may be cut."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return None
    whole = text[: text.rfind("\n") + 1]
    columns = ["epoch", "step", "elbo", "validation_elbo", "seconds"]
    if not whole.startswith(",".join(columns)) or whole.count("\n") < 2:
        return None
    frame = pd.read_csv(io.StringIO(whole), on_bad_lines="skip")
    numbers = pd.DataFrame({name: pd.to_numeric(frame[name], errors="coerce") for name in columns})
    return numbers.dropna(subset=["epoch", "step"]).reset_index(drop=True)


# Names and calls


def _call_of(half: Half, pair: Pair) -> str:
    """A half as a call, where its arguments can be told."""
    partners = {} if pair.guide.is_prior else {"model": pair.model.base, "guide": pair.guide.base}
    partners.pop(half.role, None)
    try:
        return recipe_as_call(describe(half.base, partners))
    except (ValueError, TypeError):  # functions; classes that say nothing of their arguments
        return _name(half.base)


def _name(base: Any) -> str:
    return str(getattr(base, "__qualname__", type(base).__qualname__)).replace("<locals>.", "")


def _short(value: Any) -> str:
    if not isinstance(value, Mapping):
        return repr(value)
    if "object" in value:
        return recipe_as_call(value["object"])
    if "tensor" in value:
        held = value["tensor"]
        return f"tensor of {len(held)}" if isinstance(held, list) else str(held)
    if "list" in value:
        return "(" + ", ".join(_short(item) for item in value["list"]) + ")"
    return str(value.get("type") or value.get("partner"))


def _labels(field: Mapping[str, Any]) -> list[str]:
    labels = field["labels"]
    if labels is None:
        return []
    return [str(label) for label in labels] if isinstance(labels, list) else [str(labels)]


# Code


def _kept_sources(path: Path, info: Mapping[str, Any]) -> Iterator[Source]:
    """The copies that a run holds."""
    kept: dict[str, list[str]] = {}
    for name in info["sources"]:
        kept.setdefault(info["sources"][name], []).append(name)
    for checksum, names in kept.items():  # one file may define both
        halves = " and ".join(Path(name).stem for name in names)
        content = read_bytes(path / names[0])
        changed = "" if sha256(content) == checksum else "; CHANGED since, not what was fitted"
        note = f"as it was when the run began, kept in {', '.join(names)}{changed}"
        yield Source(halves, content.decode(errors="replace"), note)
    told = " ".join(info["sources"])
    for half in ("model", "guide"):
        if info[half] is not None and f"{half}.py" not in told:
            yield Source(half, "", f"the run holds no code of {info[half]}: it was in no file")


def _live_sources(pair: Pair) -> Iterator[Source]:
    """The files that define the halves now, or what the interpreter remembers of them."""
    texts: dict[str, list[Source]] = {}
    for half in (pair.model, pair.guide):
        if not half.is_prior:
            found = _live_source(half)
            texts.setdefault(found.text or found.note, []).append(found)
    for same in texts.values():
        yield Source(" and ".join(one.title for one in same), same[0].text, same[0].note)


def _live_source(half: Half) -> Source:
    file = source_of(half.base)
    if file is not None:
        text = file.read_bytes().decode(errors="replace")
        return Source(half.role, text, f"from {file.name}, as it is now")
    try:
        return Source(half.role, source_text(half.base), f"from {_name(half.base)}, as it is now")
    except (OSError, TypeError):
        return Source(half.role, "", f"no code of {_name(half.base)} can be found")
