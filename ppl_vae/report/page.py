"""One page that a colleague can read: what was fitted, how well, and what the model misses."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ppl_vae.checks.predictive_checks import PredictiveCheck
from ppl_vae.core.blocks import check_count
from ppl_vae.data.rows import Data, as_rows
from ppl_vae.report import fit_sections, html
from ppl_vae.report.check_section import check_chapter, flagged_names
from ppl_vae.report.fit_facts import FitFacts, split_of
from ppl_vae.report.html import Markup, decimal, element, join
from ppl_vae.report.measurements import Measurements, unreliable
from ppl_vae.report.measurements import mean as mean_of
from ppl_vae.saving.storage import write_whole
from ppl_vae.training.history import History

Function = Callable[..., Any]
Section = tuple[str, str, Markup]


def write_report(
    model: Function | None,
    guide: Function | None,
    data: Data | None,
    path: str | Path,
    *,
    history: History | None = None,
    run: str | Path | None = None,
    statistics: Any = None,
    num_samples: int = 1000,
    replicates: int = 200,
    seed: int | None = 0,
    overwrite: bool = False,
    progress: bool = False,
    plate: str = "data",
) -> Path:
    """Write one HTML file about a fit: what it is, how it went, how good it is, what it misses.

    The file stands alone: figures are in it, nothing is loaded. It holds the code of the pair and
    names of features, and of the data only their distributions in figures. A measurement that the
    pair refuses (data outside the support, for example) is told in its place; the rest is there.

    Args:
        model: The model; ``None`` is enough where ``run`` tells of it and there are no data.
        guide: The guide; ``None`` is the prior.
        data: N rows, in any form that ``fit`` takes: held-out rows say more than those fitted to.
            ``None`` leaves out all that is measured.
        path: The file, ``.html``.
        history: What ``fit`` returned.
        run: The directory of the fit: its settings, versions, history and the code as it was.
        statistics: Of the predictive checks, as ``predictive_check`` takes them.
        num_samples: Draws of the latents a row for the log-likelihood.
        replicates: Replicated data sets of each predictive check.
        seed: Seeds every draw; the generators are restored afterwards.
        overwrite: Whether a file that is there may be replaced.
        progress: Whether to show bars.
        plate: Name of the row plate.

    Returns:
        The file, written whole.

    Warns:
        UserWarning: Where a part could not be measured; the page says so in its place.

    Raises:
        ValueError: Where the file is there already or cannot be written, the run is none, or data
            are given without a model.

    Example:
        >>> import tempfile
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x, file = (torch.rand(50, 4) > 0.5).float(), tempfile.mkdtemp() + "/report.html"
        >>> write_report(BernoulliModel(4), NormalGuide(4), x, file, replicates=20).name
        'report.html'
    """
    path = Path(path)
    _check_path(path, overwrite=overwrite)
    if model is None and (data is not None or run is None):
        raise ValueError("model: expected the model, got None; it may be left out with run= alone")
    check_count("num_samples", num_samples)
    check_count("replicates", replicates)
    fitted = FitFacts.of(model, guide, history, run)
    measured = None
    if data is not None:
        assert model is not None
        rows = as_rows(data)
        measured = Measurements.of(
            model, guide, rows, parts=split_of(rows, fitted.info), statistics=statistics,
            num_samples=num_samples, replicates=replicates, seed=seed, progress=progress,
            plate=plate,
        )  # fmt: skip
    page = _page(fitted, measured, seed, replicates)
    _check_path(path, overwrite=overwrite)  # somebody may have written it meanwhile
    try:
        write_whole(path, page.encode())
    except OSError as error:
        raise ValueError(f"path: {path} cannot be written: {error.strerror}") from error
    return path


def _check_path(path: Path, *, overwrite: bool) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"path: expected a file.html, got {path}")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"path: expected a file in a folder that is there, got {path}")
    if path.exists() and not overwrite:
        raise ValueError(f"path: {path} is there already; overwrite=True replaces it")


def _page(
    fitted: FitFacts, measured: Measurements | None, seed: int | None, replicates: int
) -> str:
    versions = fit_sections.versions(fitted, measured, seed, replicates)
    sections: list[Section] = [
        ("fit", "What was fitted", fit_sections.fit(fitted, measured)),
        ("curves", "Learning curves", fit_sections.curves(fitted)),
        ("likelihood", "Log-likelihood and ELBO", fit_sections.likelihood(measured)),
        ("check", "Predictive check", check_chapter(measured)),
        ("code", "Code of the pair", fit_sections.code(fitted)),
        ("versions", "Versions and seeds", versions),
    ]
    title = " with ".join(name for name in fitted.names if name is not None)
    return html.page(f"{title}: report", _header(title, fitted, measured), sections)


# The top


def _header(title: str, fitted: FitFacts, measured: Measurements | None) -> Markup:
    kind = "Report of a model and its guide" if fitted.guide else "Report of a model"
    rows = f", on {len(measured.rows)} rows" if measured else ""
    parts = [
        element("p", f"{kind}{rows} · {_date()}", class_="kind"),
        element("h1", title),
        element("p", " ".join(_verdict(fitted, measured)), class_="lead"),
    ]
    if measured is not None:
        parts.append(element("ul", *_keys(measured), class_="keys"))
    return element("header", join(parts))


def _date() -> str:
    today = datetime.datetime.now(datetime.UTC)
    return f"{today.day} {today:%B %Y}".replace(" ", html.SPACE)


def _verdict(fitted: FitFacts, measured: Measurements | None) -> Iterator[str]:
    """The short answer, a sentence each."""
    if measured is None:
        yield "Nothing is measured here: this report was written without data."
        if fitted.ending:
            yield f"The fit: {fitted.ending}."
        return
    check = measured.prior if measured.check is None else measured.check
    whose = "model" if measured.check is None else "fitted pair"
    if isinstance(check, ValueError):
        yield "The predictive check could not be made."
    else:
        yield f"The {whose} {_misses(check)}."
    if isinstance(measured.scores, ValueError):
        yield "The log-likelihood could not be measured."
    elif unreliable(measured.scores):
        yield "The log-likelihood of some rows is not to be trusted."


def _misses(check: PredictiveCheck) -> str:
    """What is flagged, by name if it is little."""
    names = [html.brief(name, 48) for name in flagged_names(check)]
    of = f"{len(check.frame)} statistics of the data"
    if not names:
        return f"makes data that agree with these in all {of}, which is no proof of it"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"misses {len(names)} of {of}: {', '.join(names[:3])}{more}"


def _keys(measured: Measurements) -> Iterator[Markup]:
    """The numbers of the verdict."""
    check = measured.prior if measured.check is None else measured.check
    if not isinstance(check, ValueError):
        flagged, count = int(check.frame["flagged"].sum()), len(check.frame)
        below = "the model alone; there is no guide"
        if measured.check is not None:
            below = "given the rows' own latents"
            if not isinstance(measured.prior, ValueError):
                alone = int(measured.prior.frame["flagged"].sum())
                below += f"; from the model alone {alone} of {len(measured.prior.frame)}"
        yield _key("Statistics flagged", f"{flagged} of {count}", below, bad=flagged > 0)
    scores = measured.scores
    if isinstance(scores, ValueError):
        return
    title, index = next(iter(measured.groups().items()))
    value, error = mean_of(scores["log_prob"].to_numpy()[index])
    shown = f"{decimal(value, 2)} ± {decimal(error, 2)}"
    yield _key("Log-likelihood", shown, f"nats a row, {title}: {len(index)}")
    bad, known = unreliable(scores), bool(scores["k_hat"].notna().any())
    below = f"{bad} of {len(scores)} rows" + (", not to be trusted" if bad else "")
    shown = html.percent(bad, len(scores)) if known else "unknown"
    yield _key("k-hat above 0.7", shown, below if known else "for every row", bad=bad > 0)


def _key(title: str, value: str, below: str, *, bad: bool = False) -> Markup:
    inside = [element("span", title), element("strong", value), element("span", below)]
    return element("li", *inside, class_="bad" if bad else None)
