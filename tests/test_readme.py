"""The README is short, its links lead somewhere, and its program is the one of the first page."""

import re
from pathlib import Path

from parts.site import blocks, program

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 140
    assert len([line for line in program("start/first_pair.md").splitlines() if line.strip()]) < 40
    edits = re.findall(r"```diff\n(.*?)```", README, re.DOTALL)
    assert len(edits) == 3
    assert all(len(edit.splitlines()) <= 14 for edit in edits)


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^):#]+)\)", README)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_program_and_edit_of_the_readme_stands_on_a_page_and_is_run_there():
    written = re.findall(r"```(?:python|diff)\n(.*?)```", README, re.DOTALL)
    shown = [
        *blocks("start/first_pair.md", "python"),
        *blocks("howto/another_likelihood.md", "diff"),
        *blocks("howto/another_prior.md", "diff"),
        *blocks("howto/discrete_latents.md", "diff"),
    ]
    assert written == shown
