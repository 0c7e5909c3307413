"""Pyro's effect-based guides, such as ``AutoNormalMessenger``, run as ordinary guides.

    model  z ~ p(z), x ~ p(x given z)       guide  z ~ q(z), while the model's code runs

An ordinary guide is a function of its own. An effect-based guide (``GuideMessenger``) has none: it
runs the model and puts the posterior in the place of each latent's prior. So its run also holds
what the model observes, and the parameters that the model asks for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.guide import GuideMessenger

from ppl_vae.compat.of_pyro import MODEL_OF_GUIDE
from ppl_vae.core.private_store import PrivateStore


@contextlib.contextmanager
def run_as_guide(
    guide: GuideMessenger, model_store: PrivateStore, guide_store: PrivateStore
) -> Iterator[None]:
    """Make a context in which calling an effect-based guide acts as an ordinary guide does.

    Pyro's ELBOs ask such a guide for the traces of both halves after one call. They find it only
    where no handler and no function stands around it, and the library puts its own around every
    guide. Inside this context the guide's sites are those of an ordinary guide instead: the model's
    observed sites are hidden from the outside, and the latents have their posteriors. The model is
    then run by itself with these draws, as beside any guide.

    The parameters that the model asks for (``pyro.param``) have to be the model's own, and those of
    the posteriors the guide's. So the model's code runs in the model's store, and ``get_posterior``
    in the guide's: two attributes of the guide are replaced inside the context, and restored.

    Args:
        guide: The guide.
        model_store: The private store of the guide's model.
        guide_store: The private store of the guide.

    Yields:
        Nothing.
    """
    model, posterior, attributes = guide.model, guide.get_posterior, vars(guide)

    def in_model_store(*batch: Any, **fields: Any) -> Any:
        with model_store:
            return model(*batch, **fields)

    def in_guide_store(name: str, prior: Any) -> Any:
        with guide_store:
            return posterior(name, prior)

    replaced: dict[str, Any] = {MODEL_OF_GUIDE: (in_model_store,), "get_posterior": in_guide_store}
    before = {name: attributes[name] for name in replaced if name in attributes}
    attributes.update(replaced)
    try:
        with BlockMessenger(hide_fn=_is_observed):
            yield
    finally:
        for name in replaced:
            del attributes[name]
        attributes.update(before)


def _is_observed(msg: Any) -> bool:
    """Return whether a message is that of an observed site."""
    return msg["type"] == "sample" and bool(msg["is_observed"])
