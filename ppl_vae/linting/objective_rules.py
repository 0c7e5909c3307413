"""The linter's rule on what makes the training loss differ from the ELBO, site by site.

The history has both: ``elbo``, the bound of the unscaled model and guide, and ``objective``, what
is trained. A pair may mean them to differ, so that every finding here is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ppl_vae.core import sites
from ppl_vae.distributions.labels import Taught
from ppl_vae.elbo.bounds import IWAE, RowELBO
from ppl_vae.elbo.objectives import RowBound
from ppl_vae.elbo.training_terms import training_terms
from ppl_vae.linting.inspection import Finding, Inspection, site_error, warning
from ppl_vae.linting.trace_rules import range_of_scale, scale_without_plates

DIFFERS = "which enters the training loss and not the ELBO (objective and elbo of the history)"


def unlike_the_elbo(inspection: Inspection) -> Iterator[Finding]:
    """Find a loss of the user's own, terms of the guide and scales that the ELBO leaves out.

    The library's own bounds (``IWAE``, ``RowELBO``) leave such terms out of their loss as well, so
    that what a site of the guide is to be taught would not be learned.
    """
    in_guide = inspection.guide_sites()
    if isinstance(inspection.objective.elbo, RowBound):
        for name in (name for name, site in in_guide.items() if isinstance(site["fn"], Taught)):
            yield warning(
                f'site "{name}"',
                f"expected one of Pyro's ELBOs, which trains what the site teaches, got "
                f"{inspection.objective.name}, which leaves the site out",
                "leave elbo= out, or pass one of Pyro's",
            )
        return
    if inspection.objective.is_derived:
        base = inspection.objective.of_pyro.name
        yield warning(
            "elbo",
            f"expected one of Pyro's ELBOs, got {inspection.objective.name}, a class derived from "
            f"{base} with a loss of its own, {DIFFERS}",
            "nothing to mend where that loss is meant",
        )
    for name in sorted(training_terms(inspection.pair, inspection.batch)):
        if not isinstance(in_guide[name]["fn"], Taught):
            yield _term_of_guide(name, in_guide[name])
    yield from _scaled_sites(inspection)


def bounds_of_points(inspection: Inspection, points: list[str]) -> Iterator[Finding]:
    """Find a bound that needs a distribution where the guide gives a latent as a point.

    The importance weights of ``IWAE`` are equal for equal draws, and the doubly reparameterized
    gradient relies on their randomness. Free bits are of a KL divergence, which a point lacks.

    Args:
        inspection: The pair, run on a batch, with the objective.
        points: Latents in the row plate that the guide gives as a point.
    """
    elbo = inspection.objective.elbo
    if not points or not (isinstance(elbo, IWAE) or (isinstance(elbo, RowELBO) and elbo.free_bits)):
        return
    name = "free_bits" if isinstance(elbo, RowELBO) else "IWAE"
    yield site_error(
        points[0],
        f"expected a guide that draws the latent from a distribution under {name}, got a point "
        "(Delta), whose objective is the log joint density log p(x, z)",
        "leave elbo= out, or fit a guide with a distribution",
    )


def _term_of_guide(name: str, site: sites.Site) -> Finding:
    """Return the finding for a site of the guide that is no part of its draws' density."""
    if sites.role(site) == "factor":
        return warning(
            f'site "{name}"',
            "expected a factor that depends on the guide's draws, got one that does not, "
            + DIFFERS,
            "nothing to mend where the term is meant, but Pyro subtracts a factor of the guide, so "
            "that training makes it smaller: pyro.factor(name, -log_factor, has_rsample=False) "
            "makes it larger, and a factor of the model enters both",
        )
    return warning(
        f'site "{name}"',
        f"expected a draw in the guide, got an observed site, {DIFFERS}",
        "nothing to mend where the term is meant, but Pyro subtracts its log-probability, so that "
        "training makes the observed value less probable; ppl_vae.distributions.Taught(fn) in "
        "place of fn makes it more probable",
    )


def _scaled_sites(inspection: Inspection) -> Iterator[Finding]:
    """Find sites to which the user's code gave the same scale in model and guide.

    ``unequal_scales`` reports a latent whose scales differ between model and guide.
    """
    in_model, in_guide = inspection.model_sites(), inspection.guide_sites()
    for name in {**in_guide, **in_model}:
        scales = [scale_without_plates(s[name]) for s in (in_model, in_guide) if name in s]
        differ = len(scales) == 2 and not torch.allclose(*torch.broadcast_tensors(*scales))
        if differ or torch.allclose(scales[0], torch.ones_like(scales[0])):
            continue
        yield warning(
            f'site "{name}"',
            f"expected no poutine.scale, got {range_of_scale(scales[0])}, {DIFFERS}",
            "nothing to mend where the scale is meant; kl_weight= of fit weighs all latents",
        )
