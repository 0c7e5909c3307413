"""Topic model: the counts of words of a document, from shares of topics.

    z ~ Dirichlet(alpha, ..., alpha)              z: (latents,), shares of the topics
    x ~ Multinomial(n, softmax(decoder(z)))       x: (features,), each 0, 1, 2, ...; n: sum of x

    mixture of topics     decoder(z) = log sum_k z_k softmax(beta_k)     latent Dirichlet allocation
    product of experts    decoder(z) = sum_k z_k beta_k + bias           ProdLDA

The topic of each word is summed out. The mixture is the decoder unless another one is given; the
product is ``torch.nn.Linear(latents, features)``. The length n of a document is taken from its row,
and is not modelled: new documents are as long as rows of the data.

Rows: counts of words in documents, or other counts whose sum says nothing.

Source: Blei, Ng & Jordan (2003), Journal of Machine Learning Research 3, section 3; Srivastava &
Sutton (2017), sections 3 and 4, arXiv:1703.01488 (amortized; the product).
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import Multinomial
from ppl_vae.nn import TopicMixture, check_sizes, expanded


class TopicsModel(PyroModule):
    """p(x, z given the sum of x). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of words in the vocabulary.
        latents: Number of topics.
        decoder: Network (..., latents) -> (..., features) from shares of topics to logits of words;
            ``TopicMixture`` if ``None``.
        alpha: Concentration of the prior, positive: the smaller, the fewer topics a document has.
        rate: How frequent each word is, a positive number or (features,), where the topics of
            ``TopicMixture`` start.

    Example:
        >>> model = TopicsModel(features=50, latents=3)
        >>> documents = pyro.poutine.uncondition(model)
        >>> trace = pyro.poutine.trace(documents).get_trace(torch.full((2, 50), 4.0))
        >>> trace.nodes["x"]["value"].sum(-1)
        tensor([200., 200.])
    """

    alpha: Tensor

    def __init__(
        self, features: int, latents: int = 8, decoder: nn.Module | None = None,
        alpha: float = 0.1, rate: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(features=features, latents=latents)
        self.features, self.latents = features, latents
        self.decoder = decoder or TopicMixture(latents, features, rate)
        self.register_buffer("alpha", expanded("alpha", alpha, latents, positive=True))

    def forward(self, x: Tensor) -> None:
        """Draw shares and score rows x, (rows, features), of whole numbers."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(self.alpha))
            pyro.sample("x", Multinomial(x.sum(-1), self.decoder(z)), obs=x)
