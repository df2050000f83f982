"""The progress of an extraction: a file of each part (shard), which its process keeps up to date.

OUT/.status/NAME.json
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from fmsd.atomic import atomic
from fmsd.data.extraction.output import SETTINGS_FILE
from fmsd.data.extraction.workers import HEARTBEAT
from fmsd.errors import InputError
from fmsd.json_records import Count, read_record
from fmsd.names import check_name

STATUS_FOLDER = ".status"

SILENCE = 12 * HEARTBEAT
"""Seconds after which a part that has not reported is taken for killed."""

MOST_SHARDS = 100_000
"""Number of parts of an extraction, at most."""

State = Literal["running", "finished", "stopped", "not started"]


def _data_name(name: str) -> str:
    check_name(name, "data")
    return name


Time = Annotated[float, Field(ge=0, le=253402300799, allow_inf_nan=False)]
"""Seconds since 1970, until the last year that a date can have."""


class StatusRecord(TypedDict):
    """The fields of `Status`, as its file stores them."""

    data: Annotated[str, AfterValidator(_data_name)]
    shard: Count
    shards: Annotated[int, Field(ge=1, le=MOST_SHARDS)]
    listed: Count
    before: Count
    done: Count
    failed: Count
    began: Time
    updated: Time
    ended: bool


@dataclass(frozen=True)
class Status:
    """The progress of one part of an extraction.

    Args:
        data: the name of the data.
        shard, shards: number of the part, and of parts.
        listed: number of videos of all parts.
        before: number of videos of this part that were done when its last command began.
        done, failed: number of videos that this command has extracted, and could not read.
        began, updated: seconds since 1970 of the command's begin and of its last report; 0 before
            the first.
        ended: whether the command has ended, other than by being killed.
    """

    data: str
    shard: int
    shards: int
    listed: int
    before: int = 0
    done: int = 0
    failed: int = 0
    began: float = 0
    updated: float = 0
    ended: bool = False

    @property
    def videos(self) -> int:
        """Number of videos of this part."""
        return len(range(self.shard, self.listed, self.shards))

    @property
    def left(self) -> int:
        """Number of videos that have not been tried."""
        return max(0, self.videos - self.before - self.done - self.failed)

    @property
    def rate(self) -> float:
        """Videos per second of the last command."""
        seconds = self.updated - self.began
        return (self.done + self.failed) / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all videos have been tried, at this rate; None if there is none yet."""
        return 0.0 if not self.left else self.left / self.rate if self.rate else None

    def state(self, now: float) -> State:
        """What the part is doing.

        Args:
            now: seconds since 1970.
        """
        if not self.began:
            return "not started"
        if self.ended:
            return "stopped" if self.left else "finished"
        return "running" if now - self.updated < SILENCE else "stopped"


@contextlib.contextmanager
def keep_status(out: Path, status: Status) -> Iterator[Callable[[int, int], None]]:
    """Keeps the file of a part up to date; yields what takes the numbers of done and failed videos.

    Raises:
        OSError: the file cannot be written.
    """
    now = time.time()
    latest = replace(status, began=now, updated=now)
    name = f"{status.data}-{status.shard}-of-{status.shards}.json"

    def write(ended: bool = False) -> None:
        nonlocal latest
        latest = replace(latest, updated=time.time(), ended=ended)
        with atomic(out / STATUS_FOLDER / name) as partial:
            partial.write_text(json.dumps(asdict(latest)), encoding="utf-8")

    def note(done: int, failed: int) -> None:
        nonlocal latest
        due = time.time() - latest.updated >= HEARTBEAT
        latest = replace(latest, done=done, failed=failed)
        if due:
            write()

    write()
    try:
        yield note
    finally:
        write(ended=True)


def read_status(out: Path) -> list[Status]:
    """The parts of the extractions into a folder, also those that have not begun, by data and part.

    Where data were extracted in several divisions, that of the last command counts.

    Raises:
        InputError: the folder is no extraction, or has no status, or that is damaged.
    """
    if not (out / SETTINGS_FILE).is_file():
        raise InputError(
            f"{out} is no folder of fmsd extract (it has no {SETTINGS_FILE})",
            "give the out= of fmsd extract as status=FOLDER",
        )
    remedy = "delete it, and run the same extraction again"
    found = [
        Status(**{name: record[name] for name in StatusRecord.__annotations__})
        for path in sorted((out / STATUS_FOLDER).glob("*.json"))
        if (record := read_record(path, StatusRecord, remedy))
    ]
    if wrong := [status for status in found if status.shard >= status.shards]:
        raise InputError(
            f"{out / STATUS_FOLDER} is damaged: shard {wrong[0].shard} of {wrong[0].shards}", remedy
        )
    if not found:
        raise InputError(
            f"{out} does not say how far its extraction is: an older version of fmsd made it, or "
            "no videos were listed yet",
            "run the same extraction again, which skips what is done",
        )
    names = sorted({status.data for status in found})
    return [status for name in names for status in _parts(found, name)]


def _parts(found: Sequence[Status], data: str) -> list[Status]:
    """All parts of the last division of some data."""
    known = [status for status in found if status.data == data]
    last = max(known, key=lambda status: status.began)
    begun = {status.shard: status for status in known if status.shards == last.shards}
    return [
        begun.get(number, Status(data, number, last.shards, last.listed))
        for number in range(last.shards)
    ]
