"""The exact likelihood of linear-Gaussian sequences, by the Kalman filter.

    z_1 ~ Normal(start, diag(spread)^2)                z_t: (latents,)
    z_t ~ Normal(A z_(t-1), diag(noise)^2)
    x_t ~ Normal(W z_t + shift, diag(sd)^2)            x_t: (features,)

    log p(x) = sum over t of log p(x_t given x_1 ... x_(t-1))

The filter keeps mean m and covariance P of z_t given what came before, and updates them by x_t:

    S = W P W^T + diag(sd)^2,  K = P W^T S^-1,  m <- m + K (x_t - W m - shift),
    P <- (I - K W) P (I - K W)^T + K diag(sd)^2 K^T    (Joseph's form, which keeps P positive)

A cell that is not there is given a row of zeros in W, a standard deviation of 1 and a value equal
to its expectation: it then changes neither m nor P, and its own term of log S is 0.

Source: Durbin & Koopman (2012), Time series analysis by state space methods, sections 4.3 and 4.10.
"""

import math

import torch
from torch import Tensor


def kalman_log_prob(
    x: Tensor, mask: Tensor, *, start: Tensor, spread: Tensor, transition: Tensor,
    noise: Tensor, weight: Tensor, shift: Tensor, sd: Tensor,
) -> Tensor:  # fmt: skip
    """Return the exact log-likelihood of each sequence, (rows,), in nats.

    Args:
        x: Sequences, (rows, steps, features); cells that are not there hold any finite number.
        mask: Which cells are there, (rows, steps, features) of bool.
        start: Mean of the first state, (latents,).
        spread: Standard deviations of the first state, (latents,).
        transition: A, (latents, latents).
        noise: Standard deviations of the step from state to state, (latents,).
        weight: W, (features, latents).
        shift: (features,).
        sd: Standard deviations of the observations given the states, (features,).

    Example:
        >>> one = torch.ones(1)
        >>> walk = {"transition": one[None], "noise": one, "weight": one[None], "shift": 0 * one}
        >>> first = {"start": 0 * one, "spread": one, "sd": one}
        >>> x = torch.zeros(2, 3, 1)
        >>> bool(kalman_log_prob(x, torch.zeros_like(x) > 0, **walk, **first).eq(0).all())
        True
    """
    rows, latents = len(x), len(start)
    eye = torch.eye(latents, dtype=x.dtype, device=x.device)
    mean, cov = start.expand(rows, -1), torch.diag(spread.square()).expand(rows, -1, -1)
    total = x.new_zeros(rows)
    for t in range(x.shape[1]):
        if t:
            mean = mean @ transition.T
            cov = transition @ cov @ transition.T + torch.diag(noise.square())
        there = mask[:, t]
        loading = weight * there[..., None]  # (rows, features, latents)
        variance = torch.where(there, sd.square(), 1.0)
        error = (x[:, t] - (loading @ mean[..., None])[..., 0] - shift) * there
        covariance = loading @ cov @ loading.mT + torch.diag_embed(variance)
        chol = torch.linalg.cholesky(covariance)
        scaled = torch.linalg.solve_triangular(chol, error[..., None], upper=False)[..., 0]
        log_det = 2 * chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = there.sum(-1) * math.log(2 * math.pi)
        total = total - (scaled.square().sum(-1) + log_det + constant) / 2
        gain = torch.cholesky_solve(loading @ cov, chol).mT  # (rows, latents, features)
        mean = mean + (gain @ error[..., None])[..., 0]
        kept = eye - gain @ loading
        cov = kept @ cov @ kept.mT + (gain * variance[:, None]) @ gain.mT
    return total
