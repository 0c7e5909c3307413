"""The mixture whose density is a matrix product: torch's numbers, less memory, more digits."""

import pyro.distributions as dist
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ppl_vae.distributions import MixtureSameFamily


def parts(seed, components=6, latents=3, dtype=torch.double):
    """The constructor's arguments for a mixture of normals, and its parameters as leaves."""
    draw = torch.Generator().manual_seed(seed)
    locs, logs = torch.randn(2, components, latents, generator=draw, dtype=dtype)
    logits = torch.randn(components, generator=draw, dtype=dtype)
    leaves = [t.requires_grad_() for t in (logits, locs, logs)]
    each = dist.Normal(locs, logs.exp()).to_event(1)
    return (dist.Categorical(logits=logits), each), leaves


@pytest.mark.parametrize("batch", [(), (5,), (2, 5)], ids=str)
def test_a_mixture_of_normals_has_the_density_and_gradients_of_torch(batch):
    arguments, leaves = parts(seed=len(batch))
    x = torch.randn(4, *batch, 3, dtype=torch.double, requires_grad=True)
    found, expected = (
        kind(*arguments).expand(batch).log_prob(x)
        for kind in (MixtureSameFamily, dist.MixtureSameFamily)
    )
    torch.testing.assert_close(found, expected)
    for a, b in zip(*(torch.autograd.grad(t.square().sum(), [x, *leaves], retain_graph=True)
                      for t in (found, expected)), strict=True):  # fmt: skip
        torch.testing.assert_close(a, b)


def test_one_value_is_scored_for_every_row_of_an_expanded_mixture():
    arguments, _ = parts(seed=0)
    rows = MixtureSameFamily(*arguments).expand((5,))
    found = rows.log_prob(torch.zeros(3, dtype=torch.double))
    assert found.shape == (5,)
    assert found.unique().numel() == 1


def test_narrow_components_far_from_zero_keep_their_digits():
    each = [torch.tensor([[30.0], [-30.0]]), torch.tensor([[1e-3], [2e-3]])]
    x = 30 + 1e-3 * torch.linspace(-2, 2, 9)[:, None]
    found = MixtureSameFamily(
        dist.Categorical(torch.ones(2)), dist.Normal(*each).to_event(1)
    ).log_prob(x)
    exact = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2).double()),
        dist.Normal(*[t.double() for t in each]).to_event(1),
    ).log_prob(x.double())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        # a view takes no memory: its storage counts
        if isinstance(out, torch.Tensor):
            held = out.untyped_storage().nbytes() // out.element_size()
            self.elements = max(self.elements, held)
        return out


def test_no_tensor_holds_every_row_component_and_dimension():
    (weights, each), _ = parts(seed=0, components=50, latents=20)
    x = torch.randn(100, 20, dtype=torch.double)
    with Largest() as seen:
        MixtureSameFamily(weights, each).expand((100,)).log_prob(x)
    assert seen.elements <= 100 * 50


@pytest.mark.parametrize(
    "each",
    [
        dist.Laplace(torch.zeros(4, 2), torch.ones(4, 2)).to_event(1),
        dist.MultivariateNormal(torch.randn(4, 2), torch.eye(2)),
        dist.Normal(torch.randn(4), 1.0),
        dist.Normal(torch.randn(5, 4, 2), torch.ones(5, 4, 2)).to_event(1),
    ],
    ids=["Laplace", "full covariance", "scalars", "a mixture for each row"],
)
def test_other_mixtures_are_those_of_torch(each):
    weights = dist.Categorical(torch.ones(each.batch_shape) / 4)
    x = torch.randn(5, *each.event_shape)
    found, expected = (
        kind(weights, each).log_prob(x) for kind in (MixtureSameFamily, dist.MixtureSameFamily)
    )
    torch.testing.assert_close(found, expected)


def test_values_outside_the_support_are_refused():
    (weights, each), _ = parts(seed=0)
    with pytest.raises(ValueError, match="value"):
        MixtureSameFamily(weights, each, validate_args=True).log_prob(
            torch.tensor([torch.nan, 0.0, 0.0]).double()
        )


def test_an_infinite_value_has_no_density():
    arguments, _ = parts(seed=0)
    x = torch.tensor([[0.0, torch.inf, 0.0], [0.0, -1.0, 0.0], [-torch.inf, torch.inf, 0.0]])
    found, expected = (
        kind(*arguments).log_prob(x.double())
        for kind in (MixtureSameFamily, dist.MixtureSameFamily)
    )
    assert found.isinf().tolist() == [True, False, True]
    torch.testing.assert_close(found, expected)
