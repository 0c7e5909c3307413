"""``ppl-vae evaluate``: how good a fit is on the rows of a file, and how far to trust that."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

import ppl_vae
from ppl_vae.cli.console import CommandOutput, reporting, table
from ppl_vae.cli.opened import OpenedRun, open_run
from ppl_vae.cli.options import AsJson, Data, Force, Out, Quiet, Run, Seed, TrustCode
from ppl_vae.cli.pairs import read

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BY_SITE = 100  # draws that are enough for means of logarithms, which the ELBO by site is made of
SHARES = {"5%": 0.05, "50%": 0.5, "95%": 0.95}


def evaluate(
    run: Run,
    data: Data,
    out: Out = None,
    num_samples: Annotated[
        int, typer.Option(min=1, help="Draws of the latents for each row.")
    ] = 5000,
    seed: Seed = 0,
    force: Force = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Log-likelihood and ELBO of the rows of a file under a run, and how far to trust them.

    Columns of DATA are found by name. --out writes what was found for every row: log_prob, elbo,
    ess, k_hat, and the share of every site in the ELBO as elbo.SITE.
    """
    with reporting(as_json, quiet) as report:
        opened = open_run(run, trust_code=trust_code, out=out, force=force)
        rows = read(data, opened.example)
        scores, terms = _measured(opened, rows, num_samples, seed, report)
        if out is not None:
            from ppl_vae.cli.outfile import write  # noqa: PLC0415  pandas

            shares = {f"elbo.{name}": terms[name].to_numpy() for name in terms}
            write(out, scores.assign(**shares))
        found = _summary(scores, terms, num_samples)
        has_guide = opened.guide is not None
        report.result({"run": run, "data": data, "guide": has_guide, **found, "out": out})
        _show(report, found, has_guide=has_guide)
        if out is not None:
            report.show(f"{len(scores)} rows in {out}")


def _measured(
    opened: OpenedRun, rows: Any, num_samples: int, seed: int, report: CommandOutput
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the two functions of the library find, row by row."""
    shared: Any = {"seed": seed, "progress": report.progress, "plate": opened.plate}
    pair = opened.model, opened.guide
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "log_likelihood: k-hat")  # told in words of the command
        scores = ppl_vae.log_likelihood(*pair, rows, num_samples=num_samples, **shared)
    terms = ppl_vae.elbo_terms(*pair, rows, num_samples=min(num_samples, BY_SITE), **shared)
    return scores, terms


def _summary(scores: pd.DataFrame, terms: pd.DataFrame, num_samples: int) -> dict[str, Any]:
    """All that is printed, in nats where it is a log-probability."""
    import numpy as np  # noqa: PLC0415  slow to load

    from ppl_vae.evaluation.psis import THRESHOLD  # noqa: PLC0415  loads torch

    columns = {name: scores[name].to_numpy() for name in scores}
    count, k_hat, outside = len(scores), columns["k_hat"], terms.attrs["global"]
    with np.errstate(invalid="ignore"):  # a row that cannot be has -inf
        gap = columns["log_prob"] - columns["elbo"]
    return {
        "rows": count,
        "samples": num_samples,
        "log_likelihood": _mean(columns["log_prob"]),
        "elbo": _mean(columns["elbo"]),
        "gap": _mean(gap),
        "impossible_rows": int(np.isneginf(columns["log_prob"]).sum()),
        "ess": _quantiles(columns["ess"]),
        "k_hat": {
            **_quantiles(k_hat),
            "threshold": THRESHOLD,
            "above": int((k_hat > THRESHOLD).sum()),
            "exact": int(np.isneginf(k_hat).sum()),
            "unknown": int(np.isnan(k_hat).sum()),
        },
        "elbo_by_site": {
            "samples": min(num_samples, BY_SITE),
            "sites": {str(name): _mean(terms[name].to_numpy()) for name in terms},
            "global": {
                name: {"total": total, "per_row": total / count} for name, total in outside.items()
            },
            "together": _mean(terms.to_numpy().sum(1) + sum(outside.values()) / count),
        },
    }


def _mean(values: np.ndarray) -> dict[str, float]:
    """The mean over rows; its standard error is NaN for one row."""
    import numpy as np  # noqa: PLC0415

    with np.errstate(invalid="ignore"):
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
        return {"mean": float(values.mean()), "standard_error": float(error)}


def _quantiles(values: np.ndarray) -> dict[str, float]:
    """Each the value of a row, that -inf is never averaged with its neighbour."""
    import numpy as np  # noqa: PLC0415

    known = values[~np.isnan(values)]
    return {
        name: float(np.quantile(known, share, method="nearest")) if len(known) else np.nan
        for name, share in SHARES.items()
    }


def _show(report: CommandOutput, found: Mapping[str, Any], *, has_guide: bool) -> None:
    report.show(f"{_rows(found['rows'])}, {found['samples']} draws of the latents for each")
    titles = {"log_likelihood": "log-likelihood", "elbo": "ELBO", "gap": "gap between them"}
    lines = [(title, *_nats(found[name])) for name, title in titles.items()]
    report.show(table("", ["", "nats a row, mean", "standard error"], lines))
    shares = [name.replace("%", " %") for name in SHARES]
    quantiles = [
        [f"effective draws, of {found['samples']}", *_quantile_texts(found["ess"], 1)],
        ["k-hat", *_quantile_texts(found["k_hat"], 2)],
    ]
    report.show(table("", ["quantiles over rows", *shares], quantiles))
    for line in _in_words(found, has_guide=has_guide):
        report.show(line)
    report.show(table("", ["ELBO by site", "nats a row, mean", "standard error"], _by_site(found)))
    draws = found["elbo_by_site"]["samples"]
    report.show(f"means of {draws} draws for each row; a latent's is minus its KL divergence")
    if found["k_hat"]["above"]:
        report.note(f"warning: {_not_to_be_trusted(found, has_guide=has_guide)}")


def _in_words(found: Mapping[str, Any], *, has_guide: bool) -> Iterator[str]:
    """What the numbers mean where they need it."""
    from ppl_vae.evaluation.psis import FEWEST  # noqa: PLC0415  loads torch

    k_hat, outside = found["k_hat"], found["elbo_by_site"]["global"]
    if not has_guide:
        yield "no guide: what is latent is drawn from the prior"
    if outside:
        yield (
            f"log-likelihood and ELBO are given draws of {', '.join(outside)}, outside the row "
            "plate: what these cost stands below"
        )
    if k_hat["unknown"] < found["rows"]:
        yield f"k-hat above {k_hat['threshold']}: {k_hat['above']} of {_rows(found['rows'])}"
    if k_hat["exact"]:
        yield (
            f"k-hat of -inf: {_rows(k_hat['exact'])}; all draws weigh the same, so log-likelihood "
            "is exact there: nothing is left to draw, or the guide is the posterior"
        )
    if found["impossible_rows"]:
        yield (
            f"log-likelihood of -inf: {_rows(found['impossible_rows'])}; no draw of the latents "
            "can have made them, so they have no k-hat"
        )
    untold = k_hat["unknown"] - found["impossible_rows"]
    if found["samples"] < FEWEST:
        yield f"k-hat unknown: it takes --num-samples {FEWEST} or more"
    elif untold > 0:
        yield (
            f"k-hat unknown: {_rows(untold)}; their largest weights are ties, as where the latents "
            "are discrete: judge by the effective draws"
        )


def _not_to_be_trusted(found: Mapping[str, Any], *, has_guide: bool) -> str:
    k_hat = found["k_hat"]
    cause, mend = "the guide misses part of what explains them", "fit a better guide"
    if not has_guide:
        cause, mend = "draws from the prior seldom explain them", "fit a guide"
    return (
        f"k-hat is above {k_hat['threshold']} in {k_hat['above']} of {_rows(found['rows'])}: "
        f"{cause}, a few draws decide their log-likelihood, and it may be far too low; {mend}, or "
        "give more --num-samples"
    )


def _by_site(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    parts = found["elbo_by_site"]
    for name, values in parts["sites"].items():
        yield name, *_nats(values)
    for name, values in parts["global"].items():
        share = f"{values['per_row']:.3f}"
        total = f"total {values['total']:.3f}, divided by {_rows(found['rows'])}"
        yield f"{name} (outside the row plate)", share, total
    yield "together", *_nats(parts["together"])


def _nats(values: Mapping[str, float]) -> tuple[str, str]:
    return _number(values["mean"], 3), _number(values["standard_error"], 3)


def _quantile_texts(values: Mapping[str, float], digits: int) -> list[str]:
    return [_number(values[share], digits) for share in SHARES]


def _number(value: float, digits: int) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
