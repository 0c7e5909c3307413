"""Checks of the arguments that many public functions share: counts, seeds, flags, paths, names.

Every public function calls ``check_arguments`` before it does anything else, so that a wrong
argument is refused at once, by its name, and the same words are used everywhere.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 2**63 - 1
"""The largest whole number that torch takes as a size."""


def check_arguments(**arguments: Any) -> None:
    """Raise ``ValueError`` at the first argument that has not the form its name stands for.

    Args:
        arguments: Arguments of a public function, by name; each name is one of ``_CHECKS``.

    Example:
        >>> check_arguments(num_samples=100, seed=0, progress=False)
        >>> check_arguments(num_samples=0)
        Traceback (most recent call last):
        ValueError: num_samples: expected a whole number of at least 1, got 0
    """
    for name, value in arguments.items():
        _CHECKS[name](name, value)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise ``ValueError`` unless a value is a whole number from ``least`` on.

    Whole numbers of NumPy are whole numbers; truth values and floats are none.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= value <= LARGEST:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {shown(value)}")


def check_seed(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless a value is a whole number from 0 to 2^32 - 1, or ``None``."""
    if value is None:
        return
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not 0 <= value < 2**32:
        raise ValueError(
            f"{name}: expected a whole number from 0 to {2**32 - 1}, or None, got {shown(value)}"
        )


def check_flag(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless a value is ``True`` or ``False``."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected True or False, got {shown(value)}")


def check_progress(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless a value is ``True``, ``False`` or ``None``."""
    if value is not None and not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected True, False or None, got {shown(value)}")


def check_compile(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless a value is ``True``, ``False`` or ``"auto"``."""
    if not isinstance(value, bool) and not (isinstance(value, str) and value == "auto"):
        raise ValueError(f'{name}: expected True, False or "auto", got {shown(value)}')


def check_number(
    name: str, value: Any, least: float = -math.inf, *, positive: bool = False, when: str = ""
) -> None:
    """Raise ``ValueError`` unless a value is a finite number of at least ``least``.

    Args:
        name: The argument's name.
        value: Its value.
        least: The least number allowed; none by default.
        positive: Whether the number must be above 0.
        when: Words for the message that say when, such as ``" at step 3"``.
    """
    number = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # a whole number beyond all floats
            number = math.inf
    if not math.isfinite(number) or number < least or (positive and number <= 0):
        expected = "a finite number" if least == -math.inf else f"a number of at least {least:g}"
        expected = "a positive number" if positive else expected
        raise ValueError(f"{name}: expected {expected}{when}, got {shown(value)}")


def check_name(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless a value is a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}: expected a name, got {shown(value)}")


def check_path(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless a value is a path that a file system can have."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    is_path = isinstance(text, str) and text != "" and "\0" not in text
    if not is_path or any(len(os.fsencode(part)) > 255 for part in Path(str(text)).parts):
        raise ValueError(f"{name}: expected a path, got {shown(value)}")


def names_in(name: str, value: Any) -> list[Any]:
    """Return names or functions as a list; one by itself is a list of one."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value]
    try:
        return list(value)
    except (TypeError, RuntimeError):  # an array of one number cannot be iterated over
        raise ValueError(f"{name}: expected a list, got {shown(value)}") from None


def check_memory(name: str, count: int, size: float, mend: str) -> None:
    """Raise ``ValueError`` where a result is larger than the memory of the machine.

    Linux hands out memory that it does not have and ends the process when the memory is written to,
    so the size is compared with the machine's memory before.

    Args:
        name: The argument that makes the result large.
        count: Its value.
        size: Bytes of the result.
        mend: What to do instead.
    """
    if size > machine_memory():
        raise memory_error(name, count, size, mend)


def memory_error(name: str, count: int, size: float, mend: str) -> ValueError:
    """Return the error for a result too large for the memory; arguments as ``check_memory``."""
    return ValueError(
        f"{name}: expected a result that fits into memory, got {count}, {size / 1e9:,.0f} GB; "
        + mend
    )


def machine_memory() -> float:
    """Return the machine's memory in bytes; infinity where the system does not tell."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def shown(value: Any) -> str:
    """Return a value as text for a message: in one line, and cut where it is long.

    Example:
        >>> shown([1, 2]), len(shown("a" * 1000))
        ('[1, 2]', 64)
    """
    value = value.item() if isinstance(value, np.generic) else value  # 7, not np.int64(7)
    text = " ".join(repr(value).split())
    return text if len(text) <= 64 else text[:60].rstrip() + " ..."


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(
        (
            "num_samples", "replicates", "epochs", "batch_size", "num_particles", "steps",
            "updates",
        ),
        check_count,
    ),
    **dict.fromkeys(
        (
            "stream", "expected", "joint", "attribution", "overwrite", "resume",
            "show_rows", "per_step", "recalibrate", "simulated", "widen",
            "trust_code", "doubly_reparameterized", "sticking_the_landing", "vectorize_particles",
        ),
        check_flag,
    ),
    "seed": check_seed, "compile": check_compile, "run": check_path, "path": check_path,
    "plate": check_name, "progress": check_progress,
}  # fmt: skip
"""How each argument is checked, by the name that it has in all public functions."""
