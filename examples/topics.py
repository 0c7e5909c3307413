"""Topics of newsgroups: a mixture of topics beside a product of experts.

    python examples/topics.py [--data DIR] [--topics 20] [--epochs 30] [--out topics.png]

--data takes a folder with ``train_bow.npz``, a sparse matrix of scipy, documents by words, and
``vocab.txt``, its words. Without --data, 1,500 documents of six topics are made: each topic has
words of its own, and words that all share.

Two pairs are fitted to the same documents, with the same guide. In the mixture, latent Dirichlet
allocation, each word of a document comes from one topic. In the product, topics vote on every word.
The figure has the most probable words of the topics of each. Its colors say how many times as
probable a word is in the topic as in all documents: words frequent everywhere name no topic.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import scipy.sparse
import torch
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator
from torch import nn

from ppl_vae import build, fit
from ppl_vae.guides.dirichlet import DirichletGuide
from ppl_vae.models.topics import TopicsModel

SUBJECTS = {
    "space": "orbit launch shuttle moon rocket nasa satellite probe",
    "hockey": "game team season playoff goal ice coach league",
    "cars": "engine wheel brake tire driver fuel dealer road",
    "code": "file window program server compile driver disk screen",
    "health": "doctor patient disease drug treatment diet blood symptom",
    "law": "court police rights crime weapon judge trial state",
}
COMMON = "people time think know good year write work way question"
SHOWN = 6  # topics in the figure


def main() -> None:
    """Fit both pairs, print their topics and draw the figure."""
    parser = argparse.ArgumentParser(description="Topics of documents, by two decoders.")
    parser.add_argument("--data", type=Path, help="a folder with train_bow.npz and vocab.txt")
    parser.add_argument("--topics", type=int, help="20 with --data, else 6")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("topics.png"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    if arguments.data is None:
        counts, words = made_documents(1500)
    else:
        counts = scipy.sparse.load_npz(arguments.data / "train_bow.npz")
        words = (arguments.data / "vocab.txt").read_text(encoding="utf-8").split()
    topics = arguments.topics or (6 if arguments.data is None else 20)
    print(f"{counts.shape[0]} documents, {len(words)} words, {topics} topics")

    found = {}
    for name in ("mixture", "product"):
        torch.manual_seed(0)
        given = (
            {"decoder": nn.Linear(topics, len(words)), "alpha": 1.0} if name == "product" else {}
        )
        model = build(TopicsModel, counts, latents=topics, **given)
        guide = build(DirichletGuide, counts, latents=topics)
        history = fit(
            model, guide, counts, validation=0.1, epochs=arguments.epochs,
            optimizer=lambda parameters: torch.optim.Adam(parameters, 0.03),
        )  # fmt: skip
        with torch.no_grad():  # a document with one topic alone
            found[name] = model.decoder(torch.eye(topics)).softmax(-1).numpy()
        print(f"\n{name}: ELBO of held-out documents {history.validation_elbo:.1f} nats a document")
        for topic in found[name]:
            print("  " + " ".join(words[word] for word in np.argsort(-topic)[:10]))
    draw(found, counts, words).savefig(arguments.out, dpi=130)
    print(f"\nLook at {arguments.out}")
    print(
        "Try next: --topics 50, or alpha=0.02 in build(TopicsModel, ...): fewer topics a document"
    )


def made_documents(documents: int) -> tuple[scipy.sparse.csr_matrix, list[str]]:
    """Return counts of words, (documents, words), of documents about one or two subjects each."""
    random = np.random.default_rng(0)
    words = sorted({word for text in (*SUBJECTS.values(), COMMON) for word in text.split()})
    topics = np.zeros((len(SUBJECTS), len(words)))
    for topic, text in zip(topics, SUBJECTS.values(), strict=True):
        for word in text.split():
            topic[words.index(word)] += random.uniform(0.5, 1.5)
        for word in COMMON.split():
            topic[words.index(word)] += random.uniform(0.3, 0.7)
    topics /= topics.sum(-1, keepdims=True)
    shares = random.dirichlet([0.15] * len(SUBJECTS), documents)
    lengths = random.integers(20, 120, documents)
    counts = [random.multinomial(n, p) for n, p in zip(lengths, shares @ topics, strict=True)]
    return scipy.sparse.csr_matrix(np.stack(counts)), words


def draw(
    found: dict[str, np.ndarray], counts: scipy.sparse.csr_matrix, words: list[str]
) -> plt.Figure:
    """Draw the most probable words of some topics as bars, with how typical each of them is.

    Args:
        found: Probabilities of the words in each topic, (topics, words), of each decoder.
        counts: Documents by words.
        words: The vocabulary.
    """
    share = np.asarray(counts.sum(0)).reshape(-1) / counts.sum()
    columns = min(SHOWN, *(len(topics) for topics in found.values()))
    figure, axes = plt.subplots(
        2, columns, figsize=(2.1 * columns, 6), layout="constrained", squeeze=False
    )
    colors = plt.get_cmap("viridis")
    for row, (name, topics) in zip(axes, found.items(), strict=True):
        for number, (ax, topic) in enumerate(zip(row, topics, strict=False)):
            top = np.argsort(-topic)[:10][::-1]
            typical = np.log10(np.maximum(topic[top] / np.maximum(share[top], 1e-9), 1))
            ax.barh(range(len(top)), topic[top], color=colors(np.clip(typical / 2, 0, 1)))
            ax.set_yticks(range(len(top)), [words[word] for word in top], fontsize=8)
            ax.tick_params(axis="x", labelsize=7)
            ax.xaxis.set_major_locator(MaxNLocator(3))
            ax.set_title(f"{name}, topic {number + 1}", fontsize=9)
            ax.spines[["top", "right"]].set_visible(False)
    scale = plt.cm.ScalarMappable(norm=mpl.colors.LogNorm(1, 100), cmap=colors)
    bar = figure.colorbar(scale, ax=axes, shrink=0.6)
    bar.set_label("times as probable as in all documents")
    figure.suptitle("The most probable words of a document with one topic alone")
    figure.supxlabel("probability of the word", fontsize=9)
    return figure


if __name__ == "__main__":
    main()
