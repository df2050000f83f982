"""The page of a report: all sections that have content."""

from collections.abc import Callable
from dataclasses import replace

from fmsd.report import html
from fmsd.report.html import Section
from fmsd.report.markup import count_noun
from fmsd.report.overview import Overview
from fmsd.report.sections.cross import cross_section
from fmsd.report.sections.curves import calibration_section, histograms_section, ranking_section
from fmsd.report.sections.explanations import explanations_section
from fmsd.report.sections.groups import groups_section
from fmsd.report.sections.meaning import meaning_section, verdicts_section
from fmsd.report.sections.papers import papers_section
from fmsd.report.sections.record import cost_section, protocol_section, repeat_section
from fmsd.report.sections.results import (
    forgeries_section,
    results_section,
    robustness_section,
)
from fmsd.report.sections.selective import selective_section
from fmsd.report.sections.training import masks_section, spectra_section, training_section
from fmsd.report.sections.transfer import transfer_section
from fmsd.report.sections.worst import worst_section

Builder = Callable[[Overview], Section | None]
"""Makes a section; None where the runs have nothing to show in it."""

SHOWN: tuple[Builder, ...] = (
    results_section,
    ranking_section,
    forgeries_section,
    groups_section,
    robustness_section,
    protocol_section,
)
"""The sections that every reader sees, in their order."""

FOLDED: tuple[Builder, ...] = (
    worst_section,
    cross_section,
    verdicts_section,
    meaning_section,
    transfer_section,
    selective_section,
    calibration_section,
    histograms_section,
    explanations_section,
    masks_section,
    spectra_section,
    training_section,
    cost_section,
    papers_section,
    repeat_section,
)
"""The sections below them, in their order; a click on its heading opens one."""


def report_page(overview: Overview) -> str:
    """The page of a report as one HTML file."""
    labels = {row.label for row in overview.rows}
    versions = sorted(
        {
            version
            for row in overview.rows
            if (version := row.record.get("versions", {}).get("fmsd"))
        }
    )
    subtitle = (
        f"{count_noun(len(overview.rows), 'run')} in {count_noun(len(labels), 'row')}, "
        f"{count_noun(len(overview.datasets), 'test dataset')}"
    )
    subtitle += f"; fmsd {', '.join(versions)}" if versions else ""
    return html.document(
        f"Report on {overview.folder.resolve().name}",
        subtitle,
        page_sections(overview),
    )


def page_sections(overview: Overview) -> list[Section]:
    """The sections that have content, in their order."""
    shown = [section for build in SHOWN if (section := build(overview)) is not None]
    folded = [section for build in FOLDED if (section := build(overview)) is not None]
    return [*shown, *(replace(section, is_folded=True) for section in folded)]
