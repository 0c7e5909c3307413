"""Guides that a model or another guide is built around: what these need of them.

A prior that is made of the guide's answers, and a guide that corrupts the rows of the guide inside,
run a guide on rows that are none of the data.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ppl_vae.nn.row_keys import KnownRows


def check_reads_rows(guide: Any) -> None:
    """Raise ``ValueError`` where a guide has parameters for single rows, which are found by index.

    Its answer does not depend on the numbers in a row, and rows that were changed or invented are
    refused (``KnownRows``): there is no use in a corrupted row, and no answer to a pseudo-input.

    Args:
        guide: A guide that is to run on other rows than those of the data.

    Example:
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> check_reads_rows(NormalGuide(features=4))  # it has an encoder
        >>> from ppl_vae.guides.local import LocalGuide
        >>> check_reads_rows(LocalGuide(rows=9, latents=2))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: guide: expected a guide that reads its rows, got LocalGuide...
    """
    modules = guide.modules() if isinstance(guide, nn.Module) else ()
    if any(isinstance(module, KnownRows) for module in modules):
        raise ValueError(
            f"guide: expected a guide that reads its rows, got {type(guide).__name__}, which finds "
            "parameters of each row by its index and refuses other rows; use a guide with an "
            "encoder, such as NormalGuide"
        )


def fields_read(guide: Callable[..., Any], fields: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the fields that a guide takes, of those that the data have beside the row.

    Args:
        guide: A guide, called with its fields by name.
        fields: Fields of the data, (rows, ...) each.

    Example:
        >>> fields_read(lambda x, y: None, {"y": 1, "size": 2})
        {'y': 1}
    """
    function = guide.forward if isinstance(guide, nn.Module) else guide
    taken = inspect.signature(function).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    return {name: field for name, field in fields.items() if takes_any or name in taken}
