"""SynthForensics: videos of people by 15 generators, each made after a real video.

Leotta et al., 2026, arXiv 2602.04939.

    ROOT/{T2V,I2V}/videos/{raw,canonical,crf23,crf40}/GENERATOR/033_GENERATOR_t2v.mp4

The name begins with the real video, one of FaceForensics++ (`033`) or DeepFakeDetection
(`01__exit_phone_room`); the first release has this name alone. The dataset has no real videos of
its own. The domain is the generator with its condition: `cogvideox_t2v`.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from fmsd.data import name_overrides, split_lists
from fmsd.data.frame import Entry, Problem, Split
from fmsd.data.sources.partner_names import source_sequence
from fmsd.data.sources.reals import Reals, check_split, list_reals, scan_fakes_and_reals
from fmsd.data.sources.tree import read_folder, refuse_unreadable
from fmsd.errors import InputError

CONDITIONS = ("T2V", "I2V")
"""From a text; from a text and an image of the real video."""

SCENE = re.compile(r"\d{2}__.+", re.ASCII)
"""The name of a real video of DeepFakeDetection."""

WHICH = "original_sequences/youtube/c23 of FaceForensics++ and original_sequences/actors/c23"


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "synthforensics",
    compression: str | int = "crf23",
    conditions: int | Sequence[str | int] = CONDITIONS,
    split: str = "ff++",
    reals: Reals = None,
    frames: str | None = None,
) -> Iterator[Entry]:
    """The generated videos in one version, and the real ones.

    Args:
        compression: `raw`, `canonical`, `crf23` or `crf40`.
        conditions: `T2V`, `I2V` or both.
        split: `ff++`: of the real video that a name begins with, by the official split of
            FaceForensics++, where those of DeepFakeDetection are test videos; else of all videos.
        reals: the folders of the real videos.
        frames: name of the folders of extracted frames; detected where there is only one.

    Raises:
        InputError: an unknown condition or split, no videos in this version, no real ones, or
            names that do not tell the official split.
    """
    compression = name_overrides.as_name(compression, "data.source.compression")
    check_split(split, ("ff++",))
    chosen = name_overrides.as_names(conditions, "data.source.conditions")
    if unknown := [name for name in chosen if name not in CONDITIONS]:
        raise InputError(
            f"SynthForensics has no condition {', '.join(unknown)}",
            f"choose from {', '.join(CONDITIONS)} in data.source.conditions",
        )
    folders: dict[str, Path] = {}
    for condition in chosen:
        place = root / condition / "videos" / compression
        if not place.is_dir():
            yield Problem("missing", f"There is no folder {place}", "complete the copy")
            continue
        inside = read_folder(place)
        yield from inside.problems
        folders |= {f"{name}_{condition.lower()}": place / name for name in inside.folders}
    if not folders:
        raise InputError(
            f"{root} holds no folder {{{','.join(chosen)}}}/videos/{compression}/GENERATOR",
            "give the folder SynthForensics as data.root=PATH, or choose the version that it holds "
            "with data.source.compression=NAME",
        )
    official = split_lists.split_by_name(split_lists.FFPP)

    def split_of(name: str) -> Split:
        if split != "ff++":
            return cast(Split, split)
        if name not in official and not SCENE.fullmatch(name):
            raise InputError(
                f"The video {name} of {dataset} or of its real videos is named after none of "
                "FaceForensics++ or DeepFakeDetection, so its split is not known",
                "call it 033, 01__SCENE, or this with its folder's name, 033_GENERATOR_t2v; or "
                "test on all videos with data.source.split=test",
            )
        return official.get(name, "test")

    listed = list_reals(reals, "SynthForensics", WHICH, frames)
    yield from scan_fakes_and_reals(
        folders, dataset, compression, source_sequence, split_of, listed, frames
    )
