"""Models and guides of sequences: their densities, padding that never matters, and scaling."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.zoo import zoo_data, zoo_pair
from pyro import poutine
from torch.nn.functional import pad

import ppl_vae
from ppl_vae import build, sequences
from ppl_vae.core.pair import Pair
from ppl_vae.core.sites import row_log_prob, sample_sites
from ppl_vae.elbo.loss import BatchLoss
from ppl_vae.elbo.objectives import Objective
from ppl_vae.guides.recurrent import RecurrentGuide
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.deep_markov import DeepMarkovModel
from ppl_vae.models.hmm import HMMModel
from ppl_vae.models.sequence import SequenceModel
from ppl_vae.models.state_space import StateSpaceModel

PAIRS = {"state_space": "smoothing", "deep_markov": "smoothing", "sequence": "recurrent"}
FLOWS = ("deep_markov", "smoothing", "flows")
every_pair = pytest.mark.parametrize("names", [*PAIRS.items(), FLOWS], ids="-".join)
pytestmark = [
    pytest.mark.usefixtures("double"),
    pytest.mark.filterwarnings("ignore:log_likelihood. k-hat"),  # of guides that are not fitted
]


def pair_of(names):
    """A pair with weights away from their start, and its data in double precision."""
    model, guide, _ = zoo_pair(*names[:2])
    if names == FLOWS:
        guide = SmoothingGuide(guide.features, guide.latents, flows=2)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in [*model.parameters(), *guide.parameters()]:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    data = zoo_data(names[0])
    return model.double(), guide.double(), data | {"x": data["x"].double()}


def padded(data, steps, filling=0.0):
    """The data with more steps after the end, and ``filling`` in every cell that is not there."""
    more = (0, 0, 0, steps)
    x, seen = pad(data["x"], more), pad(data["seen"], more)
    return data | {"x": torch.where(seen, x, filling), "seen": seen}


def row_elbos(model, guide, data, seed=0):
    """One draw's ELBO of every row, (rows,), with gradients."""
    pyro.set_rng_seed(seed)
    drawn = poutine.trace(guide).get_trace(**data)
    scored = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(**data)
    total = sum(row_log_prob(site) for site in sample_sites(scored).values())
    return total - sum(row_log_prob(site) for site in sample_sites(drawn).values())


@every_pair
@pytest.mark.parametrize("filling", [0.0, torch.nan])
def test_padding_changes_no_elbo_and_no_gradient(names, filling):
    model, guide, data = pair_of(names)
    parameters = [*model.parameters(), *guide.parameters()]
    found = []
    for fields in (data, padded(data, 0, filling), padded(data, 9, filling)):
        x = fields["x"].requires_grad_()
        elbos = row_elbos(model, guide, fields)
        *gradients, of_x = torch.autograd.grad(elbos.sum(), [*parameters, x])
        assert (of_x[~fields["seen"]] == 0).all()
        found.append([elbos, *gradients])
    for other in found[1:]:
        for value, right in zip(other, found[0], strict=True):
            torch.testing.assert_close(value, right, rtol=1e-10, atol=1e-10)


@every_pair
def test_a_sequence_has_the_same_elbo_among_short_ones_as_among_long_ones(names):
    model, guide, data = pair_of(names)
    drawn = poutine.trace(guide).get_trace(**data).nodes["z"]["value"].detach()
    short = data["lengths"] <= 2
    few = {name: values[short] for name, values in data.items()}
    few = {name: values[:, :2] if values.ndim > 1 else values for name, values in few.items()}
    z = drawn[short][:, :2] if drawn.ndim == 3 else drawn[short]
    for half in (model, guide):
        totals = [
            sum(
                row_log_prob(site)
                for site in sample_sites(
                    poutine.trace(poutine.condition(half, {"z": value})).get_trace(**fields)
                ).values()
            )
            for fields, value in ((data, drawn), (few, z))
        ]
        torch.testing.assert_close(totals[1], totals[0][short], rtol=1e-10, atol=1e-10)


@every_pair
def test_the_library_gives_the_same_numbers_at_any_padding(names):
    model, guide, data = pair_of(names)
    longer = padded(data, 3, torch.nan)
    terms = [ppl_vae.elbo_terms(model, guide, d, num_samples=1) for d in (data, longer)]
    np.testing.assert_allclose(terms[1], terms[0], rtol=1e-10)
    scores = [ppl_vae.log_likelihood(model, guide, d, num_samples=20) for d in (data, longer)]
    np.testing.assert_allclose(scores[1]["log_prob"], scores[0]["log_prob"], rtol=1e-10)
    codes = [ppl_vae.encode(model, guide, d)["z"]["mean"] for d in (data, longer)]
    shared = codes[0].shape[1]
    there = [code.notna().to_numpy() for code in codes]
    assert np.array_equal(there[1][:, :shared], there[0])
    assert not there[1][:, shared:].any()


@every_pair
def test_codes_have_the_steps_of_each_sequence_and_nan_after_its_end(names):
    model, guide, data = pair_of(names)
    codes = ppl_vae.encode(model, guide, data)["z"]
    if names[0] == "sequence":  # one code for a whole sequence
        assert np.isfinite(codes.to_numpy()).all()
        return
    steps = np.arange(data["x"].shape[1]).repeat(guide.latents)
    inside = steps < np.asarray(data["lengths"])[:, None]
    assert not inside.all()
    for moment in ("mean", "sd"):
        assert np.array_equal(codes[moment].notna(), inside)
    whole = ppl_vae.encode(model, guide, {k: v[:1] for k, v in data.items()})["z"]["mean"]
    assert whole.shape[1] == len(steps)


@every_pair
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_the_training_loss_weighs_the_kl_and_the_rows_at_every_length(names, weight):
    model, guide, data = pair_of(names)
    pair = Pair.of(model, guide, "data")
    loss = BatchLoss(pair, Objective(pyro.infer.Trace_ELBO(), ""), rows=600)
    for length in (1, 3, 5):
        rows = data["lengths"] == length
        batch = {name: values[rows] for name, values in data.items()}
        pyro.set_rng_seed(0)
        losses, _ = loss(batch, torch.tensor(weight))
        pyro.set_rng_seed(0)
        drawn = poutine.trace(guide).get_trace(**batch)
        scored = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(**batch)
        x, z, q = (
            row_log_prob(trace.nodes[name]).sum()
            for trace, name in ((scored, "x"), (scored, "z"), (drawn, "z"))
        )
        right = -600 / int(rows.sum()) * torch.stack([x + z - q, x + weight * (z - q)])
        torch.testing.assert_close(losses, right)


def test_the_kalman_filter_is_the_joint_normal_of_the_cells_that_are_there():
    model, _, data = pair_of(("state_space", "smoothing"))
    steps = data["x"].shape[1]
    a, w = model.transition, model.scale[:, None] * model.weight
    means, covs = [model.start], [torch.diag((2 * model.log_spread).exp())]
    for _ in range(steps - 1):
        means.append(a @ means[-1])
        covs.append(a @ covs[-1] @ a.T + torch.eye(2))
    power = torch.linalg.matrix_power
    blocks = [
        torch.cat(
            [
                power(a, t - s) @ covs[s] if t >= s else covs[t] @ power(a, s - t).T
                for s in range(steps)
            ],
            1,
        )
        for t in range(steps)
    ]
    big = torch.block_diag(*[w] * steps)
    cov = big @ torch.cat(blocks) @ big.T
    cov = cov + torch.diag((model.scale * model.log_sd.exp()).square().repeat(steps))
    mean = torch.cat([model.loc + w @ m + model.scale * model.shift for m in means])
    found = model.log_prob(data["x"], data["lengths"], data["seen"])
    for row in range(len(found)):
        cells = data["seen"][row].flatten().nonzero()[:, 0]
        right = dist.MultivariateNormal(mean[cells], cov[cells][:, cells])
        expected = right.log_prob(data["x"][row].flatten()[cells])
        torch.testing.assert_close(found[row], expected, rtol=1e-9, atol=1e-9)


def test_the_kalman_filter_reads_nothing_that_is_not_there():
    model, _, data = pair_of(("state_space", "smoothing"))
    right = model.log_prob(data["x"], data["lengths"], data["seen"])
    longer = padded(data, 4, torch.nan)
    found = model.log_prob(longer["x"], longer["lengths"], longer["seen"])
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(found.sum(), list(model.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", ["state_space", "deep_markov"])
def test_the_density_is_that_of_the_formulas_step_by_step(name):
    model, guide, data = pair_of((name, PAIRS[name]))
    trace = poutine.trace(guide).get_trace(**data)
    trace = poutine.trace(poutine.replay(model, trace=trace)).get_trace(**data)
    z = trace.nodes["z"]["value"]
    for row in range(10):
        total = torch.zeros(())
        for t in range(int(data["lengths"][row])):
            if name == "state_space":
                first = dist.Normal(model.start, model.log_spread.exp())
                prior = dist.Normal(model.transition @ z[row, t - 1], 1.0) if t else first
                loc = model.loc + model.scale * (model.weight @ z[row, t] + model.shift)
                each = dist.Normal(loc, model.scale * model.log_sd.exp())
            else:
                prior = dist.Normal(*model.transition(z[row, t - 1] if t else model.start))
                each = dist.Bernoulli(logits=model.emission(z[row, t]))
            seen = data["seen"][row, t]
            total = total + prior.log_prob(z[row, t]).sum()
            total = total + each.log_prob(data["x"][row, t])[seen].sum()
        found = sum(row_log_prob(trace.nodes[site])[row] for site in ("z", "x"))
        torch.testing.assert_close(found, total, rtol=1e-9, atol=1e-9)


def test_the_expected_sequence_of_a_code_is_that_of_the_cell_step_by_step():
    model = SequenceModel(3, latents=2, hidden=5, loc=4.0, scale=2.0).double()
    x, lengths = torch.zeros(6, 4, 3), torch.tensor([1, 2, 3, 4, 4, 1])
    trace = poutine.trace(model).get_trace(x, lengths)
    z, state = trace.nodes["z"]["value"], torch.zeros(6, 5)
    cell = torch.nn.GRUCell(2, 5)
    cell.load_state_dict(
        {n.removesuffix("_l0"): w for n, w in model.decoder.cell.state_dict().items()}
    )
    for t in range(4):
        state = cell(z, state)
        mean, log_sd = model.head(state).chunk(2, -1)
        base = trace.nodes["x"]["fn"].base_dist.base_dist
        torch.testing.assert_close(base.loc[:, t], 4 + 2 * mean)
        torch.testing.assert_close(base.scale[:, t], 2 * ((2 * log_sd).exp() + 1e-4).sqrt())


def test_moments_of_the_data_leave_out_what_is_not_there():
    arrays = [np.full((2, 1), 10.0), np.array([[20.0], [np.nan], [30.0], [40.0]])]
    data = ppl_vae.sequences(arrays)
    assert (data["x"] == 0).any()
    model = ppl_vae.build(StateSpaceModel, data)
    values = np.array([10.0, 10, 20, 30, 40])
    np.testing.assert_allclose(model.loc, values.mean())
    np.testing.assert_allclose(model.scale, values.std())
    guide = ppl_vae.build(RecurrentGuide, {**data, "x": data["x"].int()})
    np.testing.assert_allclose(guide.standardize.loc, values.mean())
    assert ppl_vae.build(DeepMarkovModel, data["x"]).features == 1


def test_rows_of_vectors_are_refused_for_models_of_sequences():
    with pytest.raises(ValueError, match="DeepMarkovModel: features: expected sequences"):
        ppl_vae.build(DeepMarkovModel, torch.zeros(5, 3))


@every_pair
def test_new_and_expected_sequences_end_where_they_end(names):
    model, guide, data = pair_of(names)
    new = ppl_vae.generate(model, guide, data, num_samples=50)
    expected = ppl_vae.reconstruct(model, guide, data, num_samples=3)
    for rows in (new, expected):
        outside = torch.arange(5) >= rows["lengths"][:, None]
        assert (rows["x"][outside] == 0).all()
    assert torch.equal(expected["lengths"], data["lengths"])


def test_a_table_of_rows_has_the_labels_of_the_sequences():
    arrays = {"b": torch.ones(2, 4), "a": torch.ones(5, 4)}
    frame = pd.concat([pd.DataFrame(v.numpy()).assign(id=k) for k, v in arrays.items()])
    data = ppl_vae.sequences(frame, id="id")
    model, guide, _ = zoo_pair("deep_markov", "smoothing", data)
    assert ppl_vae.elbo_terms(model, guide, data).index.tolist() == ["b", "a"]
    assert ppl_vae.encode(model, guide, data).index.tolist() == ["b", "a"]


@pytest.mark.parametrize("length", [0, 6])
@pytest.mark.parametrize("verb", ["fit", "elbo_terms", "lint", "validation"])
def test_a_length_that_the_data_cannot_have_is_refused_by_the_sequence(verb, length):
    model, guide, data = pair_of(("deep_markov", "smoothing"))
    lengths = data["lengths"].clone()
    lengths[7] = length
    bad = data | {"lengths": lengths}
    function, rows, options = getattr(ppl_vae, verb, ppl_vae.fit), bad, {}
    if verb == "validation":
        rows, options = data, {"validation": bad}
    with pytest.raises(ValueError, match=f"sequence 7: expected a length from 1 to 5.*{length};"):
        function(model, guide, rows, **options)


def test_held_out_sequences_may_be_padded_to_another_length():
    fits = []
    for more in (0, 3):
        torch.manual_seed(0)
        model, guide, data = pair_of(("state_space", "smoothing"))
        held_out = padded(data, more)
        history = ppl_vae.fit(model, guide, data, validation=held_out, epochs=2, progress=False)
        fits.append(history.frame["validation_elbo"])
    np.testing.assert_allclose(fits[0], fits[1], rtol=1e-6)


def test_only_paths_of_one_length_can_be_moved_as_a_whole():
    """A factor at a step after the end would add to the ELBO without bounds."""
    x = zoo_data("deep_markov")["x"][:10]
    lengths = torch.full((10,), x.shape[1])
    model, guide, _ = zoo_pair("deep_markov", "smoothing", {"x": x})
    ppl_vae.refine(model, guide, {"x": x}, steps=2)
    model, guide, data = zoo_pair("deep_markov", "smoothing", {"x": x, "lengths": lengths})
    for other in (guide, SmoothingGuide(guide.features, guide.latents, flows=1)):
        with pytest.raises(ValueError, match=r'site "z": .*paths of different lengths'):
            ppl_vae.refine(model, other, data, steps=2)


@pytest.mark.parametrize("fitted_with_gaps", [False, True])
def test_a_pair_takes_later_sequences_with_and_without_missing_cells(fitted_with_gaps):
    whole = [np.random.default_rng(n).standard_normal((n % 4 + 1, 4)) for n in range(20)]
    gaps = [np.where(array > 1, np.nan, array) for array in whole]
    first, second = (gaps, whole) if fitted_with_gaps else (whole, gaps)
    model, guide, _ = zoo_pair("state_space", "smoothing")
    data, later = ppl_vae.sequences(first), ppl_vae.sequences(second)
    ppl_vae.fit(model.double(), guide.double(), data, epochs=1, progress=False)
    found = ppl_vae.elbo_terms(model, guide, later)["x"]
    assert np.isfinite(found).all()
    alone = ppl_vae.elbo_terms(model, guide, later | {"seen": torch.ones_like(later["seen"])})["x"]
    same = ~np.array([np.isnan(array).any() for array in second])
    assert (found == alone)[same].all()
    assert (found != alone)[~same].all()


class ReadsNoMask(pyro.nn.PyroModule):
    """A model that takes every cell inside a sequence for a value."""

    def forward(self, x, lengths):
        inside = (torch.arange(x.shape[1]) < lengths[:, None])[:, :, None]
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0).expand(x.shape).mask(inside).to_event(2), obs=x)


def test_missing_cells_are_refused_for_a_model_that_does_not_read_which():
    arrays = [np.ones((2, 1)), np.ones((3, 1)), np.array([[1.0], [np.nan]])]
    ppl_vae.elbo_terms(ReadsNoMask(), None, ppl_vae.sequences(arrays[:2]))
    with pytest.raises(ValueError, match=r'sequence 2: .*the model does not read "seen"'):
        ppl_vae.elbo_terms(ReadsNoMask(), None, ppl_vae.sequences(arrays))


def test_padded_sequences_are_refused_by_a_model_that_takes_the_padding_for_data():
    rows = sequences([torch.ones(2, 1), torch.ones(6, 1)])
    model = build(HMMModel, rows, states=2)
    message = "expected an argument lengths of the model, got none, and sequence 0 ends after 2 of"
    for function in (ppl_vae.log_likelihood, ppl_vae.elbo_terms, ppl_vae.encode):
        with pytest.raises(ValueError, match=message):
            function(model, None, rows)
    whole = sequences([torch.ones(6, 1), torch.ones(6, 1)])
    named = [finding.where for finding in ppl_vae.lint(model, None, whole).errors]
    assert named == ['field "lengths"', 'field "seen"']


@pytest.mark.parametrize("length", [0, -1, 99])
def test_sequences_of_impossible_lengths_are_not_made(length):
    rows = sequences([torch.randn(3, 2), torch.randn(5, 2)])
    pair = build(SequenceModel, rows, latents=2), build(RecurrentGuide, rows, latents=2)
    with pytest.raises(ValueError, match="expected a length from 1 to 5"):
        ppl_vae.generate(*pair, rows, num_samples=2, given={"lengths": length})
