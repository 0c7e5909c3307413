"""Run a Python file as a program in the process of the test: a new one imports torch again."""

import contextlib
import io
import runpy
import sys
from pathlib import Path
from unittest.mock import patch


def run_script(file, *words, folder):
    """Run a file as ``python FILE WORDS...`` does, in a folder.

    What a second process would show, that nothing is missing which the tests have imported or set,
    is not shown here.

    Args:
        file: Path of the Python file.
        *words: Its command line.
        folder: Working directory of the run.

    Returns:
        What the program wrote to standard output and to standard error.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.object(sys, "argv", [str(file), *map(str, words)]),
        patch.object(sys, "path", [str(Path(file).parent), *sys.path]),
    ):
        runpy.run_path(str(file), run_name="__main__")
    return out.getvalue(), err.getvalue()
