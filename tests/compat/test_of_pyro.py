"""What the library expects of private names of Pyro: one test per name.

A new version of Pyro that breaks an expectation fails here, under the name it broke.
"""

import logging
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormalMessenger
from pyro.infer.util import Dice
from pyro.nn import PyroModule, PyroParam
from pyro.ops import packed
from pyro.ops.rings import MarginalRing
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.enum_messenger import EnumMessenger

from ppl_vae.compat import of_pyro


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    loc = pyro.param("loc", torch.tensor(0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 0.7))


def enumerated(x):
    with pyro.plate("data", len(x)):
        kind = pyro.sample("kind", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(kind, 1.0), obs=x)


X = torch.linspace(-1, 1, 5)


# Pyro's ELBOs


def test_get_common_scale_is_asked_by_trace_enum_elbo(monkeypatch):
    asked = []
    monkeypatch.setattr(*of_pyro.COMMON_SCALE, lambda scales: asked.append(scales) or scales[0])
    TraceEnum_ELBO(max_plate_nesting=1).loss(poutine.scale(enumerated, 2.0), lambda x: None, X)
    assert asked
    assert all(float(scale) == 2.0 for scales in asked for scale in scales)


@pytest.mark.parametrize("elbo", [TraceEnum_ELBO, TraceGraph_ELBO])
def test_compute_expectation_is_asked_for_a_scalar(elbo, monkeypatch):
    def proposed(x):
        with pyro.plate("data", len(x)):
            infer = {"enumerate": "parallel"} if elbo is TraceEnum_ELBO else {}
            pyro.sample("kind", dist.Bernoulli(0.4), infer=infer)

    def plain(x):
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(kind, 1.0), obs=x)

    asked, original = [], Dice.compute_expectation
    monkeypatch.setattr(
        *of_pyro.EXPECTATION,
        lambda self, costs: asked.append((self, costs)) or original(self, costs),
    )
    assert torch.tensor(elbo(max_plate_nesting=1).loss(plain, proposed, X)).isfinite()
    if elbo is TraceEnum_ELBO:
        ((dice, costs),) = asked
        ((ordinal, terms),) = costs.items()
        assert all(set(of_pyro.named_dims(term)) >= set(ordinal) for term in terms)
        (factor,) = of_pyro.log_factors(dice, ordinal)
        assert len(of_pyro.named_dims(factor)) == 2  # the latent's dimension and the rows'


@pytest.mark.parametrize("name", ["torch_item", "warn_if_nan"])
def test_modules_of_elbos_hold_the_functions_that_read_a_loss(name):
    names = {module.__name__ for module in of_pyro.modules_of_elbos(name)}
    assert {"pyro.infer.trace_elbo", "pyro.infer.tracegraph_elbo"} <= names
    assert "pyro.infer.trace_mean_field_elbo" in names
    assert ("pyro.infer.traceenum_elbo" in names) == (name == "warn_if_nan")


def test_a_packed_tensor_names_its_dimensions():
    tensor = packed.pack(torch.zeros(3, 1, 2), {-1: "a", -2: "b", -3: "c"})
    assert sorted(of_pyro.named_dims(tensor)) == ["a", "c"]
    assert of_pyro.named_dims(of_pyro.name_dims(torch.zeros(2), "z")) == "z"


def test_a_marginal_is_the_product_of_all_factors_summed_over_other_dimensions():
    joint = of_pyro.name_dims(torch.rand(3, 4).log(), "ab")
    other = of_pyro.name_dims(torch.rand(3).log(), "a")
    ring = MarginalRing(cache={})
    (found,) = of_pyro.marginals(ring, [joint, other], [joint], "ab")
    torch.testing.assert_close(found, joint + other[:, None])
    assert of_pyro.named_dims(found) == "ab"


def test_the_surrogate_of_trace_graph_elbo_has_the_gradient_of_its_loss():
    torch.manual_seed(0)
    bound, surrogate = of_pyro.surrogate_of_graph_elbo(TraceGraph_ELBO(), model, guide, X)
    torch.manual_seed(0)
    loss = Trace_ELBO().differentiable_loss(model, guide, X)
    loc = pyro.get_param_store().named_parameters()
    values = [value for _, value in loc]
    torch.testing.assert_close(-bound, loss.detach(), check_dtype=False)
    found = torch.autograd.grad(surrogate, values)
    torch.testing.assert_close(found, torch.autograd.grad(loss, values))


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_the_losses_of_particles_add_up_to_the_elbos(elbo):
    torch.manual_seed(0)
    particles = elbo(num_particles=3)
    traces = of_pyro.particle_traces(particles, model, guide, X)
    values, surrogates = zip(
        *(of_pyro.particle_loss(particles, *pair) for pair in traces), strict=True
    )
    torch.manual_seed(0)
    expected = particles.differentiable_loss(model, guide, X)
    torch.testing.assert_close(sum(surrogates) / 3, expected)
    assert sum(values) / 3 == pytest.approx(expected.item(), rel=1e-5)


# Pyro's modules, stores and messages


def test_a_pyro_module_names_its_constrained_parameters():
    module = PyroModule[torch.nn.Linear](2, 2)
    module.scale = PyroParam(torch.ones(()), dist.constraints.positive)
    names = []
    module.register_forward_pre_hook(
        lambda *_: names.extend(of_pyro.constrained_parameters(module))
    )
    module(torch.ones(2))  # the full names are known while the module runs
    assert names == ["scale"]


def test_broadcasting_expands_a_distribution_to_its_plates():
    trace = poutine.trace(lambda: pyro.sample("z", dist.Normal(0.0, 1.0))).get_trace()
    frame = poutine.indep_messenger.CondIndepStackFrame("data", -1, 3, 0)
    msg = {**trace.nodes["z"], "cond_indep_stack": (frame,), "value": None, "done": False}
    of_pyro.expand_to_plates(msg)
    assert msg["fn"].batch_shape == (3,)


def test_the_global_store_keeps_all_its_state_in_its_dictionary():
    """A private store takes its place by exchanging ``__dict__``."""
    store, other = pyro.get_param_store(), ParamStoreDict()
    outer = store.__dict__
    pyro.param("outside", torch.zeros(()))
    store.__dict__ = other.__dict__
    try:
        pyro.param("inside", torch.ones(()))
        assert list(pyro.get_param_store()) == ["inside"]
    finally:
        store.__dict__ = outer
    assert list(pyro.get_param_store()) == ["outside"]
    assert dict(other.named_parameters())["inside"] == 1


def test_a_store_tells_of_each_new_parameter_and_its_constraint():
    store, told = ParamStoreDict(), []
    of_pyro.watch_new_parameters(
        store,
        lambda name, value: told.append((name, of_pyro.stored_constraint(store, name), value)),
    )
    for _ in range(2):
        store.setdefault("scale", torch.ones(2), constraint=dist.constraints.positive)
    store["loc"] = torch.zeros(2)
    (scale, positive, value), (loc, real, _) = told
    assert (scale, loc) == ("scale", "loc")
    assert positive is dist.constraints.positive
    assert real is dist.constraints.real
    assert value is dict(store.named_parameters())["scale"]
    torch.testing.assert_close(value, torch.zeros(2), check_stride=False)
    del store["loc"]
    store["loc"] = torch.zeros(2)
    assert len(told) == 3


def test_an_effect_based_guide_reads_its_model_from_its_attribute():
    guide = AutoNormalMessenger(print)
    assert vars(guide)[of_pyro.MODEL_OF_GUIDE] == (print,)
    vars(guide)[of_pyro.MODEL_OF_GUIDE] = (repr,)
    assert guide.model is repr


def test_infer_says_which_sites_are_deterministic_and_enumerated():
    def function():
        pyro.deterministic("fixed", torch.zeros(()))
        pyro.sample("kind", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with EnumMessenger(first_available_dim=-1):
        trace = poutine.trace(function).get_trace()
    trace.compute_log_prob()
    trace.pack_tensors()
    infer = {name: site["infer"] for name, site in trace.nodes.items() if "infer" in site}
    assert infer["fixed"]["_deterministic"]
    assert infer["kind"]["_enumerate_dim"] == -1
    assert infer["z"].get("_enumerate_dim") is None
    assert infer["kind"]["_enumerate_symbol"] == infer["kind"]["_dim_to_symbol"][-1]


# Warnings


def guide_with_a_plate_of_its_own():
    with pyro.plate("extra", 3):
        pyro.sample("draw", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})


def test_remarks_of_pyro_are_silenced_and_a_users_warning_is_not():
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    with of_pyro.pyro_remarks_silenced():
        pyro.module("frozen", frozen)
        pyro.util.warn_if_nan(torch.tensor(float("nan")), "loss")
        float(torch.tensor(1.0, requires_grad=True))
        TraceEnum_ELBO().loss(lambda: None, guide_with_a_plate_of_its_own)
    with pytest.warns(UserWarning, match="mine"), of_pyro.pyro_remarks_silenced():
        warnings.warn("mine", UserWarning, stacklevel=1)


def test_pyros_log_of_its_elbos_is_quiet_inside_and_restored_after():
    logger, lines = logging.getLogger("pyro.infer.elbo"), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    level = logger.level
    logger.addHandler(handler)
    try:
        with of_pyro.pyro_log_silenced():
            TraceEnum_ELBO().loss(enumerated, lambda x: None, X)
            assert not lines
        TraceEnum_ELBO().loss(enumerated, lambda x: None, X)
    finally:
        logger.removeHandler(handler)
    assert len(lines) == 1
    assert logger.level == level
