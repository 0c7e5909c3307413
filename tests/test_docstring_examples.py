"""Every public function and class shows its use in an example, and the example checks what comes.

``tests/test_packaging.py`` runs the examples; here it is looked for them. A method may be shown by
the example of its class. What overrides a method of another library is described there.
"""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re

import pytest

import ppl_vae

FOLDERS = ["ppl_vae.nn", "ppl_vae.distributions"]
FOLDERS += ["ppl_vae.sklearn"] if importlib.util.find_spec("sklearn") else []
FILES = ["ppl_vae.callbacks", "ppl_vae.schedules"]
FILES += [
    found.name
    for package in ("ppl_vae.models", "ppl_vae.guides")
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}.")
]

WITHOUT_OUTPUT = {"ppl_vae.callbacks.TensorBoard"}  # its package is not among those of the tests

BY_THE_LIBRARY = {
    # parts of the text of a check
    "PredictiveCheck": {"caveats", "point_notes", "factor_notes"},
    # what conversion between frames and tensors asks of a schema
    "Schema": {
        "modelled", "given", "given_names", "is_covariate", "codes", "category_names", "checked",
        "is_label", "encoded", "decoded", "covariate_values", "completed",
    },
    # what a fit asks of a bound
    "IWAE": {"estimates_elbo", "losses_and_surrogate"},
    "RowELBO": {"estimates_elbo", "losses_and_surrogate"},
    "FIVO": {"estimates_elbo", "losses_and_surrogate"},
    # how results are made, and what run directories and reports hold of them
    "Comparison": {"of"},
    "GradientEstimators": {"of"},
    "History": {"best_row", "summary"},
    # what the command asks of a detector for files larger than memory
    "AnomalyDetector": {"decision", "parts"},
    # parts of networks and distributions, between which the library's own files pass values
    "AutoregressiveFlow": {"curve"},
    "SplineFlow": {"curve"},
    "PathFlow": {"states"},
    "MarkovPath": {"following"},
    "ColumnGroup": {"parameters_of", "deviation", "atom_logits", "ordered_logits", "inputs"},
    # parts of ``forward``, and what is fitted beside it, in files that have no room
    "HMMModel": {"moments", "marginal"},
    "NotMissingAtRandomModel": {"cells"},
    "PPCAModel": {"marginal"},
    "StateSpaceModel": {"step"},
    "VectorQuantizedModel": {"code_prior"},
    "SmoothingGuide": {"after", "step"},
}  # fmt: skip
"""Methods that the library calls by itself: they need no example. A stale entry is a failure."""


def public():
    """Each public function and class by its full name."""
    found = {f"ppl_vae.{name}": getattr(ppl_vae, name) for name in ppl_vae.__all__}
    for name in FOLDERS:
        module = importlib.import_module(name)
        found |= {f"{name}.{each}": value for each, value in vars(module).items()}
    for name in FILES:
        module = importlib.import_module(name)
        own = {each: value for each, value in vars(module).items() if is_of(value, name)}
        found |= {f"{name}.{each}": value for each, value in own.items()}
    return {
        name: value
        for name, value in found.items()
        if not name.rpartition(".")[2].startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__.startswith("ppl_vae")
    }


def is_of(value, module):
    return getattr(value, "__module__", None) == module


PUBLIC = public()


def examples(value):
    """The statements in the section ``Example:`` of a docstring that have an expected output."""
    text = inspect.cleandoc(value.__doc__ or "")
    section = re.search(r"^Example:\n((?:    .*\n|\n)*(?:    .*)?)", text, re.M)
    found = doctest.DocTestParser().get_examples(section[1]) if section else []
    return found if any(example.want for example in found) else []


def methods(of_class):
    """The public methods and properties that a class of the library adds, by name."""
    for name, attribute in vars(of_class).items():
        value = attribute.fget if isinstance(attribute, property) else attribute
        function = inspect.unwrap(getattr(value, "__func__", value))
        if not name.startswith("_") and inspect.isfunction(function):
            others = [
                base for base in of_class.__mro__[1:] if not base.__module__.startswith("ppl_vae")
            ]
            if not any(name in vars(base) for base in others):
                yield name, function


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_has_an_example_that_compares_an_output(name):
    value = PUBLIC[name]
    assert examples(value) or name in WITHOUT_OUTPUT, (
        f"{name}: write an `Example:` with a line `>>> ...` and the line that it prints"
    )
    if not inspect.isclass(value):
        return
    shown = " ".join(example.source for example in examples(value))
    exempt = BY_THE_LIBRARY.get(value.__name__, set())
    for method, function in methods(value):
        has_one = bool(examples(function)) or re.search(rf"\.{method}\b", shown) is not None
        wanted = method not in exempt
        assert has_one or not wanted, f"{name}.{method}: show it in an example of the class"
        assert wanted or not has_one, f"{name}.{method} has an example: strike it from the list"


def test_the_lists_of_exceptions_name_what_there_is():
    classes = {value.__name__: value for value in PUBLIC.values() if inspect.isclass(value)}
    for name, exempt in BY_THE_LIBRARY.items():
        assert exempt <= dict(methods(classes[name])).keys(), name
    assert PUBLIC.keys() >= WITHOUT_OUTPUT


def test_no_section_of_examples_is_left_unrun():
    """A section without ``>>>``, or with a directive to skip, would be text that no test runs."""
    for found in pkgutil.walk_packages(ppl_vae.__path__, "ppl_vae."):
        module = importlib.import_module(found.name)
        for test in doctest.DocTestFinder(exclude_empty=False).find(module):
            section = re.search(r"^ *Example:$", test.docstring or "", re.M)
            if section and test.name not in WITHOUT_OUTPUT:
                assert test.examples, f"{test.name}: its Example: has no line with >>>"
            assert not any(doctest.SKIP in example.options for example in test.examples), test.name
