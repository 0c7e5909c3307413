"""The lines of a table of text, plain or packed by gzip, for its checks and its messages.

Whether a file is packed is read from its first bytes, not from its name.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, BinaryIO, cast

GZIP = b"\x1f\x8b"
"""The first bytes of a file that gzip packed."""

_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as CSV",
    b"BZh": "a file packed by bzip2; unpack it, or pack it by gzip",
    b"\xfd7zXZ": "a file packed by xz; unpack it, or pack it by gzip",
    b"\x28\xb5\x2f\xfd": "a file packed by zstd; unpack it, or pack it by gzip",
    b"PAR1": "a Parquet file; give its name the ending .parquet",
    b"\x93NUMPY": "a NumPy array; give the file's name the ending .npy",
}
"""What a file is that is no text, by its first bytes, and what to do."""


def is_packed(path: Path) -> bool:
    """Return whether a file is packed by gzip."""
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP


def check_is_text(path: Path) -> None:
    """Raise ``ValueError`` for a file of another known kind than text, packed or not."""
    with open_bytes(path) as file:
        start = file.read(8)
    for first, kind in _OTHER_KINDS.items():
        if start.startswith(first):
            raise ValueError(f"{path}: expected a table of text, got {kind}")


def open_bytes(path: Path) -> BinaryIO:
    """Return a file opened for reading, unpacked as it is read where it is packed by gzip."""
    return cast(BinaryIO, gzip.open(path)) if is_packed(path) else path.open("rb")


def open_text(path: Path) -> IO[str]:
    """Return a file of text opened as ``open_bytes`` does, without a mark of the byte order."""
    if is_packed(path):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def separator_of(path: Path) -> str:
    """Return the separator: a tab for ``.tsv``, else the most frequent one in the first line."""
    if ".tsv" in (suffix.lower() for suffix in path.suffixes[-2:]):
        return "\t"
    with open_text(path) as file:
        first = next((line for line in file if line.strip()), "")
    if not first:
        raise ValueError(f"{path}: expected column names and rows, got an empty file")
    return max(",;\t", key=first.count)


def records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the values of every line that is not blank, with the line's number.

    A quoted value may span several lines; the number is that of the first of them.
    """
    with open_text(path) as file:
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        line = 1
        for record in reader:
            if len(record) > 1 or "".join(record).strip():
                yield line, record
            line = reader.line_num + 1


def line_of_row(path: Path, separator: str) -> Callable[[int], str]:
    """Return a function from a row's number to its line in the file, for messages.

    The file is read again only when the function is called, which happens for faults alone.
    """

    @cache
    def line(row: int) -> str:
        for position, (number, _) in enumerate(records(path, separator), -1):
            if position == row:
                return f"line {number}"
        return f"row {row}"

    return line


def first_line_not_utf8(path: Path) -> int:
    """Return the number of the first line that is not UTF-8."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1
