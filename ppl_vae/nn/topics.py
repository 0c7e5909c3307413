"""Networks of topic models: from shares of topics to words, and from words to counts of topics.

    TopicMixture    log sum_k z_k softmax(weight)_kw               z: (topics,), shares
    TopicCounts     c_k = floor_k + sum_w x_w t_k E_kw / sum_j t_j E_jw
                    t_k = exp(digamma(c_k)), from t_k = 1 on, ``steps`` times
                                                                   x: (features,), counts of words

``TopicCounts`` says for each word of a document which topics it belongs to, given how much of the
document belongs to each of them, and counts the words of each topic: a step of the mean field of
latent Dirichlet allocation. E would be the topics there; here it is learned as the weights of a
network are. Documents differ in their counts before anything is learned; with a perceptron in its
place, a fit may ignore the topics for many epochs.

Source: Blei, Ng & Jordan (2003), Latent Dirichlet allocation, Journal of Machine Learning Research
3, section 5.2 (the step); Srivastava & Sutton (2017), arXiv:1703.01488 (the decoder).
"""

import torch
from torch import Tensor, nn

from ppl_vae.nn.checked import check_sizes, expanded


class TopicMixture(nn.Module):
    """Log-probabilities of the words of a document that is a mixture of topics.

    Each topic is a distribution of words, and a word is of topic k with probability z_k.

    Args:
        topics: Number of topics.
        features: Number of words in the vocabulary.
        rate: How frequent each word is in the data, a positive number or (features,), in any unit:
            each topic starts near these frequencies.

    Example:
        >>> words = TopicMixture(topics=3, features=50)(torch.full((5, 3), 1 / 3))
        >>> words.shape, bool((words.exp().sum(-1) - 1).abs().max() < 1e-5)
        (torch.Size([5, 50]), True)
    """

    def __init__(self, topics: int, features: int, rate: float | Tensor = 1.0) -> None:
        super().__init__()
        check_sizes(topics=topics, features=features)
        background = expanded("rate", rate, features, positive=True).log()
        self.weight = nn.Parameter(background + torch.randn(topics, features))

    def forward(self, z: Tensor) -> Tensor:
        """Return log-probabilities, (..., features), given the shares of topics, (..., topics)."""
        probabilities = z @ self.weight.softmax(-1)
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


class TopicCounts(nn.Module):
    """Concentrations of the topics of a document: how many words belong to each, plus a floor.

    Args:
        features: Number of words in the vocabulary.
        topics: Number of topics.
        steps: Number of steps; with one, each word belongs to the same topics in all documents.

    Example:
        >>> network = TopicCounts(features=4, topics=2)
        >>> counts = network(torch.tensor([[3.0, 0.0, 0.0, 1.0]])) - network.log_floor.exp()
        >>> round(counts.sum().item(), 4)
        4.0
    """

    def __init__(self, features: int, topics: int, steps: int = 3) -> None:
        super().__init__()
        check_sizes(features=features, topics=topics, steps=steps)
        self.steps = steps
        self.weight = nn.Parameter(torch.randn(topics, features))
        self.log_floor = nn.Parameter(torch.full((topics,), -2.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return concentrations, (..., topics), of documents, (..., features)."""
        affinity, floor = self.weight.softmax(0), self.log_floor.exp()
        t = torch.full_like(floor, 1 / len(floor)).expand(*x.shape[:-1], -1)
        concentrations = t  # of the step before
        for step in range(self.steps):
            if step:
                t = concentrations.digamma().softmax(-1)
            concentrations = floor + t * ((x / (t @ affinity)) @ affinity.T)
        return concentrations
