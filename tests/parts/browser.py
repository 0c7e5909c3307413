"""Pages in a headless Chromium, for tests: what they show, what they log, what a script finds."""

import html
import json
import re
import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --hide-scrollbars "
    "--enable-logging=stderr --v=0 --virtual-time-budget=10000 --window-size=1280,1000"
)
LEAVE = """
const leave = (value) => {
  const pre = document.createElement("pre");
  pre.id = "result";
  pre.textContent = JSON.stringify(value);
  document.body.append(pre);
};
"""
"""Script: ``leave(value)`` stores a value in the page, for ``result``."""

FRAME = """<!DOCTYPE html><html><body><iframe src="{source}" width="{width}" height="900"
style="border: 0"></iframe><script>{leave}
window.addEventListener("message", (event) => leave(event.data));</script></body></html>"""


def browser(folder):
    """Return ``browse(file)``: the rendered page and the console messages.

    Args:
        folder: Where each call may make a folder of its own, ``folder(name)``.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser found: none of {', '.join(BROWSERS)} is installed")

    def browse(file):
        address = file if isinstance(file, str) else file.as_uri()
        profile = f"--user-data-dir={folder('profile')}"
        command = [program, *FLAGS.split(), profile, "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return browse


def with_script(file, script, path):
    """Write a copy of a page that runs one more script at its end."""
    text = file.read_text()
    assert text.count("</body>") == 1
    path.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    return path


def result(dom):
    """Return the value that a script stored in the page with ``leave``."""
    return json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', dom, re.S)[1]))
