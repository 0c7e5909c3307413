"""The linter's rules on how the gradient is estimated, and whether that can be done better.

    reparameterized    the gradient flows through the draw
    score function     the draw has no gradient: (f - b) dlog q(z), noisy without a baseline b
    summed exactly     all values of a discrete latent are enumerated: no noise

The rules read the traces of the mode that the pair is trained in: a relaxed guide's draws have
gradients there, and in evaluation mode they have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.tracetmc_elbo import TraceTMC_ELBO

from ppl_vae.core import sites
from ppl_vae.elbo.configurations import (
    count_in_words,
    inner_plates,
    is_summed_by_place,
    joint_configurations,
)
from ppl_vae.elbo.objectives import Objective, RowBound, has_log_density
from ppl_vae.linting.inspection import Finding, Inspection, error, site_error, warning

FEW_CONFIGURATIONS = 128
"""Most joint configurations that are cheap to enumerate, next to drawing them."""


def wrong_estimator(inspection: Inspection) -> Iterator[Finding]:
    """Find draws without gradients that the chosen ELBO ignores or estimates badly.

    Discrete latents of rows are ``noisy_score_functions``'.
    """
    elbo, noisy = inspection.objective.elbo, drawn_discrete(inspection)
    for name, site in sites.with_role(inspection.guide_trace, "latent", "auxiliary").items():
        if site["is_observed"] or sites.is_reparameterized(site):
            continue
        if isinstance(elbo, TraceMeanField_ELBO):
            yield site_error(
                name,
                "expected a reparameterized draw, got one whose gradient TraceMeanField_ELBO "
                "ignores",
                "leave elbo=None, or pass TraceGraph_ELBO()",
            )
        elif isinstance(elbo, Trace_ELBO) and name not in noisy:
            yield warning(
                f'site "{name}"',
                "expected a reparameterized draw, got one whose gradient Trace_ELBO estimates "
                "without a baseline, with a high variance",
                "leave elbo=None, pass TraceGraph_ELBO(), or enumerate the site",
            )


def unwanted_enumeration(inspection: Inspection) -> Iterator[Finding]:
    """Find sites that ask to be summed out under an ELBO that only draws."""
    if inspection.objective.enumerates:
        return
    for name, site in {**inspection.model_sites(), **inspection.guide_sites()}.items():
        if sites.is_enumerated(site):
            problem = f"expected an ELBO that enumerates, got {inspection.objective.name}"
            fix = 'leave elbo=None, pass TraceEnum_ELBO(), or remove infer={"enumerate": ...}'
            if isinstance(inspection.objective.elbo, TraceTMC_ELBO):
                problem += ": it applies N/B inside its logsumexp, so it is no bound in minibatches"
                fix += "; ppl_vae.IWAE(num_particles) is a bound of several draws"
            yield site_error(name, problem, fix)


def nothing_enumerated(inspection: Inspection) -> Iterator[Finding]:
    """Find an ELBO that enumerates, given by the user, where no site asks to be summed out.

    Pyro warns of it in every step; ``TraceEnum_ELBO(strict_enumeration_warning=False)`` does not.
    """
    elbo = inspection.objective.elbo
    if not isinstance(elbo, TraceEnum_ELBO) or not elbo.strict_enumeration_warning:
        return
    halves = inspection.model_sites(), inspection.guide_sites()
    if not any(sites.is_enumerated(site) for half in halves for site in half.values()):
        yield warning(
            "elbo",
            "expected a site that asks to be summed out under TraceEnum_ELBO, got none",
            'write infer={"enumerate": "parallel"} in the sample statement of a discrete latent, '
            "apply config_enumerate, or leave elbo=None",
        )


def out_of_order(inspection: Inspection) -> Iterator[Finding]:
    """Find a guide that draws latents in another order than the model, under a mean-field ELBO."""
    if not isinstance(inspection.objective.elbo, TraceMeanField_ELBO):
        return
    in_guide = list(inspection.shared_latents())
    in_model = [name for name in inspection.model_sites() if name in in_guide]
    if in_guide != in_model:
        yield error(
            "guide",
            f"expected the latents in the model's order {in_model} under TraceMeanField_ELBO, got "
            f"{in_guide}: its KL divergence is silently wrong where a latent's parent in the model "
            "is its child in the guide",
            "leave elbo=None, pass Trace_ELBO(), or draw the latents in the model's order",
        )


def ignored_log_densities(inspection: Inspection) -> Iterator[Finding]:
    """Find auxiliary draws and changes of variables in the guide, under a mean-field ELBO.

    Pyro's "KL divergence" of a ``Delta`` is minus log p at its value: the log-density of the
    ``Delta``, which holds the Jacobian of a change of variables, is left out.
    """
    if not isinstance(inspection.objective.elbo, TraceMeanField_ELBO):
        return
    fix = "leave elbo=None, or pass Trace_ELBO()"
    for name, site in sites.with_role(inspection.guide_trace, "latent", "auxiliary").items():
        point = sites.point_of(site["fn"])
        if sites.role(site) == "auxiliary":
            yield site_error(
                name,
                "expected no auxiliary draw in the guide under TraceMeanField_ELBO, got one: what "
                "is computed from the draw has no KL divergence in closed form, and the Jacobian "
                "of a change of variables would be ignored",
                fix,
            )
        elif point is not None and has_log_density(point):
            yield site_error(
                name,
                "expected a Delta without a log-density in the guide under TraceMeanField_ELBO, "
                "got one whose log-density (the Jacobian of a change of variables) it ignores",
                fix,
            )


def noisy_score_functions(inspection: Inspection) -> Iterator[Finding]:
    """Find discrete latents of rows that are drawn, and whose score function has no baseline.

    All of them are counted together, because one sum would run over their joint configurations.
    """
    drawn, objective = drawn_discrete(inspection), inspection.objective
    bare = [name for name, site in drawn.items() if not baselines_of(objective, site)]
    if not bare or isinstance(objective.elbo, TraceMeanField_ELBO):  # which ignores their gradient
        return
    count = joint_configurations(drawn, inspection.model_trace, inspection.pair.plate)
    first, *others = bare
    together = f"with {', '.join(others)} " if others else ""
    yield warning(
        f'site "{first}"',
        "expected a baseline for the score function, got none: the gradient of this discrete "
        f"latent is noisy ({together}it has {count_in_words(count)} configurations)",
        _less_noise(inspection, drawn, few=count <= FEW_CONFIGURATIONS),
    )


def _less_noise(inspection: Inspection, drawn: dict[str, sites.Site], *, few: bool) -> str:
    """Return how to have a gradient with less noise for discrete latents that are drawn.

    Args:
        inspection: The pair and its traces.
        drawn: The latents, sites of the guide.
        few: Whether they have few enough configurations to enumerate.
    """
    plate, model_trace = inspection.pair.plate, inspection.model_trace
    ways = []
    if few:
        ways.append(
            'sum over all configurations, by infer={"enumerate": "parallel"} in the guide '
            "(enumerated=True of ppl_vae.guides.categorical and bernoulli)"
        )
        listed = all(
            site["fn"].has_enumerate_support
            and (not inner_plates(site, plate) or is_summed_by_place(name, model_trace, plate))
            for name, site in drawn.items()
        )
        if not listed:
            ways[0] += (
                ", with ppl_vae.distributions.BernoulliVector or CategoricalVector in model and "
                "guide, because Pyro enumerates no .to_event(...)"
            )
    guide_sites = inspection.guide_sites().values()
    if not any(sites.is_enumerated(site) for site in guide_sites):
        ways.append('pass elbo=RowELBO(4, baseline="leave_one_out")')
    if not few:
        ways.append("relax the draws in train mode, as ppl_vae.guides.relaxed does")
    return "; or ".join(ways)


def drawn_discrete(inspection: Inspection) -> dict[str, sites.Site]:
    """Return the discrete latents of rows that the guide draws without a gradient, by name."""
    drawn = sites.with_role(inspection.guide_trace, "latent", "auxiliary")
    return {
        name: site
        for name, site in drawn.items()
        if sites.is_discrete(site)
        and not (site["is_observed"] or sites.is_reparameterized(site) or sites.is_enumerated(site))
        and sites.in_plate(site, inspection.pair.plate)
    }


def baselines_of(objective: Objective, site: sites.Site) -> list[str]:
    """Return the baselines that an objective subtracts in a site's score function, in words.

    Args:
        objective: The objective.
        site: A site of the guide, whose draw has no gradient.
    """
    elbo, given = objective.elbo, site["infer"].get("baseline", {})
    by_rows = getattr(elbo, "baseline", None)
    if by_rows == "leave_one_out":  # which the site's own baseline does not join
        return [by_rows]
    if not isinstance(elbo, RowBound | TraceGraph_ELBO):
        return []
    names = {
        "nn_baseline": "network", "baseline_value": "value",
        "use_decaying_avg_baseline": "running average",
    }  # fmt: skip
    own = [words for key, words in names.items() if given.get(key) is not None]
    return own if by_rows is None else [by_rows, *own]


RULES: tuple[Callable[[Inspection], Iterator[Finding]], ...] = (
    wrong_estimator, noisy_score_functions, unwanted_enumeration, nothing_enumerated, out_of_order,
    ignored_log_densities,
)  # fmt: skip
