"""Draws the page of predictions, with heat maps where the detector has them."""

import logging
from collections.abc import Callable, Sequence

from numpy import ndarray

from fmsd.errors import InputError
from fmsd.inference.loaded_detector import LoadedDetector
from fmsd.inference.outcome import FilePrediction, SuspiciousFace
from fmsd.inference.prediction_page import PICTURED, render_page
from fmsd.inference.verdict import Verdict

log = logging.getLogger(__name__)


def count_pictured(predictions: Sequence[FilePrediction]) -> int:
    """The number of files whose heat maps a page shows."""
    return min(PICTURED, sum(bool(prediction.suspicious) for prediction in predictions))


def draw_page(
    detector: LoadedDetector,
    predictions: Sequence[FilePrediction],
    verdicts: Sequence[Verdict | None],
    advance: Callable[[], None] = lambda: None,
) -> str:
    """The page as one HTML file; without heat maps where the backbone has no map of its image.

    Args:
        advance: called when the heat maps of a file are computed.
    """
    heat = detector.heat

    def counted(faces: Sequence[SuspiciousFace]) -> Sequence[ndarray]:
        maps = [] if heat is None else heat(faces)
        advance()
        return maps

    if heat is not None:
        try:
            return render_page(predictions, verdicts, detector.facts, counted, detector.map_name)
        except InputError as error:
            log.warning("The page shows no heat maps: %s", error)
    return render_page(predictions, verdicts, detector.facts, None)
