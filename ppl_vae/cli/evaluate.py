"""``ppl-vae evaluate``: how good a fit is on the rows of a data file, and how reliable that is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ppl_vae
from ppl_vae.cli.console import CommandOutput, reporting, table
from ppl_vae.cli.folders import DataFiles
from ppl_vae.cli.opened import OpenedRun, files_read, open_run
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    DataOrFolder,
    Device,
    Draws,
    Drop,
    Fields,
    Force,
    Label,
    OutOrFolder,
    Part,
    Quiet,
    Run,
    Seed,
    TrustCode,
    UnseenMissing,
)

if TYPE_CHECKING:
    from ppl_vae.evaluation.summary import ElboSummary, LikelihoodSummary, MeanOverRows

DRAWS_OPTION = "--num-samples"


def evaluate(
    run: Run,
    data: DataOrFolder,
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    unseen_missing: UnseenMissing = False,
    label: Label = None,
    out: OutOrFolder = None,
    part: Part = None,
    num_samples: Draws = 5000,
    seed: Seed = 0,
    force: Force = False,
    device: Device = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure the log-likelihood and ELBO of the rows of a data file, and how reliable they are.

    The columns of DATA are matched by name. With --out, the results of each row are written to a
    file: log_prob, elbo, ess (effective number of draws), k_hat (reliability), and one column
    elbo.SITE for each site's term of the ELBO. Of a folder, each file is measured by itself.
    """
    with reporting(as_json, quiet) as report:
        files = DataFiles.of(data, out, part, force=force)
        opened = open_run(
            run, trust_code=trust_code, device=device, out=files.single_out, force=force,
            label=label, inputs=files_read(fields, data), unseen_missing=unseen_missing,
        )  # fmt: skip
        choice: dict[str, Any] = {
            "columns": columns,
            "drop": drop,
            "fields": fields,
            "label": label,
        }
        how = {"command": "evaluate", "seed": seed, "num_samples": num_samples, **choice}
        how |= {"unseen_missing": True} if unseen_missing else {}
        for file, result in files.left(run, **how):
            rows = opened.read(file, **choice)
            summary, by_site = _measure(opened, rows, result, num_samples, seed, report)
            has_guide = opened.guide is not None
            numbers = {"guide": has_guide, **_as_json(summary, by_site), "out": result}
            report.result({"run": run, "data": file, **numbers})
            if files.is_folder:
                report.show(f"{file.name}: {_rows(summary.rows)}")
            _show(report, summary, by_site)
            if result is not None:
                report.show(f"{summary.rows} rows in {result}")
        files.tell(report)


def _measure(
    opened: OpenedRun, rows: Any, out: Path | None, num_samples: int, seed: int,
    report: CommandOutput,
) -> tuple[LikelihoodSummary, ElboSummary]:  # fmt: skip
    """Return the summaries of the rows of one file, and write the results of each row."""
    from ppl_vae.evaluation import summary as summaries  # noqa: PLC0415  loads torch

    pair, settings = (opened.model, opened.guide), opened.settings(seed, report)
    # _show warns with the command's option.
    with warnings.catch_warnings(action="ignore", category=summaries.UnreliableWarning):
        scores = ppl_vae.log_likelihood(*pair, rows, num_samples=num_samples, **settings)
    draws = min(num_samples, summaries.TERMS_DRAWS)
    terms = ppl_vae.elbo_terms(*pair, rows, num_samples=draws, **settings)
    if out is not None:
        from ppl_vae.cli.outfile import write  # noqa: PLC0415  loads pandas

        write(out, scores.assign(**{f"elbo.{name}": terms[name].to_numpy() for name in terms}))
    has_guide = opened.guide is not None
    summary = summaries.LikelihoodSummary.of(scores, num_samples, has_guide=has_guide)
    return summary, summaries.ElboSummary.of(terms)


def _as_json(summary: LikelihoodSummary, by_site: ElboSummary) -> dict[str, Any]:
    """Return the numbers of both summaries under the names that ``--json`` prints."""
    from ppl_vae.evaluation.summary import TERMS_DRAWS  # noqa: PLC0415  loads torch

    return {
        "rows": summary.rows, "samples": summary.num_samples,
        "log_likelihood": asdict(summary.log_prob), "elbo": asdict(summary.elbo),
        "gap": asdict(summary.gap), "impossible_rows": summary.impossible,
        "ess": _by_percent(summary.ess),
        "k_hat": {
            **_by_percent(summary.k_hat), "threshold": summary.threshold, "above": summary.above,
            "exact": summary.exact, "unknown": summary.without_k_hat,
        },
        "elbo_by_site": {
            "samples": min(summary.num_samples, TERMS_DRAWS),
            "sites": {name: asdict(site) for name, site in by_site.sites.items()},
            "global": {
                name: {"total": total, "per_row": total / by_site.rows}
                for name, total in by_site.outside.items()
            },
            "together": asdict(by_site.together),
        },
    }  # fmt: skip


def _by_percent(quantiles: dict[float, float]) -> dict[str, float]:
    return {f"{share:.0%}": value for share, value in quantiles.items()}


def _show(report: CommandOutput, summary: LikelihoodSummary, by_site: ElboSummary) -> None:
    """Print tables of means, reliability and sites; warn where rows are unreliable."""
    from ppl_vae.evaluation.summary import TERMS_DRAWS  # noqa: PLC0415  loads torch

    draws = "no" if summary.draws_nothing else str(summary.num_samples)
    report.show(f"{_rows(summary.rows)}, {draws} draws of the latents for each row")
    means = [
        ("log-likelihood", *_nats(summary.log_prob)),
        ("ELBO", *_nats(summary.elbo)),
        ("log-likelihood minus ELBO", *_nats(summary.gap)),
    ]
    report.show(table(["", "nats per row, mean", "standard error"], means))
    columns = ["quantiles over rows", *(f"{100 * share:.0f} %" for share in summary.ess)]
    effective = [_number(value, 1) for value in summary.ess.values()]
    k_hat = [_number(value, 2) for value in summary.k_hat.values()]
    quantiles = [
        [f"effective number of draws, out of {summary.num_samples}", *effective],
        [f"k-hat (reliable up to {summary.threshold:.2g})", *k_hat],
    ]
    report.show(table(columns, quantiles))
    report.show(*_sentences(summary, by_site))
    sites = table(["ELBO by site", "nats per row, mean", "standard error"], _sites(by_site))
    report.show(
        sites,
        f"means of {min(summary.num_samples, TERMS_DRAWS)} draws for each row; the term of a "
        "latent is minus the KL divergence from its prior",
    )
    if summary.unreliable:
        report.note(f"warning: {summary.verdict()} {summary.advice(DRAWS_OPTION)}")


def _sentences(summary: LikelihoodSummary, by_site: ElboSummary) -> Iterator[str]:
    """Yield what a reader must know to interpret the numbers, a sentence each."""
    if not summary.has_guide and not summary.draws_nothing:
        yield "There is no guide: latents are drawn from the prior."
    if by_site.outside:
        yield (
            f"Log-likelihood and ELBO are conditional on draws of {', '.join(by_site.outside)}, "
            "which lie outside the row plate; the table by site has their terms."
        )
    if summary.verdict():
        yield summary.verdict()
    yield from summary.notes(DRAWS_OPTION)


def _sites(by_site: ElboSummary) -> Iterator[tuple[str, str, str]]:
    """Yield name, mean and standard error of each site, and of all sites together."""
    for name, site in by_site.sites.items():
        yield name, *_nats(site)
    for name, total in by_site.outside.items():
        origin = f"total {total:.3f}, divided by {_rows(by_site.rows)}"
        yield f"{name} (outside the row plate)", f"{total / by_site.rows:.3f}", origin
    yield "together", *_nats(by_site.together)


def _nats(mean: MeanOverRows) -> tuple[str, str]:
    return _number(mean.mean, 3), _number(mean.standard_error, 3)


def _number(value: float, digits: int) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
