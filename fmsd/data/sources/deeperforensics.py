"""DeeperForensics-1.0 in its official tree, with the real videos of FaceForensics++.

Jiang et al., CVPR 2020, arXiv 2001.03024.

    ROOT/manipulated_videos/VARIANT/000_M101.mp4    target video of FaceForensics++, source actor
    ROOT/lists/splits/{train,val,test}.txt          names of manipulated videos

By the authors, the real class is not the actors' `source_videos` but the 1,000 target videos, which
FaceForensics++ distributes. These keep the split of FaceForensics++, so that a detector trained on
it is not tested on real videos of its training.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import get_args

from fmsd.data import name_overrides
from fmsd.data.frame import Entry, Problem, Split, Video, pair_id, video_id
from fmsd.data.sources import ffpp
from fmsd.data.sources.labels import forgery_domain
from fmsd.data.sources.partner_names import target_of_actor
from fmsd.data.sources.text import read_text
from fmsd.data.sources.tree import list_videos, refuse_unreadable
from fmsd.data.spelling import backslash_problems, match_names, with_slashes
from fmsd.errors import InputError
from fmsd.paths import expand_home


@refuse_unreadable
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
        compression: of the real videos; the authors advise `c23`.
        split: the split of all manipulated videos, instead of the official lists.
        frames: name of the folder that holds the frames; detected where there is only one.

    Raises:
        InputError: a missing folder or list, or no real videos.
    """
    quality = name_overrides.as_name(compression, "data.source.compression")
    split_of = None
    if split is None:
        split_of, problems = _splits(root)
        yield from problems
    for variant in (
        forgery_domain(name, "data.source.variants")
        for name in name_overrides.as_names(variants, "data.source.variants")
    ):
        folder = root / "manipulated_videos" / variant
        videos, problems = list_videos(folder, frames)
        yield from problems
        official: dict[str, Split] = {}
        if split_of is not None:
            domains = dict.fromkeys(split_of, variant)
            official, problems = match_names(
                split_of, videos, "the official split", folder, domains
            )
            yield from problems
        for name, (file, images) in videos.items():
            kind = split if split_of is None else official.get(name)
            if kind is None:
                yield Problem(
                    "unlisted",
                    f"{images or file} is in none of the official splits and left out",
                    "remove it",
                )
                continue
            yield Video(
                file,
                images,
                1,
                dataset,
                variant,
                video_id(dataset, variant, "", name),
                kind,
                pair=pair_id(dataset, quality, target_of_actor(name)),
            )
    place = root if real is None else expand_home(real).absolute()
    if not (place / "original_sequences").is_dir():
        raise InputError(
            f"{place} holds no original_sequences: the real videos of DeeperForensics-1.0 are "
            "those of FaceForensics++",
            "give that folder as FMSD_FFPP, or as its source's argument real",
        )
    yield from ffpp.scan(place, dataset, quality, manipulations=(), frames=frames)


def _splits(root: Path) -> tuple[dict[str, Split], list[Problem]]:
    """The official split of each manipulated video by name, and the problems of its lists."""
    split_of: dict[str, Split] = {}
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
        for stem in (PurePosixPath(with_slashes(name)).stem for name in names):
            if split_of.setdefault(stem, split) != split:
                raise InputError(
                    f"The lists in {path.parent} have {stem} in {split_of[stem]} and in {split}",
                    "remove it from one of them",
                )
        problems += backslash_problems(path, sum("\\" in name for name in names))
    return split_of, problems
