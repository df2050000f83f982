"""WildDeepfake, face crops of videos found on the internet, in its official tree.

Zi et al., ACM Multimedia 2020, arXiv 2101.01456.

    ROOT/{real,fake}_{train,test}/ARCHIVE/{real,fake}/SEQUENCE/FRAME.png

ARCHIVE is the folder that `ARCHIVE.tar.gz` unpacks to. Archives are numbered anew in each of the
four folders, sequences in each archive: a video is `train3_12`, so that those of an archive are
held out together and no number stands for two archives on both sides of the split.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fmsd.data.frame import REAL, Entry, Problem, Split, Video, video_id
from fmsd.data.sources.tree import (
    FAKE,
    frameless_problem,
    read_folder,
    refuse_unreadable,
    visible_entries,
)
from fmsd.errors import InputError

LABEL_FOLDERS: dict[str, tuple[str, Split]] = {
    "real_train": ("real", "train"),
    "fake_train": ("fake", "train"),
    "real_test": ("real", "test"),
    "fake_test": ("fake", "test"),
}
"""The label and split of each folder."""


@refuse_unreadable
def scan(root: Path, dataset: str = "wilddeepfake") -> Iterator[Entry]:
    """The face sequences, a video each.

    Raises:
        InputError: none of the four folders is there.
    """
    if not any((root / name).is_dir() for name in LABEL_FOLDERS):
        raise InputError(
            f"{root} holds none of {', '.join(LABEL_FOLDERS)}",
            "give the unpacked WildDeepfake folder as data.root=PATH",
        )
    for name, (kind, split) in LABEL_FOLDERS.items():
        place, domain = root / name, REAL if kind == "real" else FAKE
        if not place.is_dir():
            what = f"{root} does not hold {name}"
            yield Problem("missing", what, "complete the copy", domain=domain)
            continue
        archives, problems = _subfolders(place)
        yield from problems
        yield from _packed_archives(place, archives)
        for archive in archives:
            labels, problems = _subfolders(place / archive)
            yield from problems
            for inner in (place / archive / folder for folder in labels):
                if inner.name != kind:
                    yield Problem(
                        "mislabelled",
                        f"{inner} lies in {name} and is left out",
                        "move it to the folder of its label",
                    )
                    continue
                sequences, problems = _subfolders(inner)
                yield from problems
                for sequence in sequences:
                    yield Video(
                        None,
                        inner / sequence,
                        0 if domain == REAL else 1,
                        dataset,
                        domain,
                        video_id(dataset, domain, "", f"{split}{archive}_{sequence}"),
                        split,
                    )


def _subfolders(folder: Path) -> tuple[list[str], list[Problem]]:
    """The names of a folder's subfolders, and its problems; an empty one is a problem."""
    inside = read_folder(folder)
    if inside.folders:
        return inside.folders, inside.problems
    return [], [*inside.problems, frameless_problem(folder)]


def _packed_archives(place: Path, unpacked: Sequence[str]) -> Iterator[Problem]:
    """The problem of archives that are not unpacked, if there are any."""
    packed = [
        entry
        for entry in visible_entries(place)
        if ".tar" in entry.name and entry.name.partition(".")[0] not in unpacked
    ]
    if packed:
        yield Problem(
            "packed",
            f"{place} holds {len(packed)} archives that are not unpacked",
            "unpack each there with tar -xf",
        )
