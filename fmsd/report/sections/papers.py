"""The section on the papers behind the runs, and the same list as Markdown."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from fmsd.metrics.layout import escape_markdown
from fmsd.report import html
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.runs.papers import CitedPapers

MANY_ROWS = 4
"""Rows that are named where a paper belongs to some of them."""


class Reference(NamedTuple):
    """A paper as a report lists it.

    Args:
        text: authors, year, title and venue.
        link: name and address; None without an address.
        use: what cites it, in which rows.
    """

    text: str
    link: tuple[str, str] | None
    use: str


def references(cited: Mapping[str, CitedPapers]) -> Iterator[Reference]:
    """Yields the papers behind rows, by the key of their entry.

    Args:
        cited: by the label of the row.
    """
    for paper in sorted({paper for row in cited.values() for paper in row.parts}):
        rows = [label for label, row in cited.items() if paper in row.parts]
        parts = sorted(set.union(*(cited[label].parts[paper] for label in rows)))
        where = f"{len(rows)} of {len(cited)} rows"
        if len(rows) == len(cited):
            where = "every row"
        elif len(rows) <= MANY_ROWS:
            where = f"row{'s' if len(rows) > 1 else ''} {'; '.join(rows)}"
        use = f"for {', '.join(parts)} ({where})"
        yield Reference(paper.reference, paper.link, use)


def papers_section(overview: Overview) -> Section:
    """The papers behind the runs, each with its address and the rows that used it."""
    items = (
        html.reference(one.text, one.link, one.use) for one in references(overview.cited_papers)
    )
    body = html.paragraph("The file references.bib beside this page has their entries.", "quiet")
    body += f'<ul class="papers">{"".join(items)}</ul>'
    unknown = sorted(set.union(*(row.unknown for row in overview.cited_papers.values())))
    if unknown:
        body += html.paragraph(f"No paper is known for {', '.join(unknown)}.", "quiet")
    return Section("papers", "Papers", body)


def papers_markdown(overview: Overview) -> str:
    """The same as a list in Markdown."""
    lines = []
    for text, link, use in references(overview.cited_papers):
        address = f", [{escape_markdown(link[0])}]({link[1]})" if link else ""
        lines.append(f"- {escape_markdown(text)}{address}, {escape_markdown(use)}\n")
    return f"\n## Papers\n\n{''.join(lines)}"
