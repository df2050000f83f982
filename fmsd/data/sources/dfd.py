"""DeepFakeDetection (Dufour, Gully et al., Google and Jigsaw, 2019) in its official tree.

FaceForensics++ (arXiv 1901.08971) distributes it in a tree like its own:

    ROOT/original_sequences/actors/COMPRESSION/videos/01__hugging_happy.mp4
    ROOT/manipulated_sequences/DeepFakeDetection/COMPRESSION/videos/01_02__hugging_happy__YVGY8LOK.mp4

A fake is made from the target actor's video of the scene, here 01__hugging_happy, and shows the
face of the source actor, 02. Extracted frames and masks lie as those of FaceForensics++ do.
There is no official split.
"""

from collections.abc import Iterator
from pathlib import Path

from fmsd.data import name_overrides
from fmsd.data.frame import REAL, Entry, Split, Video, pair_id, video_id
from fmsd.data.sources.partner_names import target_scene
from fmsd.data.sources.tree import list_masks, list_videos, refuse_unreadable
from fmsd.errors import InputError

DOMAIN_FOLDERS = {
    REAL: "original_sequences/actors",
    "DeepFakeDetection": "manipulated_sequences/DeepFakeDetection",
}
"""The folder of each domain."""


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "dfd",
    compression: str | int = "c23",
    split: Split = "test",
    frames: str | None = None,
) -> Iterator[Entry]:
    """The actors' videos and the manipulated ones.

    Args:
        compression: `raw`, `c23` or `c40`.
        split: the split of all videos, as there is no official one.
        frames: name of the folder that holds the frames; detected where there is only one.

    Raises:
        InputError: a missing folder.
    """
    compression = name_overrides.as_name(compression, "data.source.compression")
    folders = {domain: root / folder / compression for domain, folder in DOMAIN_FOLDERS.items()}
    if lacking := [str(folder) for folder in folders.values() if not folder.is_dir()]:
        raise InputError(
            f"DeepFakeDetection lacks {', '.join(lacking)}",
            "complete the copy, or choose the compression that it holds",
        )
    for domain, folder in folders.items():
        videos, problems = list_videos(folder, frames)
        masks = {} if domain == REAL else list_masks(folder)
        yield from problems
        for name, (file, images) in videos.items():
            yield Video(
                file,
                images,
                0 if domain == REAL else 1,
                dataset,
                domain,
                video_id(dataset, domain, compression, name),
                split,
                compression,
                "" if domain == REAL else pair_id(dataset, compression, target_scene(name)),
                mask=masks.get(name),
            )
