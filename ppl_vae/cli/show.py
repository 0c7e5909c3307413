"""``ppl-vae show``: what is in a run directory. No code of the run is executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ppl_vae.cli.console import reporting, table
from ppl_vae.cli.opened import read_run
from ppl_vae.cli.options import AsJson, Quiet, RunDirectory

if TYPE_CHECKING:
    from ppl_vae.saving.runs import Run
    from ppl_vae.training.history import History


def show(run: RunDirectory, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Show what is in a run directory: the pair, the form of its data, and how the fit went.

    With --json, the contents of run.json are printed, and the last recorded epoch.
    """
    with reporting(as_json, quiet) as report:
        opened = read_run(run)
        from ppl_vae.report.run_facts import read_history  # noqa: PLC0415  loads torch

        history = read_history(opened.path, opened.info)
        last = {} if history is None else history.frame.iloc[-1].to_dict()
        report.result({"run": run, **opened.info, "last_epoch": last})
        report.show(table(["", str(run)], _facts(opened, history)))


def _facts(run: Run, history: History | None) -> Iterator[tuple[str, str]]:
    """Yield a name and a text for each fact worth reading."""
    from ppl_vae.report import run_facts  # noqa: PLC0415  loads torch

    info = run.info
    yield "status", f"{info['status']} (begun {info['created']})"
    for half in ("model", "guide"):
        recipe = (info["recipe"] or {}).get(half) or {}
        file = f"  in {recipe['file']}" if "file" in recipe else ""
        yield half, f"{run_facts.half_as_call(info, half) or 'none'}{file}"
    if info["template"] is None:
        yield "fitted to", "unknown: saved without data"
    else:
        yield "fitted to", f"{info['rows']} rows, {run_facts.form_of_rows(info['template'])}"
    if "objective" in info:
        yield "objective", f"{info['objective']}: {info['reason']}"
    ended = run_facts.ending(info, history)
    if ended:
        yield "ending", ended
    if history is not None:
        yield from ((fact.name, fact.text) for fact in run_facts.course(history))
    if "seed" in info:
        yield "seed", str(info["seed"])
    yield from ((fact.name, fact.text) for fact in run_facts.settings(info))
    yield "versions", ", ".join(f"{name} {number}" for name, number in info["versions"].items())
    yield "to use it", _use(info)


def _use(info: Mapping[str, Any]) -> str:
    """Return how the pair of a run is opened, and what has to be trusted for that."""
    if info["recipe"] is None:
        return (
            "in Python: ppl_vae.load(run, model=..., guide=...), because the run holds weights "
            f"without a recipe ({info['no_recipe']})"
        )
    from ppl_vae.saving.recipes import users_files  # noqa: PLC0415  loads torch

    # without a guide, rows have codes only where latents are summed out
    has_codes = info["guide"] is not None or info.get("objective") == "TraceEnum_ELBO"
    encode = "encode, " if has_codes else ""
    commands = f"evaluate, check, {encode}generate and report"
    if users_files(info["recipe"]):
        return (
            f"{commands}, with --trust-code, which executes {', '.join(info['sources'])}: "
            "read them first"
        )
    return commands
