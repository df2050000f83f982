"""FFIW-10K, Face Forensics in the Wild, in its official tree.

Zhou et al., CVPR 2021, arXiv 2103.16076.

    ROOT/source/{train,val,test}/*.mp4          real
    ROOT/target/{train,val,test}/*.mp4          fake: some of the faces in a frame are swapped

The release contains only train and val, and the loaders in wide use test on its 250 + 250
validation videos; the test videos are distributed separately.
"""

from collections.abc import Iterator
from pathlib import Path

from fmsd.data.frame import REAL, Entry, Problem, Split, Video, video_id
from fmsd.data.sources.tree import FAKE, list_videos, refuse_unreadable
from fmsd.errors import InputError

DOMAIN_FOLDERS = {REAL: "source", FAKE: "target"}
"""The folder of each domain."""

SPLITS_BY_TEST: dict[str, dict[str, Split]] = {
    "val": {"train": "train", "val": "test"},
    "test": {"train": "train", "val": "val", "test": "test"},
}
"""The split of each folder, by the folder to test on."""


@refuse_unreadable
def scan(
    root: Path, dataset: str = "ffiw", test: str = "val", frames: str | None = None
) -> Iterator[Entry]:
    """The real and the manipulated videos.

    Args:
        test: the folder to test on: `val`, as the loaders in wide use do, or `test`.
        frames: name of the folder that holds the frames; detected where there is only one.

    Raises:
        InputError: another test folder, or no folder of videos.
    """
    if test not in SPLITS_BY_TEST:
        raise InputError(
            f"FFIW-10K has no folder {test} to test on", "set data.source.test to val or test"
        )
    folders = [
        (domain, root / side / name, name)
        for domain, side in DOMAIN_FOLDERS.items()
        for name in SPLITS_BY_TEST[test]
    ]
    if not any(folder.is_dir() for _, folder, _ in folders):
        raise InputError(
            f"{root} holds no source/val or target/val",
            "give the FFIW-10K folder (FFIW10K-v1-release) as data.root=PATH",
        )
    for domain, folder, name in folders:
        if not folder.is_dir():
            what = f"There is no folder {folder}"
            yield Problem("missing", what, "complete the copy", domain=domain)
            continue
        videos, problems = list_videos(folder, frames)
        yield from problems
        for video, (file, images) in videos.items():
            yield Video(
                file,
                images,
                0 if domain == REAL else 1,
                dataset,
                domain,
                video_id(dataset, domain, "", f"{name}/{video}"),
                SPLITS_BY_TEST[test][name],
            )
