"""Sections with curves of scores: ROC and DET, histograms, reliability."""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from fmsd.figures import curves
from fmsd.report import html
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.report.result_html import legend


def ranking_section(overview: Overview) -> Section | None:
    """ROC and DET curves, a figure per dataset."""
    if not overview.resamples.scores:
        return None
    body = html.paragraph(
        f"Of videos, by {overview.shown_runs}. The DET curve bends the axes so that normally "
        "distributed scores make a straight line; "
        "rates below 0.1 % or above 60 % lie outside.",
        "quiet",
    )
    body += legend(overview.lines, overview.notes)
    body += html.grid(_ranking_figures(overview, curves.plot_roc, "ROC"))
    body += html.grid(_ranking_figures(overview, curves.plot_det, "DET"))
    return Section("curves", "ROC and DET curves", body)


def _ranking_figures(
    overview: Overview, plot: Callable[[Sequence[curves.Scored | None]], Figure], name: str
) -> list[str]:
    return [
        html.figure_element(
            plot([line and line.videos for line in lines]),
            f"{name} curves on {dataset}",
            f"{overview.dataset_title(dataset)}: {name}",
        )
        for dataset, lines in overview.curves()
    ]


def histograms_section(overview: Overview) -> Section | None:
    """Histograms of scores by domain, a pane per row."""
    panes = {}
    for label in overview.lines:
        figures = [
            html.figure_element(
                curves.plot_histograms(scores.domains),
                f"Scores of {label} on {dataset}",
                overview.dataset_title(dataset),
            )
            for dataset in overview.datasets
            if (scores := overview.resamples.scores.get((label, dataset))) is not None
        ]
        if figures:
            panes[(label,)] = html.paragraph(label, "quiet") + html.grid(figures, wide=True)
    if not panes:
        return None
    note = html.paragraph(f"Of frames, by {overview.shown_runs}.", "quiet")
    return Section("scores", "Scores by domain", note + html.panes_by_choice(panes, ("row",)))


def calibration_section(overview: Overview) -> Section | None:
    """Reliability diagrams, a figure per dataset."""
    if not overview.resamples.scores:
        return None
    figures = [
        html.figure_element(
            curves.plot_reliability([line and line.reliability for line in lines]),
            f"Reliability on {dataset}",
            overview.dataset_title(dataset),
        )
        for dataset, lines in overview.curves()
    ]
    body = html.paragraph(
        f"The share of fakes among frames of about the same score, by {overview.shown_runs}. On "
        "the diagonal a score is a probability.",
        "quiet",
    )
    body += legend(overview.lines, overview.notes) + html.grid(figures)
    return Section("calibration", "Reliability", body)
