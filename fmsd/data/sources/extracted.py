"""The face crops that `fmsd extract` wrote, joined from the records of its videos, whichever shard made them."""

from collections.abc import Iterator
from pathlib import Path

from fmsd.data.extraction import records
from fmsd.errors import InputError
from fmsd.types import Entry, Frame, Problem


def scan(root: Path) -> Iterator[Entry]:
    """Every crop below `root`; videos without any are told as problems.

    Raises:
        InputError: no such folder, or a record that cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}", "give the out= of fmsd extract as data.root=PATH")
    for folder, record in records(root):
        kept = [frame for frame in record["frames"] if frame["status"] == "face"]
        if not kept:
            yield Problem("faceless", f"{record['video']} has no face in any of {len(record['frames'])} frames, so it is in no table of results.")
        for frame in kept:
            yield Frame(
                path=folder / frame["file"],
                label=record["label"],
                dataset=record["dataset"],
                domain=record["domain"],
                video=record["video"],
                index=frame["index"],
                split=record["split"],
                compression=record["compression"],
            )
