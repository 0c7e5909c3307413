"""``Bar``: the progress bar of every function that may take long, and who gets to see it.

Three kinds of places show output, and a bar differs between them:

    a terminal                        the bar is rewritten in its line, and goes when the work ends
    a notebook                        the bar stays as it was at the end, and is saved so
    anything else: a pipe, a file     no bar, unless one is asked for

A bar that nobody has asked for appears once the work has taken two seconds, so that quick work
prints nothing. In a notebook, such a bar is left out inside another one: a notebook cannot go back
to the line of the outer bar, so that the two would fill the page in turn. For the same reason the
bar is text and not a widget: a saved notebook has a widget as it was at the start.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

from tqdm import tqdm

DELAY = 2.0
"""Seconds of work after which a bar appears that nobody has asked for."""

NOTEBOOK_INTERVAL = 0.5
"""Seconds from one state of a bar to the next in a notebook, which may keep all of them."""


class Bar(NamedTuple):
    """A progress bar before its work begins.

    Attributes:
        title: What is done.
        progress: The argument ``progress`` of the public functions: ``True`` for a bar from the
            start, wherever stderr goes; ``False`` for none; ``None`` for one after two seconds
            where somebody looks on, in a terminal or a notebook.

    Example:
        >>> sum(Bar("adding", progress=False).over(range(4), unit="number"))
        6
    """

    title: str
    progress: bool | None

    def over(
        self, steps: Iterable[Any] | None = None, *, keep: bool = False, **options: Any
    ) -> Any:
        """Return the bar at the beginning of the work, as ``tqdm`` makes it.

        Args:
            steps: What to iterate over; ``None`` for a bar that is updated.
            keep: Whether the bar stays in a terminal when the work ends.
            options: Options of ``tqdm``, such as ``total`` and ``unit``.
        """
        options |= {"desc": self.title, "disable": not self._is_shown()}
        options |= {"file": sys.stderr, "leave": keep}
        if in_notebook():  # which shows stderr in the colour of errors
            options |= {"file": sys.stdout, "leave": True, "mininterval": NOTEBOOK_INTERVAL}
        return tqdm(steps, **options) if self.progress else _LateBar(steps, **options)

    def only(self, condition: bool) -> Bar:
        """Return the bar where a condition holds, such as on rank 0, and else none."""
        return self if condition else NO_BAR

    def _is_shown(self) -> bool:
        """Return whether the bar appears if the work takes long enough."""
        if self.progress is not None:
            return bool(self.progress)
        if in_notebook():
            return not any(not bar.disable for bar in getattr(tqdm, "_instances", ()))
        return sys.stderr is not None and sys.stderr.isatty()


NO_BAR = Bar("", progress=False)
"""A bar that is never shown."""


class _LateBar(tqdm):  # type: ignore[type-arg]
    """A bar that appears after ``DELAY`` seconds, also while its first step is still running.

    The option ``delay`` of tqdm looks at the clock at the end of a step only, and divides the steps
    by the time after the delay, so that the time left is wrong at first.
    """

    _appeared = False
    _timer: threading.Timer | None = None

    def __init__(self, steps: Iterable[Any] | None, **options: Any) -> None:
        super().__init__(steps, **options)
        if not self.disable:
            self._timer = threading.Timer(DELAY, self._appear)
            self._timer.daemon = True
            self._timer.start()

    def _appear(self) -> None:
        with self.get_lock():
            if not self.disable:
                self._appeared = True
                self.display()

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Show the bar as it is now, if it has appeared, and return whether something is shown.

        tqdm calls this for each new state, and for an empty one at the end.
        """
        return self._appeared and super().display(msg, pos)

    def close(self) -> None:
        """Leave the last state, or nothing, and show the bar no more."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._appeared:
            self.delay = math.inf  # tqdm writes nothing at the end of a bar that waits
        super().close()


def in_notebook() -> bool:
    """Return whether a notebook shows what is printed: IPython's shell belongs to a kernel.

    IPython is not imported for the question; where nobody has imported it, there is no notebook.
    """
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return "IPKernelApp" in getattr(get_shell(), "config", ())
