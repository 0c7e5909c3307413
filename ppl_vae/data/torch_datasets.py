"""Map-style data sets of torch, read into memory."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterableDataset, TensorDataset, default_collate


def read_dataset(dataset: Any, name: str) -> Any:
    """Read all items of a map-style dataset into a tensor, or a tuple or mapping of tensors.

    Raises:
        ValueError: If the dataset is empty or has no length.
    """
    if isinstance(dataset, TensorDataset):
        tensors = dataset.tensors
        return tensors[0] if len(tensors) == 1 else tuple(tensors)
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ValueError(
            f"{name}: expected a map-style Dataset with a length, got {type(dataset).__name__}; "
            "write a stream to a numpy memmap and pass that"
        )
    if len(dataset) == 0:
        raise ValueError(f"{name}: expected at least one row, got an empty Dataset")
    items = default_collate([dataset[i] for i in range(len(dataset))])
    if isinstance(items, list):
        return items[0] if len(items) == 1 else tuple(items)
    return items
