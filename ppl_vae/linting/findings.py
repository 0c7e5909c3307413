"""A finding: one fault of a pair or of its data, with what to change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One fault: where it is, what was expected and what came, and what to change.

    Attributes:
        severity: ``"error"`` stops a fit, ``"warning"`` does not.
        where: The place of the fault: ``site "z"``, ``parameter "model.w"``, ``field "x"`` or
            ``model``.
        problem: What was expected and what came.
        fix: What to change.
    """

    severity: str
    where: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; {self.fix}"


def error(where: str, problem: str, fix: str) -> Finding:
    """Return a finding that stops a fit."""
    return Finding("error", where, problem, fix)


def warning(where: str, problem: str, fix: str) -> Finding:
    """Return a finding that ``fit`` only repeats as a warning."""
    return Finding("warning", where, problem, fix)


def site_error(name: str, problem: str, fix: str) -> Finding:
    """Return a finding about one site that stops a fit."""
    return error(f'site "{name}"', problem, fix)


class CannotRunError(Exception):
    """Raised where the model or the guide fails on a batch.

    Attributes:
        finding: The finding that says so.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding
