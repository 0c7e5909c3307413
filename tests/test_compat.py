"""What the library expects of private names of torch and Pyro: one test per name.

A new version of torch or Pyro that breaks an expectation fails here, under the name it broke.
"""

import logging
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.util import Dice
from pyro.nn import PyroModule, PyroParam
from pyro.ops import packed
from pyro.ops.rings import MarginalRing
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.enum_messenger import EnumMessenger
from torch.fx.experimental.proxy_tensor import make_fx

from ppl_vae import compat


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


# torch


def test_a_dispatch_mode_sees_the_operations_and_their_tag_of_randomness():
    class Seen(compat.Operations):
        draws = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.draws = (*self.draws, compat.draws_random_numbers(func))
            return func(*args, **(kwargs or {}))

    x = torch.ones(3)
    with Seen() as seen:
        _ = x.sin()
        _ = torch.bernoulli(0.5 * x)
    assert seen.draws == (False, False, True)


def test_memory_is_one_for_a_tensor_and_its_views_and_its_address_is_not_given_away():
    x = torch.ones(3)
    first = compat.memory_of(x)
    assert first == compat.memory_of(x[1:])
    assert hash(first) == hash(compat.memory_of(x[1:]))
    assert compat.memory_of(torch.eye(2).to_sparse()) is None
    del x
    assert all(compat.memory_of(torch.ones(3)) != first for _ in range(100))
    assert compat.tensors_in(({"a": [first, torch.ones(1)]}, 2)) == [torch.ones(1)]


def test_standalone_compile_returns_a_callable_for_the_examples_shapes():
    module = make_fx(lambda x: [x.sin() + x.cos()])(torch.ones(3))
    options = {"fallback_random": True}
    with compat.compiler_silenced():
        compiled = compat.compile_with_inductor(module, [torch.ones(3)], options)
    x = torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(compiled(x)[0], x.sin() + x.cos())


def test_torchs_loggers_are_quiet_inside_and_restored_after(capfd):
    names = ["torch", "torch._inductor", "torch._subclasses.fake_tensor", "torch.first.used"]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    with compat.compiler_silenced():
        warnings.warn("a remark", stacklevel=1)
        for logger in loggers:
            logger.error("a line")
    assert [logger.level for logger in loggers] == before
    assert capfd.readouterr() == ("", "")


def test_an_op_overload_says_which_inputs_share_memory_with_its_result():
    def function(x):
        shifted = x + 1
        left, _ = shifted.split(2)
        return torch._foreach_exp([left.mul_(2.0), x.view(2, 2)])

    graph = make_fx(function)(torch.ones(4)).graph
    nodes = {node.name: node for node in graph.nodes}
    shared = {n: [i.name for i in compat.inputs_sharing_memory(nodes[n])] for n in nodes}
    assert shared["add"] == []
    assert shared["split"] == ["add"]
    assert shared["getitem"] == ["split"]
    assert shared["mul_"] == ["getitem"]
    assert shared["view"] == [next(iter(nodes))]


def test_get_decompositions_takes_an_operation_apart():
    softplus = torch.ops.aten.log_sigmoid_forward
    table = compat.decompositions([softplus])
    module = make_fx(torch.nn.functional.logsigmoid, decomposition_table=table)(torch.ones(3))
    targets = [node.target for node in module.graph.nodes]
    assert softplus.default not in targets
    assert torch.ops.aten.exp.default in targets


def test_an_op_overload_has_tags_and_a_schema():
    def function(x):
        return x.exp().add_(torch.randn(3)).nonzero()

    nodes = {str(n.target): n for n in make_fx(function)(torch.ones(3)).graph.nodes}
    exp, add = nodes["aten.exp.default"], nodes["aten.add_.Tensor"]
    drawn, nonzero = nodes["aten.randn.default"], nodes["aten.nonzero.default"]
    assert compat.has_tag(exp, torch.Tag.pointwise)
    assert compat.has_tag(drawn, torch.Tag.nondeterministic_seeded)
    assert compat.has_tag(nonzero, torch.Tag.dynamic_output_shape)
    assert not compat.has_tag(exp, torch.Tag.dynamic_output_shape)
    assert [compat.changes_an_input(node) for node in (exp, add)] == [False, True]


def test_distributions_ask_is_all_true_once_for_each_argument(monkeypatch):
    asked = []
    monkeypatch.setattr(*compat.ALL_TRUE, lambda valid: asked.append(valid) or True)
    torch.distributions.Normal(torch.zeros(3), -torch.ones(3), validate_args=True)
    assert [valid.tolist() for valid in asked] == [[True] * 3, [False] * 3]


def test_validate_sample_is_called_for_its_errors_alone(monkeypatch):
    bernoulli = dist.Bernoulli(torch.tensor(0.5), validate_args=True)
    with pytest.raises(ValueError, match="within the support"):
        bernoulli.log_prob(torch.tensor(2.0))
    expected = bernoulli.log_prob(torch.tensor(1.0))
    monkeypatch.setattr(*compat.VALIDATE_SAMPLE, lambda self, value: None)
    assert bernoulli.log_prob(torch.tensor(1.0)) == expected
    assert bernoulli.log_prob(torch.tensor(2.0)).isfinite()


def test_validate_args_is_a_flag_of_the_class_and_of_the_instance():
    for enabled in (True, False):
        with pyro.validation_enabled(enabled):
            assert compat.checks_arguments(torch.distributions.Distribution) is enabled
    assert compat.argument_checks_off(dist.Normal(0.0, 1.0, validate_args=False))
    assert not compat.argument_checks_off(dist.Normal(0.0, 1.0, validate_args=True))


def test_a_masked_distribution_holds_its_mask():
    mask = torch.tensor([True, False])
    assert compat.mask_of(dist.Normal(torch.zeros(2), 1.0).mask(mask)).tolist() == [True, False]
    assert compat.mask_of(dist.Normal(0.0, 1.0).mask(False)) is False


def test_batch_norm_is_the_base_of_all_batch_normalizations():
    for layer in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d):
        assert isinstance(layer(2), compat.BatchNorm)
    assert isinstance(torch.nn.SyncBatchNorm(2), compat.BatchNorm)
    assert not isinstance(torch.nn.LayerNorm(2), compat.BatchNorm)


def test_a_modules_buffers_are_a_dictionary_that_can_be_written_to():
    layer = torch.nn.BatchNorm1d(2)
    assert set(compat.buffers_of(layer)) == {"running_mean", "running_var", "num_batches_tracked"}
    mean = torch.ones(2)
    compat.buffers_of(layer)["running_mean"] = mean
    assert layer.running_mean is mean


def test_a_marked_optimizer_brings_no_warning_of_its_scheduler():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    compat.mark_as_stepped(optimizer)
    scheduler.step()  # warnings are errors here
    assert optimizer.param_groups[0]["lr"] == 0.5


# Pyro's ELBOs


def test_get_common_scale_is_asked_by_trace_enum_elbo(monkeypatch):
    asked = []
    monkeypatch.setattr(*compat.COMMON_SCALE, lambda scales: asked.append(scales) or scales[0])
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
        *compat.EXPECTATION,
        lambda self, costs: asked.append((self, costs)) or original(self, costs),
    )
    assert torch.tensor(elbo(max_plate_nesting=1).loss(plain, proposed, X)).isfinite()
    if elbo is TraceEnum_ELBO:
        ((dice, costs),) = asked
        ((ordinal, terms),) = costs.items()
        assert all(set(compat.named_dims(term)) >= set(ordinal) for term in terms)
        (factor,) = compat.log_factors(dice, ordinal)
        assert len(compat.named_dims(factor)) == 2  # the latent's dimension and the rows'


@pytest.mark.parametrize("name", ["torch_item", "warn_if_nan"])
def test_modules_of_pyro_infer_hold_the_functions_that_read_a_loss(name):
    names = {module.__name__ for module in compat.modules_of_pyro_infer(name)}
    assert {"pyro.infer.trace_elbo", "pyro.infer.tracegraph_elbo"} <= names
    assert "pyro.infer.trace_mean_field_elbo" in names
    assert ("pyro.infer.traceenum_elbo" in names) == (name == "warn_if_nan")


def test_a_packed_tensor_names_its_dimensions():
    tensor = packed.pack(torch.zeros(3, 1, 2), {-1: "a", -2: "b", -3: "c"})
    assert sorted(compat.named_dims(tensor)) == ["a", "c"]
    assert compat.named_dims(compat.name_dims(torch.zeros(2), "z")) == "z"


def test_a_marginal_is_the_product_of_all_factors_summed_over_other_dimensions():
    joint = compat.name_dims(torch.rand(3, 4).log(), "ab")
    other = compat.name_dims(torch.rand(3).log(), "a")
    ring = MarginalRing(cache={})
    (found,) = compat.marginals(ring, [joint, other], [joint], "ab")
    torch.testing.assert_close(found, joint + other[:, None])
    assert compat.named_dims(found) == "ab"


def test_the_surrogate_of_trace_graph_elbo_has_the_gradient_of_its_loss():
    torch.manual_seed(0)
    bound, surrogate = compat.surrogate_of_graph_elbo(TraceGraph_ELBO(), model, guide, X)
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
    traces = compat.particle_traces(particles, model, guide, X)
    values, surrogates = zip(
        *(compat.particle_loss(particles, *pair) for pair in traces), strict=True
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
    module.register_forward_pre_hook(lambda *_: names.extend(compat.constrained_parameters(module)))
    module(torch.ones(2))  # the full names are known while the module runs
    assert names == ["scale"]


def test_broadcasting_expands_a_distribution_to_its_plates():
    trace = poutine.trace(lambda: pyro.sample("z", dist.Normal(0.0, 1.0))).get_trace()
    frame = poutine.indep_messenger.CondIndepStackFrame("data", -1, 3, 0)
    msg = {**trace.nodes["z"], "cond_indep_stack": (frame,), "value": None, "done": False}
    compat.expand_to_plates(msg)
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
    compat.watch_new_parameters(
        store, lambda name, value: told.append((name, compat.stored_constraint(store, name), value))
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


def test_three_remarks_are_silenced_and_a_users_warning_is_not():
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    with compat.pyro_remarks_silenced():
        pyro.module("frozen", frozen)
        pyro.util.warn_if_nan(torch.tensor(float("nan")), "loss")
        float(torch.tensor(1.0, requires_grad=True))
    with pytest.warns(UserWarning, match="mine"), compat.pyro_remarks_silenced():
        warnings.warn("mine", UserWarning, stacklevel=1)


def test_pyros_log_of_its_elbos_is_quiet_inside_and_restored_after():
    logger, lines = logging.getLogger("pyro.infer.elbo"), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    level = logger.level
    logger.addHandler(handler)
    try:
        with compat.pyro_log_silenced():
            TraceEnum_ELBO().loss(enumerated, lambda x: None, X)
            assert not lines
        TraceEnum_ELBO().loss(enumerated, lambda x: None, X)
    finally:
        logger.removeHandler(handler)
    assert len(lines) == 1
    assert logger.level == level


def test_nothing_but_compat_uses_a_private_name_of_torch_or_pyro():
    """The names are read from the sources: attributes of other objects that begin with one _."""
    import ast
    from pathlib import Path

    root = Path(compat.__file__).parent
    own = {"_of", "_make"}
    found = []
    for path in sorted(root.rglob("*.py")):
        if path == Path(compat.__file__):
            continue
        tree = ast.parse(path.read_text())
        names = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module[:3] != "ppl":
                private = any(part[0] == "_" for part in node.module.split(".") if part)
                if private and node.module != "__future__":
                    found.append(f"{path.name}:{node.lineno} {node.module}")
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
                continue
            of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            known = node.attr.startswith("__") or node.attr in own or node.attr in names
            if not of_self and not known:
                found.append(f"{path.name}:{node.lineno} .{node.attr}")
    assert found == []
