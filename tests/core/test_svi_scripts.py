"""A script of plain Pyro that calls this library once gets that script's own numbers."""

import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn

from ppl_vae import elbo_terms, encode, fit, lint, load, log_likelihood, save
from ppl_vae.core.pair import Pair

X = torch.randn(200, 3, generator=torch.Generator().manual_seed(2)) * 0.5 + 3
TAKEN = "took the values that Pyro's global parameter store holds"
OTHER = "holds other values under these names; the modules' own are used"
NEWER = "a script has changed the values in Pyro's global parameter store; the pair keeps its own"


def functions():
    """A model with a closed form: x is Normal(loc, s) with independent features."""

    def model(x):
        loc = pyro.param("loc", torch.zeros(3))
        s = pyro.param("s", lambda: torch.rand(()) + 1, constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(loc + 0 * z[..., None], s).to_event(1), obs=x)

    def guide(x):
        m = pyro.param("m", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(m, 1.0))

    return model, guide


def functions_with_networks():
    decoder, encoder = nn.Linear(2, 3), nn.Linear(3, 4)

    def model(x):
        pyro.module("decoder", decoder)
        s = pyro.param("s", torch.ones(()), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), s).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide


def function_and_autoguide():
    def model(x):
        s = pyro.param("s", torch.ones(()), constraint=dist.constraints.positive)
        shift = pyro.sample("shift", dist.Normal(torch.zeros(3), 5.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(shift, s).to_event(1), obs=x)

    return model, AutoNormal(model)


class Model(PyroModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 3)
        self.s = PyroParam(torch.ones(()), dist.constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), self.s).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(3, 4)

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def modules():
    return Model(), Guide()


def module_and_autoguide():
    class Shifted(PyroModule):
        def forward(self, x):
            shift = pyro.sample("shift", dist.Normal(torch.zeros(3), 5.0).to_event(1))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(shift, 0.5).to_event(1), obs=x)

    model = Shifted()
    return model, AutoNormal(model)


FUNCTIONS = [functions, functions_with_networks, function_and_autoguide]
MODULES = [modules, module_and_autoguide]
STYLES = [*FUNCTIONS, *MODULES]


def train(model, guide, steps=150):
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(steps):
        svi.step(X)


def pyro_elbo(model, guide):
    """Pyro's own ELBO of the raw functions, nats per row, and its standard error."""
    elbo = Trace_ELBO(num_particles=60, vectorize_particles=True, max_plate_nesting=1)
    losses = []
    with torch.no_grad():
        for _ in range(12):
            losses.append(-elbo.loss(model, guide, X) / len(X))
    losses = torch.tensor(losses)
    return losses.mean().item(), losses.std().item() / len(losses) ** 0.5


def our_elbo(model, guide):
    """The library's ELBO, nats per row, and its standard error, with global latents' terms."""
    draws = []
    for seed in range(12):
        terms = elbo_terms(model, guide, X, num_samples=50, seed=seed)
        shared = sum(terms.attrs.get("global", {}).values())
        draws.append(terms.sum(axis=1).mean() + shared / len(X))
    draws = torch.tensor(draws)
    return draws.mean().item(), draws.std().item() / len(draws) ** 0.5


def assert_same_elbo(model, guide):
    (theirs, their_error), (ours, our_error) = pyro_elbo(model, guide), our_elbo(model, guide)
    assert abs(theirs - ours) < 5 * (their_error**2 + our_error**2) ** 0.5 + 1e-4


def caught(work):
    """What ``work`` returns, and the texts of its warnings about parameter stores."""
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        result = work()
    texts = [str(record.message) for record in records]
    return result, [text for text in texts if "parameter store" in text]


def parameters(model, guide):
    values = Pair.of(model, guide, "data").parameters()
    return {name: value.detach().clone() for name, value in values.items()}


@pytest.mark.parametrize("style", STYLES)
def test_after_an_svi_script_the_elbo_is_the_scripts(style):
    model, guide = style()
    train(model, guide)
    trained = dict(pyro.get_param_store().items())
    _, texts = caught(lambda: lint(model, guide, X))
    assert [TAKEN in text for text in texts] == [True] * (style in FUNCTIONS)
    assert_same_elbo(model, guide)
    now = dict(pyro.get_param_store().items())
    assert all(torch.equal(trained[name], now[name]) for name in trained)


def test_the_elbo_of_a_script_has_its_closed_form():
    """x is Normal(loc, s), the guide's z is Normal(m, 1), so the KL divergence is m^2 / 2."""
    model, guide = functions()
    train(model, guide, steps=400)
    store = pyro.get_param_store()
    loc, s, m = (store[name].detach() for name in ("loc", "s", "m"))
    exact = dist.Normal(loc, s).log_prob(X).sum(-1).mean() - m**2 / 2
    frame, texts = caught(lambda: log_likelihood(model, guide, X, num_samples=2000))
    assert texts == [
        'parameters "loc", "s", "m": took the values that Pyro\'s global parameter store holds; to '
        "start afresh, call pyro.clear_param_store() before the pair is first used"
    ]
    assert frame["elbo"].mean() == pytest.approx(exact.item(), abs=0.01)
    assert exact > -2.5 > log_likelihood(*functions_untouched(), X)["elbo"].mean()


def functions_untouched():
    pyro.clear_param_store()
    return functions()


@pytest.mark.parametrize("style", FUNCTIONS)
def test_a_fit_goes_on_from_the_values_of_the_script_and_leaves_them_there(style):
    model, guide = style()
    train(model, guide)
    s = pyro.param("s").detach().clone()
    start = lambda p: torch.optim.SGD(p, lr=0.0)  # noqa: E731
    _, texts = caught(lambda: fit(model, guide, X, epochs=1, progress=False, optimizer=start))
    assert len(texts) == 1
    assert TAKEN in texts[0]
    assert torch.equal(parameters(model, guide)["model.s"].exp(), s)
    _, texts = caught(lambda: fit(model, guide, X, epochs=2, progress=False))
    assert texts == []
    assert not torch.equal(parameters(model, guide)["model.s"].exp(), s)
    assert torch.equal(pyro.param("s"), s)


@pytest.mark.parametrize("style", STYLES)
def test_after_the_store_is_cleared_a_pair_has_what_pyro_would_give_it(style):
    """Functions begin anew, modules keep what they were trained to."""
    model, guide = style()
    train(model, guide)
    pyro.clear_param_store()
    _, texts = caught(lambda: lint(model, guide, X))
    assert texts == []
    if style is not functions:  # its first value of s is drawn
        assert_same_elbo(model, guide)
    if style in FUNCTIONS:
        assert parameters(model, guide)["model.s"].exp() >= 1


def test_values_that_were_taken_over_survive_the_clearing_of_the_store():
    """The next pair of a comparison begins with an empty store; the first one keeps its numbers."""
    model, guide = functions()
    train(model, guide)
    before, _ = caught(lambda: log_likelihood(model, guide, X))
    pyro.clear_param_store()
    train(*functions(), steps=5)
    after, texts = caught(lambda: log_likelihood(model, guide, X))
    assert before.equals(after)
    assert len(texts) == 1
    assert NEWER in texts[0]


def test_a_pair_that_was_looked_at_before_the_script_trained_it_follows_the_script():
    model, guide = functions()
    _, texts = caught(lambda: lint(model, guide, X))
    assert texts == []
    for _ in range(2):
        train(model, guide, steps=30)
        _, texts = caught(lambda: elbo_terms(model, guide, X))
        assert len(texts) == 1
        assert TAKEN in texts[0]
        assert_same_elbo(model, guide)
    _, texts = caught(lambda: elbo_terms(model, guide, X))
    assert texts == []


def test_what_fit_trained_is_not_overwritten_by_the_global_store():
    model, guide = functions()
    fit(model, guide, X, epochs=3, progress=False)
    before = parameters(model, guide)
    train(model, guide, steps=5)
    _, texts = caught(lambda: lint(model, guide, X))
    assert len(texts) == 1
    assert NEWER in texts[0]
    after = parameters(model, guide)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("value", "constraint", "words"),
    [
        (torch.ones(2), dist.constraints.positive, r"expected shape \(\) .* got shape \(2,\)"),
        (torch.ones(()), dist.constraints.real, r"GreaterThan.*got shape \(\) and constraint Real"),
        (torch.tensor(0.5), dist.constraints.unit_interval, r"GreaterThan.*Interval"),
        (torch.tensor(2.0), dist.constraints.greater_than(1.0), r"bound=0.0.*bound=1.0"),
    ],
)
def test_another_shape_or_constraint_is_an_error_that_names_both(value, constraint, words):
    pyro.param("s", value, constraint=constraint)
    model, guide = functions_with_networks()
    with pytest.raises(ValueError, match='"s".*' + words):
        log_likelihood(model, guide, X)
    with pytest.raises(ValueError, match='"s".*' + words):
        fit(model, guide, X, progress=False)
    pyro.clear_param_store()
    fit(model, guide, X, epochs=1, progress=False)


@pytest.mark.parametrize("style", MODULES)
def test_a_second_module_of_the_same_name_has_its_own_parameters_and_trains(style):
    train(*style())
    model, guide = style()
    before = [p.detach().clone() for p in model.parameters()]
    _, texts = caught(lambda: fit(model, guide, X, epochs=2, progress=False))
    assert len(texts) == 1
    assert OTHER in texts[0]
    after = list(model.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    pyro.clear_param_store()
    _, texts = caught(lambda: elbo_terms(model, guide, X))
    assert texts == []
    assert_same_elbo(model, guide)


def test_networks_of_functions_are_the_modules_own_and_their_parameters_the_stores():
    train(*functions_with_networks())
    model, guide = functions_with_networks()
    _, texts = caught(lambda: lint(model, guide, X))
    assert texts == [
        'parameter "s": took the values that Pyro\'s global parameter store holds; to start '
        "afresh, call pyro.clear_param_store() before the pair is first used",
        'parameters "decoder.weight", "decoder.bias", "encoder.weight" and 1 more: Pyro\'s global '
        "parameter store holds other values under these names; the modules' own are used. "
        "pyro.clear_param_store() removes the others; pyro.module(name, module, "
        "update_module_params=True) puts them into a module",
    ]


def test_a_new_autoguide_begins_with_its_own_values():
    model, guide = function_and_autoguide()
    train(model, guide)
    fresh = AutoNormal(model, init_scale=0.25)
    _, texts = caught(lambda: log_likelihood(model, fresh, X))
    assert len(texts) == 2
    assert '"s"' in texts[0]
    assert "AutoNormal.scales.shift" in texts[1]
    assert torch.allclose(fresh.scales.shift, torch.full((3,), 0.25))
    assert_same_elbo_of_module(model, fresh)


def assert_same_elbo_of_module(model, guide):
    """Under Pyro the guide would take the store's values, so the store is emptied of them."""
    s = pyro.param("s").detach().clone()
    pyro.clear_param_store()
    pyro.param("s", s, constraint=dist.constraints.positive)
    assert_same_elbo(model, guide)


def test_a_parameter_hidden_by_a_handler_is_taken_over_too():
    model, guide = functions()
    train(model, guide)
    hidden = pyro.poutine.block(model, hide_types=["param"])
    caught(lambda: lint(hidden, guide, X))
    assert_same_elbo(hidden, guide)


def test_frozen_and_shared_tensors_are_left_alone():
    initial = torch.zeros(3)

    def model(x):
        loc = pyro.param("loc", initial)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        pass

    train(model, guide, steps=20)
    frame, texts = caught(lambda: log_likelihood(model, None, X))
    exact = dist.Normal(pyro.param("loc").detach(), 1.0).log_prob(X).sum(-1)
    assert torch.allclose(torch.tensor(frame["log_prob"].to_numpy()).float(), exact)
    assert texts == []  # the script has trained this very tensor


def test_a_saved_pair_keeps_the_values_of_the_script(tmp_path):
    model, guide = functions()
    train(model, guide)
    caught(lambda: save(model, guide, Path(tmp_path) / "run", data=X))
    trained = parameters(model, guide)
    train(*functions(), steps=20)
    (model, guide), texts = caught(
        lambda: load(tmp_path / "run", **dict(zip(("model", "guide"), functions(), strict=True)))
    )
    assert texts == []
    _, texts = caught(lambda: encode(model, guide, X))
    assert texts == []
    opened = parameters(model, guide)
    assert all(torch.equal(trained[name], opened[name]) for name in trained)
