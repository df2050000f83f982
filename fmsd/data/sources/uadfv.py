"""UADFV (Yang et al., ICASSP 2019, arXiv 1811.00661) in its official tree.

    ROOT/real/0000.mp4        ROOT/fake/0000_fake.mp4

Each fake is made from the real video of its number. Frames may be extracted beside the videos:
`real/frames/0000/000.png`. There is no official split.
"""

from collections.abc import Iterator
from pathlib import Path

from fmsd.data.frame import REAL, Entry, Problem, Split, Video, pair_id, video_id
from fmsd.data.sources.partner_names import unsuffixed
from fmsd.data.sources.tree import FAKE, list_videos, refuse_unreadable
from fmsd.errors import InputError


@refuse_unreadable
def scan(
    root: Path, dataset: str, split: Split = "test", frames: str | None = None
) -> Iterator[Entry]:
    """The real videos and the fakes.

    Args:
        split: the split of all videos.
        frames: name of the folders that hold extracted frames; detected where there is only one.

    Raises:
        InputError: a missing folder.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}", "give the folder of UADFV as data.root=PATH")
    real, real_problems = list_videos(root / "real", frames)
    fake, fake_problems = list_videos(root / "fake", frames)
    yield from (*real_problems, *fake_problems)
    for name in fake:
        if (original := name.removesuffix("_fake")) not in real:
            yield Problem(
                "missing",
                f"{root / 'fake'} holds {name}, but {root / 'real'} not its original {original}",
                "complete the copy",
                domain=REAL,
            )
    for name in real:
        if f"{name}_fake" not in fake:
            yield Problem(
                "missing",
                f"{root / 'real'} holds {name}, but {root / 'fake'} not its fake {name}_fake",
                "complete the copy",
                domain=FAKE,
            )
    for domain, videos in ((REAL, real), (FAKE, fake)):
        for name, (file, images) in videos.items():
            yield Video(
                file,
                images,
                0 if domain == REAL else 1,
                dataset,
                domain,
                video_id(dataset, domain, "", name),
                split,
                pair="" if domain == REAL else pair_id(dataset, "", unsuffixed(name)),
            )
