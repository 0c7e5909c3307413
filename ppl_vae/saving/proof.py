"""The proof of a recipe: it must rebuild the same pair from the very bytes that are kept.

A recipe is a claim. The files on the disk may have been edited since they were imported, so that
the pair in memory runs other code than the run would keep; an attribute may have been changed
after construction; a constructor may read the clock. So the claim is tested before it is stored:

1. The kept files are executed, from the bytes that the run will hold, and the recipe builds a
   second pair from their classes. The weights of the first are loaded into it.
2. Attributes that bear the names of constructor arguments, and all settings of torch's layers
   (the ``p`` of a dropout, the ``eps`` of a normalization), must be equal.
3. Both pairs run on the same rows with the same random state. Every drawn value and every
   log-probability must agree bit for bit. Without rows, the code and the constants that the
   classes reach are compared.

Where a recipe of the arguments as they were given fails, one of the attributes is tried. Where
both fail, the run holds weights alone.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import CodeType
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.core.world import same_bits
from ppl_vae.data.rows import Batch, Rows
from ppl_vae.saving.kept_code import KeptCode, origin
from ppl_vae.saving.recipes import NoRecipeError, describe, rebuild_pair
from ppl_vae.saving.sources import Sources, definition_of
from ppl_vae.saving.statements import reached_statements

_CHECKING: ContextVar[bool] = ContextVar("checking", default=False)

ROWS_COMPARED = 16
"""The most rows on which a rebuilt pair is compared with the original."""


def proven_recipe(
    pair: Pair, rows: Rows | None, sources: Sources, folder: Path
) -> tuple[dict[str, Any] | None, str]:
    """Return a recipe that has rebuilt the pair, or why there is none.

    Args:
        pair: The pair.
        rows: Rows to run both pairs on; ``None`` where the pair is saved without data.
        sources: The user's code, as it is kept in the run directory.
        folder: The run directory, which need not exist yet.

    Returns:
        ``(recipe, "")``, or ``(None, reason)``.
    """
    reasons = []
    for recorded in (True, False):
        try:
            recipe = described_pair(pair, sources, recorded=recorded, strict=rows is None)
        except (ValueError, TypeError) as error:  # TypeError: a class without a signature
            reasons.append(sources.fault or str(error))
            continue
        reason = fault(recipe, pair, rows, sources, folder)
        if not reason:
            return recipe, ""
        reasons.append(reason)
    return None, reasons[0]


def described_pair(
    pair: Pair, sources: Sources, *, recorded: bool = True, strict: bool = False
) -> dict[str, Any]:
    """Return the recipe of both halves, unproven.

    Raises:
        NoRecipeError: If a half cannot be described, or its file was not kept.
    """
    model, guide = pair.model.base, None if pair.guide.is_prior else pair.guide.base
    roles = {"model": model, "guide": guide}
    recipe: dict[str, Any] = {}
    for part in (pair.model, pair.guide):
        if part.function is not part.base and not part.is_prior:
            raise NoRecipeError(
                f"the {part.role} is wrapped in a handler of Pyro or in functools.partial, which "
                "no recipe can make again"
            )
    for role, half in roles.items():
        partners = {r: other for r, other in roles.items() if r != role and other is not None}
        recipe[role] = half if half is None else describe(
            half, partners, files=sources.modules, recorded=recorded, strict=strict
        )  # fmt: skip
    if inspect.ismethod(model) and getattr(guide, "__self__", None) is model.__self__:
        recipe["guide"]["shared"] = True
    return recipe


def fault(
    recipe: dict[str, Any], pair: Pair, rows: Rows | None, sources: Sources, folder: Path
) -> str:
    """Return why a recipe does not rebuild a pair from the kept files; "" where it does.

    Args:
        recipe: The recipe of both halves.
        pair: The pair, with any weights.
        rows: Rows to run both pairs on, or ``None``.
        sources: The user's code, as it is kept.
        folder: The run directory.
    """
    code = sources.code(folder, "proof")
    checking = _CHECKING.set(True)
    try:
        with _undisturbed():
            rebuilt = Pair.of(*rebuild_pair(recipe, code), pair.plate)
            for module in rebuilt.modules():  # devices draw different numbers from one seed
                module.to(pair.device())
            rebuilt.load_tensors(pair.tensors(), None if rows is None else _first_rows(rows))
            attribute = _other_attribute(pair, rebuilt)
            if attribute:
                raise NoRecipeError(f"{attribute} was changed after the pair was made")
            edited = _other_code(pair, code, sources)
            if rows is None:
                same = not edited
            else:
                batch = _first_rows(rows, pair.device())
                numbers, again = (_values_and_log_probs(p, batch) for p in (pair, rebuilt))
                same = _equal(numbers, again)
        if not same and edited:
            found = "the rebuilt pair gives other numbers" if rows is not None else (
                "the rebuilt pair may give other numbers (pass data= to see whether it does)"
            )  # fmt: skip
            raise NoRecipeError(
                f"{edited} is not what the kept file defines, since the file was edited after its "
                f"import or the program changed the value, and {found}; begin a new process"
            )
        if not same:
            raise NoRecipeError(
                "the rebuilt pair gives other numbers: the pair was changed after it was made, or "
                "a file that it uses was edited after it was imported"
            )
    except ValueError as error:
        return str(error)
    except (Exception, SystemExit) as error:  # a constructor may be anybody's code
        return f"{type(error).__name__}: {error}"
    finally:
        _CHECKING.reset(checking)
        code.forget()
    return ""


def refuse_within_a_check(name: str) -> None:
    """Raise ``ValueError`` where a file that is executed to test a recipe fits or saves a pair.

    A file that fits at its top level would fit again each time it is executed, and its fit would
    execute it again.

    Args:
        name: Name of the function that was called, ``"fit"`` or ``"save"``.
    """
    if _CHECKING.get():
        raise ValueError(
            f"{name}: called while the file that defines the model or the guide is executed once "
            'more to test the recipe of a run; put the call under if __name__ == "__main__":, or '
            "the classes into a file of their own"
        )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Execute the user's files a second time without effect on the process.

    At their first import they may have seeded generators, chosen a default dtype, printed, warned,
    or cleared Pyro's parameter store. All of these are put back as they are now.
    """
    store, dtype = pyro.get_param_store(), torch.get_default_dtype()
    before = {name: dict(part) for name, part in vars(store).items() if isinstance(part, dict)}
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with forked(0), warnings.catch_warnings(), quiet[0], quiet[1]:
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            for name, part in before.items():
                vars(store)[name].clear()
                vars(store)[name].update(part)


def _other_attribute(pair: Pair, rebuilt: Pair) -> str:
    """Return the first setting that differs between the modules of two pairs; "" if none does."""
    for half, other in ((pair.model, rebuilt.model), (pair.guide, rebuilt.guide)):
        if half.module is None or other.module is None:
            continue
        others = dict(other.module.named_modules())
        for name, module in half.module.named_modules():
            if name not in others:
                continue
            for attribute in _settings(module):
                left, right = (vars(m).get(attribute, ...) for m in (module, others[name]))
                if _is_plain(left) and _is_plain(right) and repr(left) != repr(right):
                    return ".".join(filter(None, [half.role, name, attribute]))
    return ""


def _settings(module: nn.Module) -> list[str]:
    """Return the attributes of a module that decide what it computes, as far as that is known."""
    if type(module).__module__.startswith("torch.nn.modules."):
        return [name for name in vars(module) if name[0] != "_" and name != "training"]
    try:
        return list(inspect.signature(type(module)).parameters)
    except (TypeError, ValueError):
        return []


def _is_plain(value: Any) -> bool:
    """Return whether a value is a number, a text, or a list or tuple of these."""
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _other_code(pair: Pair, code: KeptCode, sources: Sources) -> str:
    """Return the first thing that the pair runs and the kept files define otherwise; "" if none.

    Compared is what the halves' definitions reach: the code of functions and methods, and numbers,
    texts and tensors. Of what the user has loaded from another run the bytes are the same anyway.
    """
    for half in (pair.model, pair.guide):
        if half.role not in sources.roots or origin(definition_of(half.base).__module__):
            continue
        for module, name in reached_statements(sources.contents(), *sources.roots[half.role]):
            live, kept = vars(sys.modules.get(module, object)), vars(code.module(module))
            if name in live and name in kept and _substance(live[name]) != _substance(kept[name]):
                return f"{name} in the file of {module}"
    return ""


def _substance(thing: Any) -> Any:
    """Return what a function, a class or a value is made of, to compare; ``None`` for the rest."""
    if isinstance(thing, type):
        members = {n: m for n, m in vars(thing).items() if not n.startswith("__") or callable(m)}
        return {name: _substance(getattr(m, "__func__", m)) for name, m in members.items()}
    if inspect.isfunction(thing):
        return _instructions(thing.__code__), repr(_substance(list(thing.__defaults__ or ())))
    if isinstance(thing, Tensor):
        return repr(thing.detach().cpu().tolist()), str(thing.dtype)
    if isinstance(thing, dict):
        return [(repr(key), _substance(item)) for key, item in thing.items()]
    if isinstance(thing, list | tuple):
        return [_substance(item) for item in thing]
    return repr(thing) if _is_plain(thing) else None


def _instructions(code: CodeType) -> tuple[Any, ...]:
    """Return a function's instructions and constants, those of functions within it included."""
    constants = [_instructions(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, tuple(constants)


def _first_rows(rows: Rows, device: torch.device | None = None) -> Batch:
    """Return a batch of the first rows, at most ``ROWS_COMPARED``."""
    return rows.take(torch.arange(min(len(rows), ROWS_COMPARED)), device)


def _values_and_log_probs(pair: Pair, batch: Batch) -> list[Tensor]:
    """Return the value and the log-probability of every sample site, model first, from seed 0."""
    with forked(0), pair.evaluating(), pyro.validation_enabled(False):
        traces = sites.traces(pair, batch)
    drawn = [site for trace in traces for site in sites.sample_sites(trace).values()]
    return [tensor for s in drawn for tensor in (s["value"], s["fn"].log_prob(s["value"]))]


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    """Return whether two lists hold the same tensors, bit for bit."""
    return len(first) == len(second) and all(map(same_bits, first, second))
