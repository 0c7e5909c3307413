"""Equations of the zoo's docstrings, which are plain text, as TeX; and TeX as MathML.

Browsers draw MathML by themselves, so that the site needs no script for equations and no network.
"""

from __future__ import annotations

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

GREEK = {"alpha", "beta", "mu", "nu", "sigma", "theta"}
FUNCTIONS = {"log", "exp", "tanh", "max", "min"}
TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<arrow><-)|(?P<dots>\.\.\.?)|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<name>[A-Za-z]+(?:-[a-z]{3,})*)|(?P<sub>_(?=[\w(]))|(?P<power>\^(?=[\w(-]))|(?P<other>.)"
)
OTHER = {"~": r"\sim", "*": r"\cdot", "|": r"\vert ", "{": r"\{", "}": r"\}", "#": r"\#"}


def columns(line: str) -> tuple[str, str]:
    """Return the equation of a line and the note beside it, which two spaces or more divide.

    Example:
        >>> columns("z ~ Normal(0, I)      z: (latents,)")
        ('z ~ Normal(0, I)', 'z: (latents,)')
    """
    if line.startswith(" " * 8):  # goes on with the note of the line above
        return "", line.strip()
    left, *right = re.split(r"(?<![,\s])\s{2,}", line.strip(), maxsplit=1)
    return left, right[0] if right else ""


def is_code(equation: str) -> bool:
    """Whether a line is Python and no equation: it sets an argument or names a module.

    Example:
        >>> is_code("dist.Poisson(emission(z).exp())"), is_code("x ~ Poisson(mean)")
        (True, False)
    """
    return "dist." in equation or '="' in equation


def to_tex(equation: str) -> str:
    r"""Return an equation in plain text as TeX.

    Example:
        >>> to_tex("z ~ Normal(0, I)")
        'z \\sim \\mathrm{Normal}(0, I)'
        >>> to_tex("p(x given z_(t-1)) = sqrt(s^2)")
        'p(x \\mid z_{t-1}) = \\sqrt{s^{2}}'
    """
    text, place = "", 0
    while place < len(equation):
        piece, place = _piece(equation, place)
        text += piece
    return re.sub(r"\s+", " ", text).strip()


def _piece(text: str, place: int) -> tuple[str, int]:
    """Return the TeX of what stands at a place, and the place after it."""
    found = TOKEN.match(text, place)
    assert found is not None
    kind, token, end = found.lastgroup, found.group(), found.end()
    if kind in ("sub", "power"):
        inside, end = _argument(text, end)
        return f"{token}{{{inside}}}", end
    if kind == "name":
        if token == "sqrt" and text[end : end + 1] == "(":
            inside, end = _argument(text, end)
            return rf"\sqrt{{{inside}}}", end
        return _name(token, text[end:]), end
    if kind == "space":
        before, after = text[:place], text[end:]
        product = re.search(r"[\w)\]]$", before) and re.match(r"[\w(]", after)
        product = product and not before.endswith("given") and not after.startswith("given ")
        return (r"\; " if product else " "), end
    fixed = {"arrow": r"\leftarrow ", "dots": r"\ldots "}
    return fixed.get(str(kind), OTHER.get(token, token)), end


def _argument(text: str, start: int) -> tuple[str, int]:
    """Return the TeX of a sub- or superscript or of a root's inside, and the place after it."""
    if text[start] != "(":
        found = re.compile(r"-?(?:\d+|[A-Za-z]+)(?:,[A-Za-z0-9]+)*").match(text, start)
        assert found is not None
        return (r"\top" if found.group() == "T" else to_tex(found.group())), found.end()
    depth, end = 0, start
    for end in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if depth == 0:
            break
    return to_tex(text[start + 1 : end]), end + 1


def _name(name: str, after: str) -> str:
    r"""Return a word as TeX: a letter in italics, other words upright, Greek letters by name."""
    if name == "given":
        return r"\mid "
    if name == "sum" and after.startswith("_"):
        return r"\sum"
    if name in GREEK or name in FUNCTIONS:
        return f"\\{name} "
    if len(name) == 1:
        return name
    return rf"\mathrm{{{name}}}"


def mathml(tex: str, display: str) -> str:
    """Return TeX as MathML; ``display`` is ``"inline"`` or ``"block"``."""
    spaced = re.sub(r"\\sim\b", r"\;\\sim\\;", tex)  # browsers without a font for equations
    return str(convert(spaced, display=display))


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx write equations as MathML."""

    def inline(writer: nodes.NodeVisitor, node: nodes.Element) -> None:
        writer.body.append(mathml(node.astext(), "inline"))
        raise nodes.SkipNode

    def block(writer: nodes.NodeVisitor, node: nodes.Element) -> None:
        writer.body.append(f'<div class="equation">{mathml(node.astext(), "block")}</div>')
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
