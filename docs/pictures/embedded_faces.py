"""Draws embedded_faces.png: a person per column, a forgery per row, for both embedded datasets.

python docs/pictures/embedded_faces.py
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fmsd.data.frame import REAL
from fmsd.data.synthetic import faces, forgeries, plan

PEOPLE, SCALE, MARGIN, HEADER = 5, 2, 110, 26


def main() -> None:
    """Writes the picture beside this file."""
    rows = [REAL, *forgeries.FORGERIES]
    side = faces.SIZE * SCALE
    width = MARGIN + 2 * PEOPLE * side + 20
    sheet = Image.new("RGB", (width, HEADER + len(rows) * side), "white")
    draw = ImageDraw.Draw(sheet)
    for block, dataset in enumerate(plan.PLAN):
        left = MARGIN + block * (PEOPLE * side + 20)
        draw.text((left, 6), dataset, "black", font_size=16)
        for line, domain in enumerate(rows):
            top = HEADER + line * side
            draw.text((6, top + side // 2 - 8), domain, "black", font_size=16)
            for person in range(PEOPLE):
                frame = next(
                    plan.record_clip(plan.Clip(dataset, "test", domain, f"test{person:03d}"))
                )
                large = np.repeat(np.repeat(frame, SCALE, 0), SCALE, 1)
                sheet.paste(Image.fromarray(large), (left + person * side, top))
    for block, dataset in enumerate(plan.PLAN):
        for line, domain in enumerate(rows):
            if domain not in plan.PLAN[dataset]["test"]:
                left, top = MARGIN + block * (PEOPLE * side + 20), HEADER + line * side
                draw.rectangle((left, top, left + PEOPLE * side, top + side), fill="white")
                draw.text(
                    (left + 10, top + side // 2 - 8),
                    "never shown in training",
                    "gray",
                    font_size=16,
                )
    sheet.quantize(128).save(Path(__file__).with_name("embedded_faces.png"), optimize=True)


if __name__ == "__main__":
    main()
