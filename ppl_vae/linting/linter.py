"""``lint``: the sites of a pair in a table, and the faults of the pair and its data.

The pair is run on two batch sizes, once over all rows, and under the ELBO that ``fit`` would use.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from pyro.poutine.trace_struct import Trace

from ppl_vae.arguments import check_arguments, check_number
from ppl_vae.core import sites
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.seeding import child
from ppl_vae.core.supports import support_of, support_text
from ppl_vae.data.rows import Data, Rows
from ppl_vae.elbo.objectives import Objective, RowBound, choose_objective
from ppl_vae.elbo.points import LOG_JOINT, point_latents
from ppl_vae.elbo.relaxations import relaxed_latents
from ppl_vae.linting import (
    data_rules,
    elbo_rules,
    estimator_rules,
    likelihood_rules,
    objective_rules,
    observed_shapes,
    partner_rules,
    relaxation_rules,
    rerun_rules,
    support_rules,
    tail_rules,
    trace_rules,
)
from ppl_vae.linting.data_rules import DataFaults
from ppl_vae.linting.inspection import CannotRunError, Finding, Inspection
from ppl_vae.linting.left_behind import Appeared
from ppl_vae.linting.objective_runs import findings_under_elbo, inspect_under_elbo
from ppl_vae.linting.watching import Layers
from ppl_vae.linting.wide_noise import wide_noise
from ppl_vae.verdicts import Block, Line, Table, Tone, verdict

COLUMNS = ["site", "role", "distribution", "guide", "event_shape", "batch_shape"]
COLUMNS += ["plates", "support", "reparameterized", "estimator"]


@dataclass(frozen=True)
@verdict
class Lint:
    """The verdict of ``lint`` on a pair and its data.

    Attributes:
        sites: One row per site of model and guide, with the columns ``site``, ``role``,
            ``distribution`` (the model's), ``guide`` (the guide's distribution),
            ``event_shape``, ``batch_shape``, ``plates``, ``support``, ``reparameterized`` and
            ``estimator`` (how the ELBO computes the site's term).
        findings: The faults, errors first.
        objective: The ELBO that ``fit`` would use and why; ``None`` where the pair cannot run.
        summed_over_all_rows: Latents outside the row plate that are summed exactly. One sum holds
            all rows, so that such a pair is fitted with all rows in one batch.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> found = lint(BernoulliModel(4), NormalGuide(4), torch.eye(4))
        >>> len(found.errors), len(found.warnings), list(found.sites["site"])
        (0, 0, ['z', 'x'])
        >>> found.raise_if_failed()  # what ``fit`` does first
    """

    sites: pd.DataFrame
    findings: tuple[Finding, ...]
    objective: Objective | None
    summed_over_all_rows: tuple[str, ...] = ()

    @property
    def errors(self) -> list[Finding]:
        """Findings with which ``fit`` refuses to start."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that ``fit`` repeats as warnings before it starts."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    def raise_if_failed(self) -> None:
        """Raise a ``ValueError`` with all errors, one a line, if there are any."""
        if self.errors:
            raise ValueError("\n".join(str(finding) for finding in self.errors))

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        parts: list[Block] = []
        if len(self.sites):
            places = {finding.where for finding in self.findings}
            marked = [f'site "{site}"' in places for site in self.sites["site"]]
            parts.append(Table(self.sites, marked=marked, index=False))
        if self.objective is not None:
            parts.append([Line(f"objective: {self.objective.name} ({self.objective.reason})")])
        for finding in self.findings:
            tone: Tone = "bad" if finding.severity == "error" else "warning"
            parts.append([Line(f"{finding.severity}: {finding}", tone)])
        return parts if self.findings else [*parts, [Line("no findings", "good")]]


def lint(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    elbo: ELBO | RowBound | None = None,
    kl_weight: float | Callable[[int], float] = 1.0,
    seed: int | None = 0,
    plate: str = "data",
) -> Lint:
    """Find the faults of a pair and of its data before time is spent on a fit.

    Nothing is trained, and the pair is left as it was: parameters, buffers, modes, random
    generators and Pyro's global state. Parameters that appear at the first call stay where the pair
    has no errors.

    Args:
        model: Pyro model.
        guide: Pyro guide, or ``None``.
        data: The rows, in any form that ``fit`` takes; all of them are read once.
        elbo: The ELBO to check for; ``None`` chooses one from the sites, as ``fit`` does.
        kl_weight: The KL weight to check for, as in ``fit``.
        seed: Seed of the draws; ``None`` stands for 0.
        plate: Name of the row plate.

    Returns:
        The table of sites, the findings and the ELBO.

    Raises:
        ValueError: If the data cannot be read as rows, or model or guide is not callable.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> grey = torch.full((9, 4), 0.5)
        >>> (finding,) = lint(BernoulliModel(4), NormalGuide(4), grey).findings
        >>> finding.where, finding.fix.partition(", or")[0]
        ('site "x"', 'threshold the values to 0 and 1 (x > 0.5)')
        >>> print(finding.problem.partition(", got")[0])
        expected data in the likelihood's support (0 or 1)
    """
    pair = Pair.of(model, guide, plate)
    check_arguments(seed=seed)
    if not callable(kl_weight):
        check_number("kl_weight", kl_weight, least=0)
    return lint_pair(pair, pair.rows(data), elbo=elbo, kl_weight=kl_weight, seed=seed)


def lint_pair(
    pair: Pair,
    rows: Rows,
    *,
    elbo: ELBO | RowBound | None,
    kl_weight: float | Callable[[int], float],
    seed: int | None,
) -> Lint:
    """Return what ``lint`` returns, for a pair and rows that have been read already."""
    given = None if elbo is None else Objective.of(elbo, "given")
    partners = list(partner_rules.other_partners(pair))
    findings = [*data_rules.unread_fields(pair, rows), *partners]
    inspection: Inspection | None = None
    points: list[str] = []
    appeared = Appeared(pair)
    relaxed = None
    with Layers(pair) as layers:
        kl_weighted = callable(kl_weight) or kl_weight != 1.0
        with pair.quiet_run(seed or 0), warnings.catch_warnings(action="ignore"):
            try:
                inspection = Inspection.of(pair, rows, given, kl_weighted, layers)
            except CannotRunError as raised:
                failure = raised.finding
                inspection = inspect_under_elbo(pair, rows, given, kl_weighted, layers)
                findings += (
                    [failure] if inspection is None else findings_under_elbo(inspection, failure)
                )
                under_elbo_alone = True
            else:
                under_elbo_alone = False
        if inspection is not None and not _failed(findings):
            relaxed = relaxation_rules.traces_of_relaxed(inspection)  # in train mode
            other = child(seed or 0, 1) or 0  # for other draws than the inspection's
            with pair.quiet_run(other), warnings.catch_warnings(action="ignore"):
                findings += [] if under_elbo_alone else _findings(inspection, relaxed)
                if not (under_elbo_alone or _failed(findings)):
                    points = point_latents(pair, inspection.batch)
                    findings += objective_rules.bounds_of_points(inspection, points)
    if _failed(findings):
        appeared.remove()
    findings.sort(key=lambda finding: finding.severity != "error")
    if inspection is None:
        return Lint(pd.DataFrame(columns=COLUMNS), tuple(findings), None)
    objective = inspection.objective
    if relaxed is not None:
        chosen = objective if given else choose_objective(*relaxed)
        reason = f"{chosen.reason}; {relaxation_rules.reason(*relaxed)}"
        objective = dataclasses.replace(chosen, reason=reason, relaxes=True)
        inspection = dataclasses.replace(inspection, objective=objective)
    if points:
        reason = f'{objective.reason}; site "{points[0]}" is a point: a log joint density, no ELBO'
        objective = dataclasses.replace(objective, reason=reason, measure=LOG_JOINT)
    summed = tuple(elbo_rules.summed_over_all_rows(inspection))
    table = _table(inspection, points, relaxed)
    return Lint(table, tuple(findings), objective, summed)


def _findings(inspection: Inspection, relaxed: tuple[Trace, Trace] | None) -> list[Finding]:
    """Apply the rules, cheap ones first; later rules run only where no earlier one failed.

    A pair with faults in its traces would fail in the later runs because of the same faults, and
    the user would read two messages about one mistake.

    Args:
        inspection: The pair and its traces in evaluation mode.
        relaxed: The traces in train mode, where the guide relaxes a latent there.
    """
    findings = list(partner_rules.swapped_halves(inspection))
    if findings:
        return findings
    findings += [finding for rule in trace_rules.RULES for finding in rule(inspection)]
    trained = inspection
    if relaxed is not None:
        trained = dataclasses.replace(inspection, model_trace=relaxed[0], guide_trace=relaxed[1])
        findings += relaxation_rules.relaxed_draws(*relaxed)
        if isinstance(
            inspection.objective.elbo, TraceMeanField_ELBO
        ):  # which refuses discrete draws
            plain = choose_objective(inspection.model_trace, inspection.guide_trace)
            inspection = dataclasses.replace(inspection, objective=plain)
    findings += [finding for rule in estimator_rules.RULES for finding in rule(trained)]
    findings += support_rules.unequal_supports(inspection)
    findings += tail_rules.heavy_tails(inspection)
    findings += observed_shapes.rows_read_as_an_event(inspection)
    findings += observed_shapes.rows_of_another_shape(inspection)
    if inspection.model_failure is not None and not _failed(findings):
        findings.append(inspection.model_failure)
    if _failed(findings):
        return findings
    findings += elbo_rules.unsound_sums(inspection)
    if _failed(findings):
        return findings
    for rule in rerun_rules.RULES:
        findings += rule(inspection)
    for rule in likelihood_rules.RULES:
        findings += () if _failed(findings) else rule(inspection)
    faults = data_rules.scan_data(inspection)
    if faults.failure is None or not _failed(findings):  # else a rule has met the same failure
        findings += data_rules.data_findings(inspection, faults)
    if not _failed(findings):
        findings += _findings_under_elbo(inspection, faults)
    if not _failed(findings):
        findings += objective_rules.unlike_the_elbo(trained)
        findings += wide_noise(inspection)
    return findings


def _findings_under_elbo(inspection: Inspection, faults: DataFaults) -> list[Finding]:
    """Return the findings of computing the ELBO, first on rows of finite numbers alone.

    A latent outside the row plate that is summed needs all rows, as one sum has one scale.

    The ELBO is computed a second time, on rows with NaN or infinity, if the data have such rows.
    A failure of the first computation is the fault of the model and the guide; a failure of the
    second alone is the fault of the missing or infinite cells.
    """
    device, rows = inspection.pair.device(), inspection.rows
    complete = torch.tensor(faults.without_gaps or range(inspection.row_count))
    if elbo_rules.summed_over_all_rows(inspection):
        complete = torch.arange(len(rows))
    findings = list(elbo_rules.under_elbo(inspection, rows.take(complete, device)))
    with_gaps = torch.tensor([bad.first for bad in faults.counts["gaps"].values()])
    if _failed(findings) or not len(with_gaps):
        return findings
    if _failed(list(elbo_rules.under_elbo(inspection, rows.take(with_gaps, device)))):
        findings += data_rules.gap_findings(inspection, faults)
    return findings


def _failed(findings: list[Finding]) -> bool:
    """Return whether there is an error among the findings."""
    return any(finding.severity == "error" for finding in findings)


def _table(
    inspection: Inspection, points: list[str], relaxed: tuple[Trace, Trace] | None
) -> pd.DataFrame:
    """Return the table of sites, with the columns ``COLUMNS``; the model's sites come first.

    Args:
        inspection: The pair, run on a batch.
        points: Latents that the guide gives as a point.
        relaxed: The traces in train mode, where the guide relaxes a latent there.
    """
    special = dict.fromkeys(points, "log p at a point")
    if relaxed is not None:
        special |= dict.fromkeys(relaxed_latents(*relaxed), "relaxed draw")
    model_sites, guide_sites = inspection.model_sites(), inspection.guide_sites()
    records = []
    for name in dict.fromkeys([*model_sites, *guide_sites]):
        guide_site = guide_sites.get(name)
        site: sites.Site = model_sites.get(name, guide_site)
        records.append(
            (
                name,
                sites.role(site),
                _distribution_name(site["fn"]) if name in model_sites else "",
                "" if guide_site is None else _distribution_name(guide_site["fn"]),
                tuple(site["fn"].event_shape),
                tuple(site["fn"].batch_shape),
                ", ".join(frame.name for frame in site["cond_indep_stack"]),
                support_text(support_of(site["fn"])),
                sites.is_reparameterized(site if guide_site is None else guide_site),
                special.get(name) or _estimator(inspection.objective, site, guide_site),
            )
        )
    return pd.DataFrame(records, columns=COLUMNS)


def _distribution_name(fn: Any) -> str:
    """Return the class of a distribution, without the wrappers of ``to_event`` and ``mask``."""
    while hasattr(fn, "base_dist") and type(fn).__name__ in ("Independent", "MaskedDistribution"):
        fn = fn.base_dist
    return type(fn).__name__


def _estimator(objective: Objective, site: sites.Site, guide_site: sites.Site | None) -> str:
    """Return how the ELBO computes a site's term and its gradient, in words."""
    if sites.role(site) != "latent":
        return "log-probability" if sites.role(site) in ("data", "factor") else ""
    halves = (site, site if guide_site is None else guide_site)
    if objective.enumerates and any(map(sites.is_enumerated, halves)):
        return "summed exactly"
    if guide_site is None:
        return ""
    if not sites.is_reparameterized(guide_site):
        baselines = estimator_rules.baselines_of(objective, guide_site)
        return f"score function ({', '.join(baselines)})" if baselines else "score function"
    closed = isinstance(objective.elbo, TraceMeanField_ELBO)
    return "closed-form KL" if closed else "reparameterized draw"
