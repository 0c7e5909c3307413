"""What a refused pair's runs leave behind, taken away again: parameters that appeared while it ran.

A ``pyro.param`` enters the private store of its half at the first call, and an autoguide takes its
shapes from the first batch. If ``lint`` refuses the pair, the user mends the model or the data and
calls again: what the faulty run left would then be in the way, with shapes of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer.autoguide import AutoGuide
from torch import nn

from ppl_vae.core.pair import Pair


class Appeared:
    """Remembers what a pair has now, so that what appears later can be removed.

    Args:
        pair: The pair.
    """

    def __init__(self, pair: Pair) -> None:
        self._stores = [half.store for half in (pair.model, pair.guide)]
        self._names = [set(store.tables.keys()) for store in self._stores]
        guides = [m for top in pair.modules() for m in top.modules() if isinstance(m, AutoGuide)]
        self._restorers = [_restorer(module) for guide in guides for module in guide.modules()]

    def remove(self) -> None:
        """Remove the parameters that have appeared, and make new autoguides new again."""
        for store, names in zip(self._stores, self._names, strict=True):
            store.forget(set(store.tables.keys()) - names)
        for restore in self._restorers:
            restore()


def _restorer(module: nn.Module) -> Callable[[], None]:
    """Return a function that gives a module the attributes back that it has now.

    A dictionary among the attributes, such as that of the parameters, gets its entries back.
    """
    attributes = dict(vars(module))
    entries = {key: dict(value) for key, value in attributes.items() if isinstance(value, dict)}

    def restore() -> None:
        own: dict[str, Any] = vars(module)
        for key in own.keys() - attributes.keys():
            del own[key]
        own.update(attributes)
        for key, before in entries.items():
            own[key].clear()
            own[key].update(before)

    return restore
