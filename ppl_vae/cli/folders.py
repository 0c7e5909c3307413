"""Data in a folder of files: which results a command has to make, and which machine makes them.

    --part 3/16     of the files in the order of their names, the 3rd, the 19th, the 35th, ...

Each file is data of its own: its rows, its seed, its file of results, which is there only once it
is whole. What is there already is not made again, so that a job that was stopped can be started
anew, and no machine needs to know of another.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppl_vae.cli.console import CommandOutput, UsageError, json_value

SETTINGS = ".settings.json"
"""File in a folder of results that says how they were made."""

ENDINGS = {".parquet": ".parquet", ".tsv": ".tsv"}
"""Endings that a file of results takes over from its data; others become ``.csv``."""


@dataclass(frozen=True)
class DataFiles:
    """The data files that a command reads, and where the results of each go.

    Attributes:
        data: The data file, or the folder of data files.
        out: The file of results, or the folder of such files; ``None`` for none.
        files: All data files that are this command's part.
        force: Whether results that are there are made anew.
    """

    data: Path
    out: Path | None
    files: tuple[Path, ...]
    force: bool

    @classmethod
    def of(cls, data: Path, out: Path | None, part: str | None, *, force: bool) -> DataFiles:
        """Find the files.

        Args:
            data: A data file or a folder.
            out: Where the results go.
            part: ``"3/16"``: every 16th file from the 3rd on; ``None`` for all.
            force: Whether results that are there are made anew.

        Raises:
            UsageError: If a part is no such text, or is given beside one file; if a folder has no
                data files, or files of several kinds; if the folder of results is none, or is the
                folder of data.
        """
        if not data.is_dir():
            if part is not None:
                raise UsageError(f"--part {part}: expected a folder of files as DATA, got {data}")
            return cls(data, out, (data,), force)
        if out is None:
            raise UsageError(f"--out: expected a folder for the results of {data}, got none")
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out}: expected a folder, as {data} is one, got a file")
        if out.exists() and out.samefile(data):
            raise UsageError(f"--out {out}: expected another folder than that of the data")
        number, count = (1, 1) if part is None else _numbers(part)
        return cls(data, out, tuple(_files(data)[number - 1 :: count]), force)

    @property
    def is_folder(self) -> bool:
        """Whether the data are a folder."""
        return self.data.is_dir()

    @property
    def single_out(self) -> Path | None:
        """The file of results of data in one file."""
        return None if self.is_folder else self.out

    def result_of(self, file: Path) -> Path | None:
        """Return where the results of a data file go."""
        if not self.is_folder or self.out is None:
            return self.out
        from ppl_vae.data.files import ending_of  # noqa: PLC0415  loads torch

        ending = ending_of(file)
        return self.out / (file.name[: len(file.name) - len(ending)] + ENDINGS.get(ending, ".csv"))

    def left(self, run: Path, **settings: Any) -> Iterator[tuple[Path, Path | None]]:
        """Yield each data file whose results are to be made, and the file of these.

        Results in a folder are made if they are not there, or are older than the data.

        Args:
            run: The run, whose weights the results depend on.
            settings: What else they depend on; of a file, its content.

        Raises:
            UsageError: If the folder holds results that were made in another way.
        """
        if not self.is_folder:
            yield self.data, self.out
            return
        from ppl_vae.saving.runs import WEIGHTS  # noqa: PLC0415  loads torch

        weights = run if run.suffix == ".safetensors" else run / WEIGHTS
        self._claim({"weights": weights, **settings})
        for file in self.files:
            result = self.result_of(file)
            if self.force or result is None or not _is_newer(result, file):
                yield file, result

    def tell(self, report: CommandOutput) -> None:
        """Say, of a folder, how many files have results now."""
        if self.is_folder:
            done = sum(bool((result := self.result_of(f)) and result.exists()) for f in self.files)
            report.show(f"{done} of {len(self.files)} files have results in {self.out}")

    def _claim(self, settings: Mapping[str, Any]) -> None:
        """Note in the folder of results how they are made, unless another command has done so."""
        assert self.out is not None
        note, beside = self.out / SETTINGS, self.out / f"{SETTINGS}.{os.getpid()}.part"
        try:
            values = {n: _checksum(v) if isinstance(v, Path) else v for n, v in settings.items()}
            values["version"] = importlib.metadata.version("ppl-vae")
            text = json.dumps(json_value(values), indent=1, sort_keys=True) + "\n"
            self.out.mkdir(parents=True, exist_ok=True)
            if not note.exists():
                beside.write_text(text)
                _rename(beside, note)
            found = json.loads(note.read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"--out {self.out}: cannot be used: {error}") from error
        for name, value in json.loads(text).items():
            if found.get(name) != value:
                is_file = isinstance(settings.get(name), Path)
                other = f"other {name}" if is_file else f"{name} {found.get(name)}"
                raise UsageError(
                    f"--out {self.out}: expected results made in the same way, got those of "
                    f"{other}; give another folder, or delete this one"
                )


def _numbers(part: str) -> tuple[int, int]:
    """Return the numbers of a part, as 3 and 16 of ``"3/16"``."""
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"--part {part}: expected a number and how many there are, as 3/16")
    return number, count


def _files(folder: Path) -> list[Path]:
    """Return the data files of a folder by name; files that begin with . or _ are none."""
    from ppl_vae.data.files import ending_of, is_readable  # noqa: PLC0415  loads torch

    found = sorted(f for f in folder.iterdir() if f.is_file() and f.name[0] not in "._")
    if not found:
        raise UsageError(f"{folder}: expected data files, got an empty folder")
    for file in found:
        if not is_readable(file):
            raise UsageError(f"{file}: expected a data file, as all files of the folder are")
        if ending_of(file) != ending_of(found[0]):
            raise UsageError(f"{file}: expected a file as {found[0].name}, of the same ending")
    return found


def _checksum(file: Path) -> str:
    """Return a checksum of what a file holds; of a folder, of its files' names, sizes and times."""
    if file.is_dir():
        states = [(str(f.relative_to(file)), f.stat()) for f in sorted(file.rglob("*"))]
        listed = [(name, state.st_size, state.st_mtime_ns) for name, state in states]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_newer(result: Path, data: Path) -> bool:
    """Return whether results are there and were made after their data were written."""
    return result.exists() and result.stat().st_mtime >= data.stat().st_mtime


def _rename(beside: Path, note: Path) -> None:
    """Give a file its name, unless another process has made a file of that name by now."""
    try:
        os.link(beside, note)
    except FileExistsError:
        pass
    except OSError:  # a disk without links
        beside.replace(note)
    finally:
        beside.unlink(missing_ok=True)
