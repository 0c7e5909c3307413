"""Rows of categories from a Gaussian latent code: one softmax head for each feature.

    z ~ Normal(0, I)                                  z: (latents,)
    l_1, ..., l_D = decoder(z)                        l_d: (categories_d,), logits of feature d
    x_d ~ Categorical(softmax(l_d))                   x: (features,), each 0, ..., categories_d - 1

The codes of feature d begin at 0. Features may have different numbers of categories; a code beyond
a feature's own is outside the support.

Rows: vectors of categories, coded 0, 1, 2, ...

Source: Kingma & Welling (2019), An introduction to variational autoencoders, arXiv:1906.02691.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from ppl_vae.distributions import PaddedCategorical
from ppl_vae.nn import MLP, check_sizes


class CategoricalModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row.
        latents: Size of the latent code z.
        categories: Number of categories of every feature, or one number for each feature.
        decoder: Network (..., latents) -> (..., sum of categories) that gives the logits of all
            features side by side; one hidden layer if ``None``.

    Example:
        >>> model = CategoricalModel(features=3, latents=2, categories=(2, 5, 4))
        >>> trace = pyro.poutine.trace(model).get_trace(torch.tensor([[0, 4, 3]]))
        >>> trace.nodes["x"]["fn"].base_dist.probs.shape
        torch.Size([1, 3, 5])
    """

    places: Tensor

    def __init__(
        self,
        features: int,
        latents: int = 8,
        categories: int | Sequence[int] = 2,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_sizes(features=features, latents=latents)
        numbers = categories if isinstance(categories, Sequence) else [categories] * features
        each = [int(number) for number in numbers]
        if len(each) != features or min(each) < 1:
            need = f"a positive number, or one for each of {features} features"
            raise ValueError(f"categories: expected {need}, got {categories}")
        self.features, self.latents, self.categories = features, latents, tuple(each)
        self.decoder = decoder or MLP(latents, sum(each))
        # Where each feature's logits are in the decoder's output, (features, most categories);
        # a code that a feature does not have points one past the end.
        places = torch.arange(sum(each)).split(each)
        self.register_buffer("places", pad_sequence([*places], True, sum(each)))

    def forward(self, x: Tensor) -> None:
        """Draw codes z and score rows x, (rows, features), of whole numbers from 0."""
        with pyro.plate("data", len(x)):
            z = pyro.sample(
                "z", dist.Normal(torch.zeros(self.latents, device=x.device), 1.0).to_event(1)
            )
            logits = pad(self.decoder(z), (0, 1), value=-torch.inf)[..., self.places]
            pyro.sample("x", PaddedCategorical(logits=logits).to_event(1), obs=x)
