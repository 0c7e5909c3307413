"""The topic model: its likelihood, its guides, documents that it draws, topics that it finds."""

import math

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from parts.extras import sparse
from pyro import poutine
from scipy import integrate, stats
from torch import nn

from ppl_vae import (
    build,
    encode,
    fit,
    generate,
    lint,
    load,
    log_likelihood,
    posterior_predictive,
    save,
)
from ppl_vae.guides.amortized import AmortizedGuide
from ppl_vae.guides.dirichlet import DirichletGuide
from ppl_vae.guides.logistic_normal import LogisticNormalGuide
from ppl_vae.models.topics import TopicsModel
from ppl_vae.nn import TopicCounts, TopicMixture

pytestmark = pytest.mark.filterwarnings(
    "ignore:log_likelihood. k-hat"
)  # guides that are not fitted

WORDS = 9
GUIDES = (DirichletGuide, LogisticNormalGuide)


def documents(topics=3, rows=300, words=12, seed=0):
    """Counts of documents of topics with words of their own, and the topics, (topics, words)."""
    random = np.random.default_rng(seed)
    planted = np.kron(np.eye(topics), np.ones(words // topics)) + 0.02
    planted *= random.uniform(0.5, 1.5, planted.shape)
    planted /= planted.sum(-1, keepdims=True)
    shares = random.dirichlet([0.3] * topics, rows)
    lengths = random.integers(10, 60, rows)
    counts = [random.multinomial(n, p) for n, p in zip(lengths, shares @ planted, strict=True)]
    return torch.as_tensor(np.stack(counts)).float(), planted


def adam(parameters):
    return torch.optim.Adam(parameters, 0.03)


def product(topics=2, words=WORDS):
    return nn.Linear(topics, words)


def wide(guide):
    """A guide that draws the same shares for all rows, about as spread as the prior."""
    first = nn.Linear(WORDS, 2 if guide is DirichletGuide else 4)
    with torch.no_grad():
        first.weight.zero_()
        first.bias.copy_(torch.tensor([0.0, 0.0, 2.0, 2.0])[: len(first.bias)])
    return guide(WORDS, 2, nn.Sequential(first, nn.Softplus()) if len(first.bias) == 2 else first)


def two_topics(decoder):
    torch.manual_seed(1)
    given = {} if decoder is TopicMixture else {"decoder": decoder()}
    model = TopicsModel(WORDS, 2, alpha=0.7, **given)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = torch.poisson(torch.tensor([[3.0] * WORDS, [0.3] * WORDS, [0.0] * WORDS, [1.0] * WORDS]))
    return model, x


def words_of(model, share):
    """Probabilities of the words, by the formulas of the two decoders."""
    z = torch.tensor([share, 1 - share])
    if isinstance(model.decoder, TopicMixture):
        return (z @ model.decoder.weight.softmax(-1)).detach().numpy()
    return (model.decoder.weight @ z + model.decoder.bias).softmax(-1).detach().numpy()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("decoder", [TopicMixture, product])
@pytest.mark.parametrize("guide", GUIDES)
def test_the_log_likelihood_of_two_topics_is_the_integral_over_their_shares(decoder, guide):
    model, x = two_topics(decoder)
    prior = stats.beta(0.7, 0.7)
    found = log_likelihood(model, wide(guide), x, num_samples=10_000)["log_prob"]
    for row, value in zip(x.numpy(), found, strict=True):
        right, _ = integrate.quad(
            lambda share: prior.pdf(share)
            * stats.multinomial.pmf(row, row.sum(), words_of(model, share)),  # noqa: B023
            0, 1, limit=200,
        )  # fmt: skip
        assert value == pytest.approx(math.log(right), abs=0.1)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_document_without_words_has_the_log_likelihood_zero(guide):
    model, _ = two_topics(TopicMixture)
    x = torch.zeros(2, WORDS)
    assert log_likelihood(model, None, x, num_samples=50)["log_prob"].abs().max() == 0
    found = log_likelihood(model, wide(guide), x, num_samples=5000)
    assert found["log_prob"].abs().max() < 0.2


@pytest.mark.parametrize("guide", GUIDES)
def test_drawn_documents_are_as_long_as_their_rows(guide):
    x, _ = documents(rows=20)
    model, half = build(TopicsModel, x, latents=3), build(guide, x, latents=3)
    drawn = posterior_predictive(model, half, x, num_samples=4)["x"]
    assert torch.equal(drawn.sum(-1), x.sum(-1).expand(4, -1))
    assert (drawn[0] != drawn[1]).any()
    new = generate(model, half, x, num_samples=30)
    assert set(new.sum(-1).tolist()) <= set(x.sum(-1).tolist())


@pytest.mark.usefixtures("double")
def test_the_gradient_of_the_dirichlet_guide_flows_through_its_draws():
    guide = DirichletGuide(3, 3, nn.Sequential(nn.Linear(3, 3), nn.Softplus()))
    x, value = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([1.0, -2.0, 0.5])
    bias = guide.encoder[0].bias
    exact = guide.encoder(x)[0]
    right = torch.autograd.grad((exact / exact.sum() * value).sum(), bias)[0]
    pyro.set_rng_seed(0)
    trace = poutine.trace(guide).get_trace(x.expand(20_000, -1))
    z = trace.nodes["z"]["value"]
    found = torch.autograd.grad((z @ value).mean(), bias)[0]
    torch.testing.assert_close(found, right, rtol=0, atol=0.01)


@pytest.mark.parametrize("guide", GUIDES)
def test_no_latent_has_a_score_function(guide):
    x, _ = documents(rows=50)
    verdict = lint(build(TopicsModel, x, latents=3), build(guide, x, latents=3), x)
    assert not verdict.findings
    assert "score function" not in str(verdict)


def test_the_network_of_the_dirichlet_guide_is_the_mean_field_of_its_topics():
    x, planted = documents(rows=5)
    network = TopicCounts(12, 3, steps=200)
    with torch.no_grad():
        network.weight.copy_(torch.as_tensor(planted).log())
        network.log_floor.fill_(math.log(0.3))
        found = network(x).numpy()
    for row, gamma in zip(x.numpy(), found, strict=True):
        shares = np.exp(torch.digamma(torch.as_tensor(gamma)).numpy())[:, None] * planted
        phi = shares / shares.sum(0)  # (topics, words): which topic a word belongs to
        np.testing.assert_allclose(gamma, 0.3 + phi @ row, rtol=1e-3)


@pytest.mark.parametrize("name", ["mixture", "product"])
def test_a_fit_finds_planted_topics_in_sparse_documents(name):
    x, planted = documents()
    counts = sparse().csr_matrix(x.numpy().astype(int))
    torch.manual_seed(0)
    given = {"decoder": product(3, 12), "alpha": 1.0} if name == "product" else {}
    model = build(TopicsModel, counts, latents=3, **given)
    guide = build(DirichletGuide, counts, latents=3)
    history = fit(model, guide, counts, epochs=60, batch_size=50, optimizer=adam, progress=False)
    assert np.isfinite(history.frame["elbo"]).all()
    found = model.decoder(torch.eye(3)).detach().softmax(-1)
    tops = {frozenset(row.topk(4).indices.tolist()) for row in found}
    assert tops == {frozenset(range(start, start + 4)) for start in (0, 4, 8)}
    if name == "mixture":
        order = [int(row.argmax()) // 4 for row in found]
        np.testing.assert_allclose(found, planted[order], atol=0.06)
        shares = encode(model, guide, counts)["z"]["mean"].to_numpy()
        right = np.stack([x[:, s : s + 4].sum(-1) / x.sum(-1) for s in (0, 4, 8)], -1)[:, order]
        assert np.abs(shares - right).mean() < 0.1


def test_topics_start_near_the_frequencies_of_the_words():
    x, _ = documents()
    x[:, 0] += 1000
    assert build(TopicsModel, x, latents=3).decoder.weight.argmax(-1).tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [-1.0, 0.5])
def test_counts_that_are_no_counts_are_named(value):
    x, _ = documents(rows=20)
    model, guide = build(TopicsModel, x, latents=3), build(DirichletGuide, x, latents=3)
    x[3, 5] = value
    for call in (log_likelihood, encode, fit):
        with pytest.raises(
            ValueError,
            match=rf"whole numbers from 0.* row 3\b.*{value:g}|{value:g} in row 3, column 5",
        ):
            call(model, guide, x)


def test_another_vocabulary_is_named(tmp_path):
    x, _ = documents(rows=20)
    frame = pd.DataFrame(x.numpy(), columns=[f"w{i}" for i in range(12)])
    pair = build(TopicsModel, frame, latents=3), build(DirichletGuide, frame, latents=3)
    fit(*pair, frame, epochs=1, progress=False)
    save(*pair, tmp_path / "run", data=frame)
    again = load(tmp_path / "run")
    with pytest.raises(ValueError, match="w3"):
        log_likelihood(*again, frame.rename(columns={"w3": "other"}))
    right, shuffled = (
        log_likelihood(*again, each)["elbo"] for each in (frame, frame[frame.columns[::-1]])
    )
    pd.testing.assert_series_equal(right, shuffled)
    with pytest.raises(ValueError, match=r"12.*11|11.*12"):
        log_likelihood(*again, x[:, :11])


def test_a_run_keeps_the_decoder_that_was_given(tmp_path):
    x, _ = documents(rows=20)
    pair = build(TopicsModel, x, latents=3, decoder=product(3, 12)), DirichletGuide(12, 3)
    save(*pair, tmp_path / "run")
    first, again = (log_likelihood(*each, x)["log_prob"] for each in (pair, load(tmp_path / "run")))
    assert first.equals(again)


def test_the_dirichlet_family_of_the_amortized_guide_fits_too():
    x, _ = documents(rows=50)
    model = build(TopicsModel, x, latents=3)
    guide = build(AmortizedGuide, x, latents=3, family="Dirichlet")
    assert not lint(model, guide, x).errors


@pytest.mark.parametrize(
    "given", [{"alpha": 0.0}, {"alpha": torch.ones(2)}, {"latents": 0}, {"rate": -1.0}], ids=str
)
def test_a_wrong_argument_is_named(given):
    with pytest.raises(ValueError, match=f"^{next(iter(given)) if 'latents' not in given else ''}"):
        TopicsModel(12, **{"latents": 3, **given})
