"""The tables of ``troubleshooting.md``: every message of the library, and every rule of ``lint``.

    error      raise SomeError(f"{where}: expected ..., got ...; mend")
    warning    warnings.warn(f"...; mend")
    rule       a function in ``ppl_vae/linting`` that makes findings: error(where, problem, fix)

They are read from the source of the library, so a table has a line for every message. What to do is
what the message says after its last semicolon; where it has none, what it says that it expected. A
message with neither needs a line in ``mends.toml``, and ``tests/docs/test_errors.py`` fails without
it. ``write(folder)`` makes the files that the page includes.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from extensions.source_words import (
    HOLE,
    THREE_PARTS,
    Module,
    functions_of,
    modules,
    name_of,
    says_something,
    words,
)

MENDS = Path(__file__).parents[1] / "mends.toml"

TITLES = {
    "arguments": "Arguments of any function",
    "data": "Data and files",
    "core": "A pair on its rows",
    "elbo": "Objectives",
    "training": "fit",
    "saving": "Runs: save and load",
    "evaluation": "Likelihoods, comparison, the guide",
    "checks": "Predictive checks and copies",
    "predictive": "Replicates and forecasts",
    "latents": "Codes and new rows",
    "imputation": "Missing cells",
    "anomaly": "Strange rows",
    "zoo": "Models and guides by name",
    "models": "Files of models",
    "guides": "Files of guides",
    "distributions": "Distributions",
    "nn": "Networks",
    "compiled": "Compiled steps",
    "sklearn": "scikit-learn's interface",
    "plots": "Figures",
    "report": "Reports",
    "cli": "The command line",
}
"""Sections of the page by the folder, in the order of a reader's work; other files come first."""

FINDINGS = {"error", "warning", "site_error", "finding"}
"""What makes a finding in ``linting/``, from where or site, problem and fix."""

UNSAID = {"AssertionError", "Exit", "KeyError", "NotImplementedError", "TypeError"}
"""Exceptions that may be without words: exit codes, and those that their caller catches."""


@dataclass(frozen=True)
class Message:
    """Words that the library raises, warns of, or finds.

    Attributes:
        file: File of the raise statement, from the root of the repository.
        function: Name of the function that it stands in.
        text: The words, with an ellipsis for each part that is filled in.
    """

    file: str
    function: str
    text: str

    @property
    def section(self) -> str:
        """Folder of the file, or ``"arguments"`` for files that stand in no folder."""
        parts = self.file.split("/")
        if parts[0] != "ppl_vae":
            return parts[0]
        return parts[1] if len(parts) > 2 else "arguments"


@cache
def errors() -> tuple[list[Message], list[str]]:
    """Return every message that the library raises, and the raise statements without words.

    Returns:
        messages: Sorted by file and line; a text that several places raise is there once.
        silent: ``"file:function"`` of raise statements whose words stand elsewhere.
    """
    found, silent = {}, []
    for module in modules().values():
        if module.path.startswith("ppl_vae/linting/"):
            continue
        for name, function, nodes in functions_of(module):
            for node in nodes:
                made = isinstance(node, ast.Call) and name_of(node.func) in THREE_PARTS
                if not made and not (isinstance(node, ast.Raise) and node.exc):
                    continue
                words_of = node if made else node.exc
                texts = [t for t in words(words_of, module, function) if says_something(t)]
                for text in texts:
                    found.setdefault(text, Message(module.path, name, text))
                kind = name_of(getattr(words_of, "func", words_of))
                if not texts and kind not in UNSAID:
                    silent.append(f"{module.path}:{name}")
    return list(found.values()), silent


def number_of_raise_statements() -> int:
    """Return how many raise statements with an exception ``errors`` has read."""
    return sum(
        isinstance(node, ast.Raise) and node.exc is not None
        for module in modules().values()
        if not module.path.startswith("ppl_vae/linting/")
        for _, _, nodes in functions_of(module)
        for node in nodes
    )


def fits(template: str, message: str) -> bool:
    """Whether a message may be a text of the source: equal between what is filled in.

    Args:
        template: The text, with ellipses; it has to have words of its own.
        message: What was raised.
    """
    parts = [re.escape(part) for part in template.split(HOLE)]
    long_enough = len(template.replace(HOLE, "")) > 8
    return long_enough and bool(re.fullmatch("(.|\n)*".join(parts), message))


@cache
def warned() -> list[Message]:
    """Return every message that the library warns of."""
    found = {}
    for module in modules().values():
        for name, function, nodes in functions_of(module):
            for node in nodes:
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
                    for text in words(node.args[0], module, function):
                        if says_something(text):
                            found.setdefault(text, Message(module.path, name, text))
    return list(found.values())


Finding = tuple[str, str, bool]
"""A finding's problem, its mend, and whether it stops a fit."""


@dataclass(frozen=True)
class Rule:
    """A rule of ``lint``.

    Attributes:
        file: File of the rule.
        function: Its name.
        fault: What the rule finds, the first sentence of its docstring.
        findings: ``(problem, fix, stops)`` of each finding that it can yield.
    """

    file: str
    function: str
    fault: str
    findings: tuple[Finding, ...]


def _findings(nodes: list[ast.AST], module: Module, function: ast.AST) -> Iterator[Finding]:
    """Yield problem, fix and whether a fit stops, of each finding that some nodes make.

    ``error(*cause)`` stands for the causes that the functions of ``core`` make which are called.
    """
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    for node in calls:
        if name_of(node.func) == "error" and isinstance(node.args[0], ast.Starred):
            for place, text in _causes([name_of(call.func) for call in calls], module):
                yield place, text, True
        elif name_of(node.func) in FINDINGS and len(node.args) == 3:
            problems, fixes = (words(a, module, function) for a in node.args[1:3])
            stops = name_of(node.func) != "warning"
            for problem, fix in product(problems, fixes):
                yield problem, fix, stops


def _causes(called: list[str], module: Module) -> Iterator[tuple[str, str]]:
    """Yield problem and mend of the causes in the files that called functions come from."""
    homes = {module.imported.get(name, "") for name in called}
    for home in sorted(home for home in homes if home.startswith("ppl_vae.core.")):
        for _, function, nodes in functions_of(modules()[home]):
            for node in nodes:
                if isinstance(node, ast.Call) and name_of(node.func) in THREE_PARTS:
                    parts = [words(a, modules()[home], function) for a in node.args[1:]]
                    yield from product(*parts)


Functions = dict[str, tuple[ast.AST, list[ast.AST]]]


def _found_by(name: str, functions: Functions, module: Module, seen: set[str]) -> list[Finding]:
    """Return the findings of a function and of the helpers in its file that it calls.

    Args:
        name: The function.
        functions: All functions of the file, each with the nodes in it.
        module: The file.
        seen: Functions that have been looked at; those that this call looks at are added.
    """
    seen.add(name)
    function, nodes = functions[name]
    found = list(_findings(nodes, module, function))
    for node in nodes:
        called = name_of(node.func) if isinstance(node, ast.Call) else ""
        if called.startswith("_") and called in functions and called not in seen:
            found += _found_by(called, functions, module, seen)
    return found


@cache
def rules() -> list[Rule]:
    """Return the rules of ``lint``, with the findings of the helpers that each one calls."""
    rules = []
    for path, module in modules().items():
        if not path.startswith("ppl_vae.linting."):
            continue
        functions = {name: (function, nodes) for name, function, nodes in functions_of(module)}
        helpers: set[str] = set()
        public = [name for name in functions if name and not name.startswith("_")]
        for name in [*public, *(name for name in functions if name not in public)]:
            if name in helpers:
                continue
            seen: set[str] = set()
            found = _found_by(name, functions, module, seen)
            helpers |= seen
            if any(says_something(problem) for problem, _, _ in found):
                function = functions[name][0]
                rules.append(Rule(module.path, name, _sentence(function), tuple(found)))
    return rules


def _sentence(function: ast.AST) -> str:
    """Return the first sentence of a docstring, without "Find"."""
    text = " ".join((ast.get_docstring(function) or "").split("\n\n")[0].split())
    text = text.split(". ")[0].rstrip(".")
    return re.sub(r"^(Find|Yield|Return) ", "", text)


@cache
def mends() -> dict[str, dict[str, str]]:
    """Return what is written by hand: ``messages``, ``rules`` and ``raises``."""
    return tomllib.loads(MENDS.read_text(encoding="utf-8"))


def mend(text: str) -> str:
    """Return what to do about a message; "" where neither it nor ``mends.toml`` says it."""
    if text in mends()["messages"]:
        return mends()["messages"][text]
    _, found, last = text.rpartition("; ")
    if found:
        return _sentence_case(last) if says_something(last) else "What the message says."
    expected = re.search(r"expected (.*?)(?:, got\b.*)?$", text, re.DOTALL)
    if not expected:
        return ""
    if not says_something(expected[1]):
        return "Give what the message says that it expected."
    return f"Expected: {expected[1]}."


def _sentence_case(text: str) -> str:
    """Return a clause as a sentence; a name at its beginning stays as it is."""
    text = text.strip(f"{HOLE}, ").rstrip(".")
    plain = re.match(r"[a-z]+ ", text)
    return (text[0].upper() + text[1:] if plain else text) + ("" if text.endswith("?") else ".")


def error_tables() -> str:
    """Return a Markdown table of messages for each section of the library."""
    lines = []
    rows: dict[str, list[Message]] = {title: [] for title in TITLES}
    for message in errors()[0]:
        rows[message.section].append(message)
    for section, messages in rows.items():
        lines += [f"### {TITLES[section]}", "", *_table(messages), ""]
    return "\n".join(lines)


def warning_table() -> str:
    """Return a Markdown table of the warnings."""
    return "\n".join(_table(warned()))


def _alike(text: str) -> str:
    """Return what two texts share that differ only in brackets, in what is filled in, in signs."""
    return re.sub(rf"\([^()]*\)| to {HOLE}|{HOLE}|\W", "", text)


def _table(messages: list[Message]) -> list[str]:
    """Return the lines of a table of messages, without what comes after the last semicolon."""
    lines = ["| message | what to do |", "|---|---|"]
    different = {_alike(message.text): message for message in reversed(messages)}.values()
    for message in sorted(different, key=lambda m: m.text.lstrip(f"{HOLE}: ").lower()):
        text, todo = message.text, mend(message.text)
        if text not in mends()["messages"] and todo.startswith("Expected: "):
            todo = "as the message says"
        elif text not in mends()["messages"]:
            problem = text.rpartition("; ")[0]
            text = problem if says_something(problem) else text
        lines.append(f"| {as_cell(text)} | {as_cell(todo)} |")
    return lines


def rule_table() -> str:
    """Return a Markdown table of the rules of ``lint``: what each looks for, says and advises."""
    lines = ["| looks for | says | what to change |", "|---|---|---|"]
    for rule in rules():
        fault = mends()["rules"].get(rule.function, rule.fault)
        for problem, (fixes, stops) in _by_problem(rule).items():
            sign = "**error**" if stops else "warning"
            todo = as_cell(" Or: ".join(fixes))
            lines.append(f"| {as_cell(fault)} | {sign}: {as_cell(problem)} | {todo} |")
            fault = ""
    return "\n".join(lines)


def _by_problem(rule: Rule) -> dict[str, tuple[list[str], bool]]:
    """Return the mends of each problem that a rule finds, and whether a fit stops."""
    found: dict[str, tuple[list[str], bool]] = {}
    for problem, fix, stops in rule.findings:
        if not says_something(problem) and not says_something(fix):
            continue
        words = problem if says_something(problem) else "the finding names both sides"
        same = next((known for known in found if _alike(known) == _alike(words)), words)
        fixes, _ = found.setdefault(same, ([], stops))
        sentence = _sentence_case(fix) if says_something(fix) else "The finding says it."
        longer = [known for known in fixes if known.startswith(sentence[:-1])]
        if not longer:
            fixes[:] = [known for known in fixes if not sentence.startswith(known[:-1])]
            fixes.append(sentence)
    return found


def as_cell(text: str) -> str:
    """Return a text as a cell of a Markdown table, its signs as they are."""
    text = " ".join(text.split())
    return (
        re.sub(r"([\\|<>*_{}\[\]$#])", r"\\\1", text)
        if "`" not in text
        else text.replace("|", "\\|")
    )


def write(folder: Path) -> None:
    """Write the files that ``troubleshooting.md`` includes into a folder: one for each table.

    Args:
        folder: Where they go, ``docs/_generated``; it is made where it is not there.
    """
    folder.mkdir(exist_ok=True)
    for name, text in {
        "errors.md": error_tables(), "warnings.md": warning_table(), "rules.md": rule_table()
    }.items():  # fmt: skip
        (folder / name).write_text(text + "\n", encoding="utf-8")
