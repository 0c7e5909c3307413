"""Effect handlers that the library puts around a model or a guide.

    scale of a row's site    s * N / B      N rows of data, B rows in the plate
    scale of a latent site   s * w          w the KL weight

A handler (Pyro calls it a messenger) sees the message of every sample statement before and after
the distribution draws its value. It may set the value, change the scale or add a plate.

Sources: Pyro's messengers (``pyro.poutine``); KL weight as in Higgins et al. (2017), beta-VAE.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor

from ppl_vae.compat.of_pyro import expand_to_plates
from ppl_vae.core.supports import is_discrete


class TrainingScale(Messenger):
    """Handler that scales a batch to the whole data set, and latent sites by the KL weight.

    The scale of a site inside the row plate is multiplied by ``rows / full_size`` of its plate.
    A user's own ``plate("data", N, subsample_size=B)`` has ``full_size`` N, so that its sites are
    not scaled twice. The KL weight multiplies every site that is neither observed nor a plate's
    subsample, in the model and in the guide alike: a weight on the model alone would mean one
    objective where the KL divergence is sampled and another where its closed form is used.

    Args:
        rows: N, the rows of the data set.
        plate: Name of the row plate.
        own_scales: Whether a scale that the user's code gave to a site (``poutine.scale``) has an
            effect. Without it a site has the scales of its plates alone.

    Attributes:
        kl_weight: The KL weight; ``None`` stands for 1 and costs no multiplication.
        scaled: Names of the sites to which the user's code gave a scale, in the runs so far.
    """

    def __init__(self, rows: int, plate: str, *, own_scales: bool = True) -> None:
        super().__init__()
        self.rows, self.plate, self.own_scales = rows, plate, own_scales
        self.kl_weight: float | Tensor | None = None
        self.scaled: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        if has_own_scale(msg):
            self.scaled.add(msg["name"])
            if not self.own_scales:
                msg["scale"] = scale_of_plates(msg)
        for frame in msg["cond_indep_stack"]:
            if frame.name == self.plate and frame.full_size != self.rows:
                msg["scale"] = msg["scale"] * (self.rows / frame.full_size)
        if self.kl_weight is not None and not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.kl_weight


def scale_of_plates(site: Any, without: str = "") -> float:
    """Return the scale that a site has from its plates: the product of full size by size.

    The product is 1 unless a plate subsamples. A plate without a size (-1) does not.

    Args:
        site: A site of a trace, or the message of a sample statement.
        without: Name of a plate to leave out.
    """
    scale = 1.0
    for frame in site["cond_indep_stack"]:
        if frame.size > 0 and frame.name != without:
            scale *= (frame.full_size or frame.size) / frame.size
    return scale


def has_own_scale(site: Any) -> bool:
    """Return whether the user's code scales a site, besides the site's plates.

    A scale that is a tensor counts as the user's without a look at its numbers.

    Args:
        site: A site of a trace, or the message of a sample statement.
    """
    scale = site["scale"]
    return isinstance(scale, Tensor) or not math.isclose(scale, scale_of_plates(site))


class RowPlateOfBatch(Messenger):
    """Handler that gives a row plate without a size the length of the batch.

    ``pyro.plate("data")`` stands for the rows at hand, whatever their number: Pyro writes -1 for
    its size. Scales, particles and rules need the number. Where the distribution of a site has
    another length along the plate's dimension already, that length is the plate's.

    Args:
        plate: Name of the row plate.
        rows: Rows of the batch.
    """

    def __init__(self, plate: str, rows: int) -> None:
        super().__init__()
        self.plate, self.rows = plate, rows

    def _pyro_sample(self, msg: Any) -> None:
        stack = msg["cond_indep_stack"]
        if not any(self._has_no_size(frame) for frame in stack):
            return
        msg["cond_indep_stack"] = tuple(
            self._with_size(frame, msg["fn"]) if self._has_no_size(frame) else frame
            for frame in stack
        )
        expand_to_plates(msg)

    def _has_no_size(self, frame: CondIndepStackFrame) -> bool:
        """Return whether a frame is the row plate's, in a ``with`` statement, without a size."""
        return frame.name == self.plate and frame.dim is not None and frame.size < 0

    def _with_size(self, frame: CondIndepStackFrame, fn: Any) -> CondIndepStackFrame:
        """Return the frame with the length that the plate has at a site's distribution."""
        shape, dim = tuple(getattr(fn, "batch_shape", ())), frame.dim or -1
        length = shape[dim] if len(shape) >= -dim else 1
        size = self.rows if length == 1 else length
        return CondIndepStackFrame(frame.name, frame.dim, size, frame.counter, size)


class HeldSubsamples(Messenger):
    """Handler that gives a subsampling plate the same indices in every run, except the row plate.

    ``pyro.plate("genes", 6, 3)`` draws 3 of 6 indices in each run. Runs that are compared or joined
    (the guide and the model, blocks of rows, one run for each particle) have to see the same ones.
    The first run inside the handler draws them; later runs are given that draw.

    Args:
        plate: Name of the row plate, whose subsample is the batch.
        held: The draws so far, by the plate's name, full size and size; it is added to.
    """

    def __init__(self, plate: str, held: dict[tuple[str, int, int], Tensor]) -> None:
        super().__init__()
        self.plate, self.held = plate, held

    def _pyro_sample(self, msg: Any) -> None:
        if self._is_drawn(msg) and self._key(msg) in self.held and msg["value"] is None:
            msg["value"], msg["done"] = self.held[self._key(msg)], True

    def _pyro_post_sample(self, msg: Any) -> None:
        if self._is_drawn(msg):
            self.held.setdefault(self._key(msg), msg["value"])

    def _is_drawn(self, msg: Any) -> bool:
        """Return whether a message draws the indices of a plate other than the row plate."""
        if not site_is_subsample(msg) or msg["name"] == self.plate:
            return False
        return bool((msg["fn"].subsample_size or msg["fn"].size) < msg["fn"].size)

    @staticmethod
    def _key(msg: Any) -> tuple[str, int, int]:
        """Return the name, the full size and the size of the plate of a message."""
        return msg["name"], msg["fn"].size, msg["fn"].subsample_size


class Substitute(Messenger):
    """Handler that gives named sites fixed values without marking them as observed.

    Observed sites keep their observed values.

    Args:
        values: ``{site: tensor}``.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"], msg["done"] = self.values[msg["name"]], True


class Unobserve(UnconditionMessenger):
    """Handler that makes the model draw its data sites instead of observing them.

    Deterministic, auxiliary and factor sites are left alone, unlike under Pyro's own handler. The
    observed value is stored in the site's ``infer["obs"]``, and ``infer["was_observed"]`` is set.
    """

    def _pyro_sample(self, msg: Any) -> None:
        not_data = msg["infer"].get("_deterministic") or msg["infer"].get("is_auxiliary")
        if not not_data and not site_is_factor(msg):
            super()._pyro_sample(msg)


class CentralValues(Messenger):
    """Handler that gives every latent a central value of its distribution instead of a draw.

    The central value is the mean, or the most probable value where the support is discrete. Where
    the distribution does not know it, or it is not finite, the central value is the median of
    1001 draws.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["value"] is not None or site_is_subsample(msg):
            return
        fn = msg["fn"]
        try:
            center = fn.mode if is_discrete(fn) else fn.mean
        except (NotImplementedError, AttributeError):
            center = None
        if center is None or not bool(center.isfinite().all()):
            center = fn((1001,)).median(0).values
        msg["value"], msg["done"] = center, True


class Particles(Messenger):
    """Handler that draws every site ``count`` times, along one more dimension on the left.

    It acts like a plate called "particles" that the user did not have to write: the frame joins
    each site's stack, and Pyro's own broadcasting expands the distribution along it.

    Args:
        count: P, the number of particles.
        dim: The particles' dimension, negative, left of every plate's.
        within: Draw only the sites inside this plate P times; ``None`` means all sites.
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
    """Handler that enumerates discrete latents in parallel, also those that ask for "sequential".

    In parallel, all values of a latent lie along a tensor dimension of their own, so that one run
    of the model covers them. A site with ``num_samples`` asks for a few drawn values, not for all
    of them; it is drawn as an ordinary site.
    """

    def _pyro_sample(self, msg: Any) -> None:
        infer = msg["infer"]
        if infer.get("num_samples") is not None:
            msg["infer"] = {k: v for k, v in infer.items() if k not in ("enumerate", "num_samples")}
        elif infer.get("enumerate") == "sequential":
            msg["infer"] = {**infer, "enumerate": "parallel"}


class DetachedDraws(Messenger):
    """Handler that detaches each draw in the row plate, so that gradients end at its value.

    Code after the site computes with a leaf tensor that equals the draw but does not depend on
    the distribution's parameters. A gradient can then be taken with respect to the draw itself,
    and be passed on to the parameters separately.

    Args:
        plate: Name of the row plate.

    Attributes:
        draws: ``{site: (leaf, draw)}``. The draw still depends on the guide's parameters, and on
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


class ReplayReplicates(Messenger):
    """Handler that gives latents the values that replicates were drawn from.

    Replicates are stored with the dimensions (samples, rows, ...). A model wants each plate's
    dimension at the place where the plate was opened, so the handler moves the dimensions.

    Args:
        latents: ``{site: (samples, rows, ...)}`` as ``Replicates`` has them. Without a ``dim``,
            the latents of one sample, ``{site: (rows, ...)}``.
        dim: The samples' dimension, negative; ``None`` where the latents have no such dimension.
    """

    def __init__(self, latents: Mapping[str, Tensor], dim: int | None) -> None:
        super().__init__()
        self.latents, self.dim = latents, dim

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.latents and not msg["is_observed"]:
            msg["value"], msg["done"] = self._for_plates(self.latents[msg["name"]], msg), True

    def _for_plates(self, value: Tensor, msg: Any) -> Tensor:
        """Move each plate's dimension of a stored value to the plate's place in the model.

        The stored order is samples, rows, other plates from left to right, then the event. The
        result has the plates at their dimensions and size 1 where no plate is between them.
        """
        plates = {frame.dim for frame in msg["cond_indep_stack"] if frame.dim is not None}
        first = [d for d in (self.dim, -1) if d in plates]
        stored = first + sorted(plates - set(first))
        order = sorted(range(len(stored)), key=lambda i: stored[i])
        value = value.permute((*order, *range(len(stored), value.ndim)))
        dims = range(min(plates, default=0), 0)
        sizes = iter(value.shape)
        return value.reshape([next(sizes) if d in plates else 1 for d in dims] + list(sizes))
