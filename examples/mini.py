"""How the library works: a Pyro model and guide, effect handlers, and arithmetic on traces.

    ELBO          sum over sites of s (log p(x, z) - log q(z given x)),   z ~ q
    scale s       N / B in the row plate (N rows of data, B in a batch), times w on latent sites
    log p(x_n)    log 1/K sum_k p(x_n, z_k) / q(z_k given x_n),           z_1, ..., z_K ~ q
    replicates    x_rep ~ p(x given z),                                   z ~ q

Sources: Kingma & Welling (2014), arXiv:1312.6114; Burda et al. (2016), arXiv:1509.00519.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from sklearn.datasets import load_digits
from torch import Tensor, nn


class Model(PyroModule):
    """z ~ Normal(0, I); x ~ Bernoulli(logits=net(z))."""

    def __init__(self, features: int, latents: int) -> None:
        super().__init__()
        self.latents = latents
        self.net = nn.Sequential(nn.Linear(latents, 64), nn.Tanh(), nn.Linear(64, features))

    def forward(self, x: Tensor) -> None:
        """Score rows x, (rows, features)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.net(z)).to_event(1), obs=x)


class Guide(PyroModule):
    """z ~ Normal(m, exp(v / 2)), where m, v = net(x): one network serves all rows."""

    def __init__(self, features: int, latents: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(features, 64), nn.Tanh(), nn.Linear(64, 2 * latents))

    def forward(self, x: Tensor) -> None:
        """Draw z for rows x, (rows, features)."""
        mean, log_variance = self.net(x).chunk(2, -1)  # (rows, latents) each
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))


class Half:
    """A model or guide with its own parameter store: in a shared one, the names ``net`` collide."""

    def __init__(self, function: PyroModule) -> None:
        self.function, self.store = function, {"params": {}, "constraints": {}}

    def __call__(self, x: Tensor) -> None:
        """Run the model or guide while its own store takes the place of Pyro's global store."""
        with pyro.get_param_store().scope(self.store):
            self.function(x)


class TrainingScale(Messenger):
    """Scale a batch to all ``rows`` of the data, and latent sites by ``kl_weight``."""

    def __init__(self, rows: int, kl_weight: float) -> None:
        super().__init__()
        self.rows, self.kl_weight = rows, kl_weight

    def _pyro_sample(self, msg: dict) -> None:
        """Multiply s by N / B inside the row plate, and by w at sites that are not observed."""
        for plate in msg["cond_indep_stack"]:
            if plate.name == "data":
                msg["scale"] = msg["scale"] * (self.rows / plate.full_size)
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.kl_weight


def elbo(model: Half, guide: Half, x: Tensor, rows: int, kl_weight: float = 1.0) -> Tensor:
    """Estimate the ELBO of all ``rows`` from a batch and one draw from q, in nats."""
    scale = TrainingScale(rows, kl_weight)
    q = poutine.trace(scale(guide)).get_trace(x)
    p = poutine.trace(poutine.replay(scale(model), trace=q)).get_trace(x)
    return p.log_prob_sum() - q.log_prob_sum()


def train(model: Half, guide: Half, data: Tensor, epochs: int, kl_weight: float = 1.0) -> None:
    """Maximize ELBO / N with Adam on shuffled batches."""
    elbo(model, guide, data[:2], len(data))  # the first run puts the parameters into the stores
    parameters = [p for half in (model, guide) for p in half.store["params"].values()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(data)).split(128):
            optimizer.zero_grad()
            (-elbo(model, guide, data[index], len(data), kl_weight) / len(data)).backward()
            optimizer.step()


def row_log_prob(trace: poutine.Trace) -> Tensor:
    """Return the sum of each row's log-probabilities, without scales: (particles, rows), nats."""
    sites = [site for site in trace.nodes.values() if site["type"] == "sample"]
    inside = [site for site in sites if "data" in {f.name for f in site["cond_indep_stack"]}]
    terms = [scale_and_mask(s["fn"].log_prob(s["value"]), mask=s["mask"]) for s in inside]
    return sum(term.flatten(1, -2).sum(1) for term in terms)


@torch.no_grad()
def log_likelihood(model: Half, guide: Half, x: Tensor, num_samples: int = 100) -> Tensor:
    """Estimate log p(x_n) = log 1/K sum_k p(x_n, z_k) / q(z_k given x_n): (rows,), in nats."""
    with pyro.plate("particles", num_samples, dim=-4):  # -2 and -3 are free for the model
        q = poutine.trace(guide).get_trace(x)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(x)
    return (row_log_prob(p) - row_log_prob(q)).logsumexp(0) - torch.tensor(num_samples).log()


@torch.no_grad()
def replicate(model: Half, guide: Half, x: Tensor) -> dict[str, Tensor]:
    """Draw x_rep ~ p(x given z), z ~ q: new values for each observed site, from the model."""
    q = poutine.trace(guide).get_trace(x)
    p = poutine.trace(poutine.replay(poutine.uncondition(model), trace=q)).get_trace(x)
    return {n: s["value"] for n, s in p.nodes.items() if "was_observed" in s.get("infer", {})}


def main(epochs: int = 60) -> None:
    """Fit digits, print ELBO and log-likelihood, and compare replicates with the data."""
    pyro.set_rng_seed(0)
    digits = torch.tensor(load_digits().data > 7).float()  # (1797, 64), each pixel 0 or 1
    training, held_out = digits[torch.randperm(len(digits))].split([1500, 297])
    model, guide = Half(Model(64, latents=8)), Half(Guide(64, latents=8))
    train(model, guide, training, epochs)
    bound = elbo(model, guide, held_out, rows=1)  # N = 1: in nats per row
    log_prob = log_likelihood(model, guide, held_out).mean()
    print(f"held out, nats per row:  ELBO {bound:.2f} <= log-likelihood {log_prob:.2f}")
    drawn = replicate(model, guide, held_out)["x"].mean()
    print(f"mean pixel:  data {held_out.mean():.3f}, replicates {drawn:.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # for matrices this small a second thread costs more than it gains
    main()
