"""The section of a report on its guide: the gap, the calibration, and which latents are used."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from ppl_vae.arguments import shown
from ppl_vae.evaluation.calibration_table import GuideCalibration
from ppl_vae.evaluation.inference_gap import InferenceGap
from ppl_vae.latents.usage import LatentUsage
from ppl_vae.report.figures import Figure
from ppl_vae.report.html import render

VERDICTS = {
    InferenceGap: "How far the guide is from the posterior",
    GuideCalibration: "Whether the guide's draws spread as the posterior does",
    LatentUsage: "Which latents tell of the rows",
}
"""The results that the section takes, and what each is about."""


def check_audit(audit: Any) -> None:
    """Raise ``ValueError`` unless an argument holds results of the three functions."""
    known = isinstance(audit, Sequence) and not isinstance(audit, str)
    if not known or not all(isinstance(each, tuple(VERDICTS)) for each in audit):
        raise ValueError(
            "audit: expected a list of what inference_gap, guide_calibration and latent_usage "
            f"returned, got {shown(audit)}"
        )


def audit_section(audit: Sequence[Any]) -> Markup:
    """Return the section with the text and the figure of each verdict."""
    parts = []
    for each in audit:
        title = next(title for kind, title in VERDICTS.items() if isinstance(each, kind))
        text = str(each)
        height = 2.4 + 0.18 * min(len(each.frame), 20) if isinstance(each, LatentUsage) else 3.4
        figure = Figure.drawn(each.plot, f"{title}: {text.splitlines()[-1]}", height=height)
        parts.append({"title": title, "text": text, "figure": figure})
    return render("audit.html", parts=parts)
