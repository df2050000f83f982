"""FFIW-10K, Face Forensics in the Wild (Zhou et al., CVPR 2021, arXiv 2103.16076), in its official tree.

    ROOT/source/{train,val,test}/*.mp4          real
    ROOT/target/{train,val,test}/*.mp4          fake: some of the faces in a frame are swapped

The release holds train and val alone, and the loaders in wide use test on its 250 + 250 validation
videos; the test videos come separately.
"""

from collections.abc import Iterator
from pathlib import Path

from fmsd.data.frame import REAL, Entry, Problem, Split, Video, video_id
from fmsd.data.sources.tree import FAKE, clips, readable
from fmsd.errors import InputError

SIDES = {REAL: "source", FAKE: "target"}

SPLITS: dict[str, dict[str, Split]] = {
    "val": {"train": "train", "val": "test"},
    "test": {"train": "train", "val": "val", "test": "test"},
}
"""The split of each folder, by the folder that is tested on."""


@readable
def scan(
    root: Path, dataset: str = "ffiw", test: str = "val", frames: str | None = None
) -> Iterator[Entry]:
    """The real and the manipulated videos.

    Args:
        test: the folder to test on: `val`, as the loaders in wide use do, or `test`.
        frames: name of the folder that holds the frames; found by itself where there is only one.

    Raises:
        InputError: another test folder, or no folder of videos.
    """
    if test not in SPLITS:
        raise InputError(
            f"FFIW-10K has no folder {test} to test on", "set data.source.test to val or test"
        )
    folders = [
        (domain, root / side / name, name)
        for domain, side in SIDES.items()
        for name in SPLITS[test]
    ]
    if not any(folder.is_dir() for _, folder, _ in folders):
        raise InputError(
            f"{root} holds no source/val or target/val",
            "give the FFIW-10K folder (FFIW10K-v1-release) as data.root=PATH",
        )
    for domain, folder, name in folders:
        if not folder.is_dir():
            yield Problem("missing", f"There is no folder {folder}", "complete the copy")
            continue
        held, problems = clips(folder, frames)
        yield from problems
        for video, (file, images) in held.items():
            identity = video_id(dataset, domain, "", f"{name}/{video}")
            yield Video(
                file,
                images,
                0 if domain == REAL else 1,
                dataset,
                domain,
                identity,
                SPLITS[test][name],
            )
