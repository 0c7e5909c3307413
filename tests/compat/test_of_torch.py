"""What the library expects of private names of torch: one test per name.

A new version of torch that breaks an expectation fails here, under the name it broke.
"""

import logging
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ppl_vae.compat import of_torch


def test_a_dispatch_mode_sees_the_operations_and_their_tag_of_randomness():
    class Seen(of_torch.Operations):
        draws = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.draws = (*self.draws, of_torch.draws_random_numbers(func))
            return func(*args, **(kwargs or {}))

    x = torch.ones(3)
    with Seen() as seen:
        _ = x.sin()
        _ = torch.bernoulli(0.5 * x)
    assert seen.draws == (False, False, True)


def test_memory_is_one_for_a_tensor_and_its_views_and_its_address_is_not_given_away():
    x = torch.ones(3)
    first = of_torch.memory_of(x)
    assert first == of_torch.memory_of(x[1:])
    assert hash(first) == hash(of_torch.memory_of(x[1:]))
    assert of_torch.memory_of(torch.eye(2).to_sparse()) is None
    del x
    assert all(of_torch.memory_of(torch.ones(3)) != first for _ in range(100))
    assert of_torch.tensors_in(({"a": [first, torch.ones(1)]}, 2)) == [torch.ones(1)]


def test_standalone_compile_returns_a_callable_for_the_examples_shapes():
    module = make_fx(lambda x: [x.sin() + x.cos()])(torch.ones(3))
    options = {"fallback_random": True}
    with of_torch.compiler_silenced():
        compiled = of_torch.compile_with_inductor(module, [torch.ones(3)], options)
    x = torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(compiled(x)[0], x.sin() + x.cos())


def test_code_of_inductor_is_called_in_turn_without_its_wrapper():
    """Each call changes the state that the next one reads; an error ends them."""
    state, data = torch.zeros(3), torch.ones(3, 3)

    def step(state, data, factor):
        state.copy_(data @ state + factor)
        return [state.sum()]

    options = {"cpp_wrapper": True, "fallback_random": True}
    with of_torch.compiler_silenced():
        module = make_fx(step)(state, data, torch.ones(()))
        compiled = of_torch.compile_with_inductor(module, [state, data, torch.ones(())], options)
    code = of_torch.without_wrappers(compiled)
    names = [getattr(cell.cell_contents, "__name__", "") for cell in code.__closure__]
    assert "inductor_entry_cpp" in names
    factors = [torch.tensor(f) for f in (1.0, 2.0, 3.0)]
    state.zero_()
    found = of_torch.called_in_turn(code, [[state, data, factor] for factor in factors])
    assert [result.item() for result in found] == [3.0, 15.0, 54.0]
    with pytest.raises(RuntimeError):
        of_torch.called_in_turn(code, [[state, torch.ones(2, 2), factors[0]]] * 3)
    plain = of_torch.called_in_turn(lambda inputs: [inputs.pop() * 2], [[factors[0]], [factors[1]]])
    assert [result.item() for result in plain] == [2.0, 4.0]


def test_torchs_loggers_are_quiet_inside_and_restored_after(capfd):
    names = ["torch", "torch._inductor", "torch._subclasses.fake_tensor", "torch.first.used"]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    with of_torch.compiler_silenced():
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
    shared = {n: [i.name for i in of_torch.inputs_sharing_memory(nodes[n])] for n in nodes}
    assert shared["add"] == []
    assert shared["split"] == ["add"]
    assert shared["getitem"] == ["split"]
    assert shared["mul_"] == ["getitem"]
    assert shared["view"] == [next(iter(nodes))]


def test_get_decompositions_takes_an_operation_apart():
    softplus = torch.ops.aten.log_sigmoid_forward
    table = of_torch.decompositions([softplus])
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
    assert of_torch.has_tag(exp, torch.Tag.pointwise)
    assert of_torch.has_tag(drawn, torch.Tag.nondeterministic_seeded)
    assert of_torch.has_tag(nonzero, torch.Tag.dynamic_output_shape)
    assert not of_torch.has_tag(exp, torch.Tag.dynamic_output_shape)
    assert [of_torch.changes_an_input(node) for node in (exp, add)] == [False, True]


def test_distributions_ask_is_all_true_once_for_each_argument(monkeypatch):
    asked = []
    monkeypatch.setattr(*of_torch.ALL_TRUE, lambda valid: asked.append(valid) or True)
    torch.distributions.Normal(torch.zeros(3), -torch.ones(3), validate_args=True)
    assert [valid.tolist() for valid in asked] == [[True] * 3, [False] * 3]


def test_validate_sample_is_called_for_its_errors_alone(monkeypatch):
    bernoulli = dist.Bernoulli(torch.tensor(0.5), validate_args=True)
    with pytest.raises(ValueError, match="within the support"):
        bernoulli.log_prob(torch.tensor(2.0))
    expected = bernoulli.log_prob(torch.tensor(1.0))
    monkeypatch.setattr(*of_torch.VALIDATE_SAMPLE, lambda self, value: None)
    assert bernoulli.log_prob(torch.tensor(1.0)) == expected
    assert bernoulli.log_prob(torch.tensor(2.0)).isfinite()


def test_validate_args_is_a_flag_of_the_class_and_of_the_instance():
    for enabled in (True, False):
        with pyro.validation_enabled(enabled):
            assert of_torch.checks_arguments(torch.distributions.Distribution) is enabled
    assert of_torch.argument_checks_off(dist.Normal(0.0, 1.0, validate_args=False))
    assert not of_torch.argument_checks_off(dist.Normal(0.0, 1.0, validate_args=True))


def test_a_masked_distribution_holds_its_mask():
    mask = torch.tensor([True, False])
    assert of_torch.mask_of(dist.Normal(torch.zeros(2), 1.0).mask(mask)).tolist() == [True, False]
    assert of_torch.mask_of(dist.Normal(0.0, 1.0).mask(False)) is False


def test_batch_norm_is_the_base_of_all_batch_normalizations():
    for layer in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d):
        assert isinstance(layer(2), of_torch.BatchNorm)
    assert isinstance(torch.nn.SyncBatchNorm(2), of_torch.BatchNorm)
    assert not isinstance(torch.nn.LayerNorm(2), of_torch.BatchNorm)


def test_a_modules_buffers_are_a_dictionary_that_can_be_written_to():
    layer = torch.nn.BatchNorm1d(2)
    assert set(of_torch.buffers_of(layer)) == {"running_mean", "running_var", "num_batches_tracked"}
    mean = torch.ones(2)
    of_torch.buffers_of(layer)["running_mean"] = mean
    assert layer.running_mean is mean


def test_a_marked_optimizer_brings_no_warning_of_its_scheduler():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    of_torch.mark_as_stepped(optimizer)
    scheduler.step()  # warnings are errors here
    assert optimizer.param_groups[0]["lr"] == 0.5
