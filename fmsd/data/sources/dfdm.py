"""DFDM, DeepFakes from Different Models: Celeb-DF's people swapped by five autoencoders.

Jia, Li and Lyu, ICIP 2022, arXiv 2202.12951.

    ROOT/DFDM_crf{0,10,23}/MODEL/id28_id20_0008_4dfaker.mp4

A name is TARGET_DONOR_CLIP_TAG: the fake is made from id28_0008 of Celeb-DF v2's Celeb-real, with
the face of id20. The dataset has no real videos of its own, and no official split.
"""

from collections.abc import Iterator
from pathlib import Path

from fmsd.data import name_overrides
from fmsd.data.frame import Entry, Split
from fmsd.data.sources.labels import forgery_domain
from fmsd.data.sources.partner_names import target_clip_tagged
from fmsd.data.sources.reals import Reals, check_split, list_reals, scan_fakes_and_reals
from fmsd.data.sources.tree import read_folder, refuse_unreadable
from fmsd.errors import InputError


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "dfdm",
    compression: str | int = "crf23",
    split: Split = "test",
    reals: Reals = None,
    frames: str | None = None,
) -> Iterator[Entry]:
    """The fakes of every model in one compression, and the real videos.

    Args:
        compression: `crf0` (lossless), `crf10` or `crf23`.
        split: the split of all videos.
        reals: the folder of the real videos.
        frames: name of the folders of extracted frames; detected where there is only one.

    Raises:
        InputError: no videos in this compression, or no real ones.
    """
    compression = name_overrides.as_name(compression, "data.source.compression")
    check_split(split)
    place = root / f"DFDM_{compression}"
    if not place.is_dir():
        raise InputError(
            f"There is no folder {place}",
            "give the folder that holds DFDM_crf0, DFDM_crf10 or DFDM_crf23 as data.root=PATH, and "
            "choose one of them: data.source.compression=crf0, crf10 or crf23",
        )
    inside = read_folder(place)
    yield from inside.problems
    folders = {
        forgery_domain(name, f"The folder {place / name}"): place / name for name in inside.folders
    }
    if not folders:
        raise InputError(f"{place} holds no folder of a model", "complete the copy")

    def original(name: str, _: str) -> str | None:
        return target_clip_tagged(name)

    listed = list_reals(reals, "DFDM", "Celeb-real of Celeb-DF v2", frames)
    yield from scan_fakes_and_reals(
        folders, dataset, compression, original, lambda _: split, listed, frames
    )
