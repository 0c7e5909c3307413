"""The benchmark of topics runs and goes on where it was cut off; its measures are right."""

import json
import math
from unittest.mock import patch

import numpy as np
import pytest
from parts.extras import sklearn, sparse

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
