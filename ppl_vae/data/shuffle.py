"""Parquet files written anew with their rows in a random order, in bounded memory.

Each row goes into one of B buckets at random, and the rows of a bucket are then mixed in memory:
every order of all rows is equally probable. A bucket becomes a file.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae.data.row_groups import MEMORY, RowGroup, open_folder, row_groups_of
from ppl_vae.data.tables import first_line

BUCKET = MEMORY // 2
"""Bytes of a bucket's rows in memory, about."""

GROUPS = 64
"""How many row groups of a new file fit into the memory that a stored table takes, at least."""


def shuffle(
    source: Path, out: Path, *, seed: int = 0, told: Callable[[int], object] = lambda rows: None
) -> int:
    """Write the rows of Parquet files, all their columns, into a new folder in a random order.

    The new folder is there once it is whole.

    Args:
        source: A folder of Parquet files, or one such file.
        out: The new folder.
        seed: Seeds the order.
        told: Called with the number of rows that were read, and again of those that were written.

    Returns:
        The number of files written.

    Raises:
        ValueError: If the new folder is there already; if a file is damaged, lacks columns or has
            columns of another type; if the disk is full.

    Example:
        >>> import pandas as pd, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "rows").mkdir()
        >>> pd.DataFrame({"a": range(5)}).to_parquet(folder / "rows" / "0.parquet")
        >>> shuffle(folder / "rows", folder / "mixed")
        1
        >>> sorted(pd.read_parquet(folder / "mixed")["a"])
        [0, 1, 2, 3, 4]
    """
    if out.exists():
        raise ValueError(f"{out}: expected a new folder, got one that is there")
    if source.resolve() in out.resolve().parents:
        raise ValueError(f"{out}: expected a folder outside {source}, whose files are the data")
    groups = row_groups_of(open_folder(source), str(source), by_name=True)
    schema = _common_schema(groups)
    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        buckets = _into_buckets(groups, schema, beside, seed, told)
        for number, bucket in enumerate(buckets):
            told(_write(bucket, beside / f"part-{number:05d}.parquet", (seed, number)))
            bucket.unlink()
        beside.replace(out)
    except OSError as error:
        raise ValueError(f"{out}: cannot be written: {first_line(error)}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return len(buckets)


def _common_schema(groups: Sequence[RowGroup]) -> Any:
    """Return the columns of the first row group, of types that hold the numbers of all files.

    Raises:
        ValueError: If there is no such type.
    """
    arrow: Any = importlib.import_module("pyarrow")
    first = common = groups[0].schema
    for group in groups:
        try:
            common = arrow.unify_schemas([common, group.schema], promote_options="permissive")
        except (ValueError, NotImplementedError, TypeError) as error:  # ArrowInvalid and the like
            raise ValueError(
                f"{group.source}: expected columns of the types that {groups[0].source} has "
                f"({first_line(error)})"
            ) from error
    return arrow.schema([common.field(name) for name in first.names], first.metadata)


def _into_buckets(
    groups: Sequence[RowGroup], schema: Any, folder: Path, seed: int, told: Callable[[int], object]
) -> list[Path]:
    """Write each row into a bucket at random; return the files of the buckets.

    Args:
        groups: The row groups.
        schema: The columns and their types.
        folder: Where the buckets go.
        seed: Seeds the choice.
        told: Called with the number of rows that were read.
    """
    arrow: Any = importlib.import_module("pyarrow")
    rng = np.random.default_rng(seed)
    first = groups[0].read(schema.names)
    size = sum(group.rows for group in groups) * first.nbytes / max(1, first.num_rows)
    buckets = [folder / f"{number}.arrow" for number in range(1 + int(size // BUCKET))]
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(arrow.ipc.new_file(str(b), schema)) for b in buckets]
        for group in groups:
            table = group.read(schema.names).cast(schema)
            bucket_of = rng.integers(len(buckets), size=table.num_rows)
            for number, writer in enumerate(writers):
                writer.write_table(table.take(np.flatnonzero(bucket_of == number)))
            told(table.num_rows)
    return buckets


def _write(bucket: Path, file: Path, seed: Sequence[int]) -> int:
    """Write the rows of a bucket in a random order as a Parquet file; return their number."""
    arrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    with arrow.memory_map(str(bucket)) as stream:
        table = arrow.ipc.open_file(stream).read_all()
        order = np.random.default_rng(seed).permutation(table.num_rows)
        row = max(1, table.nbytes // max(1, table.num_rows))
        parquet.write_table(table.take(order), file, row_group_size=max(1, MEMORY // GROUPS // row))
    return len(order)
