"""The pages of the documentation site: their text, their programs, and what they say is printed."""

import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = ("zoo", "reference", "gallery", "_generated", "api")
"""Folders of the site that are made from other files, and have no pages of their own."""

LINK = r"\s+\[[^\]]*\]\(([^)#]+\.md)\)"
INCLUDED = r"```\{include\} (\S+README\.md)\n:start-after: (.*?)\n:end-before: (.*?)\n```"


def pages():
    """Names of all pages that are written by hand, such as ``"howto/tables.md"``."""
    found = (path.relative_to(DOCS) for path in DOCS.rglob("*.md"))
    return sorted(path.as_posix() for path in found if path.parts[0] not in GENERATED)


@functools.cache
def text_of(page):
    """A page's text, with the parts of the README that it includes."""

    def included(match):
        path, begin, end = match.groups()
        return (DOCS / page).parent.joinpath(path).read_text().split(begin)[1].split(end)[0]

    return re.sub(INCLUDED, included, (DOCS / page).read_text())


def blocks(page, language, first=""):
    """The fenced blocks of a page in one language, in order; those after the first of another."""
    text = text_of(page)
    if first:
        text = text.partition(f"```{first}\n")[2]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def linked(page, words):
    """The page that is linked behind some words, as in "goes on from [...](...)"; or None."""
    found = re.search(r"\s+".join(words.split()) + LINK, text_of(page))
    if found is None:
        return None
    return ((DOCS / page).parent / found[1]).resolve().relative_to(DOCS).as_posix()


def program(page):
    """All programs of a page as one, after that of the page which it says that it goes on from."""
    before = linked(page, "goes on from")
    return (program(before) if before else "") + "\n".join(blocks(page, "python"))


def edited(page):
    """What the page's edits make of another page's program or of its own; None without edits."""
    hunks = [hunk for block in blocks(page, "diff") for hunk in block.split("@@\n")]
    if not hunks:
        return None
    text = program(linked(page, "edits") or page)
    for hunk in hunks:
        old, new = (
            "".join(line[1:] + "\n" for line in hunk.splitlines() if line[0] in signs)
            for signs in (" -", " +")
        )
        assert text.count(old) == 1, f"{page}: expected these lines once in the program:\n{old}"
        text = text.replace(old, new)
    return text
