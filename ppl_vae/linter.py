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
from pyro.infer import ELBO, TraceEnum_ELBO, TraceMeanField_ELBO

from ppl_vae import rules, sites
from ppl_vae.inspection import CannotRunError, Finding, Inspection
from ppl_vae.objectives import Objective
from ppl_vae.pair import Pair
from ppl_vae.rows import Rows, as_rows
from ppl_vae.scan import support_name
from ppl_vae.seeding import forked


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
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: Any,
    *,
    elbo: ELBO | None = None,
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
        site "x": 9 of 9 rows lie outside the likelihood's support (boolean), the first is row 0; change the likelihood or the data
    """  # noqa: E501  the message is one line
    pair = Pair.of(model, guide, plate)
    return lint_pair(pair, as_rows(data), elbo=elbo, kl_weight=kl_weight, seed=seed)


def lint_pair(
    pair: Pair,
    rows: Rows,
    *,
    elbo: ELBO | None,
    kl_weight: float | Callable[[int], float],
    seed: int | None,
) -> Lint:
    """``lint`` on what ``fit`` has already read."""
    given = None if elbo is None else Objective.of(elbo, "given")
    findings: list[Finding] = []
    look: Inspection | None = None
    with forked(0 if seed is None else seed), pair.evaluating(), _untouched(pair), _quiet():
        try:
            look = Inspection.of(pair, rows, given, kl_weight)
        except CannotRunError as error:
            findings.append(error.finding)
        if look is not None:
            findings += rules.check(look)
    findings.sort(key=lambda finding: finding.severity != "error")
    table = pd.DataFrame() if look is None else _table(look)
    return Lint(table, tuple(findings), None if look is None else look.objective)


def _table(look: Inspection) -> pd.DataFrame:
    model_sites, guide_sites = sites.sites(look.model_trace), sites.sites(look.guide_trace)
    records = []
    for name in dict.fromkeys([*model_sites, *guide_sites]):
        site = model_sites.get(name, guide_sites.get(name))
        assert site is not None
        fn = site["fn"]
        records.append(
            {
                "site": name,
                "role": sites.role(site),
                "distribution": _name(model_sites[name]["fn"]) if name in model_sites else "",
                "guide": _name(guide_sites[name]["fn"]) if name in guide_sites else "",
                "event_shape": tuple(fn.event_shape),
                "batch_shape": tuple(fn.batch_shape),
                "plates": ", ".join(frame.name for frame in site["cond_indep_stack"]),
                "support": support_name(site),
                "reparameterized": sites.reparameterized(guide_sites.get(name, site)),
                "estimator": _estimator(look.objective, site, name in guide_sites),
            }
        )
    return pd.DataFrame(records)


def _name(fn: Any) -> str:
    while hasattr(fn, "base_dist") and type(fn).__name__ in ("Independent", "MaskedDistribution"):
        fn = fn.base_dist
    return type(fn).__name__


def _estimator(objective: Objective, site: sites.Site, in_guide: bool) -> str:
    if sites.role(site) != "latent":
        return "log-probability" if sites.role(site) in ("data", "factor") else ""
    if isinstance(objective.elbo, TraceEnum_ELBO) and sites.enumerated(site):
        return "summed exactly"
    if not in_guide:
        return ""
    if not sites.reparameterized(site):
        return "score function"
    closed = isinstance(objective.elbo, TraceMeanField_ELBO)
    return "closed-form KL" if closed else "reparameterized draw"


@contextlib.contextmanager
def _untouched(pair: Pair) -> Iterator[None]:
    """Put buffers back that the runs may change."""
    before = {name: buffer.clone() for name, buffer in pair.buffers().items()}
    try:
        yield
    finally:
        for name, buffer in pair.buffers().items():
            if name in before and buffer.shape == before[name].shape:
                buffer.copy_(before[name])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Look at a pair without Pyro's own checks, which stop at the first fault."""
    with warnings.catch_warnings(), pyro.validation_enabled(False):
        warnings.simplefilter("ignore")
        yield
