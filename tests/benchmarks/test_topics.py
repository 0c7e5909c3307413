"""The benchmark of topics runs and goes on where it was cut off; its measures are right."""

import json
import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from parts.extras import sklearn, sparse
from pyro import poutine

sklearn("decomposition")
pytestmark = pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")


@pytest.fixture(scope="module")
def topics(imported):
    return imported("topics")


def test_every_model_is_fitted_and_scored_and_not_again(topics, tmp_path, capsys):
    out = tmp_path / "topics.jsonl"
    words = ["--tiny", "--seeds", "1", "--out", str(out)]
    table = topics.main(words)
    assert tuple(table["model"]) == topics.MODELS
    ours = table[table["model"] != "scikit-learn"]
    assert (ours["sampled"] <= ours["elbo"]).all()
    assert table["documents"].iloc[2] < table["whole"].iloc[2]
    assert table["npmi"].between(-1, 1).all()
    assert str(topics.PUBLISHED) in capsys.readouterr().out
    lines = out.read_text().splitlines()
    assert [json.loads(line)["model"] for line in lines] == [*topics.MODELS]
    out.write_text("\n".join(lines[:2]) + "\n" + lines[2][:20])
    with patch.object(topics, "ours") as ours, patch.object(topics, "theirs") as theirs:
        theirs.return_value = {"seconds": 1.0, "npmi": 0.0, "diversity": 1.0}
        topics.main(words)
        assert (ours.call_count, theirs.call_count) == (0, 1)


def test_npmi_is_one_for_words_that_always_meet_and_minus_one_for_words_that_never_do(topics):
    counts = sparse().csr_matrix(np.array([[1, 2, 0, 1], [3, 1, 0, 0], [0, 0, 1, 1], [0, 0, 2, 0]]))
    assert topics.npmi(np.array([[0, 1]]), counts) == pytest.approx(1.0)
    assert topics.npmi(np.array([[0, 2]]), counts) == -1.0
    assert topics.npmi(np.array([[0, 3]]), counts) == pytest.approx(0.0)  # independent
    assert topics.npmi(np.array([[0, 1], [0, 2]]), counts) == pytest.approx(0.0)


def test_a_perplexity_has_no_orders_of_words(topics):
    """Uniform words have the perplexity of their number, whatever the lengths of documents."""
    counts = sparse().csr_matrix(np.random.default_rng(0).poisson(1.0, (20, 8)))
    bound = topics.log_orders(counts) - counts.sum() * math.log(8)
    found = topics.perplexity(bound - topics.log_orders(counts), counts)
    assert found == pytest.approx(8.0)


def test_the_bound_of_an_empty_document_is_the_term_of_the_topics(topics):
    corpus = topics.synthetic()
    peer = topics.LatentDirichletAllocation(3, random_state=0, max_iter=3).fit(corpus.train)
    empty = sparse().csr_matrix((1, 60))
    one, two = (peer.score(sparse().vstack([corpus.test[:5]] * n)) for n in (1, 2))
    assert one - peer.score(empty) == pytest.approx((two - peer.score(empty)) / 2, rel=1e-3)


def test_letters_that_share_rare_words_are_in_one_half_and_each_document_is_in_one(topics):
    random = np.random.default_rng(0)
    counts = random.poisson(0.2, (120, 80))
    thread = np.repeat(np.arange(30), 4)  # four letters each, with three words of their own
    rare = np.kron(np.eye(30, dtype=int), np.full((4, 3), 3))
    counts = sparse().csr_matrix(np.hstack([counts, rare]))
    group = topics.groups(counts)
    assert all(len(set(group[thread == t])) == 1 for t in range(30))
    assert len(set(topics.groups(counts, similar=-0.1, largest=10))) >= 12
    corpus = topics.Corpus(counts, None, [])
    for seed in (0, 1):
        half = topics.divided(corpus, seed)
        words = [np.asarray(part.sum(0)).reshape(-1)[80:] > 0 for part in (half.train, half.test)]
        assert (words[0] ^ words[1]).all()  # no thread is in both, and each is in one
    assert (half.train != topics.divided(corpus, 0).test).nnz == 0


def test_a_pair_that_never_meets_counts_what_it_is_told(topics):
    counts = sparse().csr_matrix(np.array([[1, 0], [0, 1], [1, 0]]))
    assert topics.coherence(np.array([[1.0, 2.0]]), counts)["npmi"] == -1.0
    assert topics.coherence(np.array([[1.0, 2.0]]), counts)["npmi_zero"] == 0.0


def test_the_joint_density_has_the_prior_of_the_weights_whatever_the_number_of_documents(topics):
    decoder = topics.product(topics.synthetic(), 3)
    models = [
        written(60, 3, decoder=decoder, alpha=1.0)
        for written in (topics.ShrunkenTopics, topics.TopicsModel)
    ]
    prior = torch.distributions.Normal(0.0, topics.SPREAD).log_prob(decoder.weight).sum()
    for rows in (1, 7):
        first, second = [
            poutine.trace(poutine.condition(model, {"z": torch.full((rows, 3), 1 / 3)}))
            .get_trace(torch.ones(rows, 60)).log_prob_sum()
            for model in models
        ]  # fmt: skip
        torch.testing.assert_close(first - second, prior, rtol=1e-4, atol=1e-2)
