"""Networks of sequences: every row as if it stood alone, without its padding."""

import pytest
import torch

from ppl_vae.nn import GatedTransition, Recurrent, seen_cells, step_mask, turned

LENGTHS = torch.tensor([4, 1, 3])
X = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backwards", [False, True])
def test_a_state_has_read_its_own_sequence_alone(backwards):
    network = Recurrent(2, 5, backwards)
    states = network(X, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = X[row : row + 1, :length]
        read = network.cell(alone.flip(1) if backwards else alone)[0]
        expected = read.flip(1) if backwards else read
        torch.testing.assert_close(states[row, :length], expected[0])


def test_without_lengths_all_steps_are_read():
    network = Recurrent(2, 5, backwards=True)
    torch.testing.assert_close(network(X), network(X, torch.full((3,), 4)))


def test_particles_may_lead_a_network_that_reads_forwards():
    network = Recurrent(2, 5)
    many = torch.stack([X, 2 * X, 3 * X])[:, None]  # (3, 1, rows, steps, features)
    torch.testing.assert_close(network(many)[2, 0], network(3 * X))


def test_a_sequence_turned_twice_is_as_before_inside():
    inside = step_mask(LENGTHS, 4)
    assert torch.equal(turned(turned(X, LENGTHS), LENGTHS)[inside], X[inside])
    assert torch.equal(turned(X, LENGTHS)[2, :3], X[2, :3].flip(0))


def test_cells_that_are_not_there_are_zeros_and_marked():
    x = X.clone()
    seen = torch.ones_like(X, dtype=torch.bool)
    seen[0, 1, 1] = False
    x[0, 1, 1] = x[1, 1:] = torch.nan
    clean, mask = seen_cells(x, LENGTHS, seen)
    expected = step_mask(LENGTHS, 4)[:, :, None] & seen
    assert torch.equal(mask, expected)
    assert torch.equal(clean, torch.where(expected, X, 0.0))


def test_a_gated_transition_is_its_formula_and_starts_between_identity_and_network():
    transition = GatedTransition(2, 7)
    z = X[:, :, :]
    gate, proposal = transition.gate(z).sigmoid(), transition.proposal(z)
    loc, scale = transition(z)
    torch.testing.assert_close(loc, (1 - gate) * z + gate * proposal)
    right = torch.nn.functional.softplus(transition.scale(proposal.relu())) + 1e-4
    torch.testing.assert_close(scale, right)
