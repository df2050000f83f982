"""The section on groups of test videos by attributes."""

from fmsd.report import html
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.report.result_html import number_table


def groups_section(overview: Overview) -> Section | None:
    """AUC and error rates of each group, and gaps between groups; one table shown at a time."""
    panes = {
        (attribute, table.title.partition(" by ")[0]): number_table(table, {})
        for attribute, found in overview.groups.items()
        for table in found.tables
    }
    if not panes:
        return None
    return Section("groups", "Groups", html.panes_by_choice(panes, ("attribute", "value")))
