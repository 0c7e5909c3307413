"""The pairs of the zoo, found in models/ and guides/: no list of pairs to keep up to date.

A new guide file needs no line here: every test tries the guide with every model. A new model file
needs one line in ``DATA``: how to make rows that the model can score.
"""

import functools

import torch

from ppl_vae import lint
from ppl_vae.cli.pairs import build_pair
from ppl_vae.zoo.catalog import zoo


def reals():
    """(60, 4) real numbers, far from zero and of a spread far from one."""
    return torch.randn(60, 4, generator=torch.Generator().manual_seed(1)) * 30 + 100


def binaries():
    """(60, 4) zeros and ones."""
    return (reals() > 100).float()


DATA = {"bernoulli": binaries, "gaussian": reals, "ppca": reals}
"""Name of a file in models/ -> a function that makes its rows, at least 2 features wide."""


def zoo_data(model):
    """Rows for a zoo model."""
    assert model in DATA, (
        f'models/{model}.py has no data in the tests: add "{model}": <a function that makes its '
        "rows> to DATA in tests/parts/zoo.py"
    )
    return DATA[model]()


def zoo_pair(model, guide, data=None):
    """``(model, guide, data)`` built from the rows, with two latents."""
    data = zoo_data(model) if data is None else data
    return *build_pair(model, guide, data, ["latents=2"], seed=0), data


@functools.cache
def zoo_pairs():
    """Names ``(model, guide)`` of all pairs of the zoo that fit together.

    A guide fits a model where both constructors accept the same data and ``lint`` finds no error.
    """
    return [
        (model, guide)
        for model in zoo("models")
        if model in DATA  # a test of its own names the others
        for guide in zoo("guides")
        if _fits(model, guide)
    ]


def _fits(model, guide):
    try:
        return not lint(*zoo_pair(model, guide)).errors
    except ValueError:  # a constructor's refusal
        return False
