"""How often does ``guide_calibration`` pass a correct guide, and name what is wrong with another?

    python benchmarks/guide_calibration.py [--runs 100] [--rows 2000] [--latents 1 5] [--tiny]

The model is probabilistic PCA with random weights, whose posterior is known. The guide is the exact
posterior; or its standard deviations times 0.8 or 1.2; or it is shifted by half a standard
deviation, up or down. Each run has a seed of its own, and weights of its own. Prints for each guide
the share of runs that pass, the share in which the right direction is named and no other, the
wrong directions that were named, and the seconds of one run.

Of a correct guide at least 95 % should pass; of the others, at least 95 % be named.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule

from ppl_vae import guide_calibration
from ppl_vae.models.ppca import PPCAModel

GUIDES = {
    "exact": (1.0, 0.0, ""),
    "sd x 0.8": (0.8, 0.0, "narrow"),
    "sd x 1.2": (1.2, 0.0, "wide"),
    "+ 0.5 sd": (1.0, 0.5, "high"),
    "- 0.5 sd": (1.0, -0.5, "low"),
}
"""Factor of the standard deviations, shift in standard deviations, the direction to be named."""


class Posterior(PyroModule):
    """The posterior of probabilistic PCA, with other standard deviations and shifted.

    Args:
        model: The model.
        factor: Multiplies the standard deviations.
        shift: Is added to the mean, in standard deviations.
    """

    def __init__(self, model: PPCAModel, factor: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.model, self.factor, self.shift = model, factor, shift

    def forward(self, x: torch.Tensor) -> None:
        """Draw codes for rows x, (rows, features)."""
        p = self.model.density()
        weight, variance = p.cov_factor, p.cov_diag[0]
        precision = torch.eye(self.model.latents) + weight.T @ weight / variance
        covariance = precision.inverse()
        mean = (x - p.loc) @ weight @ covariance / variance
        mean = mean + self.shift * covariance.diag().sqrt()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(mean, self.factor**2 * covariance))


def study(name: str, runs: int, rows: int, latents: int) -> str:
    """Return the line of one guide: shares of runs, directions named wrongly, seconds."""
    factor, shift, right = GUIDES[name]
    passed = named = 0
    wrong: Counter[str] = Counter()
    started = time.perf_counter()
    for seed in range(runs):
        torch.manual_seed(seed)
        model = PPCAModel(8, latents)
        guide = Posterior(model, factor, shift)
        found = guide_calibration(
            model, guide, torch.zeros(10, 8), num_rows=rows, seed=seed, progress=False
        )
        directions = set(found.frame["direction"]) - {""}
        passed += found.passed
        named += directions == {right}
        wrong.update(directions - {right})
    seconds = (time.perf_counter() - started) / runs
    share = f"{named}/{runs} named {right}" if right else ""
    errors = ", ".join(f"{count} {each}" for each, count in wrong.items()) or "none"
    return f"{name:10} {passed}/{runs} passed  {share:22} wrong: {errors}  {seconds:.2f} s a run"


def main() -> None:
    """Read the options, run every guide, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--latents", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--tiny", action="store_true", help="2 runs of 400 rows, 2 latents")
    options = parser.parse_args()
    if options.tiny:
        options.runs, options.rows, options.latents = 2, 400, [2]
    for latents in options.latents:
        print(f"{latents} latents, {options.rows} rows, 99 draws")
        for name in GUIDES:
            print(study(name, options.runs, options.rows, latents), flush=True)


if __name__ == "__main__":
    main()
