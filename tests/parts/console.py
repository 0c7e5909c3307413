"""What torch and Pyro write to the console themselves, which no user of the library should see.

Two ways lead there. Their loggers write through a handler of their own; such a line counts where
the library is on the stack, because a test may run plain Pyro to compare with it. Their C++ code
writes to the process's streams; such a line is known by its form, as in ``[W1126 04:23:58 ...]``.
"""

import contextlib
import logging
import re
import traceback
from pathlib import Path
from unittest.mock import patch

import ppl_vae

LIBRARY = str(Path(ppl_vae.__file__).parent)
OF_TORCH = re.compile(r"^\[?[IWEF]\d{4} \d\d:\d\d:\d\d.*|^.*site-packages/(torch|pyro)/.*", re.M)


@contextlib.contextmanager
def log_lines():
    """Collect the lines that loggers of torch and Pyro write to the console from the library."""
    lines, emit = [], logging.StreamHandler.emit

    def watched(handler, record):
        traced = record.name == "torch.__trace"  # torch's record of a compilation, in a file if any
        if not traced and record.name.partition(".")[0] in ("torch", "pyro"):
            files = [frame.f_code.co_filename for frame, _ in traceback.walk_stack(None)]
            if any(file.startswith(LIBRARY) for file in files):
                lines.append(f"{record.name}: {record.getMessage()}")
        emit(handler, record)

    with patch.object(logging.StreamHandler, "emit", watched):
        yield lines


def lines_of_torch(text):
    """Return the lines of captured text that have the form of torch's log."""
    return [match.group() for match in OF_TORCH.finditer(text)]
