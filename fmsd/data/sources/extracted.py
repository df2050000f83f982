"""The face crops of `fmsd extract`, from the records of all videos and shards."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fmsd.data.extraction.records import read_records
from fmsd.data.frame import Entry, Frame, Problem
from fmsd.errors import InputError


def scan(root: Path) -> Iterator[Entry]:
    """Every crop below `root`; a video without crops is a problem.

    Raises:
        InputError: no such folder, or a record that cannot be read.
    """
    if not root.is_dir():
        raise InputError(
            f"There is no folder {root}", "give the out= of fmsd extract as data.root=PATH"
        )
    for folder, record in read_records(root):
        kept = [frame for frame in record["frames"] if frame["status"] == "face"]
        if not kept:
            counts = ", ".join(
                f"{count} {status}"
                for status, count in Counter(frame["status"] for frame in record["frames"]).items()
            )
            yield Problem(
                "faceless",
                f"{record['video']} has no crop of any of its frames ({counts})",
                "a test counts it as a video without a score (coverage=)",
            )
        for frame in kept:
            person = frame.get("person", 1)
            yield Frame(
                path=folder / frame["file"],
                label=record["label"],
                dataset=record["dataset"],
                domain=record["domain"],
                video=person_video_id(record["video"], person),
                index=frame["index"],
                split=record["split"],
                compression=record["compression"],
                pair=record["pair"] if person == 1 else "",
                audio=record["audio"],
            )


PERSON_SUFFIX = re.compile(r"_person\d+$")
"""The suffix of the ids of the second and further persons of a video."""


def person_video_id(video: str, number: int) -> str:
    """The id of a person's track: the first person of a video has the id of the video."""
    return video if number == 1 else f"{video}_person{number}"
