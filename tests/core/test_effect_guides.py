"""Pyro's effect-based guides (``AutoNormalMessenger`` and its kin) are guides like any other."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import (
    AutoHierarchicalNormalMessenger,
    AutoNormalMessenger,
    AutoRegressiveMessenger,
)
from pyro.nn import PyroModule

import ppl_vae
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.loss import BatchLoss
from ppl_vae.elbo.objectives import Objective

FEATURES = 3
X = 2.0 + torch.randn(40, FEATURES, generator=torch.Generator().manual_seed(0))
MESSENGERS = [AutoNormalMessenger, AutoHierarchicalNormalMessenger, AutoRegressiveMessenger]
messengers = pytest.mark.parametrize("messenger", MESSENGERS, ids=lambda m: m.__name__)


def with_a_parameter():
    def model(x):
        width = pyro.param("width", torch.ones(FEATURES), constraint=dist.constraints.positive)
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([FEATURES]).to_event(1))
        spread = pyro.sample("spread", dist.LogNormal(mean[0], 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, width * spread).to_event(1), obs=x)

    return model


class Module(PyroModule):
    def __init__(self):
        super().__init__()
        self.width = torch.nn.Parameter(torch.zeros(FEATURES))

    def forward(self, x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([FEATURES]).to_event(1))
        shift = pyro.deterministic("shift", mean + 1.0, event_dim=1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(shift, self.width.exp()).to_event(1), obs=x)


def amortized_over_rows():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([FEATURES]).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    return model


@messengers
@pytest.mark.parametrize("make", [with_a_parameter, Module, amortized_over_rows])
def test_it_lints_fits_and_is_evaluated(make, messenger):
    model = make()
    guide = messenger(model, amortized_plates=("data",))
    assert not ppl_vae.lint(model, guide, X).findings
    history = ppl_vae.fit(model, guide, X, epochs=60, batch_size=20, progress=False, compile=False)
    assert history.frame["elbo"].iloc[-5:].mean() > history.frame["elbo"].iloc[0]
    assert ppl_vae.log_likelihood(model, guide, X, num_samples=10)["log_prob"].lt(0).all()
    assert ppl_vae.posterior_predictive(model, guide, X, num_samples=2)["x"].shape == (2, *X.shape)


@messengers
@pytest.mark.parametrize("make", [with_a_parameter, Module])
def test_its_loss_is_that_of_pyro(make, messenger):
    model = make()
    guide = messenger(model)
    batch = as_rows(X).take(torch.arange(len(X)))
    loss = BatchLoss(Pair.of(model, guide, "data"), Objective.of(Trace_ELBO(), "given"), len(X))
    for _ in range(2):  # the first run makes the parameters
        torch.manual_seed(1)
        found = loss(batch, None)[0][0].item()
    torch.manual_seed(1)
    with pyro.get_param_store().scope({"params": {}, "constraints": {}}):
        assert found == pytest.approx(Trace_ELBO().loss(model, guide, X), rel=1e-5)


def test_the_models_parameters_stay_the_models():
    model = with_a_parameter()
    guide = AutoNormalMessenger(model)
    ppl_vae.fit(model, guide, X, epochs=1, progress=False, compile=False)
    parameters = Pair.of(model, guide, "data").parameters()
    assert [name for name in parameters if "width" in name] == ["model.width"]
    assert (
        sum(name.startswith("guide.") for name in parameters) == 4
    )  # two latents' locs and scales
    assert not list(pyro.get_param_store().keys())


def test_fields_of_a_mapping_are_those_that_its_model_reads():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([FEATURES]).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    guide = poutine.scale(AutoNormalMessenger(model), 1.0)  # a handler around it
    data = {"x": X, "unread": X}
    assert [f.where for f in ppl_vae.lint(model, guide, data).findings] == ['field "unread"']


def test_the_guide_is_left_as_it_was():
    model = with_a_parameter()
    guide = AutoNormalMessenger(model)
    ppl_vae.lint(model, guide, X)
    assert guide.model is model
    assert "get_posterior" not in vars(guide)
    assert isinstance(guide(X), dict)  # Pyro's own call
    pyro.clear_param_store()
