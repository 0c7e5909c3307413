"""Files that survive: written whole or not at all, checked when read, never a pickle.

A tensor file is safetensors whose metadata hold a JSON text and a SHA-256 over that text and
every tensor's name, dtype, shape and bytes; a JSON file holds a SHA-256 of itself.
"""

from __future__ import annotations

import contextlib
import hashlib
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
    """Write beside, flush to the disk, rename: readers see the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
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


def write_tensors(path: Path, tensors: dict[str, Tensor], info: Any) -> None:
    """Write tensors and a JSON value as one file; tensors that share memory are stored once."""
    stored: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and key in seen:
            same[name] = seen[key]
        else:
            seen[key] = name
            stored[name] = tensor.detach().cpu().contiguous().clone()
    text = json.dumps({"info": info, "same": same})
    metadata = {"ppl_vae": text, "sha256": _digest(stored, text)}
    write_whole(path, save_tensors(stored, metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read such a file back: (tensors, JSON value).

    Raises:
        ValueError: Where the file is missing, cut, changed, or not one of these.
    """
    content = read_bytes(path)
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        metadata = header["__metadata__"]
        tensors = load_tensors(content)
        text = metadata["ppl_vae"]
        sound = metadata["sha256"] == _digest(tensors, text)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: not a file of ppl_vae, or damaged ({error})") from error
    if not sound:
        raise ValueError(f"{path}: damaged: its contents do not match their checksum")
    value = json.loads(text)
    for name, other in value["same"].items():
        tensors[name] = tensors[other]
    return tensors, value["info"]


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object with a checksum of itself."""
    body = {key: item for key, item in value.items() if key != "sha256"}
    text = json.dumps({**body, "sha256": _digest({}, _canonical(body))}, indent=2)
    write_whole(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object with a checksum of itself.

    Raises:
        ValueError: Where the file is missing, cut, changed, or not one of these.
    """
    try:
        value = json.loads(read_bytes(path))
        body = {key: item for key, item in value.items() if key != "sha256"}
        sound = value["sha256"] == _digest({}, _canonical(body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: not a file of ppl_vae, or damaged ({error})") from error
    if not sound:
        raise ValueError(f"{path}: damaged: its contents do not match their checksum")
    return body


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; ``ValueError`` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def sha256(content: bytes) -> str:
    """Checksum of bytes."""
    return hashlib.sha256(content).hexdigest()


def pack(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """A nested value as JSON, its tensors and arrays put into ``tensors`` by their path.

    Raises:
        ValueError: Where it holds something that needs a pickle.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        tensors[path] = torch.as_tensor(value)
        return {"tensor": path}
    if isinstance(value, dict):
        items = [
            [pack(key, {}, path), pack(item, tensors, f"{path}/{key}")]
            for key, item in value.items()
        ]
        return {"dict": items}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [pack(item, tensors, f"{path}/{i}") for i, item in enumerate(value)]}
    raise ValueError(f"run: {path} holds a {type(value).__name__}, which cannot be kept safely")


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The nested value that ``pack`` was given."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {unpack(key, tensors): unpack(item, tensors) for key, item in content}
    items = [unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _flush_folder(folder: Path) -> None:
    """Make a rename durable, where the system lets a folder be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
