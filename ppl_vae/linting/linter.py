"""``lint``: the sites of a pair in a table, and its faults, each with its mend.

The pair is run on two batch sizes, under the chosen ELBO, and once over all rows.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyro
import torch
from pyro.infer import ELBO, TraceMeanField_ELBO

from ppl_vae.core import sites
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Data, Rows, as_rows
from ppl_vae.elbo.objectives import Objective, RowBound
from ppl_vae.linting import rerun_rules, trace_rules
from ppl_vae.linting.data_rules import (
    DataFaults,
    data_findings,
    gap_findings,
    scan_data,
    support_name,
)
from ppl_vae.linting.inspection import CannotRunError, Finding, Inspection, Layers

COLUMNS = ["site", "role", "distribution", "guide", "event_shape", "batch_shape"]
COLUMNS += ["plates", "support", "reparameterized", "estimator"]


@dataclass(frozen=True)
class Lint:
    """The verdict on a pair.

    Attributes:
        sites: One row per site of model and guide: ``site``, ``role``, ``distribution`` (the
            model's), ``guide`` (the guide's), ``event_shape``, ``batch_shape``, ``plates``,
            ``support``, ``reparameterized`` and ``estimator``.
        findings: The faults, errors first.
        objective: The ELBO that ``fit`` would use and why; ``None`` where the pair cannot run.
    """

    sites: pd.DataFrame
    findings: tuple[Finding, ...]
    objective: Objective | None

    @property
    def errors(self) -> list[Finding]:
        """Findings that ``fit`` refuses."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that ``fit`` only repeats."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    def raise_if_failed(self) -> None:
        """Raise a ``ValueError`` with every error in it, if there is one."""
        if self.errors:
            raise ValueError("\n".join(str(finding) for finding in self.errors))

    def __str__(self) -> str:
        parts = [self.sites.to_string(index=False)] if len(self.sites) else []
        if self.objective is not None:
            parts.append(f"objective: {self.objective.name} ({self.objective.reason})")
        parts += [f"{finding.severity}: {finding}" for finding in self.findings]
        return "\n\n".join([*parts, *([] if self.findings else ["no findings"])])


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
    """Check a pair and its data before an hour is spent on them.

    Args:
        model: Pyro model.
        guide: Pyro guide, or ``None``.
        data: The rows, in any form that ``fit`` takes; all of them are read once.
        elbo: The ELBO to check for; chosen from the sites if ``None``.
        kl_weight: The KL weight to check for, as in ``fit``.
        seed: Seeds the draws; the generators are restored afterwards.
        plate: Name of the row plate.

    Returns:
        The table of sites and the findings.

    Raises:
        ValueError: Where the data cannot be read as rows.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> print(lint(BernoulliModel(4), NormalGuide(4), torch.full((9, 4), 0.5)).findings[0])
        site "x": expected data in the likelihood's support (boolean), got others in 9 of 9 rows, the first is row 0; change the likelihood or the data
    """  # noqa: E501  the message is one line
    pair = Pair.of(model, guide, plate)
    return lint_pair(pair, as_rows(data), elbo=elbo, kl_weight=kl_weight, seed=seed)


def lint_pair(
    pair: Pair,
    rows: Rows,
    *,
    elbo: ELBO | RowBound | None,
    kl_weight: float | Callable[[int], float],
    seed: int | None,
) -> Lint:
    """``lint`` on what ``fit`` has already read."""
    given = None if elbo is None else Objective.of(elbo, "given")
    findings = list(trace_rules.unread_fields(pair, rows))
    look: Inspection | None = None
    with forked(0 if seed is None else seed), pair.evaluating(), Layers(pair) as layers, _quiet():
        try:
            look = Inspection.of(pair, rows, given, kl_weight, layers)
        except CannotRunError as raised:
            findings.append(raised.finding)
        else:
            findings += _findings(look)
    findings.sort(key=lambda finding: finding.severity != "error")
    table = pd.DataFrame(columns=COLUMNS) if look is None else _table(look)
    return Lint(table, tuple(findings), None if look is None else look.objective)


def _findings(look: Inspection) -> list[Finding]:
    """What the traces show first; a pair that is sound in them is run on more."""
    found = [finding for rule in trace_rules.RULES for finding in rule(look)]
    if look.misfit is not None and not _failed(found):
        found.append(look.misfit)
    if _failed(found):
        return found
    for trial in rerun_rules.TRIALS:
        found += trial(look)
    tally = scan_data(look)
    if tally.failure is None or not _failed(found):  # else a trial has met the same
        found += data_findings(look, tally)
    if not _failed(found):
        found += _under_elbo(look, tally)
    return found


def _under_elbo(look: Inspection, tally: DataFaults) -> list[Finding]:
    """The ELBO on rows without gaps, then on rows with them."""
    device = look.pair.device()
    sound = torch.tensor(tally.sound or range(look.row_count))
    found = list(rerun_rules.under_elbo(look, look.rows.take(sound, device)))
    gaps = torch.tensor([count.first for count in tally.counts["gaps"].values()])
    if _failed(found) or not len(gaps):
        return found
    if _failed(list(rerun_rules.under_elbo(look, look.rows.take(gaps, device)))):
        found += gap_findings(look, tally)
    return found


def _failed(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _table(look: Inspection) -> pd.DataFrame:
    ours, theirs = look.model_sites(), look.guide_sites()
    records = []
    for name in dict.fromkeys([*ours, *theirs]):
        proposal = theirs.get(name)
        site: sites.Site = ours.get(name, proposal)
        records.append(
            (
                name,
                sites.role(site),
                _name(ours[name]["fn"]) if name in ours else "",
                "" if proposal is None else _name(proposal["fn"]),
                tuple(site["fn"].event_shape),
                tuple(site["fn"].batch_shape),
                ", ".join(frame.name for frame in site["cond_indep_stack"]),
                support_name(site),
                sites.is_reparameterized(site if proposal is None else proposal),
                _estimator(look.objective, site, proposal),
            )
        )
    return pd.DataFrame(records, columns=COLUMNS)


def _name(fn: Any) -> str:
    while hasattr(fn, "base_dist") and type(fn).__name__ in ("Independent", "MaskedDistribution"):
        fn = fn.base_dist
    return type(fn).__name__


def _estimator(objective: Objective, site: sites.Site, proposal: sites.Site | None) -> str:
    """How the ELBO gets a site's term and its gradient; ``proposal`` is the guide's site."""
    if sites.role(site) != "latent":
        return "log-probability" if sites.role(site) in ("data", "factor") else ""
    halves = (site, site if proposal is None else proposal)
    if objective.enumerates and any(map(sites.is_enumerated, halves)):
        return "summed exactly"
    if proposal is None:
        return ""
    if not sites.is_reparameterized(proposal):
        return "score function"
    closed = isinstance(objective.elbo, TraceMeanField_ELBO)
    return "closed-form KL" if closed else "reparameterized draw"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Look at a pair without Pyro's own checks, which stop at the first fault."""
    with warnings.catch_warnings(), pyro.validation_enabled(False):
        warnings.simplefilter("ignore")
        yield
