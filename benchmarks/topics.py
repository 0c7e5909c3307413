"""Topic models against scikit-learn's: perplexity of held-out documents, coherence of topics.

    python benchmarks/topics.py --data DIR/newsgroups [--out topics.jsonl] [--seeds 3] [--choose]

    mixture         TopicsModel: a document mixes topics (latent Dirichlet allocation)
    product         TopicsModel with decoder=Linear: a product of experts (ProdLDA), alpha = 1; its
                    weights have the prior Normal(0, 1) and are fitted to their most probable values
    scikit-learn    LatentDirichletAllocation, online, until its own perplexity of the training
                    documents falls by less than 1 in 5 passes (60 passes at most)

DIR holds ``train_bow.npz`` and ``test_bow.npz``, sparse counts of documents by words, and
``vocab.txt``. All models have 20 topics, and the same documents and words. Ours have
``DirichletGuide`` and batches of 256; Adam at 0.1 for 25 epochs (mixture), or at 0.03 for 16 epochs
(product). These rates and epochs were chosen on 1,000 and on 4,000 of the training documents.

Perplexity is exp(-bound / number of words), without the number of orders of a document's words.
Three bounds of the log-likelihood of the test documents are used:

    elbo          ours: the topics of words are summed out, shares are drawn from the guide
    sampled       ours: importance sampling, ``log_likelihood`` with 20 draws of each document,
                  which is a bound on average
    documents     scikit-learn's: its ELBO for the documents; topics have a distribution, and so
                  has the topic of each word: a looser bound than the first, given equal shares

scikit-learn's ``perplexity(test)`` is printed as ``whole``: its bound has the divergence of the
topics' posterior from their prior as well, all of it, whatever the number of test documents. That
term is ``score`` of an empty document, and ``documents`` is without it.

NPMI is the mean over topics of the mean over all pairs of a topic's 10 top words, of
log(p(a, b) / p(a) p(b)) / -log p(a, b); p(a, b) is the share of test documents with both words. A
pair that no document has counts as -1. In ``npmi_zero`` it counts as 0, as in the script of Lau,
Newman & Baldwin (2014); the figures that the authors of ProdLDA published have the layout of that
script, without a word on its reference documents. Diversity is the share of different words among
all top words. Top words are the most probable ones of a document with one topic alone. In
``npmi_by_weight`` they are those with the largest weights of the product, as in the paper: the
bias, which knows how frequent words are, has no say. Seconds are those of the processor, with one
thread.

How the prior was chosen: addresses and signatures of one author, or words of one thread, meet in
the training documents only, as the test documents are later. Halves drawn at random hide that.
``--choose`` fits to half of the training documents and scores the other half; documents that share
rare words are in one half, and the halves change places from seed to seed. NPMI there (two numbers:
seeds 0 and 1; one: seed 0), by the most probable words and by the weights:

    mixture                                     0.176, 0.155    (other starts: 0.142, 0.135)
    product, no prior                           0.151           0.056
    product, prior of spread 1 (taken)          0.193, 0.154    0.143, 0.077
    product, prior of spread 0.7                0.191, 0.136    0.178, 0.072
    product, prior of spread 0.5                0.143           0.122
    product, prior of spread 0.3                0.127           0.111
    product, spread learned, normal posterior   0.184           0.174   24 epochs: 0.175, 0.110

Worse than no prior were alpha 0.3, 0.1 and 0.03 (0.066 or less), half of the shares dropped
(0.126), batch normalization of the logits without and with dropped shares (-0.145 and 0.073) and
``LogisticNormalGuide`` (0.058, Adam at 0.003); alpha 2 with spread 1 had 0.146. By the relevance of
Sievert & Shirley (2014), lambda 0.6, the product with spread 1 has 0.179 and 0.123, and the mixture
(the other starts) 0.134 and 0.127.

Measured with the defaults, mean over three seeds (NPMI of each seed behind it):

                    npmi                          npmi_zero  by weight  diversity  perplexity
    mixture         0.245 (0.274, 0.225, 0.234)   0.265                 0.93       1,701 elbo
    product         0.234 (0.221, 0.221, 0.260)   0.285      0.234      0.92       1,651 elbo
    scikit-learn    0.196 (0.184, 0.223, 0.182)   0.220                 0.80       1,725 documents

Seconds of one core: 75, 49 and 113. Without the prior the product has, at seed 0, 0.134 by weight,
and an elbo of 1,537: the prior costs perplexity. At seed 1 scikit-learn's NPMI is as high as the
product's.

Results go to the file of ``--out``, one JSON object a line; what is there is not computed again.
``--tiny`` shows on small synthetic documents that it runs.

Source: Srivastava & Sutton (2017), section 6, arXiv:1703.01488 (ProdLDA, its coherence); Lau,
Newman & Baldwin (2014), Machine reading tea leaves (NPMI of topics).
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import scipy.sparse
import torch
from json_lines import ResultLines
from scipy.special import gammaln
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.preprocessing import normalize
from torch import nn

from ppl_vae import build, elbo_terms, fit, log_likelihood
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.guides.dirichlet import DirichletGuide
from ppl_vae.models.topics import TopicsModel

WORDS = 10  # top words of a topic
PUBLISHED = 0.2506  # of ProdLDA with 50 topics, in two runs of three; the other had 0.2311
FULL = {"topics": 20, "batch_size": 256, "passes": 60, "samples": 20}
TINY = {"topics": 3, "batch_size": 50, "passes": 5, "samples": 10}
RATES = {"mixture": 0.1, "product": 0.03}  # of Adam
EPOCHS = {"mixture": 25, "product": 16}
SPREAD = 1.0  # standard deviation of the prior of the product's weights
MODELS = ("mixture", "product", "scikit-learn")


class Corpus(NamedTuple):
    """Documents by words, as sparse counts, and the words."""

    train: Any
    test: Any
    words: list[str]


def read(folder: Path) -> Corpus:
    """Read the documents of a folder."""
    train, test = (scipy.sparse.load_npz(folder / f"{part}_bow.npz") for part in ("train", "test"))
    words = (folder / "vocab.txt").read_text(encoding="utf-8").split()
    if not train.shape[1] == test.shape[1] == len(words):
        sizes = f"{train.shape[1]}, {test.shape[1]} and {len(words)}"
        raise ValueError(f"{folder}: expected one vocabulary, got {sizes} words in its files")
    return Corpus(train, test, words)


def synthetic() -> Corpus:
    """Return documents of three topics, each with words of its own, 60 words in all."""
    random = np.random.default_rng(0)
    topics = np.kron(np.eye(3), np.ones(20)) + 0.05
    topics /= topics.sum(-1, keepdims=True)
    shares = random.dirichlet([0.2] * 3, 300)
    counts = np.stack([random.multinomial(random.integers(20, 60), p) for p in shares @ topics])
    sparse = scipy.sparse.csr_matrix(counts)
    return Corpus(sparse[:200], sparse[200:], [f"word{i}" for i in range(60)])


# Documents to choose settings on.


def groups(counts: Any, similar: float = 0.25, largest: int = 100) -> np.ndarray:
    """Return the number of each document's group: letters of one thread or author are in one.

    Pairs of documents whose cosine is above ``similar`` are joined, the most similar ones first, as
    long as a group has at most ``largest`` documents. Rare words count most.
    """
    documents = counts.shape[0]
    rarity = np.log(documents / np.maximum(np.asarray((counts > 0).sum(0)).reshape(-1), 1))
    weighed = normalize(scipy.sparse.csr_matrix(counts, dtype=float).log1p().multiply(rarity))
    pairs = []
    for start in range(0, documents, 1000):
        cosines = (weighed[start : start + 1000] @ weighed.T).toarray()
        pairs += [(-cosines[a, b], a + start, b) for a, b in np.argwhere(cosines > similar)]
    group = np.arange(documents)
    members = [[document] for document in range(documents)]
    for _, one, other in sorted(pair for pair in pairs if pair[1] < pair[2]):
        a, b = group[one], group[other]
        if a != b and len(members[a]) + len(members[b]) <= largest:
            group[members[b]] = a
            members[a] += members[b]
    return group


def divided(corpus: Corpus, seed: int) -> Corpus:
    """Return halves of the training documents, no group of which is in both, in turn by seeds."""
    group = groups(corpus.train)
    left = (np.random.default_rng(0).random(len(group)) < 0.5)[group] ^ bool(seed % 2)
    train = corpus.train.tocsr()
    return Corpus(train[left], train[~left], corpus.words)


# Measures.


def perplexity(bound: float, counts: Any) -> float:
    """Return exp(-bound / number of words), of a bound in nats for all documents together."""
    return math.exp(-bound / counts.sum())


def log_orders(counts: Any) -> float:
    """Return the sum over documents of log(n! / prod x!), the orders of a document's words."""
    lengths = np.asarray(counts.sum(1)).reshape(-1)
    return float(gammaln(lengths + 1).sum() - gammaln(counts.data + 1).sum())


def npmi(top: np.ndarray, counts: Any, never: float = -1.0) -> float:
    """Return the mean normalized pointwise mutual information of the words of each topic.

    Args:
        top: Top words of topics, (topics, words), as columns of the counts.
        counts: Documents by words, sparse.
        never: What a pair counts that no document has.
    """
    present = scipy.sparse.csc_matrix(counts > 0).astype(float)
    scores = []
    for words in top:
        columns = present[:, words]
        both = np.asarray((columns.T @ columns).todense()) / counts.shape[0]
        for a, b in itertools.combinations(range(len(words)), 2):
            p, p_a, p_b = both[a, b], both[a, a], both[b, b]
            surprise = -math.log(p) if p > 0 else math.inf
            if p == 0:
                scores.append(never)
            else:
                scores.append(math.log(p / (p_a * p_b)) / surprise if surprise else 1.0)
    return float(np.mean(scores))


def coherence(weights: np.ndarray, counts: Any) -> dict[str, float]:
    """Return NPMI, strict and not, and diversity of topics, (topics, words), by their top words."""
    top = np.argsort(-weights, 1)[:, :WORDS]
    return {
        "npmi": npmi(top, counts),
        "npmi_zero": npmi(top, counts, never=0.0),
        "diversity": len(np.unique(top)) / top.size,
    }


# Fits.


def ours(corpus: Corpus, name: str, seed: int, settings: dict[str, int]) -> dict[str, Any]:
    """Fit a pair of ours and return what was measured, its top words among it."""
    began = time.process_time()
    torch.manual_seed(seed)
    topics, features = settings["topics"], len(corpus.words)
    given: dict[str, Any] = {}
    if name == "product":
        given = {"alpha": 1.0, "decoder": product(corpus, topics)}
    written = ShrunkenTopics if name == "product" else TopicsModel
    model = build(written, corpus.train, latents=topics, **given)
    guide = DirichletGuide(features, topics)
    history = fit(
        model, guide, corpus.train, epochs=EPOCHS[name], seed=seed, progress=False,
        batch_size=settings["batch_size"], optimizer=lambda p: torch.optim.Adam(p, lr=RATES[name]),
    )  # fmt: skip
    fitted = time.process_time()
    if name == "product":  # the prior of its weights belongs to no document
        model = TopicsModel(features, topics, decoder=model.decoder, alpha=1.0)
    orders = log_orders(corpus.test)
    terms = elbo_terms(model, guide, corpus.test, num_samples=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableWarning)  # few draws: still a bound on average
        scores = log_likelihood(model, guide, corpus.test, num_samples=settings["samples"])
    with torch.no_grad():  # logits of a document with one topic alone, (topics, words)
        weights = model.decoder(torch.eye(topics)).numpy()
    by_weight = {}
    if name == "product":
        beta = model.decoder.weight.detach().T.numpy()
        by_weight = {"npmi_by_weight": coherence(beta, corpus.test)["npmi"]}
    return {
        "elbo": perplexity(terms.to_numpy().sum() - orders, corpus.test),
        "sampled": perplexity(scores["log_prob"].sum() - orders, corpus.test),
        **coherence(weights, corpus.test),
        **by_weight,
        "passes_made": len(history.frame),
        "seconds": round(fitted - began, 1),
        "seconds_scored": round(time.process_time() - fitted, 1),
        "top": top_words(weights, corpus),
    }


class ShrunkenTopics(TopicsModel):
    """Topics whose weights have a prior: beta ~ Normal(0, SPREAD), each of them.

    The weights are a parameter, so that a fit gives their most probable values.
    """

    def forward(self, x: torch.Tensor) -> None:
        """Score the weights, and rows x, (rows, features)."""
        beta = self.decoder.weight
        prior = dist.Normal(beta.new_zeros(beta.shape), SPREAD).to_event(2)
        pyro.sample("beta", prior, obs=beta)
        super().forward(x)


def product(corpus: Corpus, topics: int) -> nn.Linear:
    """Return the product of experts, which starts near the frequencies of the words."""
    frequency = torch.as_tensor(np.asarray(corpus.train.sum(0)).reshape(-1) + 1.0)
    decoder = nn.Linear(topics, len(frequency))
    nn.init.normal_(decoder.weight, std=0.1)
    with torch.no_grad():
        decoder.bias.copy_((frequency / frequency.sum()).log())
    return decoder


def theirs(corpus: Corpus, seed: int, settings: dict[str, int]) -> dict[str, Any]:
    """Fit scikit-learn's model and return what was measured."""
    began = time.process_time()
    peer = LatentDirichletAllocation(
        settings["topics"], learning_method="online", batch_size=settings["batch_size"],
        max_iter=settings["passes"], evaluate_every=5, perp_tol=1.0, random_state=seed,
    ).fit(corpus.train)  # fmt: skip
    fitted = time.process_time()
    empty = scipy.sparse.csr_matrix((1, len(corpus.words)))
    score = peer.score(corpus.test)
    return {
        "whole": perplexity(score, corpus.test),
        "documents": perplexity(score - peer.score(empty), corpus.test),
        **coherence(peer.components_, corpus.test),
        "passes_made": peer.n_iter_,
        "seconds": round(fitted - began, 1),
        "seconds_scored": round(time.process_time() - fitted, 1),
        "top": top_words(peer.components_, corpus),
    }


def top_words(weights: np.ndarray, corpus: Corpus) -> list[str]:
    """Return the top words of each topic, in a line."""
    top = np.argsort(-weights, 1)[:, :WORDS]
    return [" ".join(corpus.words[word] for word in words) for words in top]


def main(words: Sequence[str] | None = None) -> pd.DataFrame:
    """Fit and score what is not in the file yet, print the table, return the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the documents")
    parser.add_argument("--out", type=Path, help="file of results, one JSON object a line")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS),
                        metavar="NAME", help=", ".join(MODELS))  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3)
    halves = "fit to half of the training documents, score the other half"
    parser.add_argument("--choose", action="store_true", help=halves)
    parser.add_argument("--tiny", action="store_true", help="small synthetic documents")
    arguments = parser.parse_args(words)
    if arguments.data is None and not arguments.tiny:
        parser.error("--data: expected the folder of the documents, or --tiny")
    corpus = synthetic() if arguments.tiny else read(arguments.data)
    settings = TINY if arguments.tiny else FULL
    results, rows = ResultLines(arguments.out), []
    for seed in range(arguments.seeds):
        used = divided(corpus, seed) if arguments.choose else corpus
        for name in arguments.models:
            key = {"model": name, "seed": seed, "tiny": arguments.tiny,
                   "choose": arguments.choose, **settings}  # fmt: skip
            key |= {"epochs": EPOCHS[name]} if name in EPOCHS else {}
            key |= {"spread": SPREAD} if name == "product" else {}
            row = results.find(**key)
            if row is None:
                measured = (
                    theirs(used, seed, settings)
                    if name == "scikit-learn"
                    else ours(used, name, seed, settings)
                )
                row = {**key, **measured}
                results.append(row)
                print(f"{name}, seed {seed}: {measured['seconds']} s", flush=True)
            rows.append(row)
    table = pd.DataFrame(rows)
    shown = ["seed", "elbo", "sampled", "documents", "whole", "npmi", "npmi_zero",
             "npmi_by_weight", "diversity", "passes_made", "seconds"]  # fmt: skip
    shown = [name for name in shown if name in table]
    print(table[["model", *shown]].to_string(index=False, float_format="{:.3f}".format))
    means = table.groupby("model", sort=False)[shown[1:]].mean()
    print("\nmean over seeds; perplexities: lower is better, NPMI: higher")
    print(means.to_string(float_format="{:.3f}".format))
    print(f"ProdLDA as published, 50 topics, other documents, npmi_zero: {PUBLISHED}")
    return table


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
