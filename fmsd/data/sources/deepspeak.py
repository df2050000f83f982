"""DeepSpeak 1.1 and 2.0, as their annotations describe them.

Barrington, Bohacek, Farid, arXiv 2408.05366.

    ROOT/annotations-{real,fake,split-def}.csv
    ROOT/**/87-0.mp4                                    recording 0 of the actor 87
    ROOT/**/facefusion--10-11--4100-4897--0.mp4         1.1: engine, actors, recordings, number
    ROOT/**/diff2lip-6868-6860-playht.mp4               2.0: engine, recordings, voice

The videos are found by their names, wherever they lie below the root. The domain of a fake is the
engine that made its images; the person on screen is the target, and the fake is made from the
recording of the target. A video is in the split of the person on screen.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fmsd.data.frame import REAL, Audio, Entry, Problem, Split, pair_id
from fmsd.data.sources.labels import forgery_domain
from fmsd.data.sources.listing import Described, by_last_parts, describe, find_videos, group_name
from fmsd.data.sources.text import read_csv_table, require_choice
from fmsd.data.sources.tree import refuse_unreadable
from fmsd.errors import InputError

REAL_LIST, FAKE_LIST = "annotations-real.csv", "annotations-fake.csv"
SPLIT_LIST = "annotations-split-def.csv"

SPLITS: dict[str, Split] = {"train": "train", "test": "test"}

VOICES: dict[str, Audio] = {
    "real": "real",
    "elevenlabs": "fake",
    "playht": "fake",
    "speechify": "fake",
    "True": "fake",
    "False": "real",
    "": "",
}
"""The sound of a fake by `audio-config` of 2.0, or `recording-target-ai-generated` of 1.1."""

SOUND_COLUMNS = ("audio-config", "recording-target-ai-generated")

FAKE_COLUMNS = ("video-file", "engine", "identity-source", "identity-target", "recording-target")


@refuse_unreadable
def scan(root: Path, dataset: str, frames: str | None = None) -> Iterator[Entry]:
    """The videos that the annotations list, in the split of their actors.

    Args:
        frames: name of the folders that hold extracted frames; detected where there is one kind.

    Raises:
        InputError: missing or damaged annotations, or an unknown split or voice.
    """
    for name in (REAL_LIST, FAKE_LIST, SPLIT_LIST):
        if not (root / name).is_file():
            raise InputError(
                f"There is no {root / name}", "give the folder of the annotations as data.root=PATH"
            )
    found, problems = find_videos(root, frames)
    yield from problems
    splits = dict(_splits(root / SPLIT_LIST))
    listed: dict[str, Described | None] = {}
    unsplit: dict[str, None] = {}
    for path, rows in ((REAL_LIST, _reals), (FAKE_LIST, _fakes)):
        for line, file, actor, about in rows(root / path, dataset):
            name = PurePosixPath(file).stem
            if name in listed:
                raise InputError(
                    f"Line {line} of {root / path} lists {file} again", "keep one of its lines"
                )
            if actor not in splits:
                unsplit[actor] = None
            listed[name] = about._replace(split=splits[actor]) if actor in splits else None
    if unsplit:
        count, actor = len(unsplit), next(iter(unsplit))
        what = f"{root / SPLIT_LIST} has no split for {count} actors, the first {actor}"
        yield Problem("no split", what, "their videos are left out: fetch the list again")
    yield from describe(by_last_parts(found, 1, listed), listed, dataset, root, root)


Row = tuple[int, str, str, Described]
"""(line, file, actor on screen, description without the split) of a row."""


def _reals(path: Path, dataset: str) -> Iterator[Row]:
    header, rows = read_csv_table(path, ["video-file", "identity"])
    file, identity = header.index("video-file"), header.index("identity")
    for line, row in rows:
        name = f"{group_name(row[identity])}_{PurePosixPath(row[file]).stem}"
        yield line, row[file], row[identity], Described(REAL, name, "test", audio="real")


def _fakes(path: Path, dataset: str) -> Iterator[Row]:
    header, rows = read_csv_table(path, FAKE_COLUMNS, SOUND_COLUMNS)
    file, engine, source, target, recording = (header.index(name) for name in FAKE_COLUMNS)
    sounds = [header.index(name) for name in SOUND_COLUMNS if name in header]
    for line, row in rows:
        where = f"Line {line}"
        domain = forgery_domain(row[engine], f"{where} of {path}")
        words = [row[sound] for sound in sounds] or [""]
        audio = require_choice(words[0], VOICES, path, where, header[sounds[0]] if sounds else "")
        actor = group_name(row[target])
        persons = dict.fromkeys((actor, group_name(row[source])))
        original = f"{actor}_{row[target]}-{row[recording]}"
        yield line, row[file], row[target], Described(
            domain,
            "_".join((*persons, PurePosixPath(row[file]).stem)),
            "test",
            pair_id(dataset, "", original),
            audio,
        )  # fmt: skip


def _splits(path: Path) -> Iterator[tuple[str, Split]]:
    """(actor, split) of each row; an actor in two splits is refused."""
    header, rows = read_csv_table(path, ["identity", "split"])
    identity, split = header.index("identity"), header.index("split")
    met: dict[str, str] = {}
    for line, row in rows:
        if met.setdefault(row[identity], row[split]) != row[split]:
            raise InputError(
                f"Line {line} of {path} has the actor {row[identity]} in another split again",
                "remove the wrong line",
            )
        yield row[identity], require_choice(row[split], SPLITS, path, f"Line {line}", "split")
