"""The report: one HTML page on what was fitted, how good the fit is, and what the model misses."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ppl_vae.anomaly.detector import AnomalyDetector
from ppl_vae.arguments import check_arguments, shown
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.world import written_by_rank_0
from ppl_vae.data.rows import Data
from ppl_vae.evaluation.calibration_table import GuideCalibration
from ppl_vae.evaluation.comparison import Comparison
from ppl_vae.evaluation.inference_gap import InferenceGap
from ppl_vae.latents.usage import LatentUsage
from ppl_vae.report import fit_sections, html
from ppl_vae.report.audit_section import audit_section, check_audit
from ppl_vae.report.check_section import check_section
from ppl_vae.report.columns_section import columns_section
from ppl_vae.report.comparison_section import check_comparison, comparison_section
from ppl_vae.report.draws import Draws
from ppl_vae.report.examples import examples_section
from ppl_vae.report.findings import findings
from ppl_vae.report.fit_facts import FitFacts
from ppl_vae.report.html import KeyNumber, Section
from ppl_vae.report.images import ImageField, check_image_shape
from ppl_vae.report.measurements import Measurements
from ppl_vae.report.numbers import SPACE, decimal, percent
from ppl_vae.report.run_facts import find_split
from ppl_vae.report.strange_rows import check_detector
from ppl_vae.report.strange_section import flagged_rows, strange_section
from ppl_vae.saving.storage import write_whole
from ppl_vae.training.history import History


def write_report(
    model: Model | None,
    guide: Guide,
    data: Data | None,
    path: str | Path,
    *,
    history: History | None = None,
    run: str | Path | None = None,
    statistics: Any = None,
    num_samples: int | None = None,
    replicates: int | None = None,
    detector: AnomalyDetector | None = None,
    comparison: Comparison | None = None,
    audit: Sequence[InferenceGap | GuideCalibration | LatentUsage] = (),
    image_shape: tuple[int, ...] | None = None,
    show_rows: bool = True,
    seed: int | None = 0,
    overwrite: bool = False,
    progress: bool | None = None,
    plate: str = "data",
) -> Path:
    """Write an HTML report of a fit: what was fitted, how it went, how good it is, what it misses.

    The file stands alone: figures are inside, and a browser loads nothing else. It shows the code
    of the pair and the names of features. Of the data it shows distributions, in figures, some rows
    beside rows that the model generates, and the strangest rows: their labels and scores, and of
    images the images.
    Where a measurement fails, for example because the data are outside the support of the
    likelihood, the page shows the error in its place, and all other measurements.

    Args:
        model: The model; may be ``None`` where ``run`` is given and ``data`` is ``None``.
        guide: The guide; ``None`` is the prior.
        data: N rows, in any form that ``fit`` takes. Held-out rows say more about a fit than the
            rows that the pair was fitted to. With ``None``, nothing is measured.
        path: The file to write; its name ends in ``.html``.
        history: The history that ``fit`` returned.
        run: The run directory of the fit. Its settings, versions, history and stored code are
            shown in place of those of the objects in memory.
        statistics: Statistics of the predictive checks, as ``predictive_check`` takes them.
        num_samples: Draws of the latents for each row, for the log-likelihood; ``None`` makes
            1,000, and fewer, down to 100, where the networks are large and the rows many.
        replicates: Replicated data sets for each predictive check; ``None`` makes 200, or fewer,
            down to 100.
        detector: A detector of this pair, which judges the rows: its threshold, p-values and flags
            are shown. Without one, rows are ordered by their log-likelihood.
        comparison: What ``compare`` returned for this pair and others, which gets a section.
        audit: What ``inference_gap``, ``guide_calibration`` and ``latent_usage`` returned for this
            pair, one of them or more, which get a section.
        image_shape: (height, width) or (channels, height, width) where rows are images and come as
            vectors. Rows of such a shape are known as images.
        show_rows: Whether rows are shown one by one: some, and the strangest. With ``False`` the
            page has no label, score, value or image of a row, and can be handed on where rows are
            confidential; the error of a measurement that failed may still name a row and its value.
        seed: Seeds every draw; the generators are restored afterwards.
        overwrite: Whether to replace a file that exists.
        progress: Whether to show bars: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        The path of the file.

    Warns:
        UserWarning: With the error of each measurement that failed.

    Raises:
        ValueError: If the file exists or cannot be written, where ``run`` is not a run
            directory, or where data are given without a model, or a detector of another pair or
            without data.

    Example:
        >>> import tempfile
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x, file = (torch.rand(50, 4) > 0.5).float(), tempfile.mkdtemp() + "/report.html"
        >>> write_report(BernoulliModel(4), NormalGuide(4), x, file, replicates=20).name
        'report.html'
    """
    check_arguments(
        path=path, seed=seed, show_rows=show_rows, overwrite=overwrite, progress=progress,
        plate=plate,
    )  # fmt: skip
    draws: dict[str, Any] = {"num_samples": num_samples, "replicates": replicates}
    check_arguments(**{name: count for name, count in draws.items() if count is not None})
    check_image_shape(image_shape)
    check_comparison(comparison)
    check_audit(audit)
    if run is not None:
        check_arguments(run=run)
    if history is not None and not isinstance(history, History):
        raise ValueError(f"history: expected what fit returned, got {shown(history)}")
    path = Path(path)
    with written_by_rank_0("the file of a report") as writes:
        _check_path(path, overwrite=overwrite or not writes)
    if detector is not None:
        if data is None:
            raise ValueError("detector: expected None without data, got a detector; pass the rows")
        check_detector(detector, model, guide, plate)
    if model is None and (data is not None or run is None):
        raise ValueError("model: expected a model, got None; only run= without data does without")
    if run is not None:
        fitted = FitFacts.of_run(run, history)
    else:
        assert model is not None
        fitted = FitFacts.of_pair(model, guide, history)
    measured = None
    if data is not None:
        assert model is not None
        rows = Pair.of(model, guide, plate).rows(data)
        image = ImageField.of(rows, image_shape)
        chosen = Draws.of(model, guide, rows, plate, **draws)
        measured = Measurements.of(
            model, guide, rows, split=find_split(rows, fitted.info), statistics=statistics,
            detector=detector, image=image, show_rows=show_rows, seed=seed, progress=progress,
            plate=plate, num_samples=chosen.num_samples, replicates=chosen.replicates,
            fewer=chosen.fewer,
        )  # fmt: skip
        replicates = chosen.replicates
    page = _page(fitted, measured, seed, replicates, comparison, audit)
    with written_by_rank_0("a report") as writes:
        if writes:
            _check_path(path, overwrite=overwrite)  # it may have been written meanwhile
            _write(path, page)
    return path


def _write(path: Path, page: str) -> None:
    """Write the page; raise ``ValueError`` where it cannot be written."""
    try:
        write_whole(path, page.encode())
    except OSError as error:
        raise ValueError(f"path: {path} cannot be written: {error.strerror}") from error


def _check_path(path: Path, *, overwrite: bool) -> None:
    """Raise ``ValueError`` where a report cannot or must not be written to a path."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"path: expected a file name that ends in .html, got {path}")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"path: expected a file in a folder that exists, got {path}")
    if path.exists() and not overwrite:
        raise ValueError(f"path: {path} exists; overwrite=True replaces it")


def _page(
    fitted: FitFacts,
    measured: Measurements | None,
    seed: int | None,
    replicates: int | None,
    comparison: Comparison | None,
    audit: Sequence[Any],
) -> str:
    """Return the page, with all its sections."""
    versions = fit_sections.versions_section(fitted, measured, seed, replicates)
    examples = None if measured is None else measured.examples
    sections = [
        Section("fit", "What was fitted", fit_sections.fit_section(fitted, measured)),
        Section("curves", "Learning curves", fit_sections.curves_section(fitted)),
        Section("rows", "Data and samples", examples_section(examples)),
        *_columns(measured),
        Section("likelihood", "Log-likelihood and ELBO", fit_sections.likelihood_section(measured)),
        *_compared(comparison),
        *_audited(audit),
        Section("check", "Predictive check", check_section(measured)),
        Section("strange", "Strange rows", strange_section(measured)),
        Section("code", "Code of the pair", fit_sections.code_section(fitted)),
        Section("versions", "Versions and seeds", versions),
    ]
    title = " with ".join(name for name in fitted.names if name is not None)
    return html.page(title, sections, **_header(fitted, measured))


def _columns(measured: Measurements | None) -> Iterator[Section]:
    """Yield the section on the columns of a table; nothing for other data."""
    if measured is not None and measured.columns is not None:
        yield Section("columns", "Each column", columns_section(measured.columns))


def _compared(comparison: Comparison | None) -> Iterator[Section]:
    """Yield the section on other pairs; nothing without a comparison."""
    if comparison is not None:
        yield Section("compared", "Compared with other pairs", comparison_section(comparison))


def _audited(audit: Sequence[Any]) -> Iterator[Section]:
    """Yield the section on the guide; nothing without a verdict on it."""
    if audit:
        yield Section("audit", "Can the guide be trusted", audit_section(audit))


# The top of the page


def _header(fitted: FitFacts, measured: Measurements | None) -> dict[str, Any]:
    """Return the ``kind``, the ``findings`` and the ``keys`` of ``html.page``."""
    subject = "Report of a model and its guide" if fitted.guide else "Report of a model"
    rows = f", on {len(measured.rows)} rows" if measured else ""
    today = datetime.datetime.now(datetime.UTC)
    date = f"{today.day} {today:%B %Y}".replace(" ", SPACE)
    return {
        "kind": f"{subject}{rows} \N{MIDDLE DOT} {date}",
        "findings": list(findings(fitted, measured)),
        "keys": [] if measured is None else list(_key_numbers(measured)),
    }


def _key_numbers(measured: Measurements) -> Iterator[KeyNumber]:
    """Yield the flagged statistics, the mean log-likelihood, and the unreliable rows."""
    remarks = _flagged_by_check(measured)
    if remarks:
        (remark, most), *others = sorted(remarks.items(), key=lambda item: -item[1][0])
        below = "; ".join([remark, *(f"{other} {_of(*counts)}" for other, counts in others)])
        yield KeyNumber("Statistics flagged", _of(*most), below, bad=most[0] > 0)
    summaries = measured.summaries()
    if not summaries:
        return
    title, first = next(iter(summaries.items()))
    mean = f"{decimal(first.log_prob.mean, 2)} ± {decimal(first.log_prob.standard_error, 2)}"
    yield KeyNumber("Log-likelihood", mean, f"nats per row, {title}: {first.rows}")
    *_, every = summaries.values()
    bad, title = every.unreliable, f"k-hat above {every.threshold:.2g}"
    if every.without_k_hat == every.rows:
        yield KeyNumber(title, "unknown", "no row has a k-hat")
    else:
        below = f"{every.above} of {every.rows} rows"
        if every.above:
            below += f", {'not' if bad == every.above else f'{bad} of them not'} reliable"
        yield KeyNumber(title, percent(every.above, every.rows), below, bad=bad > 0)
    yield from flagged_rows(measured)


def _flagged_by_check(measured: Measurements) -> dict[str, tuple[int, int]]:
    """Return the numbers of flagged and of all statistics, by a remark on where latents are from.

    A check that could not be made has no entry.
    """
    if measured.posterior_check is None:
        checks = {"from the model alone; there is no guide": measured.prior_check}
    else:
        checks = {
            "with latents from the guide": measured.posterior_check,
            "from the model alone": measured.prior_check,
        }
    return {
        remark: (int(check.frame["flagged"].sum()), len(check.frame))
        for remark, check in checks.items()
        if not isinstance(check, ValueError)
    }


def _of(flagged: int, total: int) -> str:
    """Return ``"2 of 12"``."""
    return f"{flagged} of {total}"
