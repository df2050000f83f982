"""HydraFake: images of many generators, in subsets with real images of their own.

Tan et al., ICLR 2026, arXiv 2508.21048.

    ROOT/test/SUBSET/{0_real,1_fake}/*.png
    ROOT/val/{real,fake}/*.png
    ROOT/train/fake/{FS,FR,EFG}/METHOD/*.png        ROOT/train/real/*.png

The domain is the subset, or in training the method. With `apart` each test subset is a dataset of
its own, `hydrafake_gpt4o`, and is compared with its own real images. Each image is a video.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fmsd.data import name_overrides
from fmsd.data.frame import REAL, Entry, Frame, Problem, Split, video_id
from fmsd.data.sources.labels import Label, forgery_domain
from fmsd.data.sources.tree import FAKE, refuse_unreadable, walk_folders
from fmsd.errors import InputError

LABEL_FOLDERS: dict[str, Label] = {"0_real": 0, "1_fake": 1, "real": 0, "fake": 1}
"""The label of each folder."""

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "hydrafake",
    subsets: int | Sequence[str | int] | None = None,
    apart: bool = False,
) -> Iterator[Entry]:
    """The images of all splits.

    Args:
        subsets: the test subsets to take; None for all.
        apart: whether each test subset is a dataset.

    Raises:
        InputError: no test images, an unknown subset, or images below no folder of a label.
    """
    if not (root / "test").is_dir():
        raise InputError(
            f"There is no folder {root / 'test'}", "give the folder hydrafake as data.root=PATH"
        )
    chosen = None if subsets is None else name_overrides.as_names(subsets, "data.source.subsets")
    present: set[str] = set()
    for split in SPLITS:
        for place, (_, images, _, problems) in (
            walk_folders(root / split) if (root / split).is_dir() else ()
        ):
            yield from problems
            if not images:
                continue
            parts = place.relative_to(root / split).parts
            named = [part for part in parts if part in LABEL_FOLDERS]
            if len(named) != 1:
                raise InputError(
                    f"The images in {place} lie in {len(named)} of {', '.join(LABEL_FOLDERS)}",
                    f"move them to one of these, or out of {root}",
                )
            label = LABEL_FOLDERS[named[0]]
            where = [part for part in parts if part not in LABEL_FOLDERS]
            unit = dataset
            if split == "test":
                if not where:
                    yield Problem(
                        "misplaced", f"The images in {place} are of no subset and left out"
                    )
                    continue
                present.add(where[0])
                if chosen is not None and where[0] not in chosen:
                    continue
                unit = f"{dataset}_{where[0]}" if apart else dataset
            method = where[0] if split == "test" else where[-1] if where else FAKE
            domain = forgery_domain(method, f"The folder {place}") if label else REAL
            for name in images:
                identity = video_id(unit, domain, "", "/".join((split, *where, name)))
                yield Frame(place / name, label, unit, domain, identity, 0, split)
    if unknown := [name for name in chosen or () if name not in present]:
        raise InputError(
            f"{root / 'test'} holds no subset {', '.join(unknown)}",
            f"choose from {', '.join(sorted(present))} in data.source.subsets",
        )
