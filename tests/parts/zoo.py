"""The pairs of the zoo, found in models/ and guides/: no list of files to keep up to date.

A new file needs no line here. The rows of a model are drawn from the model's own prior, in a small
size and with perturbed weights, so that they have its support and dtype and differ from each other.
"""

import functools
import inspect

import pyro
import torch
from pyro import poutine

from ppl_vae import lint
from ppl_vae.cli.pairs import NO_GUIDE, build_pair
from ppl_vae.core.seeding import forked
from ppl_vae.core.sites import is_enumerated, with_role
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.nn import seen_cells
from ppl_vae.zoo.catalog import find_class, zoo

ROWS, FEATURES, STEPS = 60, 4, 5
SIZES = {
    "features": FEATURES,
    "latents": 2,
    "categories": 3,
    "rows": ROWS,
    "conditions": 3,
    "classes": 3,
}
"""Constructor arguments of the model that the rows are drawn from; others have their defaults."""

FEW_MODELS = ("bernoulli", "gaussian", "ppca")
"""For tests of what ``test_zoo`` shows for the whole zoo already, in more settings."""

EVERY_TIME = {
    "linear": FEW_MODELS,
    "classifier": ("semisupervised", "semisupervised_gaussian"),
    "amortized": ("sparse",),
    "delta": ("gaussian",),
    "denoising": ("gaussian",),
    "dirichlet": ("topics",),
    "flow": ("bernoulli",),
    "local": ("bernoulli",),
    "logistic_normal": ("topics",),
    "multivariate_normal": ("gaussian",),
    "nearest_code": ("vector_quantized",),
}
"""Models that a guide runs with every time in ``test_zoo``; the others run with the slow tests. A
guide that is not here runs with every model. The table lints every guide with every model."""


def reals():
    """(60, 4) real numbers, far from zero and of a spread far from one."""
    return torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(1)) * 30 + 100


def binaries():
    """(60, 4) zeros and ones."""
    return (reals() > 100).float()


def sequences():
    """(60, 3, 4) real numbers, the steps of a sequence around one center or the other."""
    center = torch.where(reals() > 100, 20.0, -20.0)
    steps = torch.randn(ROWS, 3, FEATURES, generator=torch.Generator().manual_seed(2))
    return 100 + 5 * steps + center[:, None]


def few_labels():
    """(60, 4) zeros and ones, of which a third have a label."""
    rows = torch.arange(ROWS)
    return {"x": binaries(), "y": torch.where(rows % 3 == 0, rows // 3 % 3, -1)}


def documents():
    """(60, 4) counts of words, of documents that differ in length; one is empty."""
    rate = torch.where(reals() > 100, 0.5, 4.0) * (torch.arange(ROWS)[:, None] % 3 + 1.0)
    counts = torch.poisson(rate, generator=torch.Generator().manual_seed(2))
    counts[7] = 0
    return counts


def large_cells_missing():
    """(60, 4) real numbers, of which most that are above the mean are missing, and 0."""
    rows, noise = reals(), torch.rand(ROWS, FEATURES, generator=torch.Generator().manual_seed(2))
    seen = (rows < 100) | (noise > 0.7)
    return {"x": torch.where(seen, rows, 0.0), "seen": seen}


def cells_with_gaps():
    """(60, 4) real numbers with one factor, of which one in seven is not there."""
    factor = torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(2))
    x = 100 + 30 * factor + 0.3 * (reals() - 100)
    return {"x": x, "seen": (torch.arange(ROWS * FEATURES) % 7 > 0).reshape(ROWS, FEATURES)}


FIXED = {
    "bernoulli": binaries,
    "gaussian": reals,
    "hmm": sequences,
    "not_missing_at_random": large_cells_missing,
    "ppca": reals,
    "semisupervised": few_labels,
    "semisupervised_gaussian": few_labels,
    "table": cells_with_gaps,
    "topics": documents,
}
"""Models whose rows are not drawn from the prior, because other tests rely on the numbers, because
the rows are observed at several sites, because the prior has no number of words, or because cells
are missing."""

SEQUENCES = ("deep_markov", "hmm", "sequence", "state_space")
"""Models whose rows are no vectors and no images."""

FIELDS = {
    "x": lambda: torch.zeros(ROWS, FEATURES),
    "y": lambda: torch.arange(ROWS) % 3,
    "size": lambda: 0.5 + torch.arange(float(ROWS)) % 3,
    "index": lambda: torch.arange(ROWS),
    "lengths": lambda: 1 + torch.arange(ROWS) % STEPS,
    "seen": lambda: (torch.arange(ROWS * STEPS * FEATURES) % 7 > 0).reshape(ROWS, STEPS, FEATURES),
}
"""Fields of a model's ``forward``, by the names that the whole zoo uses: what a model reads."""


@functools.cache
def zoo_data(model):
    """Rows for a zoo model, 60 of them: a tensor, or a mapping where the model reads more fields.

    Every field that the model observes is drawn from the model's prior.
    """
    if model in FIXED:
        return FIXED[model]()
    cls = find_class(model, "models")
    taken = inspect.signature(cls).parameters
    with forked(1), torch.no_grad(), pyro.get_param_store().scope():
        sizes = {name: size for name, size in SIZES.items() if name in taken}
        sizes |= {"guide": NormalGuide(FEATURES, 2)} if "guide" in taken else {}
        sizes |= {"exemplars": reals()} if "exemplars" in taken else {}
        half = cls(**sizes)
        for parameter in half.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        fields = {name: FIELDS[name]() for name in inspect.signature(half.forward).parameters}
        if "lengths" in fields:  # a model of sequences
            fields["x"] = torch.zeros(ROWS, STEPS, FEATURES)
        observed = with_role(poutine.trace(half).get_trace(**fields), "data")
        trace = poutine.trace(poutine.uncondition(half)).get_trace(**fields)
    drawn = {name: trace.nodes[name]["value"] for name in fields if name in observed}
    fields |= drawn
    if "lengths" in fields:
        mask = seen_cells(fields["x"], fields["lengths"], fields["seen"])[1]
        fields |= {"x": fields["x"] * mask, "seen": mask}
    return fields if len(fields) > 1 else fields["x"]


def zoo_pair(model, guide, data=None):
    """``(model, guide, data)`` built from the rows, with two latents; the guide may be "none"."""
    data = zoo_data(model) if data is None else data
    classes = [find_class(model, "models")]
    classes += [find_class(guide, "guides")] if guide != NO_GUIDE else []
    fields = data if isinstance(data, dict) else {"x": data}
    if "index" in inspect.signature(classes[-1].forward).parameters and "index" not in fields:
        data = {**fields, "index": torch.arange(len(fields["x"]))}
    takes = any("latents" in inspect.signature(cls).parameters for cls in classes)
    return *build_pair(model, guide, data, ["latents=2"] if takes else [], seed=0), data


@functools.cache
def needs_guide(model):
    """Whether a zoo model draws anything that it neither observes nor sums out."""
    if "guide" in inspect.signature(find_class(model, "models")).parameters:
        return True  # its latents come from the guide
    half, _, data = zoo_pair(model, NO_GUIDE)
    batch = data if isinstance(data, dict) else {"x": data}
    with forked(0), pyro.get_param_store().scope():
        latents = with_role(poutine.trace(half).get_trace(**batch), "latent")
    return not all(map(is_enumerated, latents.values()))


@functools.cache
def zoo_lint(model, guide):
    """What ``lint`` says of a pair; the text of the error where a constructor refuses the data."""
    try:
        return lint(*zoo_pair(model, guide))
    except ValueError as error:
        return str(error)


def refusal(model, guide):
    """Why a model and a guide of the zoo do not fit together; "" where they do."""
    verdict = zoo_lint(model, guide)
    if isinstance(verdict, str):
        return verdict
    return f"lint: {verdict.errors[0]}" if verdict.errors else ""


def zoo_names():
    """All names ``(model, guide)`` to try: a model that needs no guide is a pair by itself, too."""
    return [
        (model, guide)
        for model in zoo("models")
        for guide in (*zoo("guides"), *([] if needs_guide(model) else [NO_GUIDE]))
    ]
