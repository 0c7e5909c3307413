"""The list of files in CONTRIBUTING.md is complete and has no stale line."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SOURCES = {".py", ".css", ".js", ".html"}


def listed():
    """{path: what the list says of the file}, folders from headings, files from bullets."""
    lines, folder = {}, None
    for line in TEXT.splitlines():
        if heading := re.match(r"#+ (?:`([\w/]+)/`)?", line):
            folder = heading[1]
        elif folder and (bullet := re.match(r"- `([\w./]+)`: (.+)", line)):
            path = f"{folder}/{bullet[1]}"
            assert path not in lines, f"{path} is listed twice"
            lines[path] = bullet[2]
    return lines


def present():
    """Every source file of the library and its zoo; a folder's own title is in its heading.

    Of the site, the files of ``docs/`` itself: its folders have an index of their pages.
    """
    return {
        path.relative_to(ROOT).as_posix()
        for folder in ("ppl_vae", "models", "guides", "docs/extensions")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in SOURCES and path != path.with_name("__init__.py")
    } | {
        "ppl_vae/__init__.py",
        *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.[!r]*")),
    }


def test_every_file_is_listed_and_every_line_has_its_file():
    missing, stale = present() - set(listed()), set(listed()) - present()
    assert not missing, f"add these files to CONTRIBUTING.md: {sorted(missing)}"
    assert not stale, f"remove these lines from CONTRIBUTING.md: {sorted(stale)}"


def test_files_stand_in_alphabetical_order_within_their_folder():
    folders = {}
    for path in listed():
        folders.setdefault(path.rpartition("/")[0], []).append(path)
    assert all(paths == sorted(paths) for paths in folders.values())


def test_every_dependency_has_its_reason():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    needed = {re.match(r"[\w-]+", entry)[0] for group in groups for entry in group}
    table = TEXT.split("## Dependencies")[1]
    named = {name for row in re.findall(r"^\| ([^|]+) \|", table, re.M) for name in
             re.findall(r"[a-z][\w-]+", re.sub(r"\(.*\)", "", row))}  # fmt: skip
    assert needed <= named, f"give a reason for {sorted(needed - named)}"


def test_the_quick_tests_are_files_of_every_folder():
    (words,) = re.findall(r"^QUICK_FILES := ((?:\\\n|.)+)", (ROOT / "Makefile").read_text(), re.M)
    files = [ROOT / "tests" / word for word in words.replace("\\", " ").split()]
    assert all(file.exists() for file in files)
    folders = {file.parent for file in (ROOT / "tests").rglob("test_*.py")}
    assert folders - {file.parent for file in files} == {ROOT / "tests" / "compiled"}
