"""What most likely made a pair fail on a batch, found in the failed call and not in its message.

Errors of torch speak of tensors without names ("mat1 and mat2 must have the same dtype"), and
their words change with the version. What helps a user is the field, the site or the parameter at
fault, and the mend. ``find_cause`` looks for it in two places:

1. In the frames of the error's traceback (``failed_runs.cause_in_frames``).
2. In the elementary call of torch that failed. The pair runs once more inside ``FailedCall``, which
   stores that call's function and arguments. Then the call itself is tried with copies of its
   arguments: where it succeeds with other dtypes, the dtypes are the cause; where it succeeds with
   zeros in place of an index, the index is the cause, and each of its values is tried in turn.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ppl_vae.compat.of_torch import tensors_in
from ppl_vae.core.failed_runs import Cause, FailedRun, cause_in_frames, plate_cause
from ppl_vae.data.cells import cells_in
from ppl_vae.data.rows import as_tuple, batch_rows

MOST_VALUES = 1000  # most different values of an index that are tried

_CASTS = {torch.float32: ".float()", torch.float64: ".double()", torch.int64: ".long()"}


class PlateLength(Messenger):
    """Handler that stores how many rows a plate takes.

    Args:
        plate: Name of the plate.

    Attributes:
        length: Number of rows; ``None`` where the plate was not opened.
    """

    def __init__(self, plate: str) -> None:
        super().__init__()
        self.plate = plate
        self.length: int | None = None

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        if msg["name"] == self.plate and isinstance(value, Tensor) and value.ndim:
            self.length = len(value)  # row numbers, or rows themselves


class LatentValues(Messenger):
    """Handler that stores the values of latents.

    Attributes:
        values: ``{site: value}``, as drawn, or all values of a latent that is summed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        latent = not msg["is_observed"] and not site_is_subsample(msg)
        if latent and isinstance(msg["value"], Tensor):
            self.values[msg["name"]] = msg["value"]

    def site_of(self, tensor: Tensor) -> str | None:
        """Return the latent whose numbers a tensor holds, in any shape and dtype."""
        numbers = tensor.flatten()
        for name, value in self.values.items():
            same = value.numel() == numbers.numel()
            if same and torch.equal(value.flatten().to(numbers.dtype), numbers):
                return name
        return None


class FailedCall(TorchFunctionMode):
    """Context that stores the call of torch that raised the last error inside.

    Attributes:
        error: What the call raised; ``None`` where no call of torch failed.
        function: The function that was called.
        arguments: Its arguments, as (positional, by name).
    """

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.function: Callable[..., Any] = torch.clone
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except Exception as error:
            self.error, self.function, self.arguments = error, func, (args, kwargs or {})
            raise

    def succeeds(self, replace: Callable[[Tensor], Tensor]) -> bool:
        """Return whether the call succeeds with other tensors.

        Args:
            replace: Called with a copy of each tensor among the arguments; returns what takes its
                place. Because of the copies, a call that writes into an argument changes nothing.
        """
        try:
            args, kwargs = _mapped(self.arguments, lambda tensor: replace(tensor.detach().clone()))
            with torch.no_grad():
                self.function(*args, **kwargs)
        except Exception:
            return False
        return True


def find_cause(failed: FailedRun) -> Cause | None:
    """Return what made a run fail, where it can be told; ``None`` otherwise."""
    try:
        return cause_in_frames(failed) or _cause_in_call(failed)
    except Exception:  # the error itself must reach the user where a search for its cause fails
        return None


def _cause_in_call(failed: FailedRun) -> Cause | None:
    """Run the same code again, and return the cause that its failed call of torch shows."""
    if any(field.device.type != "cpu" for field in as_tuple(failed.batch)):
        return None  # on a GPU a wrong index ends all later work of the process
    call, opened, latents = FailedCall(), PlateLength(failed.plate), LatentValues()
    try:
        with call, opened, latents:
            failed.run()
    except Exception as again:
        row_count = batch_rows(failed.batch)
        if opened.length is not None and opened.length != row_count:
            return plate_cause(failed.plate, failed.role, row_count, opened.length)
        if call.error is not None and call.error in (again, again.__cause__):
            return _dtype_cause(failed, call) or _index_cause(failed, call, latents)
    return None


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return nested arguments with a function applied to each tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple | list):
        return type(value)(_mapped(item, function) for item in value)
    if isinstance(value, dict):
        return {key: _mapped(item, function) for key, item in value.items()}
    return value


def _equal_cells(fields: Sequence[Tensor], tensor: Tensor) -> tuple[int, Tensor] | None:
    """Return the one field that a tensor of one number a row repeats where not 0, and its cells.

    The tensor is a copy of labels, for example, with 0 in place of those that are missing.
    """
    flat, found = tensor.detach().reshape(len(tensor), -1), []
    if flat.shape[1] == 1 and bool(flat.any()):
        for position, field in enumerate(fields):
            one = field.reshape(len(field), -1)
            if one.shape[1] == 1 and bool(((one == flat) | (flat == 0)).all()):
                found.append(position)
    cells = torch.arange(len(tensor), device=tensor.device).reshape(tensor.shape)
    return (found[0], cells) if len(found) == 1 else None


def _field_of(failed: FailedRun, tensor: Tensor) -> tuple[str, Tensor | None]:
    """Return the field of the data that a tensor was read from, and the row of each of its cells.

    Returns:
        The field's name for messages, and positions in the data, shaped like the tensor; a
        description of the tensor and ``None`` where it is no part of the data.
    """
    if tensor.ndim and len(tensor) == batch_rows(failed.batch):
        fields = as_tuple(failed.batch)
        place = cells_in(failed.batch, tensor) or _equal_cells(fields, tensor)
        if place is not None:
            position, cells = place
            named = isinstance(failed.batch, dict)
            name = f'field "{list(failed.batch)[position]}"' if named else f"data field {position}"
            rows = cells // max(1, fields[position][0].numel())
            return name, failed.positions.to(rows.device)[rows]
    return f"a tensor of shape {tuple(tensor.shape)}", None


def _dtype_cause(failed: FailedRun, call: FailedCall) -> Cause | None:
    """Return the cause where the call succeeds once its tensors have other dtypes.

    All tensors are tried as torch's default floats, which the data have. Where the call wants whole
    numbers (categories that are looked up in a table), each tensor of floats is tried as integers.
    """
    tensors, default = tensors_in(call.arguments), torch.get_default_dtype()
    other = [t for t in tensors if t.dtype not in (default, torch.bool)]
    if other and call.succeeds(lambda t: t if t.dtype == torch.bool else t.to(default)):
        return _wrong_dtype(failed, tensors, other[0], default)
    for place, tensor in enumerate(tensors):
        if tensor.is_floating_point() and call.succeeds(_at(place, lambda t: t.long())):
            return _wrong_dtype(failed, tensors, tensor, torch.int64)
    return None


def _at(place: int, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function that changes the tensor of one position among a call's arguments."""
    count = itertools.count()
    return lambda tensor: function(tensor) if next(count) == place else tensor


def _wrong_dtype(
    failed: FailedRun, tensors: list[Tensor], tensor: Tensor, expected: torch.dtype
) -> Cause:
    """Return the cause that names a tensor of another dtype than a call of torch takes.

    Args:
        failed: The run.
        tensors: All tensors among the call's arguments.
        tensor: The one of another dtype.
        expected: The dtype with which the call succeeds.
    """
    cast = _CASTS.get(expected, f".to({expected})")
    weights = [name for name, p in failed.parameters.items() if any(p is t for t in tensors)]
    names = [name for name in weights if failed.parameters[name] is tensor]
    if names:
        problem = f"expected {expected}, the dtype of the data in a batch, got {tensor.dtype}"
        return Cause(f'parameter "{names[0]}"', problem, f"call {cast} on the network")
    where, _ = _field_of(failed, tensor)
    why = f' for a network with the parameter "{weights[0]}"' if weights else ""
    problem = f"expected {expected} in the {failed.role}{why}, got {tensor.dtype}"
    return Cause(where, problem, f"write {cast} where the {failed.role} reads it")


def _index_cause(failed: FailedRun, call: FailedCall, latents: LatentValues) -> Cause | None:
    """Return the cause where the call succeeds with zeros in place of a tensor of integers.

    The tensor is then an index (into a table of embeddings, a one-hot code, a parameter), and some
    of its values are outside the table: categories of -1, or ones that the table has no row for.

    Args:
        failed: The run.
        call: The call of torch that failed in it.
        latents: The values of the run's latents, one of which may be the index.
    """
    for place, index in enumerate(tensors_in(call.arguments)):
        is_index = not index.is_floating_point() and index.dtype != torch.bool and index.numel()
        if not is_index or not call.succeeds(_at(place, torch.zeros_like)):
            continue

        def takes(value: int, place: int = place) -> bool:
            return call.succeeds(_at(place, lambda t: torch.full_like(t, value)))

        bad = [v for v in index.unique()[:MOST_VALUES].tolist() if not takes(v)]
        if not bad:
            return None
        where, rows = _field_of(failed, index)
        at_fault = torch.isin(index, torch.tensor(bad, dtype=index.dtype))
        got = f"{int(index[at_fault][0])}"
        if rows is not None:
            got += f" in row {int(rows[at_fault][0])}"
        most = max(bad)
        upto = ""
        if most > 0:  # the table is as long as the smallest number that it does not take
            length = bisect.bisect_left(range(most), True, key=lambda v: not takes(v))
            upto = f" to {length - 1}"
        fix = "give every category a number from 0 upwards, a missing one too, and the table "
        fix += "(embedding, one-hot code) a row for each number"
        site = latents.site_of(index) if rows is None else None
        if site is not None:
            where = f'site "{site}"'
            fix = "give the table that the latent indexes (means, an embedding) a row for each of "
            fix += "its values, or the latent as many values as the table has rows"
        problem = f"expected categories from 0{upto} in the {failed.role}, got {got}"
        return Cause(where, problem, fix)
    return None
