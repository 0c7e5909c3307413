"""Contestants of the step benchmark on NumPyro: one jitted update a step, or one scan an epoch.

    state, loss = update(state, data[index])

Networks, first weights, loss, batches and learning rate are those of the contestants on torch.
The losses carry N/B, as in any NumPyro program with batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import TraceEnum_ELBO, TraceMeanField_ELBO
from step_torch import Epoch, timed
from step_works import CLASSES, ClassWork, Work

MLP = Callable[[str, jax.Array], jax.Array]


def variational_autoencoder(work: Work, mlp: MLP) -> numpyro.infer.SVI:
    """Return NumPyro's inference of the autoencoder: closed-form KL, vectorized particles."""

    def model(x: jax.Array) -> None:
        with numpyro.plate("data", len(x)), numpyro.handlers.scale(scale=work.data_rows / len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(work.latents), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=mlp("decoder", z)).to_event(1), obs=x)

    def guide(x: jax.Array) -> None:
        mean, log_variance = jnp.split(mlp("encoder", x), 2, axis=-1)  # (rows, latents) each
        with numpyro.plate("data", len(x)), numpyro.handlers.scale(scale=work.data_rows / len(x)):
            numpyro.sample("z", dist.Normal(mean, jnp.exp(log_variance / 2)).to_event(1))

    elbo = TraceMeanField_ELBO(num_particles=work.particles)
    return numpyro.infer.SVI(model, guide, numpyro.optim.Adam(1e-3), elbo)


def enumerated_classes(work: Work, mlp: MLP) -> numpyro.infer.SVI:
    """Return NumPyro's inference with classes summed out in the guide by its enumeration."""

    def model(x: jax.Array) -> None:
        with numpyro.plate("data", len(x)), numpyro.handlers.scale(scale=work.data_rows / len(x)):
            y = numpyro.sample("y", dist.Categorical(logits=jnp.zeros(CLASSES)))
            logits = mlp("decoder", jax.nn.one_hot(y, CLASSES))
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: jax.Array) -> None:
        with numpyro.plate("data", len(x)), numpyro.handlers.scale(scale=work.data_rows / len(x)):
            classes = dist.Categorical(logits=mlp("encoder", x))
            numpyro.sample("y", classes, infer={"enumerate": "parallel"})

    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    return numpyro.infer.SVI(model, guide, numpyro.optim.Adam(1e-3), elbo)


def prepared(work: Work) -> tuple[Any, Any, jax.Array]:
    """Return the inference, its first state, and the data."""
    model, guide = work.pair()
    first = {
        f"{half}.{name}": value.detach().numpy()
        for half, network in (("encoder", guide.encoder), ("decoder", model.decoder))
        for name, value in network.named_parameters()
    }

    def mlp(half: str, x: jax.Array) -> jax.Array:
        def parameter(name: str) -> jax.Array:
            value = first[f"{half}.{name}"]
            return numpyro.param(f"{half}.{name}", jnp.array(value.T))

        hidden = jnp.tanh(x @ parameter("0.weight") + parameter("0.bias"))
        return hidden @ parameter("2.weight") + parameter("2.bias")

    make = enumerated_classes if isinstance(work, ClassWork) else variational_autoencoder
    inference, data = make(work, mlp), jnp.array(work.data().numpy())
    state = inference.init(jax.random.PRNGKey(0), data[: work.rows])
    return inference, jax.tree.map(jnp.copy, state), data  # the copy's memory is given away


def order_of(work: Work, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of the rows in a new random order, cut into batches.

    Two arrays: whole batches, (batches, rows), and the smaller last batch, (0 or 1, its rows).
    """
    order = generator.permutation(work.data_rows).astype(np.int32)
    whole = work.data_rows // work.rows * work.rows
    rest = order[whole:]
    return order[:whole].reshape(-1, work.rows), rest[None, :] if len(rest) else rest[:0, None]


@timed
def jitted(work: Work) -> Epoch:
    """Prepare one jitted call a step, which gathers its batch and reuses its state's memory."""
    inference, state, data = prepared(work)
    generator = np.random.default_rng(0)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, data: jax.Array, batches: jax.Array, number: int) -> Any:
        return inference.update(state, data[batches[number]])

    def epoch() -> float:
        nonlocal state
        total = 0.0
        for batches in order_of(work, generator):
            on_device = jnp.asarray(batches)
            for number in range(len(batches)):
                state, loss = step(state, data, on_device, number)
                total += float(loss) * batches.shape[1]
        return total / work.data_rows**2

    return epoch


@timed
def scanned(work: Work) -> Epoch:
    """Prepare one call for all whole batches of an epoch, and one for a smaller last batch."""
    inference, state, data = prepared(work)
    generator = np.random.default_rng(0)

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(state: Any, data: jax.Array, batches: jax.Array) -> Any:
        return jax.lax.scan(lambda s, index: inference.update(s, data[index]), state, batches)

    def epoch() -> float:
        nonlocal state
        total = 0.0
        for batches in order_of(work, generator):
            if len(batches):
                state, losses = steps(state, data, jnp.asarray(batches))
                total += float(np.asarray(losses, np.float64).sum()) * batches.shape[1]
        return total / work.data_rows**2

    return epoch
