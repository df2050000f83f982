"""DeeperForensics-1.0 (Jiang et al., CVPR 2020, arXiv 2001.03024) in its official tree, with the real videos of FaceForensics++.

    ROOT/manipulated_videos/VARIANT/000_M101.mp4        target video of FaceForensics++, actor of the source video
    ROOT/lists/splits/{train,val,test}.txt              names of manipulated videos

Its authors say that the actors' `source_videos` are not the real class: it is the 1,000 target
videos, which FaceForensics++ distributes. They keep the split of FaceForensics++ here, so that a
detector trained on that never meets a real video of its training again.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import get_args

from fmsd.data import overrides
from fmsd.data.frame import Entry, Problem, Split, Video, video_id
from fmsd.data.sources import ffpp
from fmsd.data.sources.labels import forgery
from fmsd.data.sources.text import read_text
from fmsd.data.sources.tree import clips, readable
from fmsd.data.spelling import backslashes, matched, slashed
from fmsd.errors import InputError


@readable
def scan(
    root: Path,
    dataset: str = "deeperforensics",
    variants: int | Sequence[str | int] = ("end_to_end",),
    real: str | None = None,
    compression: str | int = "c23",
    split: Split | None = None,
    frames: str | None = None,
) -> Iterator[Entry]:
    """The manipulated videos of the chosen variants, and the real videos.

    Args:
        variants: folders below manipulated_videos: `end_to_end` and its perturbed copies,
            `reenact_postprocess`.
        real: the folder of FaceForensics++; the root itself when not given.
        compression: of the real videos; `c23` by the authors' advice.
        split: the split of all manipulated videos, instead of the official lists.
        frames: name of the folder that holds the frames; found by itself where there is only one.

    Raises:
        InputError: a missing folder or list, or no real videos.
    """
    split_of = None
    if split is None:
        split_of, problems = _splits(root)
        yield from problems
    for variant in (
        forgery(name, "data.source.variants")
        for name in overrides.as_names(variants, "data.source.variants")
    ):
        folder = root / "manipulated_videos" / variant
        held, problems = clips(folder, frames)
        yield from problems
        official: dict[str, Split] = {}
        if split_of is not None:
            official, problems = matched(split_of, held, "the official split", folder)
            yield from problems
        for name, (file, images) in held.items():
            kind = split if split_of is None else official.get(name)
            if kind is None:
                yield Problem(
                    "unlisted",
                    f"{images or file} is in none of the official splits and left out",
                    "remove it",
                )
                continue
            yield Video(
                file, images, 1, dataset, variant, video_id(dataset, variant, "", name), kind
            )
    place = root if real is None else Path(real).expanduser().absolute()
    if not (place / "original_sequences").is_dir():
        raise InputError(
            f"{place} holds no original_sequences: the real videos of DeeperForensics-1.0 are "
            "those of FaceForensics++",
            "give that folder as FMSD_FFPP, or as its source's argument real",
        )
    yield from ffpp.scan(place, dataset, compression, manipulations=(), frames=frames)


def _splits(root: Path) -> tuple[dict[str, Split], list[Problem]]:
    """The official split of every manipulated video name, and what is wrong with its lists."""
    found: dict[str, Split] = {}
    problems: list[Problem] = []
    for split in get_args(Split):
        path = root / "lists" / "splits" / f"{split}.txt"
        if not path.is_file():
            raise InputError(
                f"There is no {path}",
                "copy the folder lists of DeeperForensics-1.0 there, or set its source's argument "
                "split to test",
            )
        names = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
        for stem in (PurePosixPath(slashed(name)).stem for name in names):
            if found.setdefault(stem, split) != split:
                raise InputError(
                    f"The lists in {path.parent} have {stem} in {found[stem]} and in {split}",
                    "remove it from one of them",
                )
        problems += backslashes(path, sum("\\" in name for name in names))
    return found, problems
