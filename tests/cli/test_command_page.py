"""The shell session of the command line's page runs as written, its edit of a file included."""

import os
import re
import shlex
from pathlib import Path

from parts.site import text_of

PAGE = text_of("howto/command_line.md")


def apply(hunk):
    """Apply a diff to the copied model."""
    path = Path("models/gaussian.py")
    old = "".join(line[1:] + "\n" for line in hunk.splitlines() if line[0] in " -")
    new = "".join(line[1:] + "\n" for line in hunk.splitlines() if line[0] in " +")
    assert path.read_text().count(old) == 1, old
    path.write_text(path.read_text().replace(old, new))


def test_the_shell_session_of_the_page_runs(ppl, wine_file, monkeypatch, tmp_path):
    (tmp_path / "wine.csv").write_bytes(wine_file.read_bytes())
    called = []
    for language, text in re.findall(r"```(sh|diff)\n(.*?)```", PAGE, re.DOTALL):
        if language == "diff":
            apply(text)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("PAIR="):
                monkeypatch.setenv("PAIR", shlex.split(line)[0].removeprefix("PAIR="))
            elif line.startswith("ppl-vae"):
                words = shlex.split(os.path.expandvars(line), comments=True)[1:]
                called.append(words[0])
                ppl(*(re.sub("^1000$", "3", word) for word in words))
    assert set(called) >= {"list", "new", "lint", "fit", "show", "encode", "generate"}
    assert Path("codes.csv").is_file()
