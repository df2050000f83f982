"""The section with the figures of `fmsd explain`."""

import base64
import io
from pathlib import Path

from PIL import Image

from fmsd.errors import InputError, reason
from fmsd.report import html
from fmsd.report.html import Section
from fmsd.report.overview import Overview
from fmsd.runs.folder import EXPLANATIONS

MAX_IMAGE_WIDTH = 1400
"""Width of an embedded image at most, in pixels."""


def explanations_section(overview: Overview) -> Section | None:
    """The figures of `fmsd explain`, a pane per row."""
    panes = {}
    for label, row in overview.first_seeds.items():
        folders = [run.folder / EXPLANATIONS for run in row.runs]
        paths = {
            path: path.relative_to(folder).with_suffix("")
            for folder in folders
            for path in sorted(folder.rglob("*.png"))
        }
        if paths:
            images = [
                html.image_element("webp", _encode_image(path), f"{label}: {name}")
                for path, name in paths.items()
            ]
            panes[(label,)] = html.paragraph(label, "quiet") + "".join(images)
    if not panes:
        return None
    return Section("explanations", "Explanations", html.panes_by_choice(panes, ("row",)))


def _encode_image(path: Path) -> str:
    """An image as WebP in base64, reduced to the width of a page.

    Raises:
        InputError: the file is no image.
    """
    packed = io.BytesIO()
    try:
        with Image.open(path) as image:
            image.thumbnail((MAX_IMAGE_WIDTH, 4 * MAX_IMAGE_WIDTH))
            image.convert("RGB").save(packed, "WEBP", quality=82)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's errors on broken files
        raise InputError(
            f"{path} is no picture ({reason(error)})", "put it back, or remove it"
        ) from error
    return base64.b64encode(packed.getvalue()).decode()
