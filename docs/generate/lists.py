"""Lists as Python-Markdown reads them.

CommonMark, by which a repository shows its pages, sets what belongs to a list item in by the width
of its mark, two or three spaces; Python-Markdown wants four.
"""

import re

ITEM = re.compile(r"(?:[-*+]|\d+\.) +(?=\S)")
FENCE = re.compile(r"`{3,}|~{3,}")


def indent_by_four(markdown: str) -> str:
    """A page whose list items have their content set in by four spaces a level."""
    lines = []
    levels: list[int] = []  # columns at which the content of the open items starts
    fence = ""
    for line in markdown.split("\n"):
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        if text and not fence:
            while levels and indent < levels[-1]:
                levels.pop()
        start = levels[-1] if levels else 0
        lines.append(" " * (4 * len(levels) + max(0, indent - start)) + text if text else "")
        mark = FENCE.match(text)
        if fence:
            fence = "" if mark and mark[0].startswith(fence) else fence
        elif mark:
            fence = mark[0]
        elif (item := ITEM.match(text)) and indent - start < 4:
            levels.append(indent + item.end())
    return "\n".join(lines)
