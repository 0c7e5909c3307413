"""Effect handlers: what the library adds around a model or a guide, and a store of its own.

    scale of a row's site    s * N / B      N rows of data, B rows in the plate
    scale of a latent site   s * w          w the KL weight

Sources: Pyro's messengers (``pyro.poutine``); KL weight as in Higgins et al. (2017), beta-VAE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import pyro
import torch
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor, nn

from ppl_vae.compat import expand_to_plates


class TrainingScale(Messenger):
    """Weigh a batch as the whole data set, and the latent sites by the KL weight.

    A site inside the row plate is multiplied by ``rows / full_size`` of its frame, so that a
    user's own ``plate("data", N, subsample_size=B)`` is not scaled twice. The KL weight reaches
    every site that is neither observed nor a subsample, in the model and in the guide alike:
    weighing the model alone would change the objective under sampled and closed-form KL
    differently.

    Args:
        rows: N, the rows of the data set.
        plate: Name of the row plate.

    Attributes:
        kl_weight: The weight; ``None`` is 1 at no cost.
    """

    def __init__(self, rows: int, plate: str) -> None:
        super().__init__()
        self.rows = rows
        self.plate = plate
        self.kl_weight: float | Tensor | None = None

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        for frame in msg["cond_indep_stack"]:
            if frame.name == self.plate and frame.full_size != self.rows:
                msg["scale"] = msg["scale"] * (self.rows / frame.full_size)
        if self.kl_weight is not None and not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.kl_weight


class KeepModuleParameters(Messenger):
    """Leave modules' parameters as their modules have them.

    Pyro's store calls ``requires_grad_(True)`` on a ``PyroModule``'s parameter at its first
    access, which thaws a frozen one in silence; and it cannot hold the parameter of a lazy layer
    that has not run yet. A parameter that appears takes the value that waits for it in its store.

    Args:
        store: The store of the half that runs.
    """

    def __init__(self, store: PrivateStore) -> None:
        super().__init__()
        self.store = store
        self._frozen: nn.Parameter | None = None

    def _pyro_param(self, msg: Any) -> None:
        initial = msg["args"][1] if len(msg["args"]) > 1 else None
        if isinstance(initial, nn.parameter.UninitializedParameter):
            msg["value"], msg["done"] = initial, True
        elif isinstance(initial, nn.Parameter) and not initial.requires_grad:
            self._frozen = initial

    def _pyro_post_param(self, msg: Any) -> None:
        if self._frozen is not None:
            self._frozen.requires_grad_(False)
            self._frozen = None
        if self.store.waiting:
            value = self.store.waiting.pop(msg["name"].replace("$$$", "."), None)
            if value is not None:
                with torch.no_grad():
                    dict(self.store.tables.named_parameters())[msg["name"]].copy_(value)
                msg["value"] = self.store.tables[msg["name"]]


class Substitute(Messenger):
    """Give named sites that are not observed fixed values, without observing them.

    Args:
        values: ``{site: tensor}``.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.values[msg["name"]]
            msg["done"] = True


class Unobserve(Messenger):
    """Draw the data sites instead of observing them.

    Deterministic, auxiliary and factor sites stay what they are. The value that was observed
    is kept in ``infer["obs"]``.
    """

    def _pyro_sample(self, msg: Any) -> None:
        infer = msg["infer"]
        hidden = infer.get("_deterministic") or infer.get("is_auxiliary")
        if msg["is_observed"] and not hidden and not site_is_factor(msg):
            infer["obs"] = msg["value"]
            infer["was_observed"] = True
            msg["value"] = None
            msg["is_observed"] = False
            msg["done"] = False


class CentralValues(Messenger):
    """Give every latent the center of its distribution instead of a draw.

    The mean, or the most probable value where the support is discrete; where that is not known or
    not finite, the median of 1001 draws.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["value"] is not None or site_is_subsample(msg):
            return
        fn = msg["fn"]
        try:
            center = fn.mode if fn.support.is_discrete else fn.mean
        except (NotImplementedError, AttributeError):
            center = None
        if center is None or not bool(center.isfinite().all()):
            center = fn.sample((1001,)).median(0).values
        msg["value"], msg["done"] = center, True


class Particles(Messenger):
    """Draw every site so many times, along one more dimension on the left.

    Args:
        count: P, the draws.
        dim: The dimension, counted from the right: left of every plate's.
        within: Only sites inside this plate; ``None`` is all of them.
    """

    NAME = "particles"

    def __init__(self, count: int, dim: int, within: str | None = None) -> None:
        super().__init__()
        self.frame = CondIndepStackFrame(self.NAME, dim, count, 0)
        self.within = within

    def _pyro_sample(self, msg: Any) -> None:
        stack = msg["cond_indep_stack"]
        inside = self.within is None or any(frame.name == self.within for frame in stack)
        if inside and not site_is_subsample(msg):
            msg["cond_indep_stack"] = (self.frame, *stack)
            expand_to_plates(msg)


class EnumerateInParallel(Messenger):
    """Sum discrete latents along dimensions of their own, however they ask to be summed.

    A site that asks for a few of its values, drawn (``num_samples``), is drawn as usual.
    """

    def _pyro_sample(self, msg: Any) -> None:
        infer = msg["infer"]
        if infer.get("num_samples") is not None:
            msg["infer"] = {k: v for k, v in infer.items() if k not in ("enumerate", "num_samples")}
        elif infer.get("enumerate") == "sequential":
            msg["infer"] = {**infer, "enumerate": "parallel"}


class DetachedDraws(Messenger):
    """Cut each draw in the row plate from what made it: its value is a leaf that gradients end in.

    Args:
        plate: Name of the row plate.

    Attributes:
        draws: ``{site: (leaf, draw)}``; the draw still depends on the guide's parameters, and on
            the leaves of the latents before it.
    """

    def __init__(self, plate: str) -> None:
        super().__init__()
        self.plate = plate
        self.draws: dict[str, tuple[Tensor, Tensor]] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        inside = any(frame.name == self.plate for frame in msg["cond_indep_stack"])
        value = msg["value"]
        if not inside or msg["is_observed"] or site_is_subsample(msg) or not value.requires_grad:
            return
        leaf = value.detach().requires_grad_()
        self.draws[msg["name"]] = leaf, value
        msg["value"] = leaf


class PrivateStore:
    """A parameter store that stands in for Pyro's global one inside ``with``.

    Modules and ``pyro.param`` read and write Pyro's one global store object; its tables are
    exchanged on entering and put back on leaving, so that nothing of a pair reaches the global
    store and two pairs never meet. The exchange is of one reference: it costs no copy.
    """

    def __init__(self) -> None:
        self.tables = ParamStoreDict()
        self.waiting: dict[str, Tensor] = {}
        self._outer: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        store = pyro.get_param_store()
        self._outer.append(store.__dict__)
        store.__dict__ = self.tables.__dict__
        return self

    def __exit__(self, *error: object) -> None:
        pyro.get_param_store().__dict__ = self._outer.pop()


class ReplayReplicates(Messenger):
    """Give latents the values that replicates were drawn from, laid out for the model's plates.

    Args:
        latents: ``{site: (samples, rows, ...)}`` as ``Replicates`` has them; without a ``dim``,
            those of one sample, ``{site: (rows, ...)}``.
        dim: The samples' dimension, counted from the right; ``None`` where there is none.
    """

    def __init__(self, latents: Mapping[str, Tensor], dim: int | None) -> None:
        super().__init__()
        self.latents, self.dim = latents, dim

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.latents and not msg["is_observed"]:
            msg["value"], msg["done"] = self._placed(self.latents[msg["name"]], msg), True

    def _placed(self, value: Tensor, msg: Any) -> Tensor:
        """Undo ``replicates.by_draw``: every plate's dimension where the plate has it."""
        plates = {frame.dim for frame in msg["cond_indep_stack"] if frame.dim is not None}
        first = [d for d in (self.dim, -1) if d in plates]
        came = first + sorted(plates - set(first))
        order = sorted(range(len(came)), key=lambda i: came[i])
        value = value.permute((*order, *range(len(came), value.ndim)))
        wanted = range(min(plates, default=0), 0)
        sizes = iter(value.shape)
        return value.reshape([next(sizes) if d in plates else 1 for d in wanted] + list(sizes))
