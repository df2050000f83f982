"""Sections with curves of scores: ROC and DET, histograms, reliability."""

from collections.abc import Sequence

from fmsd.figures import curves
from fmsd.metrics.ranking import Labels, Scores
from fmsd.report import html
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.report.resamples import CurveData
from fmsd.report.result_html import legend


def ranking_section(overview: Overview) -> Section | None:
    """ROC and DET curves, a pane per dataset."""
    if not overview.resamples.scores:
        return None
    body = html.paragraph(f"Of videos, by {overview.shown_runs}.", "quiet")
    body += legend(overview.lines, overview.notes)
    panes = {
        (overview.dataset_title(dataset),): html.grid(_ranking_figures(overview, dataset, lines))
        for dataset, lines in overview.curves()
    }
    body += html.panes_by_choice(panes, ("dataset",))
    body += html.paragraph(
        "The DET curve bends the axes so that normally distributed scores make a straight line; "
        "rates below 0.1 % or above 60 % lie outside.",
        "quiet",
    )
    return Section("curves", "ROC and DET curves", body)


def _ranking_figures(
    overview: Overview, dataset: str, lines: Sequence[CurveData | None]
) -> list[str]:
    """The ROC curves of a dataset, and its DET curves or the reason why there are none."""
    videos = [line and line.videos for line in lines]
    title = overview.dataset_title(dataset)
    roc = html.figure_element(
        curves.plot_roc(videos), f"ROC curves on {dataset}", f"ROC curves on {title}"
    )
    shown = [
        scored if scored is not None and curves.shows_det(scored) else None for scored in videos
    ]
    if not any(scored is not None for scored in shown):
        return [roc, html.paragraph(_no_det(dataset, videos), "quiet")]
    det = html.figure_element(
        curves.plot_det(shown), f"DET curves on {dataset}", f"DET curves on {title}"
    )
    return [roc, det]


def _no_det(dataset: str, videos: Sequence[curves.Scored | None]) -> str:
    """Why a dataset has no DET curve."""
    perfect = all(_is_ranked(*scored) for scored in videos if scored is not None)
    reason = (
        "every row ranks all videos without an error"
        if perfect
        else "no row has both error rates between 0.1 % and 60 %"
    )
    return f"There are no DET curves on {dataset}: {reason}."


def _is_ranked(score: Scores, label: Labels) -> bool:
    """Whether every fake has a higher score than every real."""
    return bool(score[label == 1].min() > score[label == 0].max())


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
    panes = {
        (overview.dataset_title(dataset),): html.figure_element(
            curves.plot_reliability([line and line.reliability for line in lines]),
            f"Reliability on {dataset}",
            f"Reliability on {overview.dataset_title(dataset)}",
        )
        for dataset, lines in overview.curves()
    }
    body = html.paragraph(
        f"The share of fakes among frames of about the same score, by {overview.shown_runs}. On "
        "the diagonal a score is a probability.",
        "quiet",
    )
    body += legend(overview.lines, overview.notes) + html.panes_by_choice(panes, ("dataset",))
    return Section("calibration", "Reliability", body)
