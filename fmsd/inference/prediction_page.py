"""The page of a prediction."""

from collections.abc import Callable, Sequence
from html import escape

from numpy import ndarray

from fmsd.inference.facts import DetectorFacts
from fmsd.inference.outcome import FilePrediction, SuspiciousFace
from fmsd.inference.verdict import Verdict


def render_page(
    results: Sequence[FilePrediction],
    verdicts: Sequence[Verdict | None],
    facts: DetectorFacts,
    heat: Callable[[Sequence[SuspiciousFace]], Sequence[ndarray]] | None,
) -> str:
    """The HTML document of some predictions."""
    rows = "".join(f"<li>{escape(result.path)}: {result.status}</li>" for result in results)
    return f"<!doctype html><title>{escape(facts.name)}</title><ul>{rows}</ul>"
