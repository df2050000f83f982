"""WildDeepfake (Zi et al., ACM Multimedia 2020, arXiv 2101.01456): face crops of videos found on the internet, in its official tree.

    ROOT/{real,fake}_{train,test}/ARCHIVE/{real,fake}/SEQUENCE/FRAME.png

ARCHIVE is the folder that `ARCHIVE.tar.gz` unpacks to. Archives are numbered anew in each of the
four folders, sequences in each archive: a video is `train3_12`, so that those of an archive are
held out together and no number stands for two archives on both sides of the split.
"""

from collections.abc import Iterator
from pathlib import Path

from fmsd.data.frame import REAL, Entry, Problem, Split, Video, video_id
from fmsd.data.sources.tree import FAKE, contents, listing, readable, without_frames
from fmsd.errors import InputError

FOLDERS: dict[str, tuple[str, Split]] = {
    "real_train": ("real", "train"),
    "fake_train": ("fake", "train"),
    "real_test": ("real", "test"),
    "fake_test": ("fake", "test"),
}
"""What each folder holds."""


@readable
def scan(root: Path, dataset: str = "wilddeepfake") -> Iterator[Entry]:
    """The face sequences, a video each.

    Raises:
        InputError: none of the four folders is there.
    """
    if not any((root / name).is_dir() for name in FOLDERS):
        raise InputError(
            f"{root} holds none of {', '.join(FOLDERS)}",
            "give the unpacked WildDeepfake folder as data.root=PATH",
        )
    for name, (kind, split) in FOLDERS.items():
        place = root / name
        if not place.is_dir():
            yield Problem("missing", f"{root} does not hold {name}", "complete the copy")
            continue
        archives = contents(place)
        unpacked = set(archives.folders)
        yield from (
            archives.problems if archives.folders else [*archives.problems, without_frames(place)]
        )
        if packed := [
            entry
            for entry in listing(place)
            if ".tar" in entry.name and entry.name.partition(".")[0] not in unpacked
        ]:
            yield Problem(
                "packed",
                f"{place} holds {len(packed)} archives that are not unpacked",
                "unpack each there with tar -xf",
            )
        for archive in (place / folder for folder in archives.folders):
            inside = contents(archive)
            yield from (
                inside.problems if inside.folders else [*inside.problems, without_frames(archive)]
            )
            for inner in (archive / folder for folder in inside.folders):
                if inner.name != kind:
                    yield Problem(
                        "mislabelled",
                        f"{inner} lies in {name} and is left out",
                        "move it to the folder of its label",
                    )
                    continue
                domain = REAL if kind == "real" else FAKE
                held = contents(inner)
                yield from (
                    held.problems if held.folders else [*held.problems, without_frames(inner)]
                )
                for sequence in held.folders:
                    identity = video_id(dataset, domain, "", f"{split}{archive.name}_{sequence}")
                    yield Video(
                        None,
                        inner / sequence,
                        0 if domain == REAL else 1,
                        dataset,
                        domain,
                        identity,
                        split,
                    )
