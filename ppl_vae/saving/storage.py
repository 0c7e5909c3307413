"""Files that survive a crash: written completely or not at all, checked when read, no pickles.

    tensors  ->  a safetensors file; its metadata hold a JSON text, and a SHA-256 over that text
                 and over the name, dtype, shape and bytes of every tensor
    JSON     ->  a text file whose field "sha256" is the SHA-256 of all other fields

A file that was cut, changed or written by another program is refused with an error that names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that readers find the old contents or the new contents, never a part.

    The bytes go into a hidden file in the same folder, are flushed to the disk, and the hidden
    file is then renamed to ``path``: a rename replaces a file in one action. At last the folder
    is flushed, because a rename that is only in the system's memory is lost in a power cut. A
    process that is killed on the way leaves at most the hidden file ``.<name>.<process>.part``.
    What stands there already is never written into: a leftover file or a link is removed, and
    beside a folder of that name the next free name is taken, ``.<name>.<process>.00000001.part``.

    Args:
        path: The file; replaced if it exists.
        content: All bytes of the file.

    Raises:
        OSError: If the disk is full or the folder cannot be written; ``path`` is unchanged.
    """
    beside = free_name(path)
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    _flush_folder(path.parent)


def free_name(path: Path) -> Path:
    """Return the name of a hidden file beside a file, which is free.

    Raises:
        OSError: If a leftover file cannot be removed.
    """
    for count in itertools.count():
        number = f".{count:08d}" if count else ""
        beside = path.with_name(f".{path.name}.{os.getpid()}{number}.part")
        if beside.is_dir() and not beside.is_symlink():
            continue
        beside.unlink(missing_ok=True)
        return beside
    raise AssertionError  # the numbers do not end


def write_tensors(path: Path, tensors: dict[str, Tensor], info: Any) -> None:
    """Write tensors and a JSON value into one safetensors file.

    Safetensors refuses tensors that share memory, such as tied weights. Each group of names that
    stand for the same memory is therefore stored once, under the first name, and the metadata
    map the other names to the first.

    Args:
        path: The file; replaced if it exists.
        tensors: Tensors of any shape, dtype and device, by name.
        info: Anything that JSON can hold.

    Raises:
        OSError: If the file cannot be written; ``path`` is unchanged.
    """
    stored: dict[str, Tensor] = {}
    first_names: dict[tuple[Any, ...], str] = {}
    same_as: dict[str, str] = {}
    for name, tensor in tensors.items():
        memory = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and memory in first_names:
            same_as[name] = first_names[memory]
        else:
            first_names[memory] = name
            stored[name] = tensor.detach().cpu().contiguous().clone()
    text = json.dumps({"info": info, "same": same_as})
    write_whole(path, save_tensors(stored, {"ppl_vae": text, "sha256": _checksum(stored, text)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors (on the CPU, by name) and the JSON value that ``write_tensors`` stored.

    Raises:
        ValueError: If the file is missing, cut, changed, or was not written by this library.
    """
    content = read_bytes(path)
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        tensors = load_tensors(content)
        text = metadata["ppl_vae"]
        sound = metadata["sha256"] == _checksum(tensors, text)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: not a file of ppl_vae, or damaged ({error})") from error
    if not sound:
        raise ValueError(f"{path}: damaged: its contents do not match their checksum")
    value = json.loads(text)
    for name, first_name in value["same"].items():
        tensors[name] = tensors[first_name]
    return tensors, value["info"]


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object and its checksum, the field ``sha256``, into a file.

    Raises:
        OSError: If the file cannot be written; ``path`` is unchanged.
    """
    body = {key: item for key, item in value.items() if key != "sha256"}
    text = json.dumps({**body, "sha256": _checksum({}, _canonical(body))}, indent=2)
    write_whole(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object that ``write_json`` stored, without its checksum.

    Raises:
        ValueError: If the file is missing, cut, changed, or was not written by this library.
    """
    content = read_bytes(path)
    try:
        value = json.loads(content)
        body = {key: item for key, item in value.items() if key != "sha256"}
        sound = value["sha256"] == _checksum({}, _canonical(body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a file of ppl_vae, or damaged ({error})") from error
    if not sound:
        raise ValueError(f"{path}: damaged: its contents do not match their checksum")
    return body


def read_bytes(path: Path) -> bytes:
    """Return all bytes of a file.

    Raises:
        ValueError: If the file is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def sha256(content: bytes) -> str:
    """Return the SHA-256 checksum of some bytes as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def tensors_checksum(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 over each tensor's name, dtype, shape and bytes, on any device.

    Example:
        >>> tensors_checksum({"a": torch.zeros(2)}) == tensors_checksum({"a": torch.zeros(2, 1)})
        False
    """
    return _checksum({name: tensor.detach().cpu() for name, tensor in tensors.items()}, "")


def pack(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Return a nested value in a form that JSON can hold, with its tensors set apart.

    States of optimizers and of random generators nest dictionaries, lists, tuples, numbers and
    tensors. JSON has no tuples, no tensors and only texts as keys. So every container is written
    as ``{"dict": [[key, item], ...]}``, ``{"list": [...]}`` or ``{"tuple": [...]}``, and every
    tensor or numpy array as ``{"tensor": name}``, the name being its path in the nested value.

    Args:
        value: The nested value.
        tensors: Receives the tensors and arrays by name; changed in place.
        path: Path of ``value`` itself, with which the names begin.

    Raises:
        ValueError: If the value holds an object of another type, which only a pickle could store.

    Example:
        >>> arrays = {}
        >>> pack({"step": 3, "moment": torch.zeros(2)}, arrays, "state")
        {'dict': [['step', 3], ['moment', {'tensor': 'state/moment'}]]}
        >>> arrays
        {'state/moment': tensor([0., 0.])}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        tensors[path] = torch.as_tensor(value)
        return {"tensor": path}
    if isinstance(value, dict):
        items = value.items()
        return {"dict": [[pack(k, {}, path), pack(v, tensors, f"{path}/{k}")] for k, v in items]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [pack(item, tensors, f"{path}/{i}") for i, item in enumerate(value)]}
    raise ValueError(
        f"run: {path} holds a {type(value).__name__}, which cannot be stored without a pickle; "
        "expected numbers, texts, tensors, and lists, tuples or dictionaries of these"
    )


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the nested value that ``pack`` was given; arrays come back as tensors.

    Args:
        value: What ``pack`` returned.
        tensors: The tensors that ``pack`` set apart, by name.
    """
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {unpack(key, tensors): unpack(item, tensors) for key, item in content}
    items = [unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    """Return the SHA-256 over a text and over each tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _canonical(value: Any) -> str:
    """Return JSON text that does not depend on the order of the keys."""
    return json.dumps(value, sort_keys=True)


def _flush_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename in it survives a power cut.

    Systems that cannot open a folder, such as Windows, are left to flush it themselves.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
