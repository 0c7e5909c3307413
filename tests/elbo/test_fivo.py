"""FIVO: between the ELBO and log p(x), tighter than IWAE on long sequences, and trained with."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.paths import FilteringGuide, drawn_sequences, planted_model
from pyro import poutine

from ppl_vae import FIVO, IWAE, build, fit
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.distributions import MarkovPath
from ppl_vae.guides.recurrent import RecurrentGuide
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.sequence import SequenceModel
from ppl_vae.models.state_space import StateSpaceModel


def bound(elbo, pair, data, repeats=3):
    """The ELBO and the bound of data, in nats a row, averaged."""
    found = []
    for seed in range(repeats):
        with forked(seed), torch.no_grad():
            rows = len(data["x"])
            found.append(torch.stack(elbo.losses_and_surrogate(pair, data, rows, None)[:2]) / rows)
    return -torch.stack(found).mean(0)


def test_it_lies_between_iwae_and_the_exact_likelihood_on_long_sequences():
    model = planted_model()
    data = drawn_sequences(model, 40 + torch.arange(20), 60)
    pair, exact = (
        Pair.of(model, FilteringGuide(model), "data"),
        float(model.log_prob(**data).mean()),
    )
    elbo, fivo = bound(FIVO(8), pair, data)
    same, iwae = bound(IWAE(8), pair, data)
    assert abs(elbo - same) < 1
    assert elbo < iwae < fivo < exact
    assert exact - fivo < 0.7 * (exact - iwae)


def test_it_nears_the_exact_likelihood_with_more_particles():
    model = planted_model()
    data = drawn_sequences(model, torch.full((20,), 10), 10)
    pair, exact = (
        Pair.of(model, FilteringGuide(model), "data"),
        float(model.log_prob(**data).mean()),
    )
    few, many = (bound(FIVO(count), pair, data)[1] for count in (2, 500))
    assert few < many - 0.1
    assert abs(many - exact) < 0.05


def test_its_gradient_leads_to_the_maximum_of_the_likelihood():
    """Only the noise of the observations is free; its score is known from the exact likelihood."""
    model = planted_model()
    data = drawn_sequences(model, 5 + torch.arange(40) % 6, 10)
    with torch.no_grad():
        model.log_sd += torch.tensor([0.3, -0.3, 0.0])
    model.log_sd.requires_grad_()
    guide = FilteringGuide(model)
    (expected,) = torch.autograd.grad(model.log_prob(**data).sum(), model.log_sd)
    elbo, pair = FIVO(300), Pair.of(model, guide, "data")
    total = torch.zeros(3)
    for seed in range(5):
        with forked(seed):
            loss = elbo.losses_and_surrogate(pair, data, 40, None)[2]
        total -= torch.autograd.grad(loss, model.log_sd)[0] / 5
    torch.testing.assert_close(total, expected, rtol=0.1, atol=3.0)


@pytest.mark.parametrize(("compiled", "step"), [(False, "eager"), ("auto", "traced")])
def test_a_pair_is_trained_with_it_and_padding_gets_no_gradient(compiled, step, monkeypatch):
    monkeypatch.setattr("ppl_vae.training.stepper.TRACED_FROM", 1)
    if step == "traced":  # batches of one number of steps
        monkeypatch.setattr("ppl_vae.training.svi.rows_to_train_on", lambda pair, rows, _: rows)
    torch.manual_seed(0)
    true = planted_model()
    data = drawn_sequences(true, 2 + torch.arange(60) % 5, 6)
    outside = torch.arange(6) >= data["lengths"][:, None]
    data["x"][outside] = torch.nan
    model, guide = (build(cls, data, latents=2) for cls in (StateSpaceModel, SmoothingGuide))
    before = float(model.log_prob(**data).detach().mean())
    history = fit(
        model, guide, data, elbo=FIVO(4), epochs=15, batch_size=20, compile=compiled,
        progress=False, optimizer=lambda parameters: torch.optim.Adam(parameters, 0.03),
    )  # fmt: skip
    assert history.objective == "FIVO"
    assert f"step             {step}:" in str(history)
    assert float(model.log_prob(**data).detach().mean()) > before + 1
    assert all(p.isfinite().all() for p in (*model.parameters(), *guide.parameters()))


def discrete(x, lengths):
    def step(z):
        return dist.Categorical(logits=torch.zeros(*z.shape, 2))

    first = dist.Categorical(logits=torch.zeros(2))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", MarkovPath(first, step, x.shape[1], lengths))
        mean = z[..., None].float().expand(*z.shape, x.shape[-1])
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(2), obs=x)


def discrete_guide(x, lengths):
    poutine.block(discrete, hide=["x"])(x, lengths)


def test_what_it_would_train_wrongly_is_refused():
    data = {"x": torch.zeros(4, 3, 3), "lengths": torch.full((4,), 3)}
    with pytest.raises(ValueError, match=r"expected a MarkovPath .* for FIVO"):
        fit(SequenceModel(3), RecurrentGuide(3), data, elbo=FIVO(2), epochs=1, progress=False)
    with pytest.raises(ValueError, match='site "z": expected a reparameterized path under FIVO'):
        FIVO(2).losses_and_surrogate(Pair.of(discrete, discrete_guide, "data"), data, 4, None)
    with pytest.raises(ValueError, match="num_particles: expected a whole number of at least 2"):
        FIVO(1)
