"""Constructor arguments without a meaning are refused by their names, whoever makes the class."""

import inspect

import pytest
import torch

from ppl_vae.guides.missing_cells import MissingCellsGuide
from ppl_vae.guides.nearest_code import NearestCodeGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.hierarchical import HierarchicalModel
from ppl_vae.models.not_missing_at_random import NotMissingAtRandomModel
from ppl_vae.models.vector_quantized import VectorQuantizedModel
from ppl_vae.nn import MLP, expanded
from ppl_vae.zoo.catalog import find_class, zoo

CLASSES = [find_class(name, kind) for kind in ("models", "guides") for name in zoo(kind)]
CLASSES.remove(find_class("local", "guides"))  # it has rows and no features: test_local_guide
CLASSES.remove(find_class("ppca", "models"))  # its latents are fewer than its features: test_ppca
COUNTS = (
    "features", "latents", "rank", "layers", "components", "states", "steps", "pseudo_inputs",
    "conditions", "classes", "codes",
)  # fmt: skip
SIZES = dict.fromkeys(COUNTS, (0, -1, 2.5, "a", True))
SCALES = dict.fromkeys(("scale", "spread", "rate", "sigma"), (0.0, -1.0, torch.nan, "a"))
WRONG = {**SIZES, **SCALES, "floor": (-1.0, torch.nan), "hidden": (64, (8, 0)), "loc": ("a",)}
WRONG["columns"] = ((), "a", ["a"], [{"kind": "real"}])
WRONG["hide"] = (-0.1, 1.5, "a", True)
WRONG["center"] = ("a",)
WRONG["exemplars"] = (torch.ones(1, 4), torch.ones(5, 3), torch.full((5, 4), torch.nan), "a")


def partners(cls):
    """What a class asks for besides the features: the other half, steps of a sequence, rows."""
    halves = {"guide": NormalGuide(4, 2), "model": HierarchicalModel(4, (2, 2)), "steps": 3}
    halves |= {"exemplars": torch.eye(4), "features": 4}
    column = {"kind": "real", "loc": 0.0, "scale": 1.0, "categories": 0, "atoms": []}
    halves["columns"] = [column] * 4
    if cls is NearestCodeGuide:
        halves["model"] = VectorQuantizedModel(4)
    if cls is MissingCellsGuide:
        halves["model"] = NotMissingAtRandomModel(4)
    return {
        name: half for name, half in halves.items() if name in inspect.signature(cls).parameters
    }


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_of_the_zoo_names_the_argument(cls):
    takes = inspect.signature(cls).parameters
    wrong = dict(WRONG)
    if "hidden" in takes and takes["hidden"].annotation is int:
        wrong["hidden"] = SIZES["latents"]
    for name, values in wrong.items():
        for value in values if name in takes else ():
            if takes[name].default == value == 0:
                continue  # without covariates
            with pytest.raises(ValueError, match=rf"^{name}: expected"):
                cls(**partners(cls) | {name: value})


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_of_the_zoo_names_numbers_of_another_shape(cls):
    takes = inspect.signature(cls).parameters
    for name in ("loc", "scale", "center", "spread", "rate"):
        if name in takes and cls.__name__.endswith("Model"):  # a guide scales whatever it is given
            with pytest.raises(ValueError, match=rf"^{name}: expected a number or .*\(3,\)"):
                cls(**partners(cls) | {name: torch.ones(3)})


@pytest.mark.parametrize(
    "cls", [c for c in CLASSES if "features" in inspect.signature(c).parameters]
)
def test_images_are_refused_by_classes_of_vectors_and_vectors_of_pixels_by_those_of_images(cls):
    takes_images = "Sequence" in str(inspect.signature(cls).parameters["features"].annotation)
    if takes_images:
        latents = {"latents": 2} if "latents" in inspect.signature(cls).parameters else {}
        made = cls(**partners(cls) | latents | {"features": (1, 8, 8)})
        assert made.features == (1, 8, 8)
    for shape in ((8, 8), (1, 0, 8), *([] if takes_images else [(1, 8, 8)])):
        with pytest.raises(ValueError, match=r"^features: expected"):
            cls(**partners(cls) | {"features": shape})


def test_numbers_become_a_tensor_of_their_own_in_the_default_dtype():
    given = torch.ones(1, dtype=torch.float64)
    made = expanded("loc", given, (2, 3))
    assert made.dtype == torch.get_default_dtype()
    made[0, 0] = 5.0
    assert made.sum() == 10.0
    assert given.item() == 1.0
    assert expanded("floor", 0, (), least=0).shape == ()


def test_a_perceptron_names_its_sizes():
    for name in ("inputs", "outputs", "hidden"):
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            MLP(**{"inputs": 1, "outputs": 1, name: 0})
