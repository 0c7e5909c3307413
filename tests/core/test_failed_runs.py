"""Mistakes that users make, by themselves: the message names the place, the cause and the mend."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_vae import elbo_terms, encode, fit, lint, log_likelihood
from ppl_vae.core.failed_runs import LONGEST_TEXT, error_text

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 4
IMAGES = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1)).round()


def vae(features=3, shape=(3,), to_event=1, read=lambda x: x.flatten(1)):
    """Make a pair with one linear layer in each half; ``read`` is what the guide does to a row."""
    encoder, decoder = nn.Linear(features, 2), nn.Linear(2, features)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = decoder(z).reshape(*z.shape[:-1], *shape)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(to_event), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(read(x)), 1.0).to_event(1))

    return model, guide


def assert_named(pair, data, *pieces, also=elbo_terms):
    """Assert that ``lint``'s only error, and the error of another function, have these words."""
    (finding,) = lint(*pair, data).errors
    with pytest.raises(ValueError, match="expected") as raised:
        also(*pair, data)
    for piece in pieces:
        assert piece in str(finding)
        assert piece in str(raised.value)


# Shapes


@pytest.mark.parametrize(("to_event", "instead"), [(0, ""), (1, " in place of .to_event(1)")])
def test_an_image_whose_pixels_are_no_event_is_told_the_event_dimensions(to_event, instead):
    pair = vae(64, (1, 8, 8), to_event)
    assert_named(pair, IMAGES, 'site "x": expected batch_shape (', f"write .to_event(3){instead},")
    assert not lint(*vae(64, (1, 8, 8), 3), IMAGES).errors


def test_a_latent_vector_that_is_no_event_is_told_to_be_one():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x)

    assert_named((model, None), X, 'site "z"', "got batch_shape (2,)", "write .to_event(1)")


# Dtypes


@pytest.mark.parametrize("also", [elbo_terms, log_likelihood, encode])
def test_integers_into_a_network(also):
    pieces = ("data field 0: expected torch.float32", '"guide.encoder.weight"', "got torch.int64")
    assert_named(vae(), X.long(), *pieces, "write .float()", also=also)
    assert not lint(*vae(read=lambda x: x.float()), X.long()).errors


def test_doubles_into_a_network_of_floats_and_the_other_way_round():
    pieces = ("data field 0: expected torch.float32", "got torch.float64", "write .float()")
    assert_named(vae(read=lambda x: x.double()), X, *pieces)
    double = nn.Linear(3, 2).double()

    def guide(x):
        pyro.module("wide", double)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(double(x), 1.0).to_event(1))

    pieces = ('parameter "guide.wide.weight": expected torch.float32', "call .float() on the net")
    assert_named((vae()[0], guide), X.double(), *pieces)


def test_floats_as_categories_are_told_to_be_whole_numbers():
    pair = categories("embedding")
    data = {"x": X, "label": LABELS.float()}
    assert_named(pair, data, 'field "label": expected torch.int64', "got torch.float32; write .lo")


# Categories


def categories(how):
    """Make a model that looks up each row's label in a table of 4."""
    table = nn.Embedding(4, 3)

    def model(x, label):
        pyro.module("table", table)
        loc = {
            "embedding": lambda: table(label),
            "one-hot": lambda: nn.functional.one_hot(label, 4).float() @ table.weight,
            "indexing": lambda: table.weight[label],
        }[how]()
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    return model, None


@pytest.mark.parametrize("how", ["embedding", "one-hot", "indexing"])
@pytest.mark.parametrize("row", [3, 31])
def test_a_category_that_the_table_has_no_row_for(how, row):
    labels = LABELS.clone()
    labels[row] = 6
    data = {"x": X, "label": labels}
    (finding,) = lint(*categories(how), data).errors
    with pytest.raises(ValueError, match="expected") as raised:
        log_likelihood(*categories(how), data)
    for text in (str(finding), str(raised.value)):
        assert 'field "label": expected categories from 0 to 3 in the' in text
        assert f"got 6 in row {row}; give every category a number" in text


@pytest.mark.parametrize("how", ["embedding", "one-hot"])
def test_a_missing_category_written_as_minus_one(how):
    labels = LABELS.clone()
    labels[31] = -1
    data = {"x": X, "label": labels}
    assert_named(categories(how), data, 'field "label"', "got -1 in row 31", "a missing one too")


def test_a_category_outside_the_support_of_its_likelihood():
    layer = nn.Linear(3, 4)

    def model(x, label):
        pyro.module("layer", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("label", dist.Categorical(logits=layer(x)), obs=label)

    labels = LABELS.clone()
    labels[31] = -1
    with pytest.raises(ValueError, match=r'site "label": .*support of Categorical') as raised:
        log_likelihood(model, None, {"x": X, "label": labels})
    assert "(whole numbers from 0 to 3), got -1 in row 31; code the categor" in str(raised.value)


# Plates


@pytest.mark.parametrize("size", [40, None])
def test_a_plate_that_subsamples_the_rows_by_itself(size):
    def model(x):
        loc = pyro.param("loc", torch.zeros(3))
        with pyro.plate("data", size or len(x), subsample_size=8) as index:
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x[index])

    pieces = ('plate "data": expected', 'got 8; write pyro.plate("data", len(x))')
    assert_named((model, None), X, *pieces)


# Messages of other libraries


def test_an_assertion_without_a_message_is_told_by_its_line_of_code():
    def model(x):
        if x.shape[1] != 4:
            raise AssertionError  # as a bare assert does

    assert_named(
        (model, vae()[1]),
        X,
        "AssertionError: raise AssertionError  # as a bare",
        "test_failed_runs",
    )


def test_a_long_message_is_cut_after_a_whole_sentence():
    sentence = "The first half of the story ends here."
    long = error_text(RuntimeError(f"{sentence}\n\n" + "and then " * LONGEST_TEXT))
    assert long == f"RuntimeError: {sentence.removesuffix('.')} ..."
    assert (
        error_text(RuntimeError("two\n\nparagraphs: whole"))
        == "RuntimeError: two paragraphs: whole"
    )


def test_the_run_that_finds_the_cause_changes_nothing():
    counts = torch.zeros(4)

    def model(x, label):
        counts[label] += 1
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.zeros(3)), 1.0).to_event(1), obs=x)

    labels = LABELS.clone()
    labels[0] = 9
    state = torch.get_rng_state()
    (finding,) = lint(model, None, {"x": X, "label": labels}).errors
    assert "got 9 in row 0" in str(finding)
    assert not counts.any()
    assert torch.equal(state, torch.get_rng_state())


def test_fit_says_the_same():
    with pytest.raises(ValueError, match=r"expected torch.float32 .* got torch.int64; write"):
        fit(*vae(), X.long(), epochs=1, progress=False)
