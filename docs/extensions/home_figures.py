"""The figures of the home page: its program is executed, and draws them."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path

from matplotlib import pyplot as plt
from sphinx.application import Sphinx

QUICKER = ("epochs=200", "epochs=2")


def write(app: Sphinx) -> None:
    """Run ``home.py`` and save its figures, if the file is newer than they are."""
    program, folder = Path(app.srcdir) / "home.py", Path(app.srcdir) / "_generated"
    paths = [
        folder / f"home-{name}-{int(app.config.zoo_quick)}.png" for name in ("check", "digits")
    ]
    written = min(path.stat().st_mtime if path.exists() else 0.0 for path in paths)
    if program.stat().st_mtime > written:
        text = program.read_text(encoding="utf-8")
        assert QUICKER[0] in text
        copy = folder / "home.py"
        folder.mkdir(exist_ok=True)
        copy.write_text(text.replace(*QUICKER) if app.config.zoo_quick else text, encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a short fit has not converged, and says so
            figures = runpy.run_path(str(copy))["figures"]
        for path, axes in zip(paths, figures, strict=True):
            getattr(axes, "figure", axes).savefig(path, dpi=110)
        plt.close("all")
    for path, name in zip(paths, ("check", "digits"), strict=True):
        (folder / f"home-{name}.png").write_bytes(path.read_bytes())


def setup(app: Sphinx) -> dict[str, bool]:
    """Draw the figures before Sphinx reads its sources."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
